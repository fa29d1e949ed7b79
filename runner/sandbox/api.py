"""The way of a request through a pretend provider: journal, fault, key, window, handler, commit, answer.

No answer leaves before everything it speaks of is committed (`Pen.settled`).
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import logging
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web

from . import mishaps, retelling
from .books import Account
from .clock import Clock, http_date
from .dialect import Answer, Call, Desk, Dialect, FormFile, Refusal, Route
from .faults import Fault, Faults, Struck, fate_of
from .journal import Entry, bearer, fingerprint
from .parameters import Invalid
from .pen import Pen, StateUnusable
from .tasks import spelled
from .windows import Room

log = logging.getLogger(__name__)
Served = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request, read to its end."""

    method: str
    path: str
    match: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    form: Mapping[str, FormFile | str]


async def read_whole(request: web.Request) -> Incoming:
    """Raises web.HTTPRequestEntityTooLarge, Invalid where a form is none, ConnectionError where the client has left."""
    form: Mapping[str, FormFile | str] = {}
    body = b""
    try:
        if request.content_type == "multipart/form-data":
            form = {name: _form_value(value) for name, value in (await request.post()).items()}
        else:
            body = await request.read()
    except ValueError:
        raise Invalid("the body is no multipart form") from None
    except web.RequestPayloadError:
        raise ConnectionResetError("the request came only in part") from None
    match, query = dict(request.match_info), dict(request.query)
    return Incoming(request.method, request.path, match, query, request.headers, body, form)


def _form_value(value: str | bytes | bytearray | web.FileField) -> FormFile | str:
    if isinstance(value, web.FileField):
        with value.file as file:
            return FormFile(value.filename, file.read())
    return value if isinstance(value, str) else bytes(value).decode(errors="replace")


@dataclass(slots=True)
class Api:
    """Serves every dialect under its own prefix. `limits` and `concurrency` by provider; 0 means no limit.

    `error_statuses` by provider: the HTTP status of errors that its dialect says with 200.
    """

    desk: Desk
    pen: Pen
    clock: Clock
    faults: Faults
    limits: Mapping[str, int]
    concurrency: Mapping[str, int]
    error_statuses: Mapping[str, int] = field(default_factory=dict)
    _later: set[asyncio.Task[None]] = field(default_factory=set)
    _closed: mishaps.Closed = field(default_factory=mishaps.Closed)
    _odd: Iterator[str] = field(default_factory=lambda: itertools.cycle(retelling.ODD_PROGRESS))

    def routes(self, dialect: Dialect) -> list[web.RouteDef]:
        elsewhere = Route("*", "/{rest:.*}", "other", _no_such_path(dialect))
        routes = [*dialect.routes(), elsewhere]
        return [web.route(each.method, f"/{dialect.name}{each.path}", self._served(dialect, each)) for each in routes]

    def _served(self, dialect: Dialect, route: Route) -> Served:
        async def serve(request: web.Request) -> web.StreamResponse:
            return await self.serve(dialect, route, request)

        return serve

    async def close(self) -> None:
        """What would have been accepted later never will be."""
        for task in self._later:
            task.cancel()
        await asyncio.gather(*self._later, return_exceptions=True)

    # -- one request ------------------------------------------------------------------------------------------------

    async def serve(self, dialect: Dialect, route: Route, request: web.Request) -> web.StreamResponse:
        now, closed = self.clock.now(), self._closed.met(request)
        key = bearer(request.headers) if closed is None else None  # nobody has read it
        entry = self.desk.journal.arrive(now, dialect.name, route.point, request.method, request.path, key)
        if closed is not None:
            entry.meets(closed)
            return mishaps.cut(request, "close")
        struck = self.faults.strike(dialect.name, route.point, entry.seq, now=now)
        struck = self._closed.put_aside(request, struck)
        entry.meets(struck)
        status: int | None = None
        try:
            response = await self._meet(dialect, route, request, struck, entry)
            status = response.status if _still_there(request) else None
            return response
        except web.HTTPRequestEntityTooLarge:
            return self._respond(self._told(dialect, dialect.refusal("invalid", "The request is too large.", 413)))
        except Invalid as invalid:
            return self._respond(self._told(dialect, dialect.refusal(invalid.problem, f"{invalid}")))
        except ConnectionError:
            return mishaps.cut(request, "close")
        finally:
            self.desk.journal.done(entry, status=status)

    async def _meet(
        self, dialect: Dialect, route: Route, request: web.Request, struck: Struck, entry: Entry
    ) -> web.StreamResponse:
        """Before, instead, or after: as the fault has it."""
        incoming, wire = await read_whole(request), struck.wire
        entry.body_sha256 = hashlib.sha256(incoming.body).hexdigest() if incoming.body else None
        entry.idempotency_key = incoming.headers.get(dialect.key_header) if dialect.key_header else None
        if wire is not None and wire.where == "before":
            if wire.name == "late_accept":
                self._accept_later(dialect, route, incoming, struck, wire.seconds())
            return mishaps.cut(request, wire.parameters["how"])
        if wire is not None and wire.where == "instead":
            return self._respond(self._refused(dialect, wire))
        skipped = wire is not None and wire.parameters.get("processed") is False
        answer = Answer(200, {}) if skipped else self.process(dialect, route, incoming, struck)
        entry.task_id = answer.task_id
        await self.pen.settled()
        if wire is None or wire.where == "view":
            return self._respond(answer)
        return await self._spoil(dialect, request, answer, wire)

    def process(self, dialect: Dialect, route: Route, incoming: Incoming, struck: Struck) -> Answer:
        """What the provider does when nothing is in the way. It never waits, so it is one moment."""
        now = self.clock.now()
        self.desk.books.settle(now)
        headers: Mapping[str, str] = {}
        try:
            account = self._account(dialect, incoming, now)
            room = self._room(dialect, account.account, now)
            headers = dialect.limit_headers(room) if room.limit else {}
            self._let_in(dialect, route, room, account)
            answer = route.handle(self._call(dialect, incoming, struck, account, now))
        except Refusal as refused:
            answer = self._told(dialect, refused)
        except Invalid as invalid:
            answer = self._told(dialect, dialect.refusal(invalid.problem, f"{invalid}"))
        except StateUnusable:
            raise
        except Exception as error:
            log.exception("the sandbox failed at %s %s", incoming.method, incoming.path)
            self.desk.journal.remark(now, "violation", dialect.name, "sandbox_bug", repr(error))
            answer = self._told(dialect, dialect.refusal("internal", REASONS["internal"]))
        return replace(answer, headers={**headers, **answer.headers})

    def _told(self, dialect: Dialect, refused: Refusal) -> Answer:
        answer = dialect.answer(refused)
        status = self.error_statuses.get(dialect.name, answer.status) if answer.status == 200 else answer.status
        return replace(answer, status=status)

    def _account(self, dialect: Dialect, incoming: Incoming, now: float) -> Account:
        """Whose request it is. A key in the address is refused, whatever else it brings."""
        exposed = self.desk.journal.key_in_query(incoming.query.items())
        if exposed is not None:
            detail = f"{incoming.path}: a key in the query parameter {exposed}"
            self.desk.journal.remark(now, "leak", dialect.name, "key_in_query", detail)
            raise dialect.refusal("invalid", "Never put the key in a query string. Rotate it.")
        key = bearer(incoming.headers)
        account = self.desk.books.account_of(dialect.name, fingerprint(key)) if key else None
        if account is None or account.revoked:
            problem = "unauthorized" if incoming.headers.get("Authorization") else "no_key"
            raise dialect.refusal(problem, REASONS["unauthorized"])
        return account

    def _room(self, dialect: Dialect, account: str, now: float) -> Room:
        limit = self.limits.get(dialect.name, dialect.rate_limit)
        return self.desk.journal.admit(dialect.name, account, now, limit) if limit else Room(True, 0, 0, 0)

    def _let_in(self, dialect: Dialect, route: Route, room: Room, account: Account) -> None:
        if not room.admitted:
            raise dialect.refusal("rate_limited", f"Too many requests: {room.limit} a minute are allowed.")
        most = self.concurrency.get(dialect.name, 0)
        if route.point == "submit" and most and account.in_flight >= most:
            raise dialect.refusal("rate_limited", f"Too many tasks at once: {most} are allowed.")

    def _call(self, dialect: Dialect, incoming: Incoming, struck: Struck, account: Account, now: float) -> Call:
        view = struck.wire
        if view is not None and view.name == "unknown_status":
            task = self.desk.books.task(dialect.name, dialect.asked_task(incoming.match, incoming.query))
            if task is not None:
                self.desk.books.speak_oddly(task, view.parameters["status"], now + view.seconds())
        return Call(
            desk=self.desk,
            account=account,
            method=incoming.method,
            path=incoming.path,
            match=incoming.match,
            query=incoming.query,
            headers=incoming.headers,
            body=incoming.body,
            form=incoming.form,
            now=now,
            as_of=now - view.seconds() if view is not None and view.name == "stale_list" else now,
            fate=fate_of(struck.fate),
            without_files=view is not None and view.name == "late_output",
        )

    # -- faults -----------------------------------------------------------------------------------------------------

    def _accept_later(self, dialect: Dialect, route: Route, incoming: Incoming, struck: Struck, seconds: float) -> None:
        """The order is in, nobody waits for its answer, and its key is busy until it is processed."""
        key = bearer(incoming.headers)
        held = None
        if key:
            account = self.desk.books.account_of(dialect.name, fingerprint(key)).account
            held = dialect.asked(account, incoming.headers, incoming.method, incoming.path, incoming.body)
        if held:
            self.desk.keys.hold(held)

        async def accept() -> None:
            await self.clock.sleep(seconds)
            if held:
                self.desk.keys.release(held)
            with suppress(StateUnusable):
                self.process(dialect, route, incoming, struck)

        task = asyncio.create_task(accept())
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    def _refused(self, dialect: Dialect, fault: Fault) -> Answer:
        refused = self._told(dialect, _as_ordered(dialect, fault, PROBLEMS[fault.name]))
        headers = {}
        now = self.clock.now()
        if fault.name == "rate_limited":
            reset = math.ceil(now + fault.seconds())
            headers = dict(dialect.limit_headers(Room(False, self._limit(dialect), 0, reset)))
        after = fault.parameters.get("retry_after")
        if after is not None:
            headers["Retry-After"] = http_date(now + float(after[5:])) if after.startswith("date:") else after
        return replace(refused, headers=headers)

    def _limit(self, dialect: Dialect) -> int:
        return self.limits.get(dialect.name, dialect.rate_limit) or dialect.rate_limit

    async def _spoil(self, dialect: Dialect, request: web.Request, answer: Answer, fault: Fault) -> web.StreamResponse:
        """What was processed gets an answer of another kind, or none."""
        if fault.name in RETOLD:
            return self._respond(self._retold(dialect, answer, fault))
        given, body = fault.parameters, encoded(answer.payload)
        match fault.name:
            case "lost_answer":
                return mishaps.cut(request, given["how"])
            case "hang":
                return await mishaps.hang(request)
            case "one_byte_segments":
                headers = {**JSON, **answer.headers, "Date": http_date(self.clock.now())}
                return await mishaps.segmented(request, answer.status, body, headers)
            case "redirect":
                target = given["location"] or f"{self.desk.signer.origin}/elsewhere{request.path}"
                return web.Response(status=given["status"], headers={"Location": target})
            case "truncated":
                return mishaps.truncated(request, answer.status, body, given["how"], self.clock)
            case "slow_body":
                return await mishaps.trickled(
                    request, answer.status, body, part=given["part"], seconds=fault.seconds(), clock=self.clock
                )
            case "huge_body":
                return await mishaps.huge(request, answer.status, body, given["bytes"], given["gzip"])
            case "empty_200":
                return web.Response(status=given["status"])
            case "html_502":
                return web.Response(status=given["status"], text=GATEWAY_PAGE, content_type="text/html")
            case "bad_encoding":
                garbled = mishaps.garbled(body, given["how"])
                return web.Response(status=answer.status, body=garbled, content_type="application/json")
            case _:
                response = self._respond(answer)
                await mishaps.adorn(request, response, fault, self.clock)
                return response

    def _retold(self, dialect: Dialect, answer: Answer, fault: Fault) -> Answer:
        """The answer is whole, but it does not say what is so."""
        match fault.name:
            case "error_after_charge":
                return self._told(dialect, _as_ordered(dialect, fault, "internal"))
            case "odd_progress":
                value = retelling.ODD_PROGRESS[fault.parameters["value"] or next(self._odd)]
                return replace(answer, payload=retelling.with_progress(answer.payload, value))
            case "respelled_status":
                return replace(answer, payload=retelling.respelled(answer.payload))
            case _:
                return self._of_another_task(dialect, answer, earlier=fault.name == "same_id")

    def _of_another_task(self, dialect: Dialect, answer: Answer, *, earlier: bool = False) -> Answer:
        """The same answer, but speaking of another task of the account (an earlier one, where that is asked), or of one
        that is nobody's."""
        task = self.desk.books.task(dialect.name, answer.task_id or "")
        if task is None:
            return answer
        known = self.desk.books.history(dialect.name, task.account, ("video", "image"), self.clock.now(), limit=1000)
        made_up = task.id if earlier else spelled(dialect.task_prefix[task.kind], "0" * 20)
        others = (each.id for each in known if (each.seq < task.seq if earlier else each.id != task.id))
        return replace(answer, payload=retelling.of_another(answer.payload, task.id, next(others, made_up)))

    def _respond(self, answer: Answer) -> web.Response:
        return web.Response(
            status=answer.status,
            body=encoded(answer.payload),
            headers={**JSON, **answer.headers},
        )


def encoded(payload: Any) -> bytes:
    return json.dumps(payload, ensure_ascii=False).encode()


def _no_such_path(dialect: Dialect) -> Callable[[Call], Answer]:
    def handle(call: Call) -> Answer:
        raise dialect.refusal("not_found", f"There is no {call.method} {call.path}.", 404)

    return handle


def _as_ordered(dialect: Dialect, fault: Fault, problem: str) -> Refusal:
    """The refusal of a fault, which may ask for a code and a status of its own."""
    code, status = fault.parameters.get("code"), fault.parameters.get("status")
    if code is not None:
        return dialect.coded(code, REASONS[problem], status)
    return dialect.refusal(problem, REASONS[problem], status)


def _still_there(request: web.Request) -> bool:
    return request.transport is not None and not request.transport.is_closing()


JSON = {"Content-Type": "application/json"}
RETOLD = frozenset({"error_after_charge", "wrong_task", "same_id", "odd_progress", "respelled_status"})
PROBLEMS = {
    "error_before_charge": "internal",
    "unavailable": "unavailable",
    "rate_limited": "rate_limited",
    "unauthorized": "unauthorized",
    "poll_404": "not_found",
    "poll_500": "internal",
}
REASONS = {
    "internal": "Unexpected server-side failure.",
    "unavailable": "Temporarily unavailable. Retry.",
    "rate_limited": "Too many requests.",
    "unauthorized": "Missing, invalid, or revoked API key.",
    "not_found": "There is no such task.",
}
GATEWAY_PAGE = "<html><head><title>502 Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>"
