"""What the evidence proves. Pure: each rule reads the evidence and names what it finds; nothing found is innocence.

The provider's ledger is the truth about money. A task is known by its prompt: no two jobs share one, but for takes,
which ask for the same and are interchangeable.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from runner.jobs import SETTLED, TRANSITIONS, Event
from torture.counts import missing, slots, strange_keys, summary
from torture.evidence import Evidence, File, Job, Step, Task

ENDED = frozenset(state.value for state in SETTLED)
FIRST = "queued"  # where a job's log begins: nobody here needs another's output
CANCELS = frozenset({"seedhorse"})  # accounts whose provider has a word for it; elsewhere such a task has failed
SOME = frozenset({"partial", "held"})  # may have the second file without the first
FINISHED = frozenset({"succeeded", "partial"})
AT_ONCE = 3.0  # wall seconds in which it ends after the second: one, on a machine that is busy with something else
GRACE = 12.0  # wall seconds in which a run ends after the first signal: ten for what is on the wire, two to tidy up
KEY_WINDOW = 3600.0  # seconds in which a key is sent again
NOT_OURS = ("unknown_submission", "rate_limited", "network", "unavailable")


@dataclass(frozen=True)
class Finding:
    """`kind` is the name of the rule that found it."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass(frozen=True)
class Verdict:
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        return not self.findings

    def count(self, kind: str) -> int:
        return sum(finding.kind == kind for finding in self.findings)

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings)) or "nothing found"


def judge(evidence: Evidence) -> Verdict:
    found = [Finding(name, text) for name, rule in RULES.items() for text in rule(evidence)]
    return Verdict(tuple(found))


def _by_line(jobs: Sequence[Job]) -> dict[tuple[str, str], list[Job]]:
    groups: dict[tuple[str, str], list[Job]] = defaultdict(list)
    for job in jobs:
        groups[job.account, job.line].append(job)
    return groups


def _paid(evidence: Evidence) -> list[Task]:
    """Tasks that cost something, whatever came back later: those that failed were bought too."""
    return [task for task in evidence.tasks if task.charged > 0]


def _owner(evidence: Evidence) -> Mapping[tuple[str, str], Job]:
    return {(job.account, job.task_id): job for job in evidence.jobs if job.task_id}


def doubles(evidence: Evidence) -> Iterator[str]:
    """More tasks were bought than jobs asked for them."""
    asked = _by_line(evidence.jobs)
    bought = Counter((task.account, task.prompt) for task in _paid(evidence))
    for (account, prompt), count in bought.items():
        wanted = len(asked.get((account, prompt), []))
        for _ in range(count - wanted):
            yield f"{account}: {count} tasks bought where {wanted} were asked for: {prompt!r}"
    keys = Counter((task.account, task.idempotency_key) for task in evidence.tasks if task.idempotency_key)
    for (account, key), count in keys.items():
        if count > 1:
            yield f"{account}: {count} tasks under one idempotency key {key}"


def lost(evidence: Evidence) -> Iterator[str]:
    """A task was bought that no job owns, nor may still turn out to own."""
    owners = _owner(evidence)
    unclaimed = Counter((job.account, job.line) for job in evidence.jobs if job.state in ("held", "unknown"))
    unclaimed -= Counter(
        (job.account, job.line) for job in evidence.jobs if job.state in ("held", "unknown") and job.task_id
    )
    for task in _paid(evidence):
        if (task.account, task.id) in owners:
            continue
        if unclaimed[task.account, task.prompt] > 0:
            unclaimed[task.account, task.prompt] -= 1
        else:
            yield f"{task.account}: task {task.id} cost {task.charged} and nobody owns it: {task.prompt!r}"


def forgotten(evidence: Evidence) -> Iterator[str]:
    """A bought task that the program has asked about, so that it knew the id, and that no job owns now."""
    owners = _owner(evidence)
    for task in _paid(evidence):
        if task.net > 0 and (task.account, task.id) in evidence.asked and (task.account, task.id) not in owners:
            yield f"{task.account}: task {task.id} was followed, and its id is in no job: {task.prompt!r}"


def wrong_adoptions(evidence: Evidence) -> Iterator[str]:
    """A job follows a task that is not its own."""
    known = {(task.account, task.id): task for task in evidence.tasks}
    for job in evidence.jobs:
        if job.task_id is None:
            continue
        task = known.get((job.account, job.task_id))
        if task is None:
            yield f"job {job.id} ({job.state}) has task {job.task_id}, which {job.account} never made"
        elif task.prompt != job.line:
            yield f"job {job.id} asked for {job.line!r} and has task {task.id}: {task.prompt!r}"
        elif task.idempotency_key is not None and job.idempotency_key not in (None, task.idempotency_key):
            yield f"job {job.id} has key {job.idempotency_key}, its task {task.id} came under {task.idempotency_key}"


def twins(evidence: Evidence) -> Iterator[str]:
    """Two jobs own one task, or share a key."""
    for name in ("task_id", "idempotency_key"):
        owned = Counter((job.account, getattr(job, name)) for job in evidence.jobs if getattr(job, name))
        for (account, value), count in owned.items():
            if count > 1:
                yield f"{account}: {count} jobs have {name} {value}"


def job_bills(evidence: Evidence) -> Iterator[str]:
    """A job's bill is not its task's."""
    known = {(task.account, task.id): task for task in evidence.tasks}
    for job in evidence.jobs:
        task = known.get((job.account, job.task_id or ""))
        if task is not None and job.net != task.net:
            yield f"job {job.id} ({job.state}) is billed {job.net}, its task {task.id} cost {task.net}"
        if task is None and job.net != 0:
            yield f"job {job.id} ({job.state}) is billed {job.net} without a task"


def open_bills(evidence: Evidence) -> Iterator[str]:
    """A held job without a task may owe anything from nothing to its price; here it would owe more.

    (The provider itself may charge half as much again as its price list says: that is one of the faults.)
    """
    owners = _owner(evidence)
    unowned = [task for task in evidence.tasks if (task.account, task.id) not in owners]
    for job in evidence.jobs:
        maybe = [task.charged for task in unowned if (task.account, task.prompt) == (job.account, job.line)]
        if job.state != "held" or job.estimated is None:
            continue
        if max(maybe, default=Decimal(0)) > job.estimated * _dearer(evidence):
            yield f"job {job.id} may owe {max(maybe)}, which is more than its price {job.estimated}"


def _dearer(evidence: Evidence) -> Decimal:
    return Decimal("1.5") if any(label.startswith("overcharged") for label in evidence.fired) else Decimal(1)


def ledger_difference(evidence: Evidence) -> Iterator[str]:
    """An account's bill is not the provider's, but for tasks that held jobs may own."""
    owners = _owner(evidence)
    for account in sorted(evidence.limits):
        tasks = [task for task in evidence.tasks if task.account == account]
        theirs = sum((task.net for task in tasks), Decimal(0))
        open_ones = sum((task.net for task in tasks if (account, task.id) not in owners), Decimal(0))
        ours = evidence.net.get(account, Decimal(0))
        if ours != theirs - open_ones:
            yield f"{account}: our net is {ours}, theirs {theirs} with {open_ones} of it open"
        awaited = evidence.unsettled.get(account, Decimal(0)) - open_questions(evidence.jobs, account)
        if awaited > 0:
            yield f"{account}: {awaited} credits are still not settled"


def open_questions(jobs: Sequence[Job], account: str) -> Decimal:
    """What the held jobs of an account may have cost: that stays unsettled until a person has decided."""
    held = (job for job in jobs if job.account == account and job.state == "held" and job.task_id is None)
    return sum((job.estimated or Decimal(0) for job in held), Decimal(0))


def fates(evidence: Evidence) -> Iterator[str]:
    """A job's end is not its task's: a completed render is never failed, a failed one never succeeded."""
    known = {(task.account, task.id): task for task in evidence.tasks}
    for job in evidence.jobs:
        task = known.get((job.account, job.task_id or ""))
        if task is None:
            if job.state in FINISHED:
                yield f"job {job.id} is {job.state} without a task"
            continue
        if job.state in ("failed", "cancelled") and task.outcome == "completed":
            yield f"job {job.id} is {job.state}, but its task {task.id} was completed"
        called_so = task.outcome == "cancelled" and (job.account in CANCELS or job.state != "failed")
        if (job.state == "cancelled") != called_so and job.state in ENDED - {"held"}:
            yield f"job {job.id} is {job.state}, its task {task.id} {task.outcome}"
        if job.state in FINISHED and task.outcome != "completed":
            yield f"job {job.id} is {job.state}, but its task {task.id} {task.outcome}"
        if job.error == "moderated" and task.outcome != "moderated":
            yield f"job {job.id} says moderated, its task {task.id} was {task.outcome}"


def published(evidence: Evidence) -> Iterator[str]:
    """What a job says it has is not there as it says; or something is there that no job says it has."""
    there = {each.path: each for each in evidence.files}
    told = {}
    for job in evidence.jobs:
        for number, output in enumerate(job.outputs):
            found = told[output.path] = there.get(output.path)
            where = f"job {job.id}, {output.path.name}"
            if found is None:
                yield f"{where}: it is not there"
            elif (found.size, found.sha256) != (output.size, output.sha256):
                yield f"{where}: it is not as recorded"
            elif found.task_id != job.task_id or not _in_place(job, found, number):
                yield f"{where}: it is output {found.index} of task {found.task_id}, not {number} of {job.task_id}"
            if output.path.with_name(output.path.name + ".json") not in evidence.sidecars:
                yield f"{where}: its sidecar is missing"
    for path in sorted(set(there) - set(told)):
        yield f"{path.name} belongs to no job"


def _in_place(job: Job, found: File, number: int) -> bool:
    """Where some outputs were not made, those that were keep their numbers."""
    return found.index is not None and (found.index >= number if job.state in SOME else found.index == number)


def complete(evidence: Evidence) -> Iterator[str]:
    """A finished job lacks files; a file is not whole; parts were left behind."""
    known = {(task.account, task.id): task for task in evidence.tasks}
    for job in evidence.jobs:
        task = known.get((job.account, job.task_id or ""))
        if task is None or job.state not in FINISHED:
            continue
        if len(job.outputs) != task.outputs - task.missing or (job.state == "partial") != (task.missing > 0):
            yield f"job {job.id} {job.state}: {len(job.outputs)} of {task.outputs} files, {task.missing} were not made"
    for each in evidence.files:
        if not each.whole:
            yield f"{each.path.name} is not what the provider made"
    waiting = [job for job in evidence.jobs if job.state == "held" and job.error == "download_failed"]
    tasks = (known.get((job.account, job.task_id or "")) for job in waiting)
    kept = 2 * sum(
        task.outputs for task in tasks if task is not None
    )  # gone on with, if a person says so: and thumbnails
    for suffix in (".part", ".json"):
        for stray in [each for each in evidence.strays if each.suffix == suffix][kept:]:
            yield f"{stray.name} was left behind"


def limits(evidence: Evidence) -> Iterator[str]:
    """The provider saw more tasks at once, or more requests in 60 s, than were allowed.

    A held job keeps no slot: what the provider may have accepted for it goes on beside the others.
    """
    owners = _owner(evidence)
    for account, allowed in evidence.limits.items():
        seen = evidence.seen.get(account)
        nobodys = sum((task.account, task.id) not in owners for task in evidence.tasks if task.account == account)
        if seen is not None and seen.in_flight > allowed.concurrency + nobodys:
            yield f"{account}: {seen.in_flight} tasks at once, {allowed.concurrency} allowed, {nobodys} nobody's"
        if seen is not None and seen.per_minute > allowed.per_minute:
            yield f"{account}: {seen.per_minute} requests in 60 s, {allowed.per_minute} allowed"


def leaks(evidence: Evidence) -> Iterator[str]:
    """The providers noted a credential where none belongs, or a broken promise."""
    yield from evidence.remarks


def canary(evidence: Evidence) -> Iterator[str]:
    """A key stands somewhere in what the runs left behind."""
    yield from evidence.hits


def strangers(evidence: Evidence) -> Iterator[str]:
    """Somebody's own file is not as it was, or something was written where nothing of ours belongs."""
    yield from evidence.touched


def edges(evidence: Evidence) -> Iterator[str]:
    """The log tells of a step that the table of transitions does not know, or that does not follow from the last."""
    stands: dict[int, str] = {}
    for step in evidence.steps:
        before = stands.get(step.job_id, FIRST)
        if step.source != before:
            yield f"job {step.job_id}: {step.event} from {step.source}, but it was {before}"
        elif not _allowed(step):
            yield f"job {step.job_id}: {step.event} from {step.source} to {step.target}"
        stands[step.job_id] = step.target
    for job in evidence.jobs:
        if stands.get(job.id, FIRST) != job.state:
            yield f"job {job.id} is {job.state}, its log ends with {stands.get(job.id, FIRST)}"


def _allowed(step: Step) -> bool:
    ways = {source.value: target.value for source, target in TRANSITIONS[Event(step.event)].items()}
    return ways.get(step.source) == step.target


def endings(evidence: Evidence) -> Iterator[str]:
    """Something has not ended, or the last exit code does not say how it did."""
    for job in evidence.jobs:
        if job.state not in ENDED:
            yield f"job {job.id} is still {job.state}"
    if evidence.last is not None and evidence.last.code != expected_code(evidence):
        yield f"the last run ended with {evidence.last.code}, the jobs say {expected_code(evidence)}"


def expected_code(evidence: Evidence) -> int:
    states = Counter(job.state for job in evidence.jobs)
    if states["held"]:
        return 4
    return 1 if states["failed"] or states["partial"] or states["cancelled"] else 0


def open_keys(evidence: Evidence) -> Iterator[str]:
    """Where keys are honoured, no lost answer is left to a person while the key is: that is for an hour from the order
    on. (Time runs fast here, and the machine is busy: it may be too late.)"""
    brinks = {each.job_id: each.brink for each in evidence.tries if each.brink is not None}
    for job in evidence.jobs:
        too_late = job.code == "key_window" and job.changed - brinks.get(job.id, 0.0) >= KEY_WINDOW
        if job.state == "held" and job.idempotency_key and job.error in NOT_OURS and not too_late:
            yield f"job {job.id} is held ({job.error}) though its key could have been sent again"


def messages(evidence: Evidence) -> Iterator[str]:
    """A traceback or Python's own grumbling reached the user, or a run ended in a way that is none of ours."""
    for ended in evidence.ended:
        if any(words in ended.err + ended.out for words in PYTHONS):
            yield f"a traceback, or as good as one: {ended.said()}"
        elif ended.code not in KNOWN_CODES:
            yield ended.said()


def stops(evidence: Evidence) -> Iterator[str]:
    """A run that was told to end took too long, or ended with a code that does not say so."""
    for stop in evidence.stops:
        if stop.seconds > (GRACE if stop.again is None else stop.again + AT_ONCE):
            yield f"{stop.seconds:.1f} s after signal {stop.number} it had not ended, or just then"
        if stop.code not in (128 + stop.number, 0, 1, 4):
            yield f"it ended with {stop.code} after signal {stop.number}"


PYTHONS = (
    "Traceback (most recent call last)", "was never retrieved", "was never awaited", "Exception ignored in",
    "Fatal Python error", "ResourceWarning:", "RuntimeWarning:",
)  # fmt: skip
KNOWN_CODES = frozenset({0, 1, 4, 5, 6, 129, 130, 137, 143})  # what a run in order ends with

RULES: Mapping[str, Callable[[Evidence], Iterator[str]]] = {
    rule.__name__: rule
    for rule in (
        doubles, lost, forgotten, wrong_adoptions, twins, job_bills, open_bills, ledger_difference, fates, published,
        complete, limits, leaks, canary, strangers, edges, endings, open_keys, messages, stops, missing, slots,
        strange_keys, summary,
    )
}  # fmt: skip
