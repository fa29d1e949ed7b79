"""`runner rehearse M`: the whole run against the embedded sandbox, with no key and no credit."""

from __future__ import annotations

import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from runner import log
from runner.cli.app import EVERYDAY, AllowFiles, Common
from runner.cli.assembly import Order, RunOptions, opened_for_reading, read_order
from runner.cli.run import perform
from runner.cli.summary import say
from runner.clock import Clock
from runner.errors import InputError
from runner.files import make_private
from runner.ledger import as_text
from runner.sandbox import BadOptions, Options, Sandbox, serve
from runner.sandbox.providers import known as pretended
from runner.settings import Settings, variable
from runner.store import facts, read_store
from runner.store.queries import sums


async def rehearse(
    manifest: Annotated[Path, Parameter(help="The YAML file.")],
    *,
    faults: Annotated[
        str, Parameter(help="What shall go wrong, how often: lost_answer=0.1,… (see: runner sandbox --help).")
    ] = "",
    speed: Annotated[float, Parameter(help="How much faster than real time goes by.")] = 60.0,
    folder: Annotated[
        Path | None, Parameter(help="Where the rehearsal's queue and files go (default: rehearsal/BATCH).")
    ] = None,
    allow_files: AllowFiles = None,
    common: Common = EVERYDAY,
) -> int:
    """Runs the manifest on pretend providers on this machine: real requests, real files, no key, no credit."""
    order = read_order(manifest, allow_files)
    _check_pretended(order)
    place = (folder or Path("rehearsal") / order.manifest.batch).absolute()
    queue = place / "runner.db"
    anchor = await _anchor(queue)
    try:
        options = Options(state=str(place / "sandbox.db"), speed=speed, anchor=anchor, faults=faults)
    except BadOptions as error:
        raise InputError(f"rehearse: {error}") from None
    make_private(place)
    async with serve(options) as sandbox:
        run = RunOptions(str(queue), _settings(order, sandbox), speed=speed, anchor=anchor, root=place)
        code = await perform(order, run, common, yes=True)
        await _compare(order, sandbox, queue, place)
    return int(code)


def _check_pretended(order: Order) -> None:
    """Raises InputError where a provider has no pretend one, before anything is written."""
    used = {order.manifest.account(name).uses for name in order.survey.accounts_used()}
    if missing := sorted(used - pretended().keys()):
        names = ", ".join(missing)
        hint = f"rehearse the jobs of the others: {', '.join(pretended())}"
        raise InputError(f"there is no pretend provider for {names}: it cannot be rehearsed", hint)


async def _anchor(queue: Path) -> float:
    """A rehearsal that is taken up again goes on in its own time."""
    async with opened_for_reading(str(queue), Clock()) as store:
        return await store.read(facts.anchor) if store else time.time()


def _settings(order: Order, sandbox: Sandbox) -> Settings:
    """Keys and addresses of the pretend providers; nothing of the real environment is looked at."""
    environment: dict[str, str] = {}
    for name in order.survey.accounts_used():
        provider = order.manifest.account(name).uses
        environment[variable(name, "API_KEY")] = f"{sandbox.keys[provider]}-{_mark(name)}"
        environment[variable(name, "BASE_URL")] = sandbox.base_urls[provider]
    return Settings(environment, {})


def _mark(name: str) -> str:
    """Tells accounts apart in their keys, and is not their name: that would be cut out of all that is said, too."""
    return sha256(name.encode()).hexdigest()[:12]


async def _compare(order: Order, sandbox: Sandbox, queue: Path, place: Path) -> None:
    """Our bill against the sandbox's own ledger, provider by provider: this is what a rehearsal is for."""
    console = log.console()
    async with read_store(str(queue), Clock()) as store:
        rows = await store.read(sums)
    theirs: Mapping[str, Mapping[str, str]] = sandbox.ledger()["providers"]
    for provider in sorted({order.manifest.account(row.account).uses for row in rows}):
        mine = [row for row in rows if order.manifest.account(row.account).uses == provider]
        net = sum((row.charged - row.refunded for row in mine), start=mine[0].charged * 0)
        under_way = any(row.reserved for row in mine)
        agree = "equal" if as_text(net) == theirs[provider]["net"] else "not settled yet" if under_way else "DIFFERENT"
        say(
            console,
            f"bill of {provider}: {as_text(net)} credits; the sandbox's ledger: {theirs[provider]['net']} ({agree})",
        )
    say(console, f"files, queue and the sandbox's ledger are in {place}")
