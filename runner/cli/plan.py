"""`runner plan M`: what M would do and cost, against the queue. No network, and nothing is written."""

from __future__ import annotations

import json as _json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from runner import log
from runner import plan as planning
from runner.cli.app import EVERYDAY, AllowFiles, Common, Json
from runner.cli.assembly import Order, opened_for_reading, read_order
from runner.cli.output import emit, encode, line
from runner.cli.summary import between, say, show_plan
from runner.clock import Clock
from runner.ledger import as_text
from runner.plan import Bill, Line, Plan
from runner.problems import as_json
from runner.references import Outgoing
from runner.store import Store
from runner.store.work import Work

SHOWN = 20  # jobs listed for a person; --json lists all


async def plan(
    manifest: Annotated[Path, Parameter(help="The YAML file.")],
    *,
    allow_files: AllowFiles = None,
    json: Json = False,
    common: Common = EVERYDAY,
) -> int:
    """Expands, checks and prices the manifest, and compares it with the queue."""
    order = read_order(manifest, allow_files)
    clock = Clock()
    async with opened_for_reading(common.db, clock) as store:
        made = await planning.make(order.manifest, order.survey, store, order.manifest.folder, clock.now())
        if json:
            await _print_json(order, made, store)
        else:
            await _print_text(order, made, store)
    return 0


async def _print_text(order: Order, made: Plan, store: Store | None) -> None:
    console = log.console()
    shown = 0
    async for job in planning.lines(order.manifest, order.survey, store):
        if shown == SHOWN:
            line(f"… and {order.survey.jobs - SHOWN} more (--json lists all)")
            break
        cost = between(job.least, job.estimate)
        line(_text(job.status, job.order.account, job.order.model, cost, job.order.output))
        shown += 1
    async for work in planning.gone(made, store):
        cost = between(work.estimated, work.estimated)
        line(_text(planning.GONE, work.account, work.model, cost, work.output))
    show_plan(console, made)
    if made.gone:
        say(console, "gone jobs that are unpaid will be cancelled by `run`; paid ones are left as they are")


def _text(status: str, account: str, model: str, cost: str, output: str) -> str:
    return f"{status:5} {account:15} {model:26} {cost:>10}  {output}"


async def _print_json(order: Order, made: Plan, store: Store | None) -> None:
    """`{batch, jobs: […], totals, files: […], warnings: […]}`, jobs and files written one by one."""
    emit(f'{{"batch": {encode(made.manifest.batch)}, "jobs": [')
    lead = "\n"
    async for row in _rows(order, made, store):
        emit(lead + encode(row))
        lead = ",\n"
    totals = {name: _totals(bill) for name, bill in sorted(made.bills.items())}
    emit(f'\n], "totals": {encode(totals)}, "files": [')
    lead = "\n"
    for file in made.files:
        emit(lead + encode(_file(file)))
        lead = ",\n"
    emit(f'\n], "warnings": {encode(as_json(made.warnings))}}}\n')


async def _rows(order: Order, made: Plan, store: Store | None) -> Any:
    async for job in planning.lines(order.manifest, order.survey, store):
        yield _row(job)
    async for work in planning.gone(made, store):
        yield _gone(work)


def _row(line: Line) -> dict[str, Any]:
    job = line.order
    return {
        "key": job.key, "job": job.job, "provider": job.provider, "model": job.model,
        "estimated": as_text(line.estimate), "status": line.status, "variables": dict(job.variables),
        "output": job.output,
    }  # fmt: skip


def _gone(work: Work) -> dict[str, Any]:
    return {
        "key": work.key, "job": work.name, "provider": work.provider, "model": work.model,
        "estimated": as_text(work.estimated), "status": planning.GONE, "variables": _json.loads(work.variables),
        "output": work.output,
    }  # fmt: skip


def _file(leaving: Outgoing) -> dict[str, Any]:
    file = leaving.file
    return {"path": file.path, "media_type": file.media_type, "bytes": file.size, "sha256": file.sha256,
            "accounts": leaving.accounts}  # fmt: skip


def _totals(bill: Bill) -> dict[str, Any]:
    return {"jobs": bill.jobs, "estimated": as_text(bill.estimated), "unpriced": bill.unpriced}
