"""How SeeGen takes orders and tells of tasks, and how its refusals are read (its document: "Endpoints", "Error Codes").

Two kinds of tasks are told in two ways: those of `/jobs` in capitals with `creditsUsed` and `output`, those of
`/upscale` in small letters with `creditsConsumed` and `result`.

Assumed, because the document is silent (providers.md section 7): errors are `{error: {code, message}}`,
`{error: "…"}`, `{message}` or `{code, message}`, and a code in the body is one of the table's, as a number or as text.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from runner.errors import ErrorKind
from runner.exchange import Accepted, Action, Ask, Phase, Refusal, Report
from runner.providers.reading import (
    MODERATION_WORDS,
    Said,
    Verdict,
    Verdicts,
    accepted,
    amount,
    complaint_in,
    failure,
    first,
    is_for,
    no_such_id,
    phase_of,
    refused_order,
    refused_question,
    results,
    task_id,
    task_in,
)

CREATE_TASK, CREATE_UPSCALE = "/api/v1/jobs/createTask", "/api/v1/upscale/create"
IDS = ("taskId",)
MODERATION = (*MODERATION_WORDS, " review")  # "may be subject to additional safety review"; not "preview"
STATUSES: Verdicts = {
    400: Verdict(Action.FAIL, ErrorKind.INVALID_REQUEST),
    401: Verdict(Action.STOP, ErrorKind.UNAUTHORIZED),
    402: Verdict(Action.CREDITS, ErrorKind.INSUFFICIENT_CREDITS),
    403: Verdict(Action.STOP, ErrorKind.UNAUTHORIZED),
    404: Verdict(Action.NOT_FOUND, ErrorKind.NOT_FOUND),
    429: Verdict(Action.SLOT, ErrorKind.RATE_LIMITED),  # tasks at once, not requests a minute
}
# Refusals that come as the failure of an upscale task; they say nothing about what the job asks for.
RETURNED: Verdicts = {
    "INSUFFICIENT_CREDITS": Verdict(Action.CREDITS, ErrorKind.INSUFFICIENT_CREDITS),
    "SERVICE_DISABLED": Verdict(Action.STOP_MODEL, ErrorKind.UNAVAILABLE),
}
VERDICTS: Verdicts = {**STATUSES, **{str(code): verdict for code, verdict in STATUSES.items()}, **RETURNED}
FAILURES: Verdicts = {
    **RETURNED,
    **dict.fromkeys(
        (
            "DURATION_EXCEEDS_LIMIT",
            "SOURCE_RESOLUTION_TOO_HIGH",
            "FILE_TOO_LARGE",
            "UNSUPPORTED_MEDIA_TYPE",
            "URL_NOT_REACHABLE",
            "URL_RESOLVES_TO_PRIVATE_IP",
        ),
        Verdict(Action.FAIL, ErrorKind.INVALID_REQUEST),
    ),
    **dict.fromkeys(("PROBE_FAILED", "UPSTREAM_FAILED"), Verdict(Action.FAIL, ErrorKind.TASK_FAILED)),
}


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of task: where it is asked for, its words, and where its cost and its files stand. `null_is_free`: when
    it failed, a cost of null means that all of it was refunded."""

    path: str
    done: str
    failed: str
    going: tuple[str, ...]
    cost: str
    files: str
    null_is_free: bool = False


JOB = Kind("/api/v1/jobs/queryTask", "COMPLETED", "FAILED", ("PENDING", "PROCESSING"), "creditsUsed", "output")
# "On any failure, credits are fully refunded", and the documented failure shows `creditsConsumed: null`.
UPSCALE = Kind(
    "/api/v1/upscale/query", "completed", "failed", ("validating", "processing"), "creditsConsumed", "result", True
)


async def submit(ask: Ask, path: str, content: bytes, _idempotency_key: str | None) -> Accepted | Refusal:
    """Order one task. No key is honoured and there is no list of tasks: an unclear answer is AMBIGUOUS, and stays so.

    What a broken server (5xx) says in the body proves nothing about the order.
    """
    reply = await ask("POST", path, content=content)
    verdicts = VERDICTS if reply.status < 500 else {}
    # A task that failed at once is a task all the same: its `error` is its own, and its id must be followed.
    is_task = task_in(reply.data) is not None and task_id(first(reply.data, IDS)) is not None
    if not reply.ok or reply.unreadable or (complaint_in(reply.data) and not is_task):
        return refused_order(reply, verdicts)
    return accepted(reply, IDS, verdicts)


async def poll(ask: Ask, path: str, known_id: str) -> Report | Refusal:
    """Ask for one task, by the path it was ordered at. A 403 means that it is another key's ("can only query own
    tasks"): the key was swapped."""
    if task_id(known_id) is None:
        return no_such_id(known_id)
    kind = UPSCALE if path == CREATE_UPSCALE else JOB
    reply = await ask("GET", kind.path, query={"taskId": known_id})
    task = task_in(reply.data) if reply.ok and not reply.unreadable else None
    if task is None:
        return refused_question(reply, VERDICTS, "no_status" if reply.ok else "", "the answer tells no status")
    if not is_for(reply.data, IDS, known_id):
        return refused_question(reply, {}, "other_task", "the answer is about another task")
    return _report(known_id, task, kind)


def _report(known_id: str, task: Said, kind: Kind) -> Report:
    phase, status, recognised = phase_of(task["status"], (kind.done,), (kind.failed,), kind.going)
    files, missing = results(task.get(kind.files), ("url",)) if phase is Phase.DONE else ((), ())
    return Report(
        task_id=known_id,
        phase=phase,
        status=status,
        recognised=recognised,
        files=files,
        missing=missing,
        used=_used(task, phase, kind),
        error=failure(task, FAILURES, MODERATION) if phase is Phase.FAILED else None,
    )


def _used(task: Said, phase: Phase, kind: Kind) -> Decimal | None:
    """What remains charged. Only an explicit null is "nothing"; an answer that leaves the cost out says nothing."""
    if phase is Phase.GOING:
        return None
    if phase is Phase.FAILED and kind.null_is_free and kind.cost in task and task[kind.cost] is None:
        return Decimal(0)
    return amount(task.get(kind.cost))


async def balance(ask: Ask) -> Decimal | Refusal:
    """The credits that can be spent: `availableCredits`, where the answer tells them apart from `credits`."""
    reply = await ask("GET", "/api/v1/account/credits")
    refused = not reply.ok or reply.unreadable or complaint_in(reply.data)
    left = None if refused else amount(first(reply.data, ("availableCredits", "credits")))
    if left is None:
        return refused_question(reply, VERDICTS, "no_balance" if reply.ok else "", "the answer holds no balance")
    return left
