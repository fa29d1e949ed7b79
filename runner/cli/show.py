"""`runner show JOB`: everything about one job, and what it is waiting for."""

from __future__ import annotations

import json as _json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from runner.cli import evidence, output
from runner.cli.app import EVERYDAY, Common, Job, Json
from runner.cli.jobs import cost_is_open, record
from runner.jobs import TERMINAL, State

if TYPE_CHECKING:
    from runner.store.queries import AccountRow, EventLine
    from runner.store.work import Work

TIMES = ("intent_at", "brink_at", "answered_at")
TOLD_OF_TRIES = (
    "generation", "idempotency_key", *TIMES, "outcome", "code", "message", "task_id", "priced", "reserved", "charged",
    "refunded", "path",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything the queue holds of one job. `tries` and `files` are rows of their tables."""

    work: Work
    history: Sequence[EventLine]
    tries: Sequence[Any]
    files: Sequence[Any]
    wanted: int
    account: AccountRow | None


async def show(job: Job, /, *, json: Json = False, common: Common = EVERYDAY) -> int:
    """Show everything about one job: its history, its orders, its files, and what it is waiting for.

    For a held job: the evidence, what to look for at the provider, and the commands that decide.
    """
    from runner.clock import Clock

    clock = Clock()
    seen = await _look(common.db, job)
    if json:
        output.emit_json(_record(seen, clock.now()))
    else:
        _print_text(seen, clock.now())
    return 0


async def _look(db: str, name: str) -> Seen:
    from runner.cli.naming import find_one
    from runner.clock import Clock
    from runner.store import read_store
    from runner.store.queries import account_rows, history, outputs_of_many, tries
    from runner.store.work import outputs_of

    async with read_store(db, Clock()) as store:
        work = await find_one(store, name)
        files = (await store.read(outputs_of_many, [work.id])).get(work.id, [])
        wanted = [row for row in await store.read(outputs_of, work.id) if row.url and not row.path]
        accounts = {row.name: row for row in await store.read(account_rows)}
        return Seen(
            work, await store.read(history, work.id), await store.read(tries, work.id), files, len(wanted),
            accounts.get(work.account),
        )  # fmt: skip


def _record(seen: Seen, now: datetime) -> dict[str, Any]:
    """The record of `runner jobs`, and all the rest."""
    work = seen.work
    standing = work.standing
    return record(work, seen.files) | {
        "take": work.take, "request": _json.loads(work.spec), "output": _place(work),
        "waiting_for": waiting_for(seen, now),
        "due_at": standing.due_at if standing.state not in TERMINAL else None, "status": standing.status,
        "progress": standing.progress, "generation": standing.generation, "looks": standing.looks,
        "accepted_at": standing.accepted_at, "finished_at": standing.finished_at, "unsettled": standing.unsettled,
        "files_wanted": seen.wanted, "tries": [_try(row) for row in seen.tries],
        "history": [_event(line) for line in seen.history],
        "evidence": evidence.as_data(evidence.gather(work)) if standing.state is State.HELD else None,
    }  # fmt: skip


def _place(work: Work) -> str:
    from pathlib import Path

    return str(Path(work.root, work.output))


def _try(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in TOLD_OF_TRIES} | {"body": _json.loads(row.body)}


def _event(line: EventLine) -> dict[str, Any]:
    return {"at": line.at, "event": line.event, "from": line.source, "to": line.target, "data": _json.loads(line.data)}


def waiting_for(seen: Seen, now: datetime) -> str | None:
    """What has to happen before the job goes on; None where nothing more will."""
    work, account = seen.work, seen.account
    due = work.standing.due_at
    later = f" (not before {output.local(due, now)})" if due > now else ""
    match work.standing.state:
        case State.WAITING:
            return "the output of another job"
        case State.QUEUED:
            return _queue_for(work, account, now) or f"its turn, with runner run at work{later}"
        case State.SUBMITTING:
            return "the provider's answer to the order"
        case State.UNKNOWN:
            return f"news of an order whose answer got lost{later}"
        case State.RUNNING:
            return f"the provider: {work.standing.status or 'accepted'}; it is asked with runner run at work{later}"
        case State.DOWNLOADING:
            return f"its files, with runner run at work{later}"
        case State.HELD:
            return "you"
    if (asked_at := work.standing.settle_at) is not None:
        return f"the final cost, asked for with runner run at work (not before {output.local(asked_at, now)})"
    return None


def _queue_for(work: Work, account: AccountRow | None, now: datetime) -> str | None:
    """What keeps the whole account from taking this job."""
    if account is None:
        return None
    if account.stopped is not None:
        return f"you: account {account.name} is stopped: {account.stopped}"
    if work.model in account.stopped_models:
        return f"you: account {account.name} may not use {work.model}"
    if account.paused_until is not None and account.paused_until > now:
        return f"account {account.name}, paused until {output.local(account.paused_until, now)}: {account.paused_note}"
    if account.blocked_until is not None and account.blocked_until > now:
        return f"the request limit of account {account.name}, until {output.local(account.blocked_until, now)}"
    return None


def _print_text(seen: Seen, now: datetime) -> None:
    _section("", _facts(seen, now))
    if seen.work.standing.state is State.HELD:
        _section("What to decide", evidence.in_lines(evidence.gather(seen.work)))
    if seen.tries:
        output.line("Orders")
        output.emit(_tries_table(seen.tries) + "\n")
    output.line("History")
    output.emit(output.table(("at", "event", "now", ""), [_event_row(line) for line in seen.history]))


def _section(title: str, lines: Sequence[tuple[str, str]]) -> None:
    if title:
        output.line(title)
    output.emit(output.table(("", ""), [((label, "dim"), text) for label, text in lines], heading=False) + "\n")


def _facts(seen: Seen, now: datetime) -> list[tuple[str, str]]:
    work = seen.work
    standing = work.standing
    told = [
        ("job", f"{work.id}, {work.batch}/{work.name}, take {work.take}"), ("key", work.key),
        ("state", standing.state.value), ("waiting for", waiting_for(seen, now) or ""),
        ("went wrong", _what_went_wrong(work)),
        ("account", f"{work.account} ({work.provider})"), ("model", work.model),
        ("task", f"{standing.task_id or '–'} {f'({standing.status})' if standing.status else ''}".strip()),
        ("credits", _credits(work)), ("variables", _pairs(_json.loads(work.variables))), *_request(work),
        *_files(seen), ("created", output.local(work.created_at)), ("changed", output.local(work.updated_at)),
    ]  # fmt: skip
    return [(label, text) for label, text in told if text]


def _what_went_wrong(work: Work) -> str:
    failure = work.standing.failure
    return f"{failure.kind} ({failure.code}): {failure.message}" if failure else ""


def _credits(work: Work) -> str:
    charged = None if not work.charged and cost_is_open(work) else work.charged
    return (
        f"{output.credits(work.estimated)} estimated, {output.credits(charged)} charged, "
        f"{output.credits(work.refunded)} refunded{', not settled yet' if work.standing.unsettled else ''}"
    )


def _request(work: Work) -> list[tuple[str, str]]:
    asked = _json.loads(work.spec)
    fields = {name: value for name, value in asked["fields"].items() if name != "prompt"}
    references = ", ".join(f"{each['role']}: {each.get('path') or each['url']}" for each in asked["references"])
    return [
        ("prompt", evidence.prompt_of(work)), ("fields", _pairs(fields)), ("params", _pairs(asked["params"])),
        ("references", references),
    ]  # fmt: skip


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _files(seen: Seen) -> list[tuple[str, str]]:
    from pathlib import Path

    found = [("file", f"{Path(seen.work.root, row.path)} ({row.size} bytes, {row.media_type})") for row in seen.files]
    wanted = [("still wanted", f"{seen.wanted} files")] if seen.wanted else []
    return [*found, *wanted] or [("file, one day", _place(seen.work))]


def _tries_table(rows: Sequence[Any]) -> str:
    heads = ("no.", "intended", "first byte", "answered", "outcome", "task", "reserved", "charged", "refunded")
    return output.table(heads, [_try_row(row) for row in rows], right=("no.", "reserved", "charged", "refunded"))


def _try_row(row: Any) -> tuple[output.Cell, ...]:
    said = f"{row.outcome or '–'}: {row.message}" if row.message else row.outcome or "–"
    amounts = (output.credits(amount) for amount in (row.reserved, row.charged, row.refunded))
    task = row.task_id or (f"{row.hint} (called back)" if row.hint else "–")
    return (row.generation, *(output.local(getattr(row, name)) for name in TIMES), said, task, *amounts)


def _event_row(line: EventLine) -> tuple[output.Cell, ...]:
    data = _json.loads(line.data)
    return output.local(line.at), line.event, output.state_cell(line.target), data.get("why") or _pairs(data)
