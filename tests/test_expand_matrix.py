"""Axes, include and exclude: the rules of a GitHub Actions matrix."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from manifests import SEEDANCE, orders_of

from runner.expand.matrix import Matrix

ACTIONS_AXES = {"fruit": ["apple", "pear"], "animal": ["cat", "dog"]}
ACTIONS_INCLUDE = [
    {"color": "green"},
    {"color": "pink", "animal": "cat"},
    {"fruit": "apple", "shape": "circle"},
    {"fruit": "banana"},
    {"fruit": "banana", "animal": "cat"},
]
ACTIONS_RESULT = [
    {"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"},
    {"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"},
    {"fruit": "pear", "animal": "cat", "color": "pink"},
    {"fruit": "pear", "animal": "dog", "color": "green"},
    {"fruit": "banana"},
    {"fruit": "banana", "animal": "cat"},
]


def test_the_worked_example_of_github_actions() -> None:
    assert list(Matrix(ACTIONS_AXES, ACTIONS_INCLUDE).combinations()) == ACTIONS_RESULT


def test_axes_multiply_and_the_last_one_changes_fastest() -> None:
    found = [(c["a"], c["b"]) for c in Matrix({"a": ["1", "2"], "b": ["x", "y", "z"]}).combinations()]
    assert found == list(product("12", "xyz"))


def test_exclude_names_some_of_the_axes() -> None:
    matrix = Matrix(ACTIONS_AXES, (), [{"fruit": "pear"}, {"fruit": "apple", "animal": "dog"}])
    assert list(matrix.combinations()) == [{"fruit": "apple", "animal": "cat"}]


def test_include_comes_after_exclude_and_can_bring_back_what_that_took_out() -> None:
    taken = {"fruit": "pear", "animal": "dog"}
    matrix = Matrix(ACTIONS_AXES, [taken], [taken])
    assert list(matrix.combinations())[-1] == taken
    assert len(list(matrix.combinations())) == 4


def test_without_axes_each_include_is_a_combination() -> None:
    assert list(Matrix({}, [{"a": "1"}, {"b": "2"}]).combinations()) == [{"a": "1"}, {"b": "2"}]
    assert list(Matrix({}).combinations()) == [{}]


NAMES = st.sampled_from(["a", "b", "c", "x"])
VALUES = st.sampled_from(["1", "2", "3"])
ENTRIES = st.lists(st.dictionaries(NAMES, VALUES, min_size=1, max_size=3), max_size=4)
AXES = st.dictionaries(
    st.sampled_from(["a", "b", "c"]), st.lists(VALUES, min_size=1, max_size=3, unique=True), max_size=3
)


def by_the_book(axes: dict[str, list[str]], include: list[dict[str, str]], exclude: list[dict[str, str]]) -> Any:
    """The documented rules, one after the other, on a list."""
    originals = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())] if axes else []
    originals = [o for o in originals if not any(e.items() <= o.items() for e in exclude)]
    if not axes and not include:
        return [{}]
    results, extra = [dict(o) for o in originals], []
    for entry in include:
        fits = [i for i, o in enumerate(originals) if all(o[k] == v for k, v in entry.items() if k in o)]
        for i in fits:
            results[i] |= entry
        if not fits:
            extra.append(entry)
    return results + extra


@given(AXES, ENTRIES, ENTRIES)
def test_the_stream_gives_what_the_rules_give(
    axes: dict[str, list[str]], include: list[dict[str, str]], exclude: list[dict[str, str]]
) -> None:
    matrix = Matrix(axes, include, exclude)
    found = list(matrix.combinations())
    assert found == by_the_book(axes, include, exclude)
    assert len(found) <= matrix.at_most
    for combination in found:
        for name, value in combination.items():
            assert matrix.source(name, value)


def test_an_axis_called_like_a_field_sets_it(tmp_path: Path) -> None:
    job = {
        "matrix": {"duration": [5, 10], "resolution": ["720p", "1080p"]},
        "include": [{"duration": 5, "seed": 7}],
        "prompt": "a clip of ${duration} seconds",
        **SEEDANCE,
    }
    found = [
        (o.fields["duration"], o.fields["resolution"], o.fields.get("seed")) for o in orders_of(tmp_path, {"a": job})
    ]
    assert found == [(5, "720p", 7), (5, "1080p", 7), (10, "720p", None), (10, "1080p", None)]


def test_providers_are_compared_on_one_prompt(tmp_path: Path) -> None:
    job = {
        "include": [
            {"provider": "seedance2ai", "model": "seedance"},
            {"provider": "happyhorse", "model": "seedance-1-5-pro"},
            {"provider": "horse-b", "model": "doubao-seedance-2-0"},
        ],
        "prompt": "a neon alley, by ${provider}'s ${model}",
    }
    found = orders_of(tmp_path, {"a": job}, providers={"horse-b": {"uses": "happyhorse"}})
    assert [order.account for order in found] == ["seedance2ai", "happyhorse", "horse-b"]
    assert [order.provider for order in found] == ["seedance2ai", "happyhorse", "happyhorse"]
    assert found[2].fields["prompt"] == "a neon alley, by horse-b's doubao-seedance-2-0"


def test_an_axis_called_like_a_role_gives_one_reference(tmp_path: Path) -> None:
    job = {
        **SEEDANCE,
        "prompt": "from dusk",
        "matrix": {"first_frame": ["https://a.example/1.png", "https://a.example/2.png"]},
    }
    found = [order.references[0].reference for order in orders_of(tmp_path, {"a": job})]
    assert [(r.role, r.url) for r in found] == [
        ("first_frame", "https://a.example/1.png"),
        ("first_frame", "https://a.example/2.png"),
    ]
