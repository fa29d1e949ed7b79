"""YAML → a checked model: what may stand in a manifest, and where it stood."""

from __future__ import annotations

import time
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from manifests import SEEDANCE, codes_of, manifest_of, write, yaml_of

from runner.errors import InputError
from runner.expand import orders, survey
from runner.limits import Window
from runner.manifest import InlineRows, TableFile, read_manifest, schema
from runner.manifest.document import MAX_BYTES, read_document
from runner.manifest.grammar import FIELD_NAMES, JOB, OUTPUTS, PROVIDER, REFERENCES, TOP
from runner.manifest.places import Source, Spot
from runner.manifest.scalars import Bare, Kind, read_scalar
from runner.manifest.templates import LONGEST_TEXT, Template, TemplateError, TooLong, read_template
from runner.problems import as_json, render
from runner.providers import registry

ROOT = Path(__file__).resolve().parent.parent

DESIGN = """\
version: 1
batch: neon-alley

budget: {seegen: 12000, happyhorse: 2500}    # credits

providers:
  seegen:     {concurrency: 8}
  happyhorse: {concurrency: 3, rate_limit: 60/minute}

defaults: {duration: 5, resolution: 720p, aspect_ratio: "16:9"}

jobs:
  still:
    provider: seedance2ai
    model: nano-banana-pro
    rows: shots.csv
    matrix: {style: [film noir, watercolor]}
    takes: 2
    prompt: "${scene}, ${style}"
    resolution: 2K
    references: {images: ["https://example.com/hero.png"]}
    params: {output_format: jpeg}

outputs:
  dir: renders/${batch}
  name: "${job}/${shot}-${style}-t${take}.${ext}"
"""

MINIMAL = """\
version: 1
batch: first
jobs:
  alley:
    provider: seedance2ai
    model: seedance
    prompt: a neon alley in the rain
"""


def problems_of(path: Path) -> InputError:
    with pytest.raises(InputError) as refused:
        read_manifest(path)
    return refused.value


def test_the_manifest_of_the_design(tmp_path: Path) -> None:
    path = write(tmp_path, DESIGN)
    manifest = read_manifest(path)
    still = manifest.jobs["still"]

    assert (manifest.version, manifest.batch, manifest.folder) == (1, "neon-alley", tmp_path)
    assert manifest.size == len(DESIGN)
    assert manifest.budget == {"seegen": Decimal(12000), "happyhorse": Decimal(2500)}
    assert manifest.account("seegen").concurrency == 8
    assert manifest.account("happyhorse").rate_limit == (Window(60, 60),)
    assert manifest.account("seedance2ai").uses == "seedance2ai"
    assert manifest.defaults == {"duration": 5, "resolution": "720p", "aspect_ratio": "16:9"}
    assert still.rows == TableFile("shots.csv")
    assert still.matrix == {"style": ("film noir", "watercolor")}
    assert (still.takes, still.params) == (2, {"output_format": "jpeg"})
    assert isinstance(still.fields["prompt"], Template)
    assert still.references["images"][0].source == "https://example.com/hero.png"


def test_a_minimal_manifest_has_the_defaults_of_the_design(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path, MINIMAL))
    account = manifest.account("seedance2ai")

    assert (account.concurrency, account.rate_limit, account.account_exclusive) == (4, (), False)
    assert (account.poll_interval, account.timeout) == (timedelta(seconds=5), timedelta(hours=6))
    [order] = orders(manifest, registry(), survey(manifest, registry()))
    assert order.output == f"renders/first/alley/a-neon-alley-in-the-rain-{order.key[:10]}.mp4"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(MINIMAL.encode("utf-8-sig"), id="B06-byte-order-mark"),
        pytest.param(MINIMAL.replace("\n", "\r\n").encode(), id="B07-crlf"),
        pytest.param(MINIMAL.replace("\n", "\r").encode(), id="B07-cr"),
        pytest.param(b"---\n" + MINIMAL.encode() + b"...\n", id="one-marked-document"),
        pytest.param(b"%YAML 1.2\n---\n" + MINIMAL.encode(), id="yaml-1.2"),
    ],
)
def test_every_way_to_write_a_file_is_read(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_bytes(data)
    assert read_manifest(path).jobs["alley"].fields["prompt"] == "a neon alley in the rain"


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"], ids=["lf", "B07-crlf", "B07-cr"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "B06-byte-order-mark"])
def test_places_are_those_a_person_counts(newline: str, mark: str, tmp_path: Path) -> None:
    text = mark + MINIMAL.replace("prompt", "promt").replace("\n", newline)
    [problem] = problems_of(write(tmp_path, text)).problems
    assert problem.place is not None
    assert (problem.place.line, problem.place.column, problem.place.end_column) == (7, 5, 10)
    assert problem.text == "    promt: a neon alley in the rain"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("16:9", "16:9"),
        ("22:00", "22:00"),
        ("yes", "yes"),
        ("off", "off"),
        ("2026-11-20", "2026-11-20"),
        ("1_000", "1_000"),
        ("012", Bare("012", Kind.INTEGER, 12)),
        ("0o14", Bare("0o14", Kind.INTEGER, 12)),
        ("0x1F", Bare("0x1F", Kind.INTEGER, 31)),
        ("-7", Bare("-7", Kind.INTEGER, -7)),
        ("2.50", Bare("2.50", Kind.NUMBER, Decimal("2.50"))),
        (".5", Bare(".5", Kind.NUMBER, Decimal("0.5"))),
        ("1e3", Bare("1e3", Kind.EXPONENT)),
        ("-.inf", Bare("-.inf", Kind.INFINITE)),
        (".NaN", Bare(".NaN", Kind.INFINITE)),
        ("TRUE", Bare("TRUE", Kind.BOOLEAN, True)),
        ("false", Bare("false", Kind.BOOLEAN, False)),
        ("~", Bare("~", Kind.NULL)),
        ("", Bare("", Kind.NULL)),
        ("9" * 65, "9" * 65),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, read: Bare | str) -> None:
    assert read_scalar(text) == read
    assert read_document(f"x: {text}", "f").value == {"x": read}


def test_numbers_are_never_floats(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, {"a": {**SEEDANCE, "prompt": "x", "params": {"deep": [{"n": 0.1}], "i": 3}}})
    params = manifest.jobs["a"].params
    assert params["deep"][0]["n"] == Decimal("0.1")
    assert isinstance(params["deep"][0]["n"], Decimal)
    assert isinstance(params["i"], int)


def test_aliases_stand_for_what_they_name(tmp_path: Path) -> None:
    text = MINIMAL.replace("prompt: a", "prompt: &p a") + "  again: {provider: happyhorse, model: m, prompt: *p}\n"
    manifest = read_manifest(write(tmp_path, text))
    assert manifest.jobs["again"].fields["prompt"] == "a neon alley in the rain"


def test_rows_and_axes_are_text_as_written(tmp_path: Path) -> None:
    text = MINIMAL + "    rows: [{shot: 007, wide: 16:9, on: yes, fast: true, cost: 1.50, none: ~}]\n"
    text += "    matrix: {n: [1e3, 0x10, 2.0]}\n"
    job = read_manifest(write(tmp_path, text)).jobs["alley"]
    row = {"shot": "007", "wide": "16:9", "on": "yes", "fast": "true", "cost": "1.50"}
    assert job.rows == InlineRows((row,))
    assert job.matrix["n"] == ("1e3", "0x10", "2.0")


@pytest.mark.parametrize(
    ("written", "meant"),
    [("60/minute", [(60, 60)]), (["5/s", "100/10s", "1000/hour"], [(5, 1), (100, 10), (1000, 3600)])],
)
def test_rate_limits(written: object, meant: list[tuple[int, int]], tmp_path: Path) -> None:
    entry = {"happyhorse": {"rate_limit": written}}
    manifest = manifest_of(tmp_path, {"a": {**SEEDANCE, "prompt": "x"}}, providers=entry)
    assert manifest.account("happyhorse").rate_limit == tuple(Window(*window) for window in meant)


@pytest.mark.parametrize(("written", "seconds"), [(7, 7), (2.5, 2.5), ("90s", 90), ("1h30m", 5400), ("0.5d", 43200)])
def test_times(written: object, seconds: float, tmp_path: Path) -> None:
    entry = {"happyhorse": {"poll_interval": written, "timeout": written}}
    account = manifest_of(tmp_path, {"a": {**SEEDANCE, "prompt": "x"}}, providers=entry).account("happyhorse")
    assert account.poll_interval == account.timeout == timedelta(seconds=seconds)


def test_a_second_account_names_its_provider(tmp_path: Path) -> None:
    job = {"provider": "horse-b", "model": "seedance-1-5-pro", "prompt": "a neon alley"}
    entry = {"horse-b": {"uses": "happyhorse", "account_exclusive": True}}
    manifest = manifest_of(tmp_path, {"a": job}, providers=entry)
    [order] = orders(manifest, registry(), survey(manifest, registry()))
    assert (order.account, order.provider) == ("horse-b", "happyhorse")
    assert manifest.account("horse-b").account_exclusive


def test_references_may_be_texts_or_sources_to_review(tmp_path: Path) -> None:
    given = {"images": ["a.png", {"source": "https://example.com/b.png", "review": True}], "first_frame": "c.png"}
    job = manifest_of(tmp_path, {"a": {**SEEDANCE, "prompt": "x", "references": given}}).jobs["a"]
    told = {role: [(entry.source, entry.review) for entry in entries] for role, entries in job.references.items()}
    assert told == {
        "images": [("a.png", False), ("https://example.com/b.png", True)],
        "first_frame": [("c.png", False)],
    }


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("no variables", "no variables"),
        ("${a}", "A"),
        ("${a}${b}, ${a}", "AB, A"),
        ("$$", "$"),
        ("$${a}", "${a}"),
        ("US$5, $ and $$5", "US$5, $ and $5"),
        ("cost$", "cost$"),
        ("${a b}", "AB"),
        ("{a} %s {{b}} ${a}", "{a} %s {{b}} A"),
    ],
)
def test_templates(text: str, filled: str) -> None:
    template = read_template(text)
    values = {"a": "A", "b": "B", "a b": "AB"}
    assert (template.fill(values) if isinstance(template, Template) else template) == filled


@pytest.mark.parametrize("text", ["${", "${a", "${a${b}}", "${}", "${ a }", "${a\n}", "x ${${a}} y"])
def test_templates_that_cannot_be_read(text: str) -> None:
    with pytest.raises(TemplateError) as refused:
        read_template(text)
    assert refused.value.words in text


def test_what_is_put_in_is_never_read_again_T15() -> None:
    template = read_template("${a} and ${b}")
    assert isinstance(template, Template)
    assert template.fill({"a": "${b} $$ {0} %s", "b": "${a}"}) == "${b} $$ {0} %s and ${a}"


def test_a_filled_text_is_bounded_before_it_is_built_T15() -> None:
    template = read_template("${a}" * 1_000)
    assert isinstance(template, Template)
    assert len(template.fill({"a": "x" * (LONGEST_TEXT // 1_000)})) == LONGEST_TEXT
    with pytest.raises(TooLong):
        template.fill({"a": "x" * 10_000_000})


def test_a_place_is_found_for_every_spot() -> None:
    source = Source("a: {b: [x, 'y ${z}'], 'c d': &k {e: 1}}\nf: *k\n", "m.yaml")
    spots = {
        Spot(("a",), on_key=True): (1, 1, 2),
        Spot(("a", "b", 1)): (1, 12, 20),
        Spot(("a", "b", 1), words="${z}"): (1, 15, 19),
        Spot(("a", "c d"), on_key=True): (1, 23, 28),
        Spot(("a", "c d", "e")): (1, 37, 38),
        Spot(("f", "e")): (1, 37, 38),
        Spot(("a", "nope", "deeper")): (1, 1, 2),
        Spot(("nope",)): (1, 1, 2),
    }
    for spot, expected in spots.items():
        place = source.place(spot)
        assert (place.line, place.column, place.end_column) == expected, spot


def test_at_most_fifty_problems_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    jobs = {f"j{number}": {**SEEDANCE, "promt": "x"} for number in range(70)}
    error = problems_of(write(tmp_path, yaml_of(jobs)))
    text = render(error.problems)
    assert error.message.split(": ")[1].startswith("70 problems;")
    assert text.count(" B32 ") == 50
    assert text.endswith("+20 more\n")
    assert len(as_json(error.problems)) == 70


def test_no_problem_steers_the_terminal_T16(tmp_path: Path) -> None:
    text = '"\u202eevil\u2066": x\nversion: 1\nbatch: b\njobs: {a: {"[red]x": 1, "p\u200frompt": 日本語}}\n'
    shown = render(problems_of(write(tmp_path, text)).problems)
    assert all(sign.isprintable() or sign == "\n" for sign in shown)
    assert "[red]x" in shown
    assert "\\u{202e}evil\\u{2066}" in shown


def test_carets_stand_under_wide_characters(tmp_path: Path) -> None:
    [problem] = problems_of(write(tmp_path, MINIMAL + '    params: {"日本": 1, e\u0301: .inf}\n')).problems
    *_, line, caret, _ = render([problem]).splitlines()
    assert line.replace("日本", "....").replace("e\u0301", "e").index(".inf") == caret.index("^")
    assert caret.count("^") == 4


# Files that are no manifest.


def test_B01_missing_file_names_what_is_there(tmp_path: Path) -> None:
    write(tmp_path, MINIMAL, "shots.yaml")
    error = problems_of(tmp_path / "shot.yaml")
    assert codes_of(error) == ["B01"]
    assert "shots.yaml" in error.problems[0].hint
    assert codes_of(problems_of(tmp_path / "none" / "shot.yaml")) == ["B01"]


def test_B02_only_regular_files_are_read(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path, tmp_path / "pipe.yaml", Path("/dev/zero")):
        assert codes_of(problems_of(path)) == ["B02"]


def test_B03_the_reason_of_the_system_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, MINIMAL)

    def refuse(*_arguments: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.open", refuse)
    error = problems_of(path)
    assert codes_of(error) == ["B03"]
    assert "Permission denied" in error.problems[0].message


def test_B19_the_size_is_bounded(tmp_path: Path) -> None:
    error = problems_of(write(tmp_path, MINIMAL + "#" * MAX_BYTES))
    assert codes_of(error) == ["B19"]
    assert "rows" in error.problems[0].hint


def test_B26_other_encodings_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_bytes(MINIMAL.encode("utf-16"))
    assert "UTF-16" in problems_of(path).problems[0].message


# Size.


def test_bombs_are_refused_at_once_T14() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"b{n}: &b{n} [{', '.join([f'*b{n - 1}' if n else '*a'] * 10)}]" for n in range(40)]
    deep = "[" * 200_000
    wide = "x: [" + "a, " * 1_100_000 + "a]"
    for text, code in (("\n".join(lines), "B14"), (deep, "B18"), (wide, "B14")):
        started = time.process_time()
        with pytest.raises(InputError) as refused:
            read_document(text, "bomb.yaml")
        assert codes_of(refused.value) == [code]
        assert time.process_time() - started < 5


def test_aliases_cannot_hide_depth_T14() -> None:
    text = "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}]\n" for n in range(200))
    with pytest.raises(InputError) as refused:
        read_document(text, "bomb.yaml")
    assert codes_of(refused.value) == ["B18"]


# The schema for editors, and the example.


def test_the_schema_speaks_of_every_key_and_no_other() -> None:
    top = schema()["properties"]
    job = top["jobs"]["additionalProperties"]["properties"]
    assert list(top) == [key.name for key in TOP]
    assert list(job) == [key.name for key in JOB]
    assert list(job["references"]["properties"]) == [key.name for key in REFERENCES]
    assert list(top["providers"]["additionalProperties"]["properties"]) == [key.name for key in PROVIDER]
    assert list(top["outputs"]["properties"]) == [key.name for key in OUTPUTS]
    assert list(top["defaults"]["properties"]) == list(FIELD_NAMES)
    assert schema()["required"] == ["version", "batch", "jobs"]


ENDS = ("sandbox:moderated", "sandbox:failed", "sandbox:partial")


def test_the_example_is_what_it_promises_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    manifest = read_manifest(Path("jobs.example.yaml"))
    surveyed = survey(manifest, registry())
    found = list(orders(manifest, registry(), surveyed))
    words = [word for order in found for word in ENDS if word in str(order.fields.get("prompt"))]
    references = [pinned for order in found for pinned in order.references]

    assert surveyed.jobs == len(found) == 24
    assert set(surveyed.accounts) == set(registry())
    assert {Path(order.output).suffix for order in found} == {".mp4", ".png", ".jpg"}
    assert sorted(words) == ["sandbox:failed", "sandbox:failed", "sandbox:moderated", "sandbox:partial"]
    assert any(pinned.reference.review for pinned in references), "an asset to be reviewed"
    assert any(pinned.sha256 for pinned in references), "a file to be uploaded"
    assert any(order.model == "upscale" for order in found)
    assert surveyed.accounts["happyhorse"].high <= manifest.budget["happyhorse"]
    assert not surveyed.warnings
