"""Fetching what was paid for: every output of a completed task, verified and published, or the job is held."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from runner.downloads import DiskTrouble, FreshUrl, Later, Published, Refused, Wanted, fetch_output, give_up
from runner.downloads.outcomes import Outcome
from runner.errors import ErrorKind
from runner.expand.keys import parse_spec
from runner.jobs import THUMBNAILS, Change, Event, Failure, OutputRow, Standing, State
from runner.ledger import as_text
from runner.lifecycle.desk import Desk, ordered
from runner.limits import backoff
from runner.references import expiry, without_signature
from runner.store.intents import Claim
from runner.store.queries import DISK
from runner.store.work import Work, outputs_of

TRIES = 8  # fruitless tries of one URL before the task is asked for a fresh one …
ROUNDS = 5  # … and so many fresh ones before a person must look
DISK_SECONDS = 60.0


async def fetch(desk: Desk, work: Work, claim: Claim) -> None:
    """Fetches the outputs that are still wanted, one after the other, and records what came of it in one step.

    Outputs published in an earlier try that was cut short are recognised and adopted: nothing is fetched twice.
    """
    rows = await desk.store.read(outputs_of, work.id)
    outcomes = [(row, await _fetch_one(desk, work, row)) for row in rows if row.url]
    published = tuple(_published(row, outcome) for row, outcome in outcomes if isinstance(outcome, Published))
    missing = [(row, outcome) for row, outcome in outcomes if not isinstance(outcome, Published)]
    troubles = [outcome for row, outcome in missing if not row.thumbnail]
    if troubles:
        change = _not_yet(desk, work, claim, troubles, published)
    else:
        given_up = await _give_up(desk, work, [row for row, _ in missing])
        change = _completed(desk, work, claim, (*published, *given_up), _part(desk, work, rows))
    if change.event is not Event.POSTPONED:
        desk.refused.pop(work.id, None)
    await desk.record(change)


async def _fetch_one(desk: Desk, work: Work, row: OutputRow) -> Outcome:
    """A file that cannot be had is not begun again for the sake of those beside it that are still to come."""
    refused = desk.refused.setdefault(work.id, {})
    if row.index in refused:
        return refused[row.index]
    outcome = await fetch_output(desk.fetcher, desk.clock, _wanted(desk, work, row))
    if isinstance(outcome, Refused):
        refused[row.index] = outcome
    return outcome


def _part(desk: Desk, work: Work, rows: Sequence[OutputRow]) -> Failure | None:
    """What the provider itself did not make of what was asked for. A person may have had the rest fetched since it said
    so: then the files are counted."""
    known = work.standing.failure
    if known is not None and known.code == "partial":
        return known
    made = sum(1 for row in rows if not row.thumbnail and (row.url or row.path))
    asked = ordered(work, desk.provider.model(work.model))
    why = f"{asked - made} of {asked} outputs did not come"
    return Failure(ErrorKind.TASK_FAILED, "partial", why) if made < asked else None


async def _give_up(desk: Desk, work: Work, thumbnails: Sequence[OutputRow]) -> tuple[OutputRow, ...]:
    """A thumbnail that did not come holds up nobody: nothing is left of it, its address neither."""
    for row in thumbnails:
        await give_up(_wanted(desk, work, row))
    return tuple(replace(row, url=None) for row in thumbnails)


def _wanted(desk: Desk, work: Work, row: OutputRow) -> Wanted:
    return Wanted(
        row.url or "", Path(work.root), _numbered(work.output, row), work.standing.task_id or "", row.index,
        cap=desk.largest_file, facts=None if row.thumbnail else facts(work, row),
    )  # fmt: skip


def _numbered(output: str, row: OutputRow) -> str:
    """The first file bears the name itself, further ones `-2`, `-3`; a thumbnail stands beside them."""
    path = PurePosixPath(output)
    mark = "-thumbnail" if row.thumbnail else ""
    index = row.index % THUMBNAILS
    number = f"-{index + 1}" if index else ""
    return str(path.with_name(f"{path.stem}{number}{mark}{path.suffix}"))


def facts(work: Work, row: OutputRow) -> dict[str, Any]:
    """The sidecar: what the output was made of, and what it cost. No key and no URL of the provider is in it, and no
    signature: files are passed on with what lies beside them."""
    fields, references, params = parse_spec(work.spec)
    standing = work.standing
    return {
        "task_id": standing.task_id, "output": row.index, "batch": work.batch, "job": work.name, "key": work.key,
        "take": work.take, "provider": work.provider, "account": work.account, "model": work.model,
        "prompt": fields.get("prompt"), "fields": {name: _plain(v) for name, v in fields.items() if name != "prompt"},
        "params": params, "references": [
            {"role": p.reference.role, "source": p.reference.path or _unsigned(p.reference.url)} for p in references
        ],
        "seed": _plain(fields.get("seed")), "variables": json.loads(work.variables),
        "credits": {"estimated": as_text(work.estimated), "charged": as_text(work.charged),
                    "refunded": as_text(work.refunded)},
        "submitted_at": _time(work.attempt.intent_at if work.attempt else None),
        "accepted_at": _time(standing.accepted_at), "finished_at": _time(standing.finished_at),
    }  # fmt: skip


def _unsigned(url: str) -> str:
    return without_signature(url) if expiry(url) is not None else url


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _time(moment: Any) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")


def _published(row: OutputRow, outcome: Published) -> OutputRow:
    return replace(row, url=None, path=str(outcome.path), size=outcome.bytes, sha256=outcome.sha256,
                   media_type=outcome.media_type)  # fmt: skip


def _completed(desk: Desk, work: Work, claim: Claim, outputs: tuple[OutputRow, ...], part: Failure | None) -> Change:
    """succeeded, or partial where the provider itself did not make every output that was asked for."""
    event, state = (Event.COMPLETED_IN_PART, State.PARTIAL) if part else (Event.COMPLETED, State.SUCCEEDED)
    return _change(desk, work, claim, event, replace(work.standing, state=state, errors=0, failure=part), outputs)


def _not_yet(
    desk: Desk, work: Work, claim: Claim, outcomes: Sequence[Outcome], outputs: tuple[OutputRow, ...]
) -> Change:
    """What stands in the way decides: a person, this machine, an old URL, or only time.

    `errors` counts fruitless tries in a row; a URL that is of no use counts as a whole round of them. After each round
    the task is asked for a fresh URL, which may lead elsewhere; after the last one a person must look. Before a person
    is asked about a file that cannot be had, those beside it are waited for.
    """
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    awaited = [outcome for outcome in outcomes if not isinstance(outcome, Refused)]
    errors = work.standing.errors + _fruitless(awaited)
    if not awaited or errors > TRIES * ROUNDS:
        return _held(desk, work, claim, _why([*refused, *awaited][0]), outputs)
    [first, *_] = awaited
    stale = any(isinstance(outcome, FreshUrl) for outcome in awaited)
    if stale or (errors > work.standing.errors and errors % TRIES == 0):
        standing = replace(work.standing, state=State.RUNNING, due_at=desk.now(), errors=errors)
        return _change(desk, work, claim, Event.URL_EXPIRED, standing, outputs, why=_why(first))
    wait = timedelta(seconds=_patience(first, errors, desk.random()))
    standing = replace(work.standing, due_at=desk.now() + wait, failure=_kept(work, first), errors=errors)
    return _change(desk, work, claim, Event.POSTPONED, standing, outputs)


def _fruitless(outcomes: Sequence[Outcome]) -> int:
    """How much this try adds to the fruitless ones: nothing where bytes came, or where this machine was in the way."""
    if any(isinstance(outcome, FreshUrl) for outcome in outcomes):
        return TRIES
    return int(any(isinstance(outcome, Later) and not outcome.received for outcome in outcomes))


def _kept(work: Work, outcome: Outcome) -> Failure:
    """Why it takes so long; but that the provider made only a part of it must not be forgotten."""
    known = work.standing.failure
    if known and known.code == "partial":
        return known
    return Failure(ErrorKind.DOWNLOAD_FAILED, DISK if isinstance(outcome, DiskTrouble) else "later", _why(outcome))


def _patience(outcome: Outcome, errors: int, spread: float) -> float:
    if isinstance(outcome, DiskTrouble):
        return DISK_SECONDS
    named = outcome.wait if isinstance(outcome, Later) else None
    return named if named is not None else backoff(errors, first=1.0, cap=60.0, spread=spread)


def _why(outcome: Outcome) -> str:
    return outcome.why if not isinstance(outcome, Published) else ""


def _held(desk: Desk, work: Work, claim: Claim, why: str, outputs: tuple[OutputRow, ...]) -> Change:
    """The file cannot be had: a person is needed. The task id stays, so it costs a download, not a render."""
    failure = Failure(ErrorKind.DOWNLOAD_FAILED, "download_failed", why)
    standing = replace(work.standing, state=State.HELD, due_at=desk.now(), failure=failure)
    return _change(desk, work, claim, Event.DOWNLOAD_FAILED, standing, outputs, why=why)


def _change(
    desk: Desk, work: Work, claim: Claim, event: Event, standing: Standing, outputs: tuple[OutputRow, ...],
    **data: str,
) -> Change:  # fmt: skip
    told: Mapping[str, str] = data
    return Change(event, work.id, State.DOWNLOADING, claim.lease, desk.now(), standing, outputs=outputs, data=told)
