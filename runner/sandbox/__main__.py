"""`python -m runner.sandbox`: serves until SIGTERM or SIGINT. One line of JSON on stdout says that it is ready.

Exit codes: 0 stopped by a signal, 1 the state could not be written any more, 2 it could not start.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from decimal import Decimal

from .options import BadOptions, Options
from .pen import StateUnusable
from .server import serve


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        return asyncio.run(run(options(arguments)))
    except (BadOptions, StateUnusable, OSError) as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 2


async def run(chosen: Options) -> int:
    async with serve(chosen) as sandbox:
        stop = asyncio.Event()
        for each in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(each, stop.set)
        print(json.dumps(sandbox.about()), flush=True)
        ends = [asyncio.create_task(event.wait()) for event in (stop, sandbox.failed)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        if sandbox.failed.is_set():
            print("sandbox: the state could not be written any more", file=sys.stderr)
        return int(sandbox.failed.is_set())


def options(arguments: Sequence[str] | None = None) -> Options:
    """Raises BadOptions; argparse itself exits with 2."""
    given = vars(_parser().parse_args(arguments))
    for name in ("rate_limits", "concurrency", "error_statuses"):
        given[name] = dict(given[name])
    return Options(**given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runner.sandbox", description="Pretend providers over loopback HTTP: no key, no credit, no cost."
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="a loopback address")
    add("--port", type=int, default=0, help="of the providers and the control door; 0 takes a free one")
    add("--media-port", type=int, default=0, help="of results and uploads; 0 takes a free one")
    add("--state", default=":memory:", metavar="FILE", help="where ledger and tasks are kept (default: in memory)")
    add("--speed", type=float, default=1.0, metavar="N", help="time runs N times as fast")
    add("--anchor", type=float, metavar="EPOCH_SECONDS", help="where this time and the wall's agree")
    add("--seed", help="of task ids, render times and faults (default: drawn, and kept in the state)")
    add("--render", type=float, default=60.0, metavar="SECONDS", help="median time of a video; images take a quarter")
    add("--faults", default="", metavar="SPEC", help="[provider.]name[@when]=probability[:parameter=value…],…")
    add("--fast-disk", action="store_true", help="do not wait for the disk: a power cut may cost the last answers")
    add("--credits", type=Decimal, default=Decimal(100000), help="what a new account holds")
    add("--media-bytes", type=_span, default=(64_000, 300_000), metavar="N[-N]", help="length of results")
    add("--url-lifetime", type=float, default=3600.0, metavar="SECONDS", help="of signed result addresses")
    add("--rate-limit", dest="rate_limits", type=_pair, action="append", default=[], metavar="PROVIDER=N",
        help="requests within 60 s; 0 for no limit")  # fmt: skip
    add("--concurrency", type=_pair, action="append", default=[], metavar="PROVIDER=N",
        help="tasks at once; 0 for no limit")  # fmt: skip
    add("--error-status", dest="error_statuses", type=_pair, action="append", default=[], metavar="PROVIDER=N",
        help="HTTP status of errors where the body alone says that they are errors (default: 200)")  # fmt: skip
    add("--key-retention", type=float, default=86400.0, metavar="SECONDS", help="of idempotency keys")
    add("--ignore-keys", action="store_true", help="idempotency keys mean nothing")
    add("--list-images", action="store_true", help="history lists show images too")
    return parser


def _span(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    return int(low), int(high or low)


def _pair(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    if not name or not value.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not PROVIDER=N")
    return name, int(value)


if __name__ == "__main__":
    sys.exit(main())
