"""Kill -9 at every commit and side effect, again and again on one queue: nothing lost, nothing paid twice."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from torture.manifests import PROVIDERS
from torture.sweep import Case, Result, chain, points, sweep

HERE = ("after-brink", "after-link", "answer-read", "before-commit", "request-sent")  # the torture has them all
AT = (1, 3, 6)  # which time of reaching the point kills, run after run; ./scripts/torture --sweep tries them all
SPEED = 100.0
KEYED = ("seedance2ai", "seedhorse")  # their lost answers are asked for again under the same key
UNSEARCHABLE = ("seedhorse-video", "seegen")  # nobody can look up what they accepted: one question a crash for a person
AT_ONCE = 3  # most of a case is waiting


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Result]]]:
    """Every fail point's case, under way."""
    folder = tmp_path_factory.mktemp("sweep")
    with ThreadPoolExecutor(AT_ONCE) as hands:
        yield {name: hands.submit(sweep, folder / name, _case(name)) for name in HERE}


def _case(name: str) -> Case:
    return chain("suite", name, PROVIDERS, AT, SPEED)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", HERE)
def test_killed_there_again_and_again(name: str, swept: dict[str, Future[Result]]) -> None:
    """Nothing is lost and nothing paid twice."""
    result = swept[name].result()
    assert result.clean, result.story()
    assert result.died >= 2, "it was hardly ever reached"
    assert len(result.evidence.jobs) == 17
    assert {job.state for job in result.evidence.jobs} <= {"succeeded", "partial", "failed", "cancelled", "held"}


@pytest.mark.parametrize("name", HERE)
def test_what_arrived_is_found(name: str, swept: dict[str, Future[Result]]) -> None:
    """A held job may be one whose request never left; what a provider did accept that can be asked is owned."""
    evidence = swept[name].result().evidence
    owned = {(job.account, job.task_id) for job in evidence.jobs if job.task_id}
    assert {(t.account, t.id) for t in evidence.tasks if t.account not in UNSEARCHABLE} <= owned
    assert all(job.account not in KEYED for job in evidence.jobs if job.state == "held")


def test_these_are_fail_points() -> None:
    assert set(HERE) < set(points())
