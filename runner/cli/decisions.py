"""Taking a decision about jobs: all of those named are checked first, then written together, or nothing is.

Short guarded transactions, no lock: a runner may be at work on the same queue. Whoever was faster wins; a job that
moved in between is looked at again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from runner.cli import output
from runner.cli.naming import find_all
from runner.errors import InputError, Problem, RunnerError
from runner.jobs import Change
from runner.lifecycle.deciding import Declined
from runner.store import Store
from runner.store.changes import apply
from runner.store.work import Work

Decision = Callable[[Work], Awaitable[Change | Declined]]
ROUNDS = 5  # jobs that move while they are being decided about are looked at again so often


class NotNow(RunnerError):
    """It could not be verified at the provider; nothing was changed, and it may be possible later."""

    exit_code = 5


async def decide(store: Store, names: Sequence[str], verb: str, decision: Decision) -> list[tuple[Work, Change]]:
    """Decides about every named job; returns each as it was, with what was written. Raises InputError, with every
    reason, if one of them cannot be (`verb` completes "2 of 3 jobs cannot …"); NotNow if only for now."""
    written: list[tuple[Work, Change]] = []
    wanted = list(names)
    for _ in range(ROUNDS):
        works = await find_all(store, wanted)
        changes = _agreed([(work, await decision(work)) for work in works], verb, len(written))
        held = await store.write(apply, changes)
        written += [(works[n], changes[n]) for n in sorted(held)]
        wanted = [str(work.id) for n, work in enumerate(works) if n not in held]
        if not wanted:
            break
    else:
        raise NotNow(f"job {', '.join(wanted)} keeps moving; nothing was changed about it", "try again in a moment")
    return written


def _agreed(decided: Sequence[tuple[Work, Change | Declined]], verb: str, before: int) -> list[Change]:
    declined = [(work, no) for work, no in decided if isinstance(no, Declined)]
    if declined:
        raise _refusal(declined, len(decided), verb, before)
    return [change for _, change in decided if isinstance(change, Change)]


def _refusal(declined: Sequence[tuple[Work, Declined]], number: int, verb: str, before: int) -> RunnerError:
    problems = [Problem("", f"{title(work)} cannot {verb}: {no.why}", no.hint) for work, no in declined]
    if all(no.later for _, no in declined):
        return NotNow(problems[0].message, problems[0].hint)
    if number == 1 and not before:
        return InputError(problems[0].message, problems[0].hint, tuple(problems))
    changed = f"the other {before} were changed" if before else "nothing was changed"
    return InputError(f"{len(declined)} of {number} jobs cannot {verb}; {changed}", problems=tuple(problems))


def title(work: Work) -> str:
    return f"job {work.id} ({work.batch}/{work.name})"


def tell(written: Sequence[tuple[Work, Change]]) -> None:
    """A line of results for each job: where it was, where it is now."""
    for work, change in written:
        output.line(f"{title(work)}: {change.source} → {change.standing.state}")
