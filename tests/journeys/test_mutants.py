"""The torture test catches runners that are wrong: each mutant breaks one promise, and the judge names the crime."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from torture.mutants.catching import Caught, catch, control, untried
from torture.mutants.listed import MUTANTS

AT_ONCE = 3  # most of a trial is waiting
# These only by ./scripts/torture --full: their ways to pay twice are others' here (M2, M3), and tests of their own know
# what they break (tests/test_sockets.py, tests/test_providers.py, tests/store/test_sqlite.py).
LONG = {"M5", "M6", "M11", "M12", "M18"}
# Not where a loss of power cannot be played: without a C compiler (./scripts/torture tells).
HERE = [number for number in MUTANTS if number not in LONG and not untried(number)]
# In the places of the others the honest program is tried by ./scripts/torture --full, and by every other journey here.
HONEST = [number for number in ("M10",) if number in HERE]
Trials = dict[str, Future[Caught]]


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    """Every trial, under way."""
    folder = tmp_path_factory.mktemp("mutants")
    with ThreadPoolExecutor(AT_ONCE) as hands:
        broken = {number: hands.submit(catch, number, folder / number, "suite") for number in HERE}
        honest = {f"{n} honest": hands.submit(control, n, folder / f"{n}-honest", "suite") for n in HONEST}
        yield broken | honest


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", HERE)
def test_it_is_caught(number: str, tried: Trials) -> None:
    """M1 … M18 of reliability.md section 1.5."""
    result = tried[number].result()
    assert result.caught, result.story
    assert result.by in MUTANTS[number].crimes


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", HONEST)
def test_the_honest_runner_is_innocent_in_its_place(number: str, tried: Trials) -> None:
    result = tried[f"{number} honest"].result()
    assert not result.caught, result.story


def test_all_eighteen_are_there() -> None:
    assert list(MUTANTS) == [f"M{number}" for number in range(1, 19)]
    assert {untried(number) for number in set(MUTANTS) - {"M4", "M10"}} == {""}
