"""One try at one output: ask, receive, check, publish.

The loop only receives. Writing, hashing and checking are done in a thread, in pieces of a megabyte, while the next
piece comes in: that keeps the loop's share below a millisecond per megabyte. A cancelled download's files are closed
after whatever the thread is doing with them, never under its hands.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from typing import Any, ParamSpec, TypeVar

from runner.client.fetching import Fetched, Fetcher, Interrupted, UnsafeUrl
from runner.clock import Clock
from runner.downloads.answers import Body, Restart, meaning
from runner.downloads.outcomes import DiskTrouble, Later, Obstacle, Outcome, Refused, Wanted
from runner.downloads.parts import Part
from runner.files import InTheWay

PIECE = 1 << 20  # bytes handed to the thread at once
HOLD = 1.0  # seconds of the wall; what came is written after that even if it is less
FLOOR = 256.0  # bytes per second of the wall: slower than that is as good as nothing (reliability.md F17)
FLOOR_SECONDS = 60.0  # of the wall; the stretch over which the rate is taken

# Kept from download to download: starting a thread stops the loop for a moment.
THREADS = ThreadPoolExecutor(8, thread_name_prefix="download")

P = ParamSpec("P")
T = TypeVar("T")


async def fetch_output(fetcher: Fetcher, clock: Clock, want: Wanted) -> Outcome:
    """Fetches one output to its place; says by the kind of its answer what to do next (see `outcomes`).

    A try that was cut short, cancelled or killed is continued by the next with the same `Wanted` (its URL may differ),
    from the byte where it stopped where the server has a strong validator. Raises nothing but cancellation.
    """
    part, hand = Part(want), _Hand()
    outcome: Outcome
    try:
        outcome = await hand.do(part.open) or await _receive(fetcher, clock, want, part, hand)
    except UnsafeUrl as error:
        outcome = Refused(Obstacle.UNSAFE_URL, str(error))
    except Interrupted as error:
        outcome = Later(str(error))
    except InTheWay as error:
        outcome = Refused(Obstacle.UNSAFE_PATH, f"{error.strerror}: {error.filename}")
    except OSError as error:
        outcome = DiskTrouble(error.errno or 0, error.strerror or type(error).__name__)
    finally:
        closed = hand.leave(part.close)
    await closed
    return outcome


async def give_up(want: Wanted) -> None:
    """Clears away what is here of an output that nobody fetches any more. A disk in the way is no trouble then."""
    part, hand = Part(want), _Hand()
    try:
        if await hand.do(part.open) is None:
            await hand.do(part.discard)
    except OSError:
        return
    finally:
        closed = hand.leave(part.close)
    await closed


async def _receive(fetcher: Fetcher, clock: Clock, want: Wanted, part: Part, hand: _Hand) -> Outcome:
    """Asks for what is missing, and once more for everything where the answer does not fit what is here."""
    while not part.complete:
        async with fetcher.stream(want.url, part.question) as answer:
            had = part.size
            means = meaning(answer.status, answer.headers, answer.host, had=had, known=part.known, cap=want.cap)
            if isinstance(means, Body):
                await hand.do(part.begin, means)
                if ended := await _Pour(answer, clock, want, part, hand).run():
                    return ended
                break
        if not isinstance(means, Restart):
            return means
        await hand.do(part.forget)
    return await hand.do(part.finish)


class _Pour:
    """One body on its way from the network into the part."""

    def __init__(self, answer: Fetched, clock: Clock, want: Wanted, part: Part, hand: _Hand) -> None:
        self._answer, self._clock, self._want, self._part, self._hand = answer, clock, want, part, hand
        self._begun = part.size
        self._come = part.size  # bytes received, of which `_pieces` are not yet with the thread
        self._pieces: list[bytes] = []
        self._held = 0
        self._since = clock.timestamp()
        self._writing: asyncio.Future[None] | None = None

    async def run(self) -> Outcome | None:
        """None once the whole file is here."""
        try:
            ended = await self._all_pieces()
        except Interrupted as error:
            ended = Later(str(error))
        await self._hand_over()
        await self._written()
        if isinstance(ended, Refused):
            await self._hand.do(self._part.discard)
        if ended is None and self._part.known and self._part.known.total not in (None, self._part.size):
            ended = Later("the server sent less than the whole file")
        return Later(ended.why, ended.wait, self._come - self._begun) if isinstance(ended, Later) else ended

    async def _all_pieces(self) -> Later | Refused | None:
        pace = _Pace(self._clock, self._come)
        async with aclosing(self._answer.chunks()) as chunks:
            async for chunk in chunks:
                self._pieces.append(chunk)
                self._come += len(chunk)
                self._held += len(chunk)
                if self._come > self._want.cap:
                    return Refused(Obstacle.TOO_LARGE, f"more than the {self._want.cap} bytes allowed")
                if pace.too_slow(self._come):
                    return Later(f"{self._answer.host}: slower than {FLOOR:.0f} bytes a second")
                if self._held >= PIECE or self._clock.real(self._clock.timestamp() - self._since) >= HOLD:
                    await self._hand_over()
        return None

    async def _hand_over(self) -> None:
        """Gives the thread what came, as soon as it is done with what it has."""
        await self._written()
        if self._pieces:
            self._writing = self._hand.start(self._part.write, self._pieces)
            self._pieces, self._held, self._since = [], 0, self._clock.timestamp()

    async def _written(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing


class _Pace:
    """Tells a body that trickles from one that flows."""

    def __init__(self, clock: Clock, come: int) -> None:
        self._clock = clock
        self._mark(come)

    def _mark(self, come: int) -> None:
        self._then, self._had = self._clock.timestamp(), come

    def too_slow(self, come: int) -> bool:
        passed = self._clock.real(self._clock.timestamp() - self._then)
        if passed < FLOOR_SECONDS:
            return False
        slow = (come - self._had) / passed < FLOOR
        self._mark(come)
        return slow


class _Hand:
    """Does the work on one download's files: one thing after the other, never in the loop."""

    def __init__(self) -> None:
        self._doing: Future[Any] = Future()
        self._doing.set_result(None)

    def start(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Only when what was started before is done."""
        assert self._doing.done()
        self._doing = THREADS.submit(step, *args, **kwargs)
        doing: asyncio.Future[T] = asyncio.wrap_future(self._doing)
        # Nobody may be left to hear of an error when the download is cancelled meanwhile.
        doing.add_done_callback(lambda done: done.cancelled() or done.exception())
        return doing

    async def do(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.start(step, *args, **kwargs)

    def leave(self, last: Callable[[], None]) -> asyncio.Future[None]:
        """Nothing comes after this; what is being done now is finished first. It happens, waited for or not."""
        left: Future[None] = Future()
        loop_thread = threading.get_ident()

        def run() -> None:
            try:
                last()
                left.set_result(None)
            except BaseException as error:
                left.set_exception(error)

        def after(_: object) -> None:
            if threading.get_ident() == loop_thread:
                THREADS.submit(run)
            else:  # Still in the thread of what has just been done: a process about to end starts nothing new.
                run()

        self._doing.add_done_callback(after)
        return asyncio.shield(asyncio.wrap_future(left))
