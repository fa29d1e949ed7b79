"""Every provider's dialect, by its transcripts: what is asked, what comes back, what it means.

Each transcript is replayed twice: against a recorded answer, and over real HTTP through the program's own client.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from yamlcore import CCoreLoader

import runner.providers
from runner.client.asking import Line
from runner.clock import Clock
from runner.errors import ErrorKind, InternalError
from runner.exchange import Accepted, Action, Page, Phase, Refusal, Reply, Report, ResultFile
from runner.providers import reading, registry
from runner.providers.compose import Composed, compose
from runner.providers.describe import describe
from runner.providers.description import Provider, Reference
from runner.settings import Credentials, Secret

TRANSCRIPTS = Path(__file__).parent / "providers"
KEY = "sk-sd_canary0123456789"
Entry = dict[str, Any]


def transcript(name: str) -> list[Entry]:
    path = TRANSCRIPTS / f"{name}.yaml"
    return yaml.load(path.read_text(encoding="utf-8"), CCoreLoader) if path.exists() else []


def entries() -> list[Any]:
    return [
        pytest.param(provider, entry, id=f"{provider.name}: {entry['name']}")
        for provider in registry().values()
        for entry in transcript(provider.name)
    ]


@pytest.mark.parametrize("name", registry())
def test_every_provider_has_a_transcript(name: str) -> None:
    calls = {verb for entry in transcript(name) for verb in as_call(entry)}
    provider = registry()[name]
    wanted = {"submit", "poll"} | {verb for verb in ("history", "balance") if getattr(provider, verb)}
    assert calls == wanted | ({"upload"} if provider.hosting else set()), f"{name} needs tests/providers/{name}.yaml"


def test_the_names_of_a_transcript_are_its_own() -> None:
    for name in registry():
        names = [entry["name"] for entry in transcript(name)]
        assert len(names) == len(set(names))


@pytest.mark.parametrize(("provider", "entry"), entries())
async def test_a_transcript(provider: Provider, entry: Entry) -> None:
    recorded = Recorded(entry)
    outcome = await perform(provider, entry, recorded)
    assert seen(outcome) == expected(entry)
    assert recorded.asked == ("request" in entry)


@pytest.mark.parametrize(("provider", "entry"), [p for p in entries() if "request" in p.values[1]])
async def test_a_transcript_over_http(provider: Provider, entry: Entry) -> None:
    async with served(entry) as (line, received):
        outcome = await perform(provider, entry, line.submission(passed) if "submit" in as_call(entry) else line.ask)
    assert same_but_for_the_clock(seen(outcome), expected(entry), entry)
    request = entry["request"]
    assert (received.method, received.path, received.query) == (
        request["method"],
        request["path"],
        request.get("query", {}),
    )
    assert received.headers["Authorization"] == f"Bearer {KEY}"
    for name, value in request.get("headers", {}).items():
        assert received.headers[name] == value
    if "body" in request:
        assert received.headers["Content-Type"] == "application/json"
        assert json.loads(received.body) == json.loads(request["body"])
    if "form" in request:
        assert received.form == request["form"]


# --- the examples of the documents are what a manifest's words become


@pytest.mark.parametrize(("provider", "entry"), [p for p in entries() if "job" in p.values[1]])
def test_a_job_becomes_the_request(provider: Provider, entry: Entry) -> None:
    composed = composed_job(provider, entry["job"])
    assert composed.faults == ()
    assert composed.path == entry["request"]["path"]
    assert json.loads(composed.content) == json.loads(entry["request"]["body"])


# --- what holds whatever a provider says

WORDS = st.sampled_from(
    "data error code message status id video_id task_id output video_url image_urls images credits_used progress videos "
    "items credits balance url ok prompt created_at".split()
)
SAID = st.sampled_from("completed failed processing vid_1 vid_2 insufficient_credits internal_error https://x.example/v".split())
ANY_JSON = st.recursive(
    SAID
    | st.none()
    | st.booleans()
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=6),
    max_leaves=12,
)
ANY_STATUS = st.sampled_from((200, 201, 204, 301, 303, 307, 400, 401, 402, 403, 404, 408, 409, 422, 429, 500, 502, 503))
HEADERS = st.dictionaries(st.sampled_from(("retry-after", "x-ratelimit-reset")), st.text(max_size=20))
REPLIES = st.builds(
    Reply,
    ANY_STATUS,
    HEADERS,
    ANY_JSON,
    st.none() | st.just("cut short"),
    st.none() | st.just(datetime(2026, 11, 21, tzinfo=UTC)),
)


@pytest.mark.parametrize("name", registry())
@given(reply=REPLIES)
async def test_an_order_is_never_refused_for_good_by_an_unclear_answer(name: str, reply: Reply) -> None:
    """The whole promise hangs on this: what may have been accepted and billed is never called refused."""
    outcome = await registry()[name].submit(Once(reply), "/p", b"{}", "k")
    documented = isinstance(outcome, Refusal) and reply.unreadable is None and outcome.code in documented_codes(name)
    unclear = reply.status >= 500 or reply.status == 408 or 300 <= reply.status < 400 or reply.ok
    if isinstance(outcome, Accepted):
        assert reply.ok
        assert reading.task_id(outcome.task_id) == outcome.task_id
    elif unclear and not documented:
        assert outcome.action is Action.AMBIGUOUS
    if isinstance(outcome, Refusal):
        assert outcome.status == reply.status
        assert outcome.wait is None or 0 <= outcome.wait <= 3600


@pytest.mark.parametrize("name", registry())
@given(reply=REPLIES)
async def test_a_question_never_fails_a_job_and_never_succeeds_by_guess(name: str, reply: Reply) -> None:
    outcome = await registry()[name].poll(Once(reply), "vid_1")
    if isinstance(outcome, Refusal):
        assert outcome.action in (Action.LATER, Action.STOP, Action.NOT_FOUND)
    else:
        assert reply.ok
        assert outcome.task_id == "vid_1"
        assert (outcome.phase is Phase.DONE) == (outcome.status == "completed")
        assert not outcome.files or outcome.phase is Phase.DONE


@pytest.mark.parametrize("call", ["history", "balance", "upload"])
@given(reply=REPLIES)
async def test_happyhorse_survives_every_answer(call: str, reply: Reply) -> None:
    provider = registry()["happyhorse"]
    outcome = await perform(provider, {"call": {call: EXAMPLE_ARGUMENTS[call]}}, Once(reply))
    if isinstance(outcome, Refusal):
        assert outcome.action not in (Action.AMBIGUOUS, Action.CONFLICT)
    else:
        assert reply.ok


async def test_a_keyed_provider_is_never_asked_without_a_key() -> None:
    ask = Once(Reply(200, {}, {"id": "x"}))
    with pytest.raises(InternalError):
        await registry()["seedance2ai"].submit(ask, "/p", b"{}", None)
    assert ask.count == 0


# --- how answers are read


@pytest.mark.parametrize(
    ("value", "found"),
    [("a-B_9.:", "a-B_9.:"), (9034, "9034"), ("x" * 128, "x" * 128), ("x" * 129, None), ("", None), (".", None)]
    + [("..", None), ("a/b", None), ("a b", None), ("ä", None), (True, None), (None, None), ("a\n", None), (1.5, None)],
)
def test_task_ids(value: Any, found: str | None) -> None:
    assert reading.task_id(value) == found


@pytest.mark.parametrize(
    ("value", "found"),
    [(30, "30"), (Decimal("29.70"), "29.70"), ("12.5", "12.5"), (0, "0"), (True, None), (None, None), (-1, None)]
    + [("NaN", None), ("Infinity", None), ("lots", None), (Decimal("1e30"), None), ([1], None), ({"a": 1}, None)],
)
def test_amounts(value: Any, found: str | None) -> None:
    assert reading.amount(value) == (None if found is None else Decimal(found))


@pytest.mark.parametrize(("value", "found"), [(40, 40.0), (137, None), (-1, None), (None, None), ("12.5", 12.5)])
def test_progress_is_for_display(value: Any, found: float | None) -> None:
    assert reading.progress(value) == found


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("2026-11-21T04:00:00+01:00", datetime(2026, 11, 21, 3, tzinfo=UTC)),
        ("2026-11-21 03:00:00", datetime(2026, 11, 21, 3, tzinfo=UTC)),
        (1795230000, datetime(2026, 11, 21, 3, tzinfo=UTC)),
        (1795230000000, datetime(2026, 11, 21, 3, tzinfo=UTC)),
        ("soon", None),
        (None, None),
        (10**15, None),
    ],
)
def test_times(value: Any, found: datetime | None) -> None:
    assert reading.moment(value) == found


def test_a_provider_cannot_write_to_the_terminal() -> None:
    assert reading.legible("a\x1b]8;;file://x\x07b\u202e\nc" + "d" * 1000) == "a ]8;;file://x b c" + "d" * 482 + "…"


# --- providers are found, not listed

SIXTH = '''
from runner.exchange import Accepted
from runner.providers.description import Field, Model, Provider

async def submit(ask, path, content, key):
    return Accepted((await ask("POST", path, content=content)).data["id"])

async def poll(ask, known_id):
    raise AssertionError("not asked here")

MODEL = Model("one", "image", "/api/v1/one", {"prompt": Field("text", required=True)}, extension="png")
PROVIDER = Provider("sixth-one", "https://sixth.example", (MODEL,), submit, poll, guarantee="at most once")
'''


@pytest.fixture
def _looked_afresh() -> Any:
    registry.cache_clear()
    yield
    registry.cache_clear()


@pytest.mark.usefixtures("_looked_afresh")
async def test_a_sixth_provider_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sixth_one.py").write_text(SIXTH, encoding="utf-8")
    (tmp_path / "not_a_provider.py").write_text("X = 1", encoding="utf-8")
    monkeypatch.setattr(runner.providers, "__path__", [*runner.providers.__path__, str(tmp_path)])
    sixth = registry()["sixth-one"]
    assert list(registry()) == sorted([*registry()])
    composed = compose(sixth, "one", {"prompt": "a hat"})
    assert composed.content == b'{"text":"a hat"}'
    outcome = await sixth.submit(Once(Reply(200, {}, {"id": "t"})), composed.path, composed.content, None)
    assert outcome == Accepted("t")
    with pytest.raises(AssertionError, match=r"tests/providers/sixth-one\.yaml"):
        test_every_provider_has_a_transcript("sixth-one")


@pytest.mark.usefixtures("_looked_afresh")
def test_a_provider_is_named_like_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "seventh.py").write_text(SIXTH, encoding="utf-8")
    monkeypatch.setattr(runner.providers, "__path__", [*runner.providers.__path__, str(tmp_path)])
    with pytest.raises(InternalError, match=r"seventh\.py"):
        registry()


def test_the_registry_cannot_be_written() -> None:
    with pytest.raises(TypeError):
        registry()["x"] = registry()["happyhorse"]  # type: ignore[index]


# --- what `runner providers` shows


@pytest.mark.parametrize("name", registry())
def test_a_description_is_plain_and_whole(name: str) -> None:
    provider = registry()[name]
    told = json.loads(json.dumps(describe(provider)))
    assert [model["name"] for model in told["models"]] == [model.name for model in provider.models]
    for model in told["models"]:
        assert model["price"]
        assert "prompt" in model["fields"]
    assert told["guarantee"]
    assert told["assumptions"]


def test_a_description_tells_limits_prices_and_modes() -> None:
    told = describe(registry()["happyhorse"])
    assert told["limits"] == ["60/minute"]
    assert told["hosting"] == {
        "roles": ["images", "first_frame"],
        "media_types": ["image/jpeg", "image/png", "image/webp"],
        "max_bytes": 10_000_000,
    }
    prices = {model["name"]: model["price"] for model in told["models"]}
    assert prices["doubao-seedance-2-0"] == "7.5 credits a second, rounded up per video"
    assert prices["nano-banana-2"] == "5 credits per image"
    seedance = describe(registry()["seedance2ai"])["models"][0]
    assert seedance["fields"]["duration"]["native"] == "duration"
    assert (seedance["fields"]["duration"]["low"], seedance["fields"]["duration"]["high"]) == (4, 15)
    assert seedance["modes"][2]["references"]["videos"]["most"] == 12


# --- the replay


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
        assert json is None
        assert (content is None) == ("body" not in request)
        if content is not None:
            assert as_json(content.decode()) == as_json(request["body"])
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
        return await provider.poll(ask, said)
    if verb == "upload":
        assert provider.hosting is not None
        return await provider.hosting.upload(ask, said["filename"], said["content"].encode(), said["media_type"])
    if verb == "history":
        assert provider.history is not None
        return await provider.history(ask, said)
    assert provider.balance is not None
    return await provider.balance(ask)


EXAMPLE_ARGUMENTS = {
    "history": 1,
    "balance": None,
    "upload": {"filename": "a.png", "content": "x", "media_type": "image/png"},
}


def composed_job(provider: Provider, job: Entry) -> Composed:
    references = [Reference(role, url) for role, urls in job.get("references", {}).items() for url in urls]
    return compose(provider, job["model"], job["fields"], references, job.get("params", {}))


def documented_codes(name: str) -> set[str]:
    """The codes of refusals that the transcript shows to be clear, whatever status they come with."""
    refusals = [entry["means"].get("refused", {}) for entry in transcript(name)]
    return {said["code"] for said in refusals if said.get("action") not in (None, "ambiguous")}


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
        assert outcome.charged is None
        return {"accepted": outcome.task_id}
    if isinstance(outcome, Refusal):
        return {"refused": told_refusal(outcome)}
    if isinstance(outcome, Report):
        return {"report": told_report(outcome)}
    if isinstance(outcome, Page):
        return {"page": {"more": outcome.more, "items": [told_item(item) for item in outcome.items]}}
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
        "used": None if report.used is None else str(report.used),
        "error": None if report.error is None else told_refusal(report.error),
    }


def told_item(item: Any) -> dict[str, Any]:
    assert item.facts
    return {
        "task_id": item.task_id,
        "prompt": item.prompt,
        "created_at": None if item.created_at is None else item.created_at.isoformat(),
        "phase": item.report.phase.value,
        "used": None if item.report.used is None else str(item.report.used),
    }


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
        plain = {"recognised": True, "progress": None, "thumbnails": [], "missing": [], "used": None, **means["report"]}
        files = plain.get("files", {})
        plain["files"] = dict(enumerate(files)) if isinstance(files, list) else files
        plain["error"] = full_refusal(plain["error"]) if "error" in plain else None
        return {"report": plain}
    if "page" in means:
        items = [{"used": None, **item} for item in means["page"]["items"]]
        return {"page": {**means["page"], "items": items}}
    return means


def full_refusal(said: Mapping[str, Any]) -> dict[str, Any]:
    return {"wait": None, "message": Anything(), **said}


def same_but_for_the_clock(outcome: Any, wanted: Any, entry: Entry) -> bool:
    """A real server dates its answers, so a wait it measures against that date may be told where a record had none."""
    headers = {name.lower() for name in entry["reply"].get("headers", {})}
    if "refused" in wanted and "x-ratelimit-reset" in headers and "date" not in headers:
        outcome["refused"]["wait"] = None
    return bool(outcome == wanted)


def test_files_keep_their_place_when_one_is_missing() -> None:
    """A fresh URL for the second output must not be taken for the first."""
    files, missing = reading.results({"images": [None, "https://x.example/2"]}, ("images",))
    assert files == (ResultFile("https://x.example/2", 1),)
    assert len(missing) == 1
