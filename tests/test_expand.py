"""The two passes: what a survey counts, what an order holds, and what happens when things change in between."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from manifests import HAPPYHORSE, SEEDANCE, codes_of, manifest_of, orders_of, write

from runner.errors import InputError, LocalError, Place
from runner.expand import Order, orders, survey
from runner.expand.twins import Twins
from runner.manifest import Manifest, read_manifest
from runner.providers import registry

VIDEO = {"provider": "happyhorse", "model": "doubao-seedance-2-0"}
PNG = Path(__file__).parent / "bad" / "B56-not-hosted" / "hero.png"


def table(folder: Path, rows: int, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_text("shot,scene\n" + "".join(f"s{n},scene number {n} in the rain\n" for n in range(rows)))
    return path


def passes(manifest: Manifest) -> tuple[Any, list[Order]]:
    surveyed = survey(manifest, registry())
    return surveyed, list(orders(manifest, registry(), surveyed))


def test_a_survey_counts_what_each_account_is_asked_for(tmp_path: Path) -> None:
    table(tmp_path, 4)
    manifest = manifest_of(
        tmp_path,
        {
            "clip": {**VIDEO, "prompt": "${scene}", "rows": "t.csv", "duration": 5},
            "still": {**SEEDANCE, "prompt": "${scene}", "rows": "t.csv", "takes": 2},
        },
        defaults={"duration": 7, "audio": False},
    )
    surveyed, found = passes(manifest)
    horse, dance = surveyed.accounts["happyhorse"], surveyed.accounts["seedance2ai"]

    assert surveyed.jobs == len(found) == 12
    assert (horse.jobs, horse.low, horse.high, horse.unpriced) == (4, Decimal(152), Decimal(152), 0)
    assert (dance.jobs, dance.high, dance.unpriced) == (8, Decimal(0), 8)
    assert surveyed.dropped == {("clip", "audio"): 4}
    assert surveyed.accounts_used() == {"happyhorse", "seedance2ai"}
    assert list(surveyed.tables) == ["t.csv"]
    assert len(surveyed.tables["t.csv"]) == 64


def test_an_order_says_everything_the_queue_needs(tmp_path: Path) -> None:
    table(tmp_path, 2)
    job = {**VIDEO, "prompt": "${scene}", "rows": "t.csv", "matrix": {"duration": [5]}, "priority": 3}
    manifest = manifest_of(tmp_path, {"clip": job}, batch="rain")
    order = passes(manifest)[1][1]

    assert (order.batch, order.job, order.take, order.priority) == ("rain", "clip", 1, 3)
    assert (order.account, order.provider, order.model) == ("happyhorse", "happyhorse", "doubao-seedance-2-0")
    assert order.fields == {"prompt": "scene number 1 in the rain", "duration": 5}
    assert order.variables == {"shot": "s1", "scene": "scene number 1 in the rain", "duration": "5"}
    assert order.output == f"renders/rain/clip/scene-number-1-in-the-rain-{order.key[:10]}.mp4"
    assert order.estimated is not None
    assert (order.estimated.low, order.estimated.high) == (Decimal(38), Decimal(38))
    assert order.place == Place(str(tmp_path / "t.csv"), 3, 1)
    assert order.dropped == ()


def test_a_place_without_a_table_is_the_rows_or_the_jobs(tmp_path: Path) -> None:
    text = "version: 1\nbatch: b\ndefaults: {provider: seedance2ai, model: seedance}\njobs:\n"
    text += "  one: {prompt: a scene}\n  two:\n    prompt: '${x} scene'\n    rows:\n    - {x: a1}\n    - {x: b1}\n"
    _, found = passes(read_manifest(write(tmp_path, text)))
    assert [(order.place.line, order.place.column) for order in found] == [(5, 3), (9, 7), (10, 7)]


def test_rows_then_combinations_then_takes(tmp_path: Path) -> None:
    job = {
        **SEEDANCE, "prompt": "${a} ${b} ${c}", "takes": 2,
        "rows": [{"a": "r1"}, {"a": "r2"}], "matrix": {"b": ["x", "y"], "c": ["1", "2"]},
    }  # fmt: skip
    found = [(*order.variables.values(), order.take) for order in orders_of(tmp_path, {"j": job})]
    assert found[:5] == [
        ("r1", "x", "1", 1),
        ("r1", "x", "1", 2),
        ("r1", "x", "2", 1),
        ("r1", "x", "2", 2),
        ("r1", "y", "1", 1),
    ]
    assert len(found) == 16


def test_defaults_name_provider_and_model_and_hold_variables(tmp_path: Path) -> None:
    defaults = {**SEEDANCE, "prompt": "a ${style} alley by ${model}", "duration": "${seconds}"}
    jobs = {
        "a": {"rows": [{"seconds": 5}, {"seconds": 6}], "matrix": {"style": ["noir"]}},
        "b": {**HAPPYHORSE, "prompt": "mine", "duration": 4},
    }
    found = [(o.model, o.fields["prompt"], o.fields["duration"]) for o in orders_of(tmp_path, jobs, defaults=defaults)]
    assert found == [
        ("seedance", "a noir alley by seedance", 5),
        ("seedance", "a noir alley by seedance", 6),
        ("doubao-seedance-1-5-pro", "mine", 4),
    ]


def test_a_default_holds_where_a_combination_does_not_set_the_field(tmp_path: Path) -> None:
    job = {**SEEDANCE, "prompt": "a ${fruit} scene", "matrix": {"fruit": ["fig"], "duration": [7]}}
    job["include"] = [{"fruit": "banana"}]
    for default in (9, "${seconds}"):
        job["rows"] = [{"seconds": 9}]
        found = orders_of(tmp_path, {"a": job}, defaults={"duration": default})
        assert [order.fields["duration"] for order in found] == [7, 9]


def test_a_default_that_the_job_overrides_needs_no_variables(tmp_path: Path) -> None:
    defaults = {"prompt": "${nowhere}", "duration": "${neither}"}
    job = {**SEEDANCE, "prompt": "a scene", "matrix": {"duration": [4]}}
    [order] = orders_of(tmp_path, {"a": job}, defaults=defaults)
    assert order.fields == {"prompt": "a scene", "duration": 4}


def test_params_hold_variables_at_any_depth(tmp_path: Path) -> None:
    job = {
        **SEEDANCE, "prompt": "a scene", "matrix": {"n": ["7", "8"]},
        "params": {"media_urls": ["https://example.com/${n}.png"], "mode": "media-to-video", "fixed_lens": "true"},
    }  # fmt: skip
    found = orders_of(tmp_path, {"a": job})
    assert [order.params["media_urls"] for order in found] == [
        ["https://example.com/7.png"],
        ["https://example.com/8.png"],
    ]


def test_a_take_may_be_asked_for_in_words(tmp_path: Path) -> None:
    found = orders_of(tmp_path, {"a": {**SEEDANCE, "prompt": "variation ${take} of ${job}", "takes": 2}})
    assert [order.fields["prompt"] for order in found] == ["variation 1 of a", "variation 2 of a"]


def test_local_files_are_listed_once(tmp_path: Path) -> None:
    (tmp_path / "stills").mkdir()
    for name in ("a", "b"):
        (tmp_path / "stills" / f"{name}.png").write_bytes(PNG.read_bytes() + name.encode())
    job = {**HAPPYHORSE, "prompt": "a ${n} scene", "matrix": {"n": ["1", "2"], "f": ["a", "b"]}}
    job["references"] = {"first_frame": "stills/${f}.png"}
    surveyed, found = passes(manifest_of(tmp_path, {"j": job}))
    assert [each.file.path for each in surveyed.files] == [tmp_path / "stills" / name for name in ("a.png", "b.png")]
    assert {order.references[0].sha256 for order in found} == {each.file.sha256 for each in surveyed.files}
    assert {order.references[0].file for order in found} == {str(each.file.path) for each in surveyed.files}


def test_local_files_are_listed_with_the_accounts_that_get_them(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.png").write_bytes(PNG.read_bytes())
    job = {"model": "nano-banana-2", "prompt": "a scene"}
    jobs = {
        "first": {**job, "provider": "horse-b", "references": {"images": ["b.png", "./a.png"]}},
        "second": {**job, "provider": "happyhorse", "references": {"images": ["b.png", "https://example.com/c.png"]}},
    }
    surveyed, _ = passes(manifest_of(tmp_path, jobs, providers={"horse-b": {"uses": "happyhorse"}}))
    listed = [(each.file.path.name, each.accounts) for each in surveyed.files]
    assert listed == [("a.png", ("horse-b",)), ("b.png", ("happyhorse", "horse-b"))]


def test_a_reference_in_an_allowed_folder_T10(tmp_path: Path) -> None:
    inside, shared = tmp_path / "inside", tmp_path / "shared"
    for folder in (inside, shared):
        folder.mkdir()
    (shared / "hero.png").write_bytes(PNG.read_bytes())
    (inside / "link.png").symlink_to(shared / "hero.png")
    jobs = {
        name: {**HAPPYHORSE, "prompt": f"a scene {name}", "references": {"first_frame": source}}
        for name, source in {"a": "../shared/hero.png", "b": "link.png", "c": str(shared / "hero.png")}.items()
    }
    manifest = manifest_of(inside, jobs)
    with pytest.raises(InputError) as refused:
        survey(manifest, registry())
    assert codes_of(refused.value) == ["B59"] * 3
    assert all("--allow-files" in problem.hint for problem in refused.value.problems)
    surveyed = survey(manifest, registry(), [shared])
    assert surveyed.roots == (inside, shared)
    found = list(orders(manifest, registry(), surveyed))
    assert [order.references[0].file for order in found] == [str(shared / "hero.png")] * 3


def test_an_allowed_folder_is_no_place_for_tables(tmp_path: Path) -> None:
    inside, shared = tmp_path / "inside", tmp_path / "shared"
    for folder in (inside, shared):
        folder.mkdir()
    table(shared, 3)
    job = {**SEEDANCE, "prompt": "${scene}", "rows": "../shared/t.csv"}
    with pytest.raises(InputError) as refused:
        survey(manifest_of(inside, {"a": job}), registry(), [shared])
    assert codes_of(refused.value) == ["B59"]


@pytest.mark.parametrize("place", ["top", "defaults", "provider", "job"])
def test_B32_a_manifest_allows_no_folder_T10(tmp_path: Path, place: str) -> None:
    allow = {"allow_files": ["/"], "allow-files": ["/"], "roots": ["/"]}
    job = {**HAPPYHORSE, "prompt": "a scene", **(allow if place == "job" else {})}
    top = {"top": allow, "defaults": {"defaults": allow}, "provider": {"providers": {"happyhorse": allow}}}
    with pytest.raises(InputError) as refused:
        manifest_of(tmp_path, {"a": job}, **top.get(place, {}))
    assert codes_of(refused.value) == ["B32"] * 3


def test_B59_no_reference_leaves_the_folder_T10(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "hero.png").write_bytes(PNG.read_bytes())
    (inside / "link.png").symlink_to(tmp_path / "hero.png")
    for source in ("../hero.png", "link.png", str(tmp_path / "hero.png"), "/etc/passwd"):
        job = {**HAPPYHORSE, "prompt": "a scene", "references": {"first_frame": source}}
        with pytest.raises(InputError) as refused:
            survey(manifest_of(inside, {"a": job}), registry())
        assert codes_of(refused.value) == ["B59"]


def test_B82_more_than_is_documented_is_a_warning(tmp_path: Path) -> None:
    job = {**HAPPYHORSE, "prompt": "a scene"}
    for limit, warned in (("60/minute", 0), ("61/minute", 1), ("2/s", 1), (["2/s", "60/minute"], 0), ("3600/hour", 1)):
        manifest = manifest_of(tmp_path, {"a": job}, providers={"happyhorse": {"rate_limit": limit}})
        surveyed = survey(manifest, registry())
        assert [problem.code for problem in surveyed.warnings] == ["B82"] * warned, limit
        assert all(problem.place and problem.text for problem in surveyed.warnings)


def test_the_same_mistake_in_many_cells_is_told_once(tmp_path: Path) -> None:
    table(tmp_path, 300)
    job = {**SEEDANCE, "prompt": "${scene}", "rows": "t.csv", "duration": 99}
    with pytest.raises(InputError) as refused:
        survey(manifest_of(tmp_path, {"a": job}), registry())
    assert codes_of(refused.value) == ["B41"]


def test_a_hopeless_table_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("scene,seconds\n" + "".join(f"a scene {n},{n + 100}\n" for n in range(5_000)))
    job = {**SEEDANCE, "prompt": "${scene}", "rows": "t.csv", "duration": "${seconds}"}
    with pytest.raises(InputError) as refused:
        survey(manifest_of(tmp_path, {"a": job}), registry())
    assert len(refused.value.problems) == 1_000
    assert "1,000 problems or more" in refused.value.message


def test_a_table_of_nothing_but_ragged_rows_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("scene,seconds\n" + "a neon alley\n" * 5_000)
    job = {**SEEDANCE, "prompt": "${scene}", "rows": "t.csv"}
    with pytest.raises(InputError) as refused:
        survey(manifest_of(tmp_path, {"a": job}), registry())
    assert set(codes_of(refused.value)) == {"B68"}
    assert len(refused.value.problems) == 1_000


def test_B14_a_million_jobs_are_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.expand.passes.MOST_JOBS", 50)
    table(tmp_path, 51)
    job = {**SEEDANCE, "prompt": "${scene}", "rows": "t.csv"}
    with pytest.raises(InputError) as refused:
        survey(manifest_of(tmp_path, {"a": job}), registry())
    assert codes_of(refused.value) == ["B14"]
    table(tmp_path, 50)
    assert survey(manifest_of(tmp_path, {"a": job}), registry()).jobs == 50


# Between the passes.


def started(manifest: Manifest) -> tuple[Any, Iterator[Order]]:
    surveyed = survey(manifest, registry())
    return surveyed, orders(manifest, registry(), surveyed)


def manifest_with_table(folder: Path, rows: int = 10) -> Manifest:
    table(folder, rows)
    return manifest_of(folder, {"a": {**SEEDANCE, "prompt": "${scene}", "rows": "t.csv"}})


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_text(path.read_text() + "s99,one more scene\n"),
        lambda path: path.write_text(path.read_text().replace("number 9", "number 99")),
        lambda path: path.write_text(path.read_text().replace("s9", "s8")),
        lambda path: path.write_text(path.read_text() + "\n"),
        lambda path: path.write_text(path.read_text().rsplit("\n", 2)[0] + "\n"),
        lambda path: path.write_text("shot\n"),
        lambda path: path.write_bytes(path.read_bytes() + b"\xff"),
        lambda path: path.unlink(),
    ],
    ids=["row added", "prompt", "unused column", "blank line", "row removed", "header", "bytes", "gone"],
)
def test_a_table_that_changed_is_refused_before_the_last_order(change: Any, tmp_path: Path) -> None:
    manifest = manifest_with_table(tmp_path)
    surveyed, stream = started(manifest)
    change(tmp_path / "t.csv")
    taken = []
    with pytest.raises(InputError) as refused:
        taken += list(stream)
    assert "changed" in refused.value.message
    assert len(taken) < surveyed.jobs


def test_a_table_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    manifest = manifest_with_table(tmp_path, 5_000)
    _, stream = started(manifest)
    taken = [next(stream) for _ in range(10)]
    with (tmp_path / "t.csv").open("a") as file:
        file.write("s99,one more scene\n")
    with pytest.raises(InputError):
        taken += list(stream)


def test_a_reference_that_changed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG.read_bytes())
    job = {**HAPPYHORSE, "prompt": "a scene", "references": {"first_frame": "a.png"}}
    _, stream = started(manifest_of(tmp_path, {"a": job}))
    (tmp_path / "a.png").write_bytes(PNG.read_bytes() + b"changed")
    with pytest.raises(InputError):
        list(stream)


def test_a_table_of_two_jobs_is_the_same_for_both(tmp_path: Path) -> None:
    table(tmp_path, 3)
    jobs = {name: {**SEEDANCE, "prompt": f"${{scene}} {name}", "rows": "t.csv"} for name in ("a", "b")}
    surveyed, found = passes(manifest_of(tmp_path, jobs))
    assert (surveyed.jobs, len(found), len(surveyed.tables)) == (6, 6, 1)


# Size.


def manifest_with_pictures(folder: Path, rows: int) -> Manifest:
    """As many jobs as rows, and ten pictures."""
    for n in range(10):
        (folder / f"{n}.png").write_bytes(PNG.read_bytes() + bytes(n))
    path = folder / "shots.txt"
    path.write_text("".join(f"scene number {n}\n" for n in range(rows // 10)))
    job = {**HAPPYHORSE, "prompt": "${prompt}", "rows": "shots.txt", "matrix": {"n": [str(n) for n in range(10)]}}
    return manifest_of(folder, {"a": {**job, "references": {"first_frame": "${n}.png"}}})


def peak(folder: Path, rows: int, make: Callable[[Path, int], Manifest]) -> int:
    """The most memory (bytes) that both passes need at once, beyond what there was."""
    manifest = make(folder, rows)
    tracemalloc.start()
    try:
        surveyed = survey(manifest, registry())
        assert sum(1 for _ in orders(manifest, registry(), surveyed)) == rows
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("make", [manifest_with_table, manifest_with_pictures])
def test_memory_does_not_grow_with_the_number_of_jobs(tmp_path: Path, make: Callable[[Path, int], Manifest]) -> None:
    peak(tmp_path, 100, make)  # what is made once, at the first use
    few, many = peak(tmp_path, 1_000, make), peak(tmp_path, 6_000, make)
    assert many - few < 5_000 * 40


@pytest.mark.parametrize("held", [1 << 16, 1_000])
def test_twins_are_found_among_many(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.expand.twins.HELD", held)
    digests = [(number * 0x9E3779B97F4A7C15) & ((1 << 64) - 1) for number in range(20_000)]
    with closing(Twins()) as twins:
        for digest in (*digests, digests[7], digests[19_999], digests[7]):
            twins.add(digest)
        assert twins.found() == {digests[7], digests[19_999]}


def test_a_full_temporary_folder_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("runner.expand.twins.HELD", 10)
    monkeypatch.setattr("runner.expand.twins.TemporaryFile", refuse)
    with pytest.raises(LocalError) as refused:
        survey(manifest_with_table(tmp_path, 20), registry())
    assert refused.value.exit_code == 7
    assert "No space left" in refused.value.message


def test_an_accident_of_digests_is_no_twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.expand.clashes.WORD", 1)
    manifest = manifest_with_table(tmp_path, 20)
    assert survey(manifest, registry()).jobs == 20
