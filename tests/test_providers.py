"""Every provider's dialect, by its transcripts: what is asked, what comes back, what it means.

Each transcript is replayed twice: against a recorded answer, and over real HTTP through the program's own client.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import transcripts
from hypothesis import given
from hypothesis import strategies as st
from transcripts import (
    EXAMPLE_ARGUMENTS,
    KEY,
    Entry,
    Once,
    Recorded,
    as_call,
    composed_job,
    documented_codes,
    documented_ends,
    entries,
    expected,
    passed,
    perform,
    same_but_for_the_clock,
    seen,
    served,
    transcript,
)

import runner.providers
from runner.errors import InternalError
from runner.exchange import Accepted, Action, Phase, Refusal, Reply, ResultFile
from runner.providers import reading, registry
from runner.providers.compose import compose
from runner.providers.describe import describe
from runner.providers.description import Provider


@pytest.mark.parametrize("name", registry())
def test_every_provider_has_a_transcript(name: str) -> None:
    calls = {verb for entry in transcript(name) for verb in as_call(entry)}
    provider = registry()[name]
    wanted = {"submit", "poll"} | {verb for verb in ("history", "balance") if getattr(provider, verb)}
    wanted |= {"upload"} if provider.hosting else set()
    wanted |= {"register", "inspect", "find"} if provider.registering else set()
    assert calls == wanted, f"{name} needs tests/providers/{name}.yaml"


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
    [
        "data",
        "error",
        "code",
        "message",
        "status",
        "id",
        "video_id",
        "task_id",
        "taskId",
        "output",
        "video_url",
        "image_urls",
        "images",
        "credits_used",
        "progress",
        "videos",
        "items",
        "credits",
        "balance",
        "url",
        "ok",
        "prompt",
        "created_at",
        "taskId",
        "taskStatus",
        "results",
        "fileUrl",
        "subStatus",
        "failReason",
        "estimatedCredits",
        "credits_charged",
    ]
)
SAID = st.sampled_from(
    [
        "completed",
        "succeeded",
        "COMPLETED",
        "failed",
        "processing",
        "vid_1",
        "vid_2",
        "insufficient_credits",
        "internal_error",
        "https://x.example/v",
        0,
        2,
        60001,
    ]
)
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
    outcome = await registry()[name].poll(Once(reply), "", "vid_1")
    if isinstance(outcome, Refusal):
        assert outcome.action in (Action.LATER, Action.STOP, Action.NOT_FOUND)
    else:
        assert reply.ok
        assert outcome.task_id == "vid_1"
        assert (outcome.phase is Phase.DONE) == (outcome.status in documented_ends(name))
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


@pytest.mark.parametrize("name", [name for name, provider in registry().items() if provider.keyed])
async def test_a_keyed_provider_is_never_asked_without_a_key(name: str) -> None:
    ask = Once(Reply(200, {}, {"id": "x"}))
    with pytest.raises(InternalError):
        await registry()[name].submit(ask, "/p", b"{}", None)
    assert ask.count == 0


EVIL_IDS = [
    "../../account", "..", ".", "a/b", "a\\b", "a?b=c", "a#b", "a%2fb", "a b", "a\r\nHost: evil", "", "ä", "x" * 129,
    "\0", "\u2024\u2024", "https://evil.example/", "{task_id}",
]  # fmt: skip


@pytest.mark.parametrize("name", registry())
async def test_T22_an_id_that_cannot_be_one_is_asked_about_nowhere(name: str) -> None:
    provider, ask = registry()[name], Once(Reply(200, {}, {"status": "completed"}))
    for known_id in EVIL_IDS:
        for question in [provider.poll(ask, provider.models[0].path, known_id), *inspecting(provider, ask, known_id)]:
            refusal = await question
            assert isinstance(refusal, Refusal)
            assert (refusal.action, refusal.code) == (Action.NOT_FOUND, "bad_id")
    assert ask.count == 0


def inspecting(provider: Provider, ask: Once, known_id: str) -> list[Any]:
    return [provider.registering.inspect(ask, known_id)] if provider.registering else []


@given(st.text())
def test_T22_what_is_put_in_a_path_stays_within_it(known_id: str) -> None:
    if reading.task_id(known_id) is None:
        with pytest.raises(ValueError, match="not a task id"):
            reading.in_path(known_id)
    else:
        assert not set(reading.in_path(known_id)) & set("/?#\\ %") - {"%"}


# --- how answers are read


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("a-B_9.:", "a-B_9.:"),
        (9034, "9034"),
        ("x" * 128, "x" * 128),
        ("x" * 129, None),
        ("", None),
        (".", None),
        ("..", None),
        ("a/b", None),
        ("a b", None),
        ("ä", None),
        (True, None),
        (None, None),
        ("a\n", None),
        (1.5, None),
    ],
)
def test_task_ids(value: Any, found: str | None) -> None:
    assert reading.task_id(value) == found


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (30, "30"),
        (Decimal("29.70"), "29.70"),
        ("12.5", "12.5"),
        (0, "0"),
        (True, None),
        (None, None),
        (-1, None),
        ("NaN", None),
        ("Infinity", None),
        ("lots", None),
        (Decimal("1e30"), None),
        (999_999_999_999, "999999999999"),
        (10**12, None),  # the ledger counts in millionths, in 64 bits
        ([1], None),
        ({"a": 1}, None),
    ],
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

SIXTH = """
from runner.exchange import Accepted, Phase, Report
from runner.providers.description import Field, Model, Provider

async def submit(ask, path, content, key):
    return Accepted((await ask("POST", path, content=content)).data["id"])

async def poll(ask, path, known_id):
    status = (await ask("GET", f"/api/v1/one/{known_id}")).data["status"]
    return Report(known_id, Phase.DONE if status == "done" else Phase.GOING, status)

MODEL = Model("one", "image", "/api/v1/one", {"prompt": Field("text", required=True)}, extension="png")
PROVIDER = Provider("sixth-one", "https://sixth.example", (MODEL,), submit, poll, guarantee="at most once")
"""


ITS_TRANSCRIPT = """
- name: an order
  call: submit
  job: {model: one, fields: {prompt: a hat}}
  request: {method: POST, path: /api/v1/one, body: '{"text": "a hat"}'}
  reply: {status: 200, body: '{"id": "t"}'}
  means: {accepted: t}
- name: a question
  call: {poll: t}
  request: {method: GET, path: /api/v1/one/t}
  reply: {status: 200, body: '{"status": "going"}'}
  means: {report: {phase: going, status: going}}
"""


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
    (tmp_path / "sixth-one.yaml").write_text(ITS_TRANSCRIPT, encoding="utf-8")
    monkeypatch.setattr(transcripts, "TRANSCRIPTS", tmp_path)
    test_every_provider_has_a_transcript("sixth-one")
    mine = [entry for provider, entry in (p.values for p in entries()) if provider is sixth]
    assert len(mine) == 2
    for entry in mine:
        await test_a_transcript(sixth, entry)
        await test_a_transcript_over_http(sixth, entry)


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
        assert ("prompt" in model["fields"]) == (model["name"] != "upscale")
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


def test_files_keep_their_place_when_one_is_missing() -> None:
    """A fresh URL for the second output must not be taken for the first."""
    files, missing = reading.results({"images": [None, "https://x.example/2"]}, ("images",))
    assert files == (ResultFile("https://x.example/2", 1),)
    assert len(missing) == 1
