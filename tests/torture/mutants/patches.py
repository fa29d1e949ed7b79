"""How each mutant breaks the program: called in the runner's own process, before its command line is imported.

So whatever `from … import` binds later is what was put in place here. Nothing else of the torture is imported there.
"""

from __future__ import annotations

from typing import Any


def m1() -> None:
    """The task id is committed when the render is complete, not when the order is accepted."""
    from runner.exchange import Phase, Report
    from runner.lifecycle import accepting

    honest = accepting.record_accepted

    async def late(desk: Any, sub: Any, accepted: Any) -> None:
        path = "/api/v1/jobs/createTask"
        while True:
            await desk.clock.sleep(5.0)
            report = await desk.ask_provider(lambda ask: desk.provider.poll(ask, path, accepted.task_id))
            if isinstance(report, Report) and report.phase is not Phase.GOING:
                break
        await honest(desk, sub, accepted)

    accepting.record_accepted = late


def m2() -> None:
    """Nothing is on disk that tells of an order before its first byte leaves."""
    from runner.store.store import Store

    async def no_intent(self: Store, brink: Any) -> None:
        return None

    Store.mark_brink = no_intent


def m3() -> None:
    """An order whose answer got lost goes out again under another key."""
    import secrets
    from dataclasses import replace

    from runner.lifecycle import submitting

    honest = submitting._pay

    async def forgetful(desk: Any, work: Any, claim: Any) -> Any:
        if work.attempt.outcome is not None:
            work = replace(work, attempt=replace(work.attempt, idempotency_key=secrets.token_hex(20)))
        return await honest(desk, work, claim)

    submitting._pay = forgetful


def m4() -> None:
    """A commit is not on the disk when it says so."""
    from runner.store import engines

    honest = engines.WRITER_PRAGMAS
    engines.WRITER_PRAGMAS = tuple(each.replace("synchronous=FULL", "synchronous=NORMAL") for each in honest)


def m5() -> None:
    """An order follows where it is redirected to."""
    import httpx

    from runner.client import sockets

    class Following(sockets._Fresh):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response = await super().handle_async_request(request)
            if not response.has_redirect_location:
                return response
            await response.aread()
            await response.aclose()
            target = request.url.join(response.headers["Location"])
            again = httpx.Request(request.method, target, headers=request.headers, content=request.content)
            return await super().handle_async_request(again)

    sockets._Fresh = Following


def m6() -> None:
    """An error of the provider's counts as a no, also where no key makes the next try the same one."""
    from dataclasses import replace

    from runner.exchange import Action, Refusal
    from runner.verdicts import submission

    honest = submission.after_submission

    def hopeful(sub: Any, outcome: Any) -> Any:
        if isinstance(outcome, Refusal) and (outcome.status or 0) >= 500:
            outcome = replace(outcome, action=Action.LATER)
        return honest(sub, outcome)

    submission.after_submission = hopeful


def m7() -> None:
    """A key that the provider calls taken is replaced by a new one."""
    from dataclasses import replace

    from runner.exchange import Action, Refusal
    from runner.verdicts import submission

    honest = submission.after_submission

    def impatient(sub: Any, outcome: Any) -> Any:
        if isinstance(outcome, Refusal) and outcome.action is Action.CONFLICT:
            refused = replace(outcome, action=Action.CREDITS)  # a refusal for now, after which the key is not kept
            return (submission._put_back(sub, refused),)
        return honest(sub, outcome)

    submission.after_submission = impatient


def m8() -> None:
    """A download is written under its final name from its first byte on."""
    from runner.downloads import outcomes, parts

    def final(self: parts.Part, extension: str, digest: str) -> tuple[str, bool]:
        return self._name, False

    def keep(self: parts.Part) -> None:
        self._release()

    outcomes.Wanted.part_name = outcomes.Wanted.name
    parts.Part._publish = final
    parts.Part.discard = keep


def m9() -> None:
    """Whatever has come when the connection ends is taken for the file."""
    from contextlib import suppress

    from runner import media
    from runner.downloads import fetch

    async def gullible(self: fetch._Pour) -> None:
        with suppress(fetch.Interrupted):
            await self._all_pieces()
        await self._hand_over()
        await self._written()

    fetch._Pour.run = gullible
    media.flaw = lambda kind, source: None


def m10() -> None:
    """A file gets its name before its bytes are on the disk."""
    from runner.downloads import parts

    parts.flush = lambda descriptor: None


def m11() -> None:
    """Each start believes that nothing was asked of the provider before."""
    from runner.store import windows

    windows.request_ends = lambda *more: []


def m12() -> None:
    """An order whose answer got lost gives its slot to another."""
    from runner.jobs import State
    from runner.store import claims

    def known(connection: Any, account: str) -> int:
        return claims._count(connection, account, State.SUBMITTING, State.RUNNING)

    claims.count_in_flight = known


def m13() -> None:
    """Requests are logged whole, with what authorizes them."""
    import sys

    from runner.client.asking import Line

    honest = Line._request

    def talkative(self: Line, *more: Any) -> Any:
        request = honest(self, *more)
        print(request.method, request.url, request.headers.multi_items(), file=sys.stderr)
        return request

    Line._request = talkative


def m14() -> None:
    """Any task that nobody owns is taken for the one whose answer got lost."""
    from runner.verdicts import looking

    def credulous(questions: Any, tasks: Any, *more: Any) -> dict[int, Any]:
        return dict(zip(sorted(question.job_id for question in questions), tasks, strict=False))

    looking.identify = credulous


def m15() -> None:
    """The first signal is not heard."""
    from asyncio.unix_events import _UnixSelectorEventLoop as Loop

    honest = Loop.add_signal_handler

    def hard_of_hearing(self: Any, number: Any, callback: Any, *more: Any) -> None:
        heard: list[int] = []

        def once_more(*given: Any) -> None:
            heard.append(number)
            if len(heard) > 1:
                callback(*given)

        honest(self, number, once_more, *more)

    Loop.add_signal_handler = hard_of_hearing


def m16() -> None:
    """The transaction of whoever is cancelled ends where it stands, and so far it is committed."""
    import asyncio
    import threading
    from concurrent.futures import ThreadPoolExecutor

    from sqlalchemy import Engine, event

    from runner.store import pen, transactions

    cut = threading.Event()

    class Cut(Exception):
        pass

    @event.listens_for(Engine, "before_cursor_execute")
    def look_up(*_: Any) -> None:
        if cut.is_set() and threading.current_thread().name.startswith("pen"):
            cut.clear()
            raise Cut

    class Unshielded(transactions._InThread):
        def __init__(self, engine: Engine, *counter: Any) -> None:
            super().__init__(engine, *counter)
            self._thread = ThreadPoolExecutor(1, "pen")
            self._turn = asyncio.Lock()

        async def run(self, function: Any, *args: Any) -> Any:
            async with self._turn:
                working = asyncio.get_running_loop().run_in_executor(self._thread, self._transact, function, args)
                try:
                    return await asyncio.shield(working)
                except asyncio.CancelledError:
                    cut.set()
                    await asyncio.wait([working])
                    cut.clear()
                    raise

        def _transact(self, function: Any, args: Any) -> Any:
            with self._engine.connect() as connection, connection.begin():
                try:
                    return function(connection, *args)
                except Cut:
                    return None

    async def alone(self: pen.Pen, item: pen._Item) -> Any:
        [result] = await self._transactions.run(pen._apply, [item])
        return result

    transactions._InThread = Unshielded
    pen.Pen._hand_over = alone


def m17() -> None:
    """A transaction that will write begins as one that reads."""
    from runner.store import engines

    engines._begin_immediate = engines._begin


def m18() -> None:
    """The queue is opened as a file, to be hashed, while it is being worked on."""
    import hashlib
    from pathlib import Path

    from runner.store.store import Store

    honest = Store.write

    async def curious(self: Store, function: Any, *args: Any) -> Any:
        result = await honest(self, function, *args)
        with Path(self.url.database or "").open("rb") as file:
            hashlib.file_digest(file, "sha256")
        return result

    Store.write = curious


def a_hiccup() -> None:
    """No crime: the disk stands still for a while in the midst of a transaction, once; the file `hiccup` tells when."""
    import time
    from pathlib import Path

    from sqlalchemy import Engine, event

    told = Path("hiccup").absolute()

    @event.listens_for(Engine, "before_cursor_execute")
    def wait(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("INSERT INTO events") and "finished" in str(parameters) and not told.exists():
            told.touch()
            time.sleep(3.0)
