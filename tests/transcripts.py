"""Transcripts of the providers' dialects (tests/providers/<name>.yaml), replayed: recorded, and over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml
from aiohttp import web
from yamlcore import CCoreLoader

from runner.client.asking import Line
from runner.clock import Clock
from runner.errors import ErrorKind
from runner.exchange import Accepted, Asset, Page, Refusal, Reply, Report
from runner.providers import registry
from runner.providers.compose import Composed, compose
from runner.providers.description import Provider, Reference
from runner.settings import Credentials, Secret

TRANSCRIPTS = Path(__file__).parent / "providers"
KEY = "sk-sd_canary0123456789"
Entry = dict[str, Any]


def transcript(name: str) -> list[Entry]:
    path = TRANSCRIPTS / f"{name}.yaml"
    return yaml.load(path.read_text(encoding="utf-8"), CCoreLoader) if path.exists() else []  # noqa: S506


def entries() -> list[Any]:
    return [
        pytest.param(provider, entry, id=f"{provider.name}: {entry['name']}")
        for provider in registry().values()
        for entry in transcript(provider.name)
    ]


@dataclass
class Recorded:
    """An `Ask` that knows one request and its answer."""

    entry: Entry
    asked: bool = False

    async def __call__(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        content: bytes | None = None,
        upload: Any = None,
    ) -> Reply:
        self.asked = True
        request = self.entry["request"]
        assert (method, path, query or {}) == (request["method"], request["path"], request.get("query", {}))
        assert (headers or {}) == request.get("headers", {})
        sent = json if content is None else as_json(content.decode())
        assert sent == (as_json(request["body"]) if "body" in request else None)
        if upload is not None:
            sent = {name: getattr(upload, name) for name in ("field", "filename", "media_type")}
            assert {**sent, "content": upload.content.decode()} == request["form"]
        return reply_of(self.entry)


@dataclass
class Once:
    """An `Ask` with one answer to whatever is asked."""

    reply: Reply
    count: int = 0

    async def __call__(self, *_: Any, **__: Any) -> Reply:
        self.count += 1
        return self.reply


@dataclass
class Received:
    method: str = ""
    path: str = ""
    query: dict[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    form: dict[str, str] = field(default_factory=dict)


@asynccontextmanager
async def served(entry: Entry) -> Any:
    """A real server on loopback that gives the recorded answer, and the program's own line to it."""
    received = Received()

    async def answer(request: web.Request) -> web.StreamResponse:
        received.method, target = request.method, urlsplit(request.raw_path)
        received.path, received.query, received.headers = target.path, dict(parse_qsl(target.query)), request.headers
        if request.content_type == "multipart/form-data":
            part = (await request.post())[entry["request"]["form"]["field"]]
            assert isinstance(part, web.FileField)
            content = part.file.read().decode()
            received.form = {"field": part.name, "filename": part.filename, "media_type": part.content_type}
            received.form["content"] = content
        else:
            received.body = await request.read()
        reply = entry["reply"]
        return web.Response(status=reply["status"], headers=reply.get("headers", {}), body=reply["body"].encode())

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner_ = web.AppRunner(app)
    await runner_.setup()
    try:
        site = web.TCPSite(runner_, "127.0.0.1", 0)
        await site.start()
        host, port = runner_.addresses[0][:2]
        credentials = Credentials("a", "p", Secret(KEY), f"http://{host}:{port}", loopback=True)
        async with Line(credentials, Clock()) as line:
            yield line, received
    finally:
        await runner_.cleanup()


async def passed() -> None:
    """The brink of a submission that nobody records."""


def as_call(entry: Entry) -> dict[str, Any]:
    call = entry["call"]
    return {call: None} if isinstance(call, str) else call


async def perform(provider: Provider, entry: Entry, ask: Any) -> Any:
    ((verb, said),) = as_call(entry).items()
    if verb == "submit":
        request = entry["request"]
        content = composed_job(provider, entry["job"]).content if "job" in entry else request["body"].encode()
        return await provider.submit(ask, request["path"], content, said)
    if verb == "poll":
        path, known_id = (said["ordered_at"], said["task"]) if isinstance(said, dict) else ("", said)
        return await provider.poll(ask, path, known_id)
    if verb == "upload":
        assert provider.hosting is not None
        return await provider.hosting.upload(ask, said["filename"], said["content"].encode(), said["media_type"])
    if verb in ("register", "inspect", "find"):
        assert provider.registering is not None
        arguments = said.values() if isinstance(said, dict) else [said]
        return await getattr(provider.registering, verb)(ask, *arguments)
    if verb == "history":
        assert provider.history is not None
        return await provider.history(ask, said)
    assert provider.balance is not None
    return await provider.balance(ask)


EXAMPLE_ARGUMENTS = {
    "history": 1,
    "balance": None,
    "upload": {"filename": "a.png", "content": "x", "media_type": "image/png"},
    "register": {"url": "https://example.com/a.png", "role": "images", "name": "a"},
    "inspect": "123",
    "find": "a",
}


def composed_job(provider: Provider, job: Entry) -> Composed:
    references = [Reference(role, url) for role, urls in job.get("references", {}).items() for url in urls]
    return compose(provider, job["model"], job["fields"], references, job.get("params", {}))


@cache
def documented_codes(name: str) -> set[str]:
    """The codes of refusals that the transcript shows to be clear, whatever status they come with."""
    refusals = [entry["means"].get("refused", {}) for entry in transcript(name)]
    return {said["code"] for said in refusals if said.get("action") not in (None, "ambiguous")}


@cache
def documented_ends(name: str) -> set[str]:
    """The words for a finished task that the transcript shows, where it does not matter how it was ordered."""
    polls = [entry for entry in transcript(name) if isinstance(as_call(entry).get("poll"), str)]
    reports = [entry["means"].get("report", {}) for entry in polls]
    return {said["status"] for said in reports if said.get("phase") == "done"}


def as_json(text: str) -> Any:
    return json.loads(text, parse_float=Decimal)


def reply_of(entry: Entry) -> Reply:
    told = entry["reply"]
    headers = {name.lower(): value for name, value in told.get("headers", {}).items()}
    date = parsedate_to_datetime(headers["date"]) if "date" in headers else None
    try:
        return Reply(told["status"], headers, as_json(told["body"]), None, date)
    except ValueError:
        return Reply(told["status"], headers, None, "not JSON", date)


def seen(outcome: Any) -> Any:
    """An outcome as a transcript tells it."""
    if isinstance(outcome, Accepted):
        charged = {} if outcome.charged is None else {"charged": str(outcome.charged)}
        return {"accepted": outcome.task_id, **charged}
    if isinstance(outcome, Refusal):
        return {"refused": told_refusal(outcome)}
    if isinstance(outcome, Report):
        return {"report": told_report(outcome)}
    if isinstance(outcome, Page):
        return {"page": {"more": outcome.more, "items": [told_item(item) for item in outcome.items]}}
    if outcome is None or isinstance(outcome, Asset):
        return {"asset": outcome and told_asset(outcome)}
    return {"credits": str(outcome)} if isinstance(outcome, Decimal) else {"url": outcome}


def told_refusal(refusal: Refusal) -> dict[str, Any]:
    assert isinstance(refusal.kind, ErrorKind)
    assert refusal.message
    return {
        "action": refusal.action.value,
        "kind": refusal.kind.value,
        "code": refusal.code,
        "wait": refusal.wait,
        "message": refusal.message,
    }


def told_report(report: Report) -> dict[str, Any]:
    return {
        "phase": report.phase.value,
        "status": report.status,
        "recognised": report.recognised,
        "progress": report.progress,
        "files": {file.index: file.url for file in report.files if not file.thumbnail},
        "thumbnails": [file.url for file in report.files if file.thumbnail],
        "missing": list(report.missing),
        **{name: told_amount(getattr(report, name)) for name in MONEY},
        "error": None if report.error is None else told_refusal(report.error),
    }


def told_asset(asset: Asset) -> dict[str, Any]:
    return {"asset_id": asset.asset_id, "uri": asset.uri, "review": asset.review.value, "why": asset.why}


def told_item(item: Any) -> dict[str, Any]:
    assert item.facts
    return {
        "task_id": item.task_id,
        "prompt": item.prompt,
        "created_at": None if item.created_at is None else item.created_at.isoformat(),
        "phase": item.report.phase.value,
        "used": told_amount(item.report.used),
    }


MONEY = ("used", "charged", "refunded")


def told_amount(amount: Decimal | None) -> str | None:
    return None if amount is None else str(amount)


class Anything:
    """Equal to every text: where a transcript does not say how a message goes."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str)

    def __hash__(self) -> int:
        return 0


def expected(entry: Entry) -> Any:
    """What a transcript says, with what it leaves out filled in."""
    means = entry["means"]
    if "refused" in means:
        return {"refused": full_refusal(means["refused"])}
    if "report" in means:
        blank = {"recognised": True, "progress": None, "thumbnails": [], "missing": [], **dict.fromkeys(MONEY)}
        plain = blank | means["report"]
        files = plain.get("files", {})
        plain["files"] = dict(enumerate(files)) if isinstance(files, list) else files
        plain["error"] = full_refusal(plain["error"]) if "error" in plain else None
        return {"report": plain}
    if "page" in means:
        items = [{"used": None, **item} for item in means["page"]["items"]]
        return {"page": {**means["page"], "items": items}}
    if means.get("asset"):
        return {"asset": {"why": "", **means["asset"]}}
    return means


def full_refusal(said: Mapping[str, Any]) -> dict[str, Any]:
    return {"wait": None, "message": Anything(), **said}


def same_but_for_the_clock(outcome: Any, wanted: Any, entry: Entry) -> bool:
    """A real server dates its answers, so a wait it measures against that date may be told where a record had none."""
    headers = {name.lower() for name in entry["reply"].get("headers", {})}
    if "refused" in wanted and "x-ratelimit-reset" in headers and "date" not in headers:
        outcome["refused"]["wait"] = None
    return bool(outcome == wanted)
