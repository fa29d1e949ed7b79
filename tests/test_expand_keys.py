"""The job key: a hash of what is asked for, and of nothing else (design.md section 9)."""

from __future__ import annotations

import copy
import json
import random
import tempfile
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from manifests import HAPPYHORSE, SEEDANCE, orders_of, write

from runner.errors import InputError
from runner.expand import Order, orders, parse_spec, survey
from runner.expand.keys import key_of
from runner.manifest import read_manifest
from runner.providers import registry
from runner.providers.compose import compose

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de000000"
    "0c49444154789c63606060000000040001f61738550000000049454e44ae426082"
)

Plain = dict[str, Any]

WORDS = st.text(st.sampled_from("abcdefghij éß日$"), min_size=3, max_size=12).filter(lambda text: len(text.strip()) > 2)
SEEDS = st.integers(0, 2**32 - 1)
URLS = st.integers(0, 99).map(lambda number: f"https://example.com/{number}.png")


def rows(draw: Any) -> list[Plain]:
    scenes = draw(st.lists(WORDS, min_size=1, max_size=4, unique=True))
    return [{"scene": scene, "note": f"n{number}"} for number, scene in enumerate(scenes)]


@st.composite
def jobs(draw: Any) -> Plain:
    """A job of either provider whose cells all differ."""
    job: Plain = {"prompt": "${scene}, ${style} (take ${take})", "rows": rows(draw), "takes": draw(st.integers(1, 2))}
    job["matrix"] = {"style": draw(st.lists(st.sampled_from(["noir", "pop", "gouache"]), min_size=1, unique=True))}
    if draw(st.booleans()):
        job |= SEEDANCE
        job["matrix"]["duration"] = draw(st.lists(st.integers(4, 15), min_size=1, max_size=2, unique=True))
        if draw(st.booleans()):
            job["seed"] = draw(SEEDS)
            job["params"] = {"channel": draw(st.sampled_from(["standard", "wild"]))}
        if draw(st.booleans()):
            job["references"] = {"images": draw(st.lists(URLS, min_size=1, max_size=3, unique=True))}
    else:
        job |= HAPPYHORSE
        job["matrix"]["duration"] = draw(st.lists(st.integers(1, 20), min_size=1, max_size=2, unique=True))
        if draw(st.booleans()):
            job["references"] = {"first_frame": draw(URLS)}
    return job


@st.composite
def manifests(draw: Any) -> Plain:
    """A manifest in which no two cells ask for the same."""
    named = {f"job{number}": job for number, job in enumerate(draw(st.lists(jobs(), min_size=1, max_size=3)))}
    for name, job in named.items():
        job["prompt"] += f" {name}"
    return {"version": 1, "batch": "keys", "defaults": {"resolution": "720p", "aspect_ratio": "9:16"}, "jobs": named}


def expanded(manifest: Plain, name: str = "manifest.yaml") -> list[Order]:
    with tempfile.TemporaryDirectory() as folder:
        read = read_manifest(write(Path(folder), json.dumps(manifest, ensure_ascii=False), name))
        return list(orders(read, registry(), survey(read, registry())))


def keys(manifest: Plain, name: str = "manifest.yaml") -> list[str]:
    return [order.key for order in expanded(manifest, name)]


def shuffled(mapping: Mapping[str, Any], chance: random.Random) -> Plain:
    return dict(chance.sample(list(mapping.items()), len(mapping)))


def reorder_everything(manifest: Plain, chance: random.Random) -> None:
    for job in manifest["jobs"].values():
        chance.shuffle(job["rows"])
        for values in job["matrix"].values():
            chance.shuffle(values)
        job["matrix"] = shuffled(job["matrix"], chance)
        job["params"] = shuffled(job.get("params", {}), chance)
    manifest["jobs"] = {name: shuffled(job, chance) for name, job in shuffled(manifest["jobs"], chance).items()}


def rename_jobs_and_batch(manifest: Plain, _chance: random.Random) -> None:
    manifest["jobs"] = {f"renamed-{name}": job for name, job in manifest["jobs"].items()}
    manifest["batch"] = "another"


def change_unused_columns(manifest: Plain, _chance: random.Random) -> None:
    for job in manifest["jobs"].values():
        for row in job["rows"]:
            row |= {"note": "changed", "further": "column"}


def change_limits_and_names(manifest: Plain, _chance: random.Random) -> None:
    manifest["providers"] = {
        "happyhorse": {"concurrency": 1, "rate_limit": "5/minute"},
        "seedance2ai": {"timeout": "1h"},
    }
    manifest["budget"] = {"happyhorse": 5}
    manifest["outputs"] = {"dir": "elsewhere", "name": "${key}.${ext}"}
    for job in manifest["jobs"].values():
        job["priority"] = 9


def give_other_accounts(manifest: Plain, _chance: random.Random) -> None:
    manifest["providers"] = {f"{name}-b": {"uses": name} for name in ("happyhorse", "seedance2ai")}
    for job in manifest["jobs"].values():
        job["provider"] += "-b"


def say_defaults_in_the_jobs(manifest: Plain, _chance: random.Random) -> None:
    for job in manifest["jobs"].values():
        job |= manifest["defaults"]
    del manifest["defaults"]


@pytest.mark.parametrize(
    "change",
    [
        reorder_everything, rename_jobs_and_batch, change_unused_columns, change_limits_and_names,
        give_other_accounts, say_defaults_in_the_jobs,
    ],
)  # fmt: skip
@settings(max_examples=25)
@given(manifest=manifests(), chance=st.randoms(use_true_random=False))
def test_what_is_not_asked_for_changes_no_key(
    change: Callable[[Plain, random.Random], None], manifest: Plain, chance: random.Random
) -> None:
    changed = copy.deepcopy(manifest)
    change(changed, chance)
    assert sorted(keys(changed)) == sorted(keys(manifest))


@settings(max_examples=25)
@given(manifests())
def test_the_files_name_changes_no_key(manifest: Plain) -> None:
    assert keys(manifest, "renamed.yml") == keys(manifest)


@settings(max_examples=25)
@given(manifests(), WORDS)
def test_more_rows_and_jobs_leave_the_keys_there_were(manifest: Plain, scene: str) -> None:
    before = set(keys(manifest))
    job = next(iter(manifest["jobs"].values()))
    assume(all(row["scene"] != scene for row in job["rows"]))
    job["rows"].append({"scene": scene})
    job["takes"] += 1
    manifest["jobs"]["new"] = {**HAPPYHORSE, "prompt": "something else altogether"}
    assert before < set(keys(manifest))


ASKED: list[Callable[[Plain], object]] = [
    lambda job: job.update(prompt=job["prompt"] + "!"),
    lambda job: job.update(aspect_ratio="1:1"),
    lambda job: (
        job.update(model="doubao-seedance-2-0") if job["provider"] == "happyhorse" else job.update(quality="pro")
    ),
    lambda job: job.update(references={"first_frame": "https://example.com/other.png"}),
    lambda job: job["matrix"].update(duration=[12.0 if job["provider"] == "happyhorse" else 12]),
    lambda job: [row.update(scene=row["scene"] + "x") for row in job["rows"]],
]


@settings(max_examples=25)
@given(manifests(), st.sampled_from(ASKED))
def test_what_is_asked_for_changes_the_key(manifest: Plain, change: Callable[[Plain], object]) -> None:
    before = {asked_for(order): order.key for order in expanded(manifest)}
    for job in manifest["jobs"].values():
        change(job)
    for order in expanded(manifest):
        if (asked := asked_for(order)) in before:
            assert order.key == before[asked]
        else:
            assert order.key not in before.values()


def asked_for(order: Order) -> tuple[str, str, str, int]:
    return (order.provider, order.model, order.spec, order.take)


@settings(max_examples=50)
@given(manifests())
def test_keys_are_64_hexadecimal_digits_and_all_different(manifest: Plain) -> None:
    found = keys(manifest)
    assert len(set(found)) == len(found)
    assert all(len(key) == 64 and int(key, 16) >= 0 for key in found)


def one(folder: Path, job: Plain, **top: Any) -> Order:
    [order] = orders_of(folder, {"a": job}, **top)
    return order


def test_the_key_is_the_hash_of_canonical_json(tmp_path: Path) -> None:
    import hashlib

    job = {**SEEDANCE, "prompt": "a neon alley, día", "duration": 5.0, "params": {"channel": "wild"}}
    job["references"] = {"images": ["https://example.com/b.png", "https://example.com/a.png"]}
    told = (
        '[1,"seedance2ai","seedance",{"duration":5,"prompt":"a neon alley, día"},{"channel":"wild"},'
        '{"images":["https://example.com/b.png","https://example.com/a.png"]},1]'
    )
    assert one(tmp_path, job).key == hashlib.sha256(told.encode()).hexdigest()


@pytest.mark.parametrize(
    ("written", "same"),
    [
        ({"duration": "5"}, {"duration": 5}),
        ({"duration": 5.0}, {"duration": 5}),
        ({"resolution": "720P"}, {"resolution": "720p"}),
    ],
)
def test_spellings_of_one_value_are_one_key(written: Plain, same: Plain, tmp_path: Path) -> None:
    base = {**SEEDANCE, "prompt": "a neon alley"}
    assert one(tmp_path, {**base, **written}).key == one(tmp_path, {**base, **same}).key


def test_both_names_of_a_model_are_one_key(tmp_path: Path) -> None:
    names = ("seedance-1-5-pro", "doubao-seedance-1-5-pro")
    assert (
        len({one(tmp_path, {"provider": "happyhorse", "model": n, "prompt": "a neon alley"}).key for n in names}) == 1
    )


def test_text_is_hashed_as_it_is(tmp_path: Path) -> None:
    prompts = ("caf\u00e9 at night", "cafe\u0301 at night", "caf\u00e9 at night ")
    assert len({one(tmp_path, {**SEEDANCE, "prompt": prompt}).key for prompt in prompts}) == 3


def test_the_order_of_references_is_asked_for_and_their_role(tmp_path: Path) -> None:
    urls = ["https://example.com/a.png", "https://example.com/b.png"]
    given = [{"images": urls}, {"images": urls[::-1]}, {"images": urls[:1]}, {"videos": urls}]
    assert len({one(tmp_path, {**SEEDANCE, "prompt": "a scene", "references": r}).key for r in given}) == 4


def test_a_file_counts_by_its_content_not_its_name(tmp_path: Path) -> None:
    job = {**HAPPYHORSE, "prompt": "a neon alley"}
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "b.png").write_bytes(PNG)
    first = one(tmp_path, {**job, "references": {"first_frame": "a.png"}})
    second = one(tmp_path, {**job, "references": {"first_frame": "./b.png"}})
    (tmp_path / "b.png").write_bytes(PNG + b"\0")
    third = one(tmp_path, {**job, "references": {"first_frame": "b.png"}})
    assert first.key == second.key != third.key
    assert first.references[0].reference.path == "a.png"


def test_takes_differ_by_their_number_only(tmp_path: Path) -> None:
    found = orders_of(tmp_path, {"a": {**SEEDANCE, "prompt": "a neon alley", "takes": 3}})
    assert [order.take for order in found] == [1, 2, 3]
    assert len({order.key for order in found}) == 3
    assert len({order.spec for order in found}) == 1
    assert found[0].key == one(tmp_path, {**SEEDANCE, "prompt": "a neon alley"}).key


def test_B71_the_same_on_two_accounts_of_one_provider_is_the_same(tmp_path: Path) -> None:
    job = {"matrix": {"provider": ["happyhorse", "horse-b"]}, "model": "nano-banana-2", "prompt": "a neon alley"}
    with pytest.raises(InputError) as refused:
        orders_of(tmp_path, {"a": job}, providers={"horse-b": {"uses": "happyhorse"}})
    assert [problem.code for problem in refused.value.problems] == ["B71"]


# The spec: what is sent later is what was checked.


@settings(max_examples=50)
@given(manifests())
def test_composing_a_spec_again_gives_the_same_request(manifest: Plain) -> None:
    for order in expanded(manifest):
        provider = registry()[order.provider]
        fields, pinned, params = parse_spec(order.spec)
        again = compose(provider, order.model, fields, [p.reference for p in pinned], params)
        first = compose(provider, order.model, order.fields, [p.reference for p in order.references], order.params)
        assert again.content == first.content != b""
        assert (again.price, again.shape) == (order.estimated, order.shape)
        assert (dict(again.fields), again.dropped, again.faults) == (dict(order.fields), (), ())


def test_a_spec_keeps_numbers_and_files_exactly(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    job = {**HAPPYHORSE, "prompt": 'ein "Café" \\ \t 日', "duration": 7.25, "references": {"first_frame": "a.png"}}
    order = one(tmp_path, job)
    fields, pinned, params = parse_spec(order.spec)
    assert fields == {"prompt": 'ein "Café" \\ \t 日', "duration": Decimal("7.25")}
    assert isinstance(fields["duration"], Decimal)
    assert (pinned, params) == (order.references, {})
    assert pinned[0].sha256 is not None
    assert "unhosted.invalid" in pinned[0].reference.url


def test_a_take_is_part_of_the_key_and_its_end() -> None:
    from runner.expand.keys import Asked

    asked = Asked("p", "m", "{}", "{}", "{}")
    assert key_of(asked.hashed(), 1) != key_of(asked.hashed(), 11)
