"""The torture test catches runners that are wrong: each mutant breaks one promise, and the judge names the crime."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from torture.mutants.catching import Caught, catch, control, untried
from torture.mutants.listed import MUTANTS

AT_ONCE = 3  # most of a trial is waiting
HONEST = ("M10", "M16")  # the others' settings are tried honestly by ./scripts/torture --full, and in other journeys
Trials = dict[tuple[str, str], Future[Caught]]


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    """Every trial, under way."""
    folder = tmp_path_factory.mktemp("mutants")
    with ThreadPoolExecutor(AT_ONCE) as hands:
        mutants = {("mutant", n): hands.submit(catch, n, folder / n, "suite") for n in MUTANTS if not untried(n)}
        honest = {
            ("honest", n): hands.submit(control, n, folder / f"{n}-honest", "suite") for n in HONEST if not untried(n)
        }
        yield mutants | honest


def _result(tried: Trials, kind: str, number: str) -> Caught:
    if (kind, number) not in tried:
        pytest.skip(untried(number))
    return tried[kind, number].result()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", MUTANTS)
def test_it_is_caught(number: str, tried: Trials) -> None:
    """M1 … M18 of reliability.md section 1.5."""
    result = _result(tried, "mutant", number)
    assert result.caught, result.story
    assert result.by in MUTANTS[number].crimes


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", HONEST)
def test_the_honest_runner_is_innocent_in_its_place(number: str, tried: Trials) -> None:
    result = _result(tried, "honest", number)
    assert not result.caught, result.story


def test_all_eighteen_are_there() -> None:
    assert list(MUTANTS) == [f"M{number}" for number in range(1, 19)]
