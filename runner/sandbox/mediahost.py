"""The second origin: results and uploads, behind signed addresses, with Range. It must never see a credential.

Whatever arrives with one (a credential header, a key this sandbox knows, anywhere) is remarked as a leak. `/elsewhere`
is where redirects point: whoever follows one is remarked too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from aiohttp import web

from . import mishaps
from .clock import Clock, http_date
from .dialect import Desk
from .faults import Fault, Faults
from .pen import Pen
from .renders import Render, render

PIECE = 1 << 18  # bytes
SINGLE = 1024  # bytes of a file that come one by one, behind a head that does too: a whole file would take seconds
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
EVIL_NAME = "attachment; filename=\"../../.ssh/x\"; filename*=UTF-8''..%2F..%2F.ssh%2Fx"


@dataclass(frozen=True, slots=True)
class Sent:
    """What goes out: `size` bytes from `start` of a file `length` long."""

    status: int
    start: int
    size: int
    length: int

    @property
    def content_range(self) -> dict[str, str]:
        if self.status == 416:
            return {"Content-Range": f"bytes */{self.length}"}
        last = self.start + self.size - 1
        return {"Content-Range": f"bytes {self.start}-{last}/{self.length}"} if self.status == 206 else {}


def asked_for(range_header: str | None, if_range: str | None, etag: str, length: int) -> Sent:
    """RFC 9110: one range; an `If-Range` that is not this very strong tag means the whole file; 416 beyond the end."""
    whole = Sent(200, 0, length, length)
    found = RANGE.fullmatch(range_header or "")
    if found is None or (if_range is not None and if_range != etag) or found.groups() == ("", ""):
        return whole
    first, last = found.groups()
    start = int(first) if first else max(0, length - int(last))
    stop = min(length, int(last) + 1) if first and last else length
    if first and last and int(last) < int(first):
        return whole
    return Sent(206, start, stop - start, length) if start < stop else Sent(416, 0, 0, length)


@dataclass(slots=True)
class MediaHost:
    """`sizes`: between how many bytes a result has."""

    desk: Desk
    pen: Pen
    clock: Clock
    faults: Faults
    sizes: tuple[int, int]
    _versions: dict[tuple[str, int], int] = field(default_factory=dict)
    _closed: mishaps.Closed = field(default_factory=mishaps.Closed)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/media/{provider}/{task}/{index:[0-9]{1,3}}.{extension:mp4|png|jpg|webp}", self.result),
            web.get("/uploads/{name:.+}", self.upload),
            web.route("*", "/elsewhere{rest:.*}", self.elsewhere),
            web.get("/loop/{hop:[01]}{rest:.*}", self.loop),
            web.route("*", "/{rest:.*}", self.nothing),
        ]

    def _watch(self, request: web.Request, provider: str) -> None:
        for where in self.desk.journal.leaked(request.headers, request.raw_path):
            detail = f"{request.method} {request.path} carried a credential in {where}"
            self.desk.journal.remark(self.clock.now(), "leak", provider, "credential_on_media", detail)

    async def nothing(self, request: web.Request) -> web.Response:
        self._watch(request, "media")
        return web.Response(status=404, text="<Error><Code>NoSuchKey</Code></Error>", content_type="application/xml")

    async def elsewhere(self, request: web.Request) -> web.Response:
        self._watch(request, "media")
        detail = f"{request.method} {request.path}"
        self.desk.journal.remark(self.clock.now(), "violation", "media", "followed_redirect", detail)
        return web.Response(status=200, text="{}", content_type="application/json")

    async def loop(self, request: web.Request) -> web.Response:
        """Two addresses that send whoever asks to each other."""
        self._watch(request, "media")
        entry = self.desk.journal.arrive(self.clock.now(), "media", "other", request.method, request.path, None)
        hop, rest = 1 - int(request.match_info["hop"]), request.path_qs.removeprefix("/loop/")[1:]
        self.desk.journal.done(entry, status=302)
        return web.Response(status=302, headers={"Location": f"/loop/{hop}{rest}"})

    async def upload(self, request: web.Request) -> web.Response:
        self._watch(request, "media")
        found = self.desk.uploads.find(request.match_info["name"])
        if found is None:
            return await self.nothing(request)
        return web.Response(body=found.content, content_type=found.media_type)

    async def result(self, request: web.Request) -> web.StreamResponse:
        provider, now = request.match_info["provider"], self.clock.now()
        self._watch(request, provider)
        entry = self.desk.journal.arrive(now, provider, "download", request.method, request.path, None)
        entry.task_id = request.match_info["task"]
        if (closed := self._closed.met(request)) is not None:
            entry.meets(closed)
            return mishaps.cut(request, "close")
        ranged = "Range" in request.headers
        struck = self.faults.strike(provider, "download", entry.seq, now=now, ranged=ranged)
        struck = self._closed.put_aside(request, struck)
        entry.meets(struck)
        status = size = None
        try:
            response = await self._send(request, struck.wire, now)
            status, size = response.status, response.body_length
            return response
        finally:
            self.desk.journal.done(entry, status=status, size=size)

    async def _send(self, request: web.Request, fault: Fault | None, now: float) -> web.StreamResponse:
        if fault is not None and fault.name in BEFORE_LOOKING:
            return await self._instead(request, fault, now)
        problem = self.desk.signer.problem(request.path, request.query, now)
        if problem is not None:
            return _refused(403, problem)
        task_id, index = request.match_info["task"], int(request.match_info["index"])
        task = self.desk.books.task(request.match_info["provider"], task_id)
        if task is None or index not in task.came:
            return _refused(404, "NoSuchKey")
        if fault is not None and fault.name == "changed_etag":
            self._versions[task_id, index] = self._versions.get((task_id, index), 0) + 1
        version = self._versions.get((task_id, index), 0)
        file = render(task_id, index, request.match_info["extension"], self.sizes, version)
        return await self._deliver(request, file, fault)

    async def _instead(self, request: web.Request, fault: Fault, now: float) -> web.StreamResponse:
        given = fault.parameters
        match fault.name:
            case "lost_request":
                return mishaps.cut(request, given["how"])
            case "hang":
                return await mishaps.hang(request)
            case "redirect":
                location = given["location"] or f"{self.desk.signer.origin}/elsewhere{request.path}"
                return web.Response(status=given["status"], headers={"Location": location})
            case "loop":
                return web.Response(status=302, headers={"Location": f"/loop/0{request.path_qs}"})
            case "unavailable":
                return _refused(given["status"] or 503, "SlowDown", given["retry_after"])
            case "rate_limited":
                return _refused(429, "SlowDown", given["retry_after"])
            case "html_media":
                return web.Response(body=b"<html><body>Sign in</body></html>", headers={"Content-Type": "video/mp4"})
            case "empty_media":
                return web.Response(body=b"", headers={"Content-Type": "video/mp4"})
            case "gone":
                return _refused(410, "Gone")
            case _:
                return _refused(403, "RequestHasExpired")

    async def _deliver(self, request: web.Request, file: Render, fault: Fault | None) -> web.StreamResponse:
        name, given = (fault.name, fault.parameters) if fault else (None, {})
        asked = asked_for(request.headers.get("Range"), request.headers.get("If-Range"), file.etag, file.length)
        if name == "ignore_range":
            asked = Sent(200, 0, file.length, file.length)
        if name == "wrong_range" and asked.status == 206:
            start = min(max(0, asked.start + given["shift"]), file.length - 1)
            asked = replace(asked, start=start, size=file.length - start)
        if name == "cut_media":
            asked = replace(asked, size=max(0, asked.size - given["missing"]))
        headers = self._headers(file, asked, fault)
        response = web.StreamResponse(status=asked.status, headers=headers)
        if request.method == "HEAD" or asked.status == 416:
            await response.prepare(request)
            await response.write_eof()
        elif name in ("one_byte_segments", "long_media"):
            return await self._by_hand(request, file, asked, headers, SINGLE if name == "one_byte_segments" else 0)
        else:
            if fault is not None:
                await mishaps.adorn(request, response, fault, self.clock)
            await self._stream(request, response, file, asked, fault)
        return response

    def _headers(self, file: Render, asked: Sent, fault: Fault | None) -> dict[str, str]:
        name, given = (fault.name, fault.parameters) if fault else (None, {})
        unannounced = given["extra"] if name == "long_media" else 0
        headers = {
            "Content-Type": given["type"] if name == "wrong_type" else file.media_type,
            "ETag": file.etag,
            "Accept-Ranges": "bytes",
            "Content-Length": str(max(0, asked.size - unannounced)),
            **asked.content_range,
            **({"Content-Disposition": EVIL_NAME} if name == "evil_name" else {}),
        }
        if name == "endless":
            del headers["Content-Length"]
        return headers

    async def _by_hand(
        self, request: web.Request, file: Render, sent: Sent, headers: Mapping[str, str], single: int
    ) -> web.Response:
        """All the bytes, whatever length was announced; the head and the first `single` of them one by one."""
        told = {**headers, "Date": http_date(self.clock.now()), "Connection": "close"}
        start, rest = mishaps.head(sent.status, told), file.read(sent.start, sent.size)
        if single:
            await mishaps.byte_by_byte(request, start + rest[:single])
            start = b""
        mishaps.write(request, start + rest[single:])
        return mishaps.cut(request, "close")

    async def _stream(
        self, request: web.Request, response: web.StreamResponse, file: Render, sent: Sent, fault: Fault | None
    ) -> None:
        """Sends the bytes, as slowly, as wrongly and as far as the fault lets it."""
        name, given = (fault.name, fault.parameters) if fault else (None, {})
        stop = sent.size
        if name == "reset_download":
            stop = min(stop, sent.size // 2 if given["after"] is None else given["after"])
        if name == "short_media":
            stop = max(0, stop - given["missing"])
        await response.prepare(request)
        piece = max(1, sent.size // 50) if name == "slow_download" else PIECE
        for position in range(0, stop, piece):
            data = file.read(sent.start + position, min(piece, stop - position))
            wrong = name == "corrupt_media" and sent.start + position == 0
            await response.write(_flipped(data) if wrong else data)
            if name == "slow_download":
                await self.clock.sleep(float(given["seconds"]) * piece / sent.size)
        while name == "endless":
            await response.write(bytes(PIECE))
        if stop < sent.size:
            mishaps.cut(request, given.get("how", "close"))
        else:
            await response.write_eof()


def _flipped(data: bytes) -> bytes:
    """One byte of the container's first structure is wrong."""
    return data[:4] + bytes([data[4] ^ 0xFF]) + data[5:] if len(data) > 4 else data


def _refused(status: int, code: str, retry_after: str | None = None) -> web.Response:
    headers = {"Retry-After": retry_after} if retry_after is not None else {}
    body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code></Error>'
    return web.Response(status=status, text=body, content_type="application/xml", headers=headers)


async def set_date(request: web.Request, response: web.StreamResponse) -> None:
    """Every answer carries the sandbox's time."""
    response.headers["Date"] = http_date(request.config_dict[CLOCK].now())


CLOCK: web.AppKey[Clock] = web.AppKey("clock", Clock)
BEFORE_LOOKING = frozenset(
    {
        *("lost_request", "hang", "redirect", "unavailable", "rate_limited"),  # as anywhere
        *("html_media", "empty_media", "gone", "expired_url", "loop"),
    }
)
