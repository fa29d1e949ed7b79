"""`runner jobs`: the jobs of a queue, one after the other, however many there are."""

from __future__ import annotations

import json as _json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from runner.cli.app import EVERYDAY, Common, Json
from runner.cli.output import Cell, JsonArray, credits, emit, state_cell, table
from runner.errors import ErrorKind, InputError
from runner.jobs import IN_FLIGHT, UNPAID, State
from runner.problems import quoted, suggestion

if TYPE_CHECKING:
    from runner.store import Store
    from runner.store.work import Work

HEADS = ("id", "key", "state", "batch/job", "account", "model", "charged", "file, or what went wrong")
KEY_SHOWN = 10  # characters, as in names
LINKED = frozenset({"accepted", "no_answer", "crash", "ambiguous", "conflict"})  # outcomes that may have been charged


@dataclass(frozen=True, slots=True)
class Choice:
    """Which jobs are wanted; empty means all. `ended_badly` leaves out what a person or an edit cancelled."""

    batch: str | None = None
    account: str | None = None
    states: tuple[State, ...] = ()
    ended_badly: bool = False


async def jobs(
    *,
    state: Annotated[
        tuple[State, ...], Parameter(help="Only jobs in this state; may be given several times.", metavar="STATE")
    ] = (),
    batch: Annotated[str | None, Parameter(help="Only jobs of this batch.", metavar="NAME")] = None,
    account: Annotated[
        str | None,
        Parameter(name=("--account", "--provider"), help="Only jobs of this entry of providers.", metavar="NAME"),
    ] = None,
    failed: Annotated[
        bool, Parameter(help="Only what went wrong: failed, partial, or cancelled by the provider.")
    ] = False,
    json: Json = False,
    common: Common = EVERYDAY,
) -> int:
    """List jobs, in the order in which they were asked for."""
    from runner.clock import Clock
    from runner.store import read_store

    choice = _choice(state, batch, account, failed)
    async with read_store(common.db, Clock()) as store:
        await _check_names(store, choice)
        await (_print_json(store, choice) if json else _print_text(store, choice))
    return 0


def _choice(states: tuple[State, ...], batch: str | None, account: str | None, failed: bool) -> Choice:
    if not failed:
        return Choice(batch, account, states)
    if states:
        raise InputError("--failed and --state contradict each other", "leave one of them out")
    return Choice(batch, account, (State.FAILED, State.PARTIAL, State.CANCELLED), ended_badly=True)


async def _check_names(store: Store, choice: Choice) -> None:
    """A misspelt name must not look like an empty queue."""
    from runner.store.queries import account_rows, batch_names, counts

    if choice.batch is not None:
        known = list((await store.read(batch_names)).values())
        if choice.batch not in known:
            message = f"there is no batch {quoted(choice.batch)} in this queue"
            raise InputError(message, suggestion(choice.batch, known, "batches"))
    if choice.account is not None:
        rows = await store.read(account_rows)
        names = sorted({row.name for row in rows} | {count.account for count in await store.read(counts)})
        if choice.account not in names:
            message = f"no job of this queue belongs to {quoted(choice.account)}"
            raise InputError(message, suggestion(choice.account, names, "accounts"))


async def _print_json(store: Store, choice: Choice) -> None:
    array = JsonArray()
    async for page, files in _pages(store, choice):
        for work in page:
            if not array.add(record(work, files.get(work.id, []))):
                return
    array.end()


async def _print_text(store: Store, choice: Choice) -> None:
    heading = True
    async for page, files in _pages(store, choice):
        rows = [_row(work, files.get(work.id, [])) for work in page]
        if not emit(table(HEADS, rows, right=("id", "charged"), heading=heading)):
            return
        heading = False
    if heading:
        emit("no jobs\n")


async def _pages(store: Store, choice: Choice) -> AsyncIterator[tuple[list[Work], Mapping[int, list[Any]]]]:
    """The chosen jobs page by page, with the published files of each."""
    from runner.store.queries import outputs_of_many, page_after

    last = 0
    while page := await store.read(page_after, last, choice.batch, choice.states, choice.account):
        last = page[-1].id
        wanted = [work for work in page if not choice.ended_badly or ended_badly(work)]
        if wanted:
            yield wanted, await store.read(outputs_of_many, [work.id for work in wanted])


def ended_badly(work: Work) -> bool:
    """What counts as failed for the exit code: cancelled by the provider too, by a person or an edit not."""
    failure = work.standing.failure
    if work.standing.state is State.CANCELLED:
        return failure is not None and failure.kind is ErrorKind.CANCELLED
    return work.standing.state in (State.FAILED, State.PARTIAL)


def record(work: Work, files: Sequence[Any]) -> dict[str, Any]:
    """One job for scripts: the fields of design.md section 10, in their order. `files` are its published outputs."""
    standing = work.standing
    return {
        "id": work.id, "batch": work.batch, "job": work.name, "key": work.key, "provider": work.provider,
        "account": work.account, "model": work.model, "state": standing.state.value, "task_id": standing.task_id,
        "idempotency_key": _idempotency_key(work), "attempts": standing.attempts,
        "variables": _json.loads(work.variables), "outputs": [_output(work, row) for row in files],
        "error": _error(work), "credits": _credits(work), "created_at": work.created_at, "updated_at": work.updated_at,
    }  # fmt: skip


def _output(work: Work, row: Any) -> dict[str, Any]:
    path = Path(work.root, row.path)
    return {"path": path, "bytes": row.size, "sha256": row.sha256, "media_type": row.media_type}


def _error(work: Work) -> dict[str, Any] | None:
    failure = work.standing.failure
    if failure is None:
        return None
    return {"kind": failure.kind.value, "code": failure.code, "message": failure.message}


def _credits(work: Work) -> dict[str, Any]:
    charged = None if not work.charged and cost_is_open(work) else work.charged
    return {"estimated": work.estimated, "charged": charged, "refunded": work.refunded}


def cost_is_open(work: Work) -> bool:
    """Whether an order is out, or may be, whose cost nobody has told yet."""
    standing, attempt = work.standing, work.attempt
    if standing.state in IN_FLIGHT or standing.unsettled:
        return True
    if standing.state not in (State.HELD, State.CANCELLED) or attempt is None or standing.finished_at is not None:
        return False
    return attempt.generation == standing.generation and attempt.outcome in LINKED


def _idempotency_key(work: Work) -> str | None:
    """The key of the last order, or of the one to come; None where the provider honours none."""
    from runner.providers import registry
    from runner.verdicts.submission import idempotency_key

    provider = registry().get(work.provider)
    if provider is None or not provider.keyed:
        return None
    if work.attempt is not None and work.standing.state not in UNPAID:
        return work.attempt.idempotency_key
    return idempotency_key(work.batch, work.key, work.standing.generation)


def _row(work: Work, files: Sequence[Any]) -> tuple[Cell, ...]:
    charged = None if not work.charged and cost_is_open(work) else work.charged
    return (
        work.id, work.key[:KEY_SHOWN], state_cell(work.standing.state.value), f"{work.batch}/{work.name}", work.account,
        work.model, credits(charged), _outcome(work, files),
    )  # fmt: skip


def _outcome(work: Work, files: Sequence[Any]) -> str:
    """What came of it: its reason where something is wrong, otherwise its first file and how many more."""
    failure = work.standing.failure
    if failure is not None and work.standing.state not in UNPAID:
        return f"{failure.kind}: {failure.message}"
    more = f" (and {len(files) - 1} more)" if len(files) > 1 else ""
    return f"{Path(work.root, files[0].path)}{more}" if files else ""
