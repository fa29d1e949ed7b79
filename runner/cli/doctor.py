"""`runner doctor [MANIFEST]`: keys, accounts, clock, disk, the queue and its files; what is wrong, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from runner.cli import output
from runner.cli.app import EVERYDAY, AllowFiles, Common, Json
from runner.errors import InputError

if TYPE_CHECKING:
    from runner.cli.assembly import Order
    from runner.health import Check
    from runner.store.salvage import Salvage

STYLES = {"ok": "green", "warning": "yellow", "trouble": "bold red"}
DAMAGED = 7  # exit code


async def doctor(
    manifest: Annotated[Path | None, Parameter(help="Check its accounts and its output folder, too.")] = None,
    /,
    *,
    verify: Annotated[bool, Parameter(help="Read every fetched file again and compare it with its checksum.")] = False,
    salvage: Annotated[bool, Parameter(help="Only list the tasks and keys that a damaged queue still tells.")] = False,
    allow_files: AllowFiles = None,
    json: Json = False,
    common: Common = EVERYDAY,
) -> int:
    """Check keys, accounts, clock, disk and queue, and say what to do about what is wrong.

    Asks each provider what costs nothing: for the balance where there is one, and for the list of tasks. Never shows a
    key, and changes nothing: it may be called while runner run is at work. Ends with 0 if there is nothing worse than
    warnings.
    """
    if salvage:
        return _salvage(common.db, json=json)
    checks = await _examine(manifest, allow_files, common, verify=verify)
    if json:
        output.emit_json({"checks": [_record(check) for check in checks]})
    else:
        output.emit(_table(checks))
        output.line(_summary(checks))
    return exit_code(checks)


async def _examine(
    manifest: Path | None, allowed: Sequence[Path] | None, common: Common, *, verify: bool
) -> list[Check]:
    from runner.cli.assembly import read_order
    from runner.cli.checkup import accounts, queue
    from runner.cli.checkup.outputs import verify as verified
    from runner.clock import Clock
    from runner.log import clean
    from runner.settings import Settings

    clock = Clock()
    order = read_order(manifest, allowed) if manifest is not None else None
    settings = Settings.read(Path.cwd())
    seen, checks = await queue.look(common.db, clock)
    checks += queue.places(common.db, _folders(order, seen.folders if seen else ()))
    checks += await accounts.examine(accounts.known(_wanted(order), seen, settings), seen, settings, clock)
    if seen is not None:
        checks += queue.standing(seen, clock.now())
        checks += await verified(common.db, clock) if verify else []
    return [replace(check, found=clean(check.found), advice=clean(check.advice)) for check in checks]


def _wanted(order: Order | None) -> list[Any]:
    """The accounts that the manifest's jobs use."""
    return [order.manifest.account(name) for name in sorted(order.survey.accounts_used())] if order else []


def _folders(order: Order | None, known: Sequence[str]) -> list[Path]:
    return [*map(Path, known), *([order.manifest.folder] if order else [])]


def exit_code(checks: Sequence[Check]) -> int:
    """The gravest trouble's; 0 where there is none."""
    from runner.engine.ending import PRECEDENCE

    found = {check.exit_code for check in checks}
    return next((int(code) for code in PRECEDENCE if code in found), 0)


def _record(check: Check) -> dict[str, str]:
    return {
        "check": check.check, "subject": check.subject, "verdict": check.verdict.value, "found": check.found,
        "advice": check.advice,
    }  # fmt: skip


def _table(checks: Sequence[Check]) -> str:
    rows: list[tuple[output.Cell, ...]] = []
    for check in checks:
        rows.append(((check.verdict.value, STYLES[check.verdict]), check.check, check.subject, check.found))
        if check.advice:
            rows.append(("", "", "", (f"→ {check.advice}", "dim")))
    return output.table(("", "", "", ""), rows, heading=False)


def _summary(checks: Sequence[Check]) -> str:
    bad = sum(check.verdict == "trouble" for check in checks)
    doubtful = sum(check.verdict == "warning" for check in checks)
    return f"{len(checks)} checks: {bad} in trouble, {doubtful} with a warning" if bad or doubtful else "all is well"


def _salvage(db: str, *, json: bool) -> int:
    from runner.store.engines import database_path, is_sqlite, parse
    from runner.store.place import check_file
    from runner.store.salvage import salvage
    from runner.store.schema import no_queue

    url = parse(db)
    if not is_sqlite(url):
        raise InputError("--salvage is for a queue in a file", "ask PostgreSQL's own tools about a damaged database")
    queue = database_path(url)
    if not queue.exists():
        raise no_queue(url)
    check_file(queue)
    found = salvage(queue)
    if json:
        output.emit_json({"orders": [_order(one) for one in found.found], "unread": found.unread})
    else:
        _print_salvaged(found)
    return 0 if found.whole else DAMAGED


def _order(one: Any) -> dict[str, Any]:
    names = ("account", "task_id", "idempotency_key", "job_id", "job", "state")
    return {name: getattr(one, name) for name in names}


def _print_salvaged(found: Salvage) -> None:
    heads = ("account", "task", "idempotency key", "id", "job", "state")
    rows = [tuple("–" if value is None else str(value) for value in _order(one).values()) for one in found.found]
    output.emit(output.table(heads, rows) if rows else "no orders\n")
    for table, lost in found.unread.items():
        output.warn(f"{lost} rows (or stretches of rows) of the table {table} could not be read")
