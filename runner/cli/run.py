"""`runner run [M]`: submit what M asks for, follow and fetch everything already paid for; again is the resume."""

from __future__ import annotations

import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from runner import log
from runner.cli.accounts import tell_notes
from runner.cli.app import EVERYDAY, AllowFiles, Common
from runner.cli.assembly import (
    Order,
    RunOptions,
    batch_limits,
    clock_of,
    contradictions,
    members_of,
    must_exist,
    parse_caps,
    plan_against,
    prepared,
    read_order,
    work,
)
from runner.cli.progress import shown
from runner.cli.summary import say, show_end, show_left_alone, show_plan
from runner.client.callbacks import CallbackPlace
from runner.engine import Exit, until_next
from runner.errors import InputError
from runner.plan import Plan
from runner.settings import Settings

Caps = Annotated[
    list[str] | None,
    Parameter(help="The most the batch may cost over all its runs: N for each account, or NAME=N for one."),
]
Until = Annotated[
    str | None, Parameter(help="No new orders after this local time (07:00); what is paid is still followed.")
]
NoWait = Annotated[
    bool, Parameter(help="End with 5 where credits or a provider are missing, instead of waiting for them.")
]
Leave = Annotated[
    list[str] | None,
    Parameter(
        help="Let orders of this account go again whose answer gets lost in this run: after two looks found "
        "nothing and, where the provider tells a balance, it says that nothing was charged.",
        metavar="NAME",
    ),
]
FromBackup = Annotated[
    bool, Parameter(help="Go on with a queue that is a backup: what was ordered since it was made has been looked at.")
]
CallbackUrl = Annotated[
    str | None,
    Parameter(help="Have providers that offer it call this address when a task ends, each with a secret word."),
]
CallbackListen = Annotated[
    str | None,
    Parameter(help="Where calls arrive on this machine, if --callback-url is a relay's or a tunnel's address."),
]
Speed = Annotated[float, Parameter(help="Divide every wait by this; only against sandboxes on this machine.")]


async def run(
    manifest: Annotated[Path | None, Parameter(help="The YAML file; without it, whatever is queued.")] = None,
    *,
    yes: Annotated[bool, Parameter(help="Pay without asking.")] = False,
    max_credits: Caps = None,
    until: Until = None,
    no_wait: NoWait = False,
    resubmit_unknown: Leave = None,
    from_backup: FromBackup = False,
    callback_url: CallbackUrl = None,
    callback_listen: CallbackListen = None,
    allow_files: AllowFiles = None,
    speed: Speed = 1.0,
    common: Common = EVERYDAY,
) -> int:
    """Submits what the manifest asks for, follows and downloads everything already paid for."""
    overall, caps = parse_caps(max_credits or [])
    settings = Settings.read(Path.cwd())
    anchor = os.environ.get("RUNNER_ANCHOR") if speed != 1.0 else None
    options = RunOptions(
        common.db, settings, caps, overall, _moment(until), not no_wait, frozenset(resubmit_unknown or ()),
        CallbackPlace.read(callback_url, callback_listen) if callback_url else None, _speed(speed),
        float(anchor) if anchor else None, largest_file=_largest_file(os.environ.get("RUNNER_LARGEST_FILE")),
        from_backup=from_backup,
    )  # fmt: skip
    if manifest is None and allow_files:
        raise InputError("--allow-files goes with a manifest", "what is queued may send what its plan was allowed to")
    order = read_order(manifest, allow_files) if manifest is not None else None
    return int(await perform(order, options, common, yes=yes))


async def perform(order: Order | None, options: RunOptions, common: Common, *, yes: bool) -> Exit:
    """Plans, asks where there is something new to pay, runs, and says how it ended."""
    console = log.console()
    clock = await clock_of(options)
    if order is None:
        await must_exist(options.db, clock)  # in the wrong folder, or misspelt, "all done" would be a lie
    else:
        tell_notes(members_of(order, options))  # a missing key, too, is told before anybody is asked to pay
        plan = await plan_against(order, options.db, clock, options.root or order.manifest.folder)
        plan.limits = batch_limits(order, options)
        plan.warnings = (*contradictions(order, options), *plan.warnings)
        if not common.quiet:
            show_plan(console, plan)
        _agree(console, plan, yes=yes)
    async with prepared(order, options, clock) as engine:
        if not common.quiet:
            await show_left_alone(console, engine)
        async with shown(engine, console, progress=not common.no_progress and not common.quiet):
            code = await work(engine)
        if not common.quiet:
            await show_end(console, engine, code)
        return code


def _agree(console: Console, plan: Plan, *, yes: bool) -> None:
    """With something new to pay a person must say yes, here or by --yes. Raises InputError otherwise."""
    asked = plan.new + plan.revived
    if yes or not asked:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InputError(f"{asked} new jobs to pay, and nobody to ask", "add --yes, or run it in a terminal")
    say(console, f"pay for {asked} new jobs? [y/N] ")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise InputError("nothing was submitted")


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    match = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", text)
    if not match:
        raise InputError(f"--until {text}: not a time of day", "for example --until 07:00")
    return until_next(int(match[1]), int(match[2]), datetime.now(UTC))


def _largest_file(text: str | None) -> int | None:
    """How many bytes an output may have at most; None for what is usual."""
    if not text:
        return None
    if not text.isdecimal() or len(text) > 15 or int(text) == 0:
        raise InputError(f"RUNNER_LARGEST_FILE={text}: not a number of bytes", "for example 2000000000")
    return int(text)


def _speed(speed: float) -> float:
    if not 0 < speed < 1e6:
        raise InputError(f"--speed {speed}: must be above 0", "for example --speed 60")
    return speed
