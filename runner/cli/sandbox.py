"""`runner sandbox`: the pretend providers as a server, until Ctrl-C."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from runner.cli import output
from runner.cli.app import EVERYDAY, Common, Json
from runner.errors import InputError, LocalError

if TYPE_CHECKING:
    from runner.sandbox import Sandbox

PORT = validators.Number(gte=0, lte=65_535)
Pairs = Annotated[list[str], Parameter(metavar="PROVIDER=N")]


async def sandbox(
    *,
    host: Annotated[str, Parameter(help="A loopback address.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="Of the providers; 0 takes a free one.", validator=PORT)] = 0,
    media_port: Annotated[int, Parameter(help="Of results and uploads; 0 takes a free one.", validator=PORT)] = 0,
    state: Annotated[
        Path | None, Parameter(help="Keep ledger and tasks in this file (else only in memory).", metavar="FILE")
    ] = None,
    speed: Annotated[float, Parameter(help="Time goes by this much faster.", metavar="N")] = 1.0,
    anchor: Annotated[
        float | None, Parameter(help="The moment at which this time and the wall's agree.", metavar="EPOCH_SECONDS")
    ] = None,
    seed: Annotated[str | None, Parameter(help="Of task ids, render times and faults; else drawn.")] = None,
    render: Annotated[float, Parameter(help="How long a video takes, typically.", metavar="SECONDS")] = 60.0,
    faults: Annotated[
        str, Parameter(help="What goes wrong, how often: [provider.]name[@when]=probability,…", metavar="SPEC")
    ] = "",
    fast_disk: Annotated[bool, Parameter(help="Do not wait for the disk.")] = False,
    credits: Annotated[Decimal, Parameter(help="What a new account holds.", metavar="N")] = Decimal(100000),
    media_bytes: Annotated[str, Parameter(help="How long results are: N, or N-N.", metavar="N[-N]")] = "64000-300000",
    url_lifetime: Annotated[float, Parameter(help="Of signed result addresses.", metavar="SECONDS")] = 3600.0,
    rate_limit: Annotated[Pairs | None, Parameter(help="Requests within 60 s; 0 for no limit.")] = None,
    concurrency: Annotated[Pairs | None, Parameter(help="Tasks at once; 0 for no limit.")] = None,
    key_retention: Annotated[float, Parameter(help="Of idempotency keys.", metavar="SECONDS")] = 86400.0,
    ignore_keys: Annotated[bool, Parameter(help="Idempotency keys mean nothing.")] = False,
    list_images: Annotated[bool, Parameter(help="History lists show images too.")] = False,
    json: Json = False,
    common: Common = EVERYDAY,
) -> int:
    """Serve the pretend providers on this machine until Ctrl-C: real HTTP, no key, no credit.

    Prints the lines to paste into another terminal, so that runner run uses them there.
    """
    from runner.sandbox import BadOptions, Options, StateUnusable, serve

    try:
        options = Options(
            host=host, port=port, media_port=media_port, state=str(state) if state else ":memory:", speed=speed,
            anchor=anchor, seed=seed, render=render, faults=faults, fast_disk=fast_disk, credits=credits,
            media_bytes=_span(media_bytes), url_lifetime=url_lifetime, rate_limits=_numbers("--rate-limit", rate_limit),
            concurrency=_numbers("--concurrency", concurrency), key_retention=key_retention, ignore_keys=ignore_keys,
            list_images=list_images,
        )  # fmt: skip
        async with serve(options) as served:
            stop = _told_to_stop()
            _announce(served, json=json)
            return await _until_stopped(served, stop, quiet=common.quiet)
    except BadOptions as error:
        raise InputError(str(error), "see: runner sandbox --help") from None
    except StateUnusable as error:
        raise LocalError(str(error)) from None


def _span(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    if not low.isdecimal() or not (high or low).isdecimal():
        raise InputError(f"--media-bytes {text}: not a length in bytes", "for example 200000, or 64000-300000")
    return int(low), int(high or low)


def _numbers(flag: str, texts: list[str] | None) -> dict[str, int]:
    found: dict[str, int] = {}
    for text in texts or ():
        name, _, number = text.partition("=")
        if not name or not number.isdecimal():
            raise InputError(f"{flag} {text}: not PROVIDER=N", f"for example {flag} happyhorse=60")
        found[name] = int(number)
    return found


def _announce(served: Sandbox, *, json: bool) -> None:
    if json:
        output.emit(output.encode(served.about()) + "\n")
        return
    for line in environment(served):
        output.line(line)


def environment(served: Sandbox) -> list[str]:
    """What to paste into a shell so that a run there speaks to this sandbox."""
    from runner.settings import variable

    about: dict[str, Any] = served.about()
    lines: list[str] = []
    for name, url in about["base_urls"].items():
        lines += [
            f"export {variable(name, 'BASE_URL')}={url}",
            f"export {variable(name, 'API_KEY')}={about['keys'][name]}",
        ]
    if about["speed"] != 1.0:
        lines += [f"export RUNNER_ANCHOR={about['anchor']}", f"# then: runner run MANIFEST --speed {about['speed']:g}"]
    return lines


def _told_to_stop() -> asyncio.Event:
    """What SIGINT and SIGTERM set. Before anything is announced: whoever has read where it is may end it at once."""
    import signal

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _until_stopped(served: Sandbox, stop: asyncio.Event, *, quiet: bool) -> int:
    """Until SIGINT or SIGTERM (0), or until the state cannot be written any more (7)."""
    if not quiet:
        output.say("the sandbox is listening; Ctrl-C ends it")
    ends = [asyncio.create_task(event.wait()) for event in (stop, served.failed)]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for end in ends:
        end.cancel()
    if served.failed.is_set():
        raise LocalError("the sandbox's state could not be written any more")
    return 0
