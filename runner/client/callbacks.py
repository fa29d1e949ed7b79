"""Hearing providers call back. None of their documents names a signature, so a call proves nothing: it is let in by a
secret word of 256 bits in its path, read for a task id, and believed only after a question of ours (reliability.md
T20)."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from runner.errors import InputError, LocalError

PLAIN_PATH = re.compile(r"[\w.~!$&'()*+,;=:@/-]*", re.ASCII)  # what means the same to every relay, and to aiohttp
BODY_CAP = 64 * 1024  # bytes
WORD = re.compile("[0-9a-f]{64}")
TASK_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
IDS = ("taskId", "task_id", "id")
DEFAULT_LISTEN = "127.0.0.1:8377"

Heard = Callable[[str, str | None], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class CallbackPlace:
    """Where providers are told to call (`url`, without a final slash), and where this machine listens for it."""

    url: str
    host: str
    port: int

    @property
    def path(self) -> str:
        return urlsplit(self.url).path

    @classmethod
    def read(cls, url: str, listen: str | None) -> CallbackPlace:
        """Raises InputError. An address of this machine is listened at as it stands; any other one must lead to
        `listen` (host:port; 127.0.0.1:8377 unless given) by way of a relay or a tunnel."""
        parts = _parsed(url)
        if _is_loopback(parts.hostname or ""):
            return cls(url.rstrip("/"), parts.hostname or "", parts.port or 80)
        if parts.scheme != "https":
            raise InputError(f"--callback-url {url}: not an https address", "providers call over https only")
        host, _, port = (listen or DEFAULT_LISTEN).rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise InputError(f"--callback-listen {listen}: not host:port", f"for example {DEFAULT_LISTEN}")
        return cls(url.rstrip("/"), host, int(port))


def new_word() -> str:
    """A secret word for one order: 256 bits, as hexadecimal digits."""
    return secrets.token_hex(32)


def digest(word: str) -> str:
    """What is kept of a secret word."""
    return hashlib.sha256(word.encode()).hexdigest()


@asynccontextmanager
async def listening(place: CallbackPlace, heard: Heard) -> AsyncIterator[None]:
    """Listens until the end of the block; `heard(digest of the word, task id)` says whether somebody waits for it.

    Raises LocalError where the port cannot be had.
    """
    app = web.Application(client_max_size=BODY_CAP)
    app.router.add_post(f"{place.path}/{{word}}", _handler(heard))
    runner = web.AppRunner(app, access_log=None, logger=_logger())
    await runner.setup()
    try:
        await web.TCPSite(runner, place.host, place.port).start()
    except OSError as error:
        await runner.cleanup()
        raise LocalError(f"cannot listen at {place.host}:{place.port}: {error.strerror}") from None
    try:
        yield
    finally:
        await runner.cleanup()


def _logger() -> logging.Logger:
    """Tells of bugs of ours; not of strangers who send what is no HTTP, as often as they like, perhaps with a secret
    word in it."""
    logger = logging.getLogger("runner.callbacks")
    logger.addFilter(_no_strangers)
    return logger


def _no_strangers(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def _handler(heard: Heard) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        word = request.match_info["word"]
        if not WORD.fullmatch(word):
            raise web.HTTPNotFound
        try:
            task_id = task_in(json.loads(await request.read()))
        except (ValueError, RecursionError):
            task_id = None
        try:
            awaited = await heard(digest(word), task_id)
        except LocalError:  # the queue cannot be written: they call again
            raise web.HTTPServiceUnavailable from None
        if not awaited:
            raise web.HTTPNotFound
        return web.Response(status=204)

    return handle


def task_in(payload: Any) -> str | None:
    """The task id that a call tells, at its top or under `data`; None where it tells none that can be one."""
    levels = [payload, payload.get("data")] if isinstance(payload, Mapping) else []
    said = [level[name] for level in levels if isinstance(level, Mapping) for name in IDS if name in level]
    texts = [str(value) for value in said if isinstance(value, str | int) and not isinstance(value, bool)]
    return next((text for text in texts if TASK_ID.fullmatch(text) and text.strip(".")), None)


def _parsed(url: str) -> Any:
    try:
        parts = urlsplit(url)
        _port = parts.port
    except ValueError:
        parts = urlsplit("")
    plain = not (parts.query or parts.fragment or parts.username or parts.password)
    if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
        # It may hold a password, so it is not repeated.
        raise InputError("--callback-url is not an address that can be called", "write https://host/path")
    if not PLAIN_PATH.fullmatch(parts.path):
        raise InputError("--callback-url: its path holds signs that may not arrive as they are", "letters and digits")
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
