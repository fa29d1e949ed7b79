"""Described providers: the shipped example asked and answered, prices, promises, what no answer can make of them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from test_manifest_schema import KEYWORDS, nothing, simple, wrong
from test_providers import ANY_STATUS, HEADERS, SAID, WORDS
from transcripts import (
    Entry,
    Once,
    Recorded,
    composed_job,
    expected,
    passed,
    perform,
    same_but_for_the_clock,
    seen,
    served,
)
from yamlcore import CCoreLoader

from runner.errors import InternalError
from runner.exchange import Accepted, Action, Listed, Phase, Refusal, Reply, Report
from runner.ledger import Price
from runner.lifecycle import following
from runner.providers import declare, registry
from runner.providers.compose import compose
from runner.providers.declared.dialect import at, find
from runner.providers.declared.reader import EXAMPLE, read_providers
from runner.providers.declared.shape import schema
from runner.providers.describe import describe
from runner.providers.description import Provider, Reference

NOW = datetime(2026, 11, 21, tzinfo=UTC)
FOLDER = Path(__file__).parent / "declared"
EXAMPLES = {provider.name: provider for provider in read_providers(EXAMPLE, ())}
ACME, PLAIN = EXAMPLES["acme-video"], EXAMPLES["plain-pictures"]
GOOD = (FOLDER / "good.yaml").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _nothing_declared() -> Iterator[None]:
    yield
    declare()


def transcript(name: str) -> list[Entry]:
    return yaml.load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), CCoreLoader)  # noqa: S506


def entries() -> list[Any]:
    return [
        pytest.param(provider, entry, id=f"{name}: {entry['name']}")
        for name, provider in EXAMPLES.items()
        for entry in transcript(name)
    ]


def read(folder: Path, text: str) -> Provider:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    [provider] = read_providers(path, ())
    return provider


def shown(outcome: Any) -> Any:
    """As a transcript tells it, with the charges and refunds that an answer tells apart."""
    told = seen(outcome)
    if isinstance(outcome, Report):
        apart = {"charged": outcome.charged, "refunded": outcome.refunded}
        told["report"] |= {name: str(credits) for name, credits in apart.items() if credits is not None}
    return told


# --- the example, request by request and answer by answer


@pytest.mark.parametrize(("provider", "entry"), entries())
async def test_the_example_is_asked_and_answered(provider: Provider, entry: Entry) -> None:
    recorded = Recorded(entry)
    outcome = await perform(provider, entry, recorded)
    assert shown(outcome) == expected(entry)
    assert recorded.asked == ("request" in entry)


@pytest.mark.parametrize(("provider", "entry"), [p for p in entries() if "request" in p.values[1]])
async def test_the_example_over_http(provider: Provider, entry: Entry) -> None:
    async with served(entry) as (line, received):
        submits = "submit" in entry["call"]
        outcome = await perform(provider, entry, line.submission(passed) if submits else line.ask)
    assert same_but_for_the_clock(shown(outcome), expected(entry), entry)
    request = entry["request"]
    assert (received.method, received.path, received.query) == (
        request["method"],
        request["path"],
        request.get("query", {}),
    )
    assert {name: received.headers[name] for name in request.get("headers", {})} == request.get("headers", {})
    assert received.form == request.get("form", {})


@pytest.mark.parametrize(("provider", "entry"), [p for p in entries() if "job" in p.values[1]])
def test_a_job_of_the_example_becomes_the_request(provider: Provider, entry: Entry) -> None:
    composed = composed_job(provider, entry["job"])
    assert composed.faults == ()
    assert composed.path == entry["request"]["path"]
    assert json.loads(composed.content) == json.loads(entry["request"]["body"])


async def test_a_keyed_provider_is_never_asked_without_a_key() -> None:
    ask = Once(Reply(200, {}, {"data": {"task_id": "x"}}))
    with pytest.raises(InternalError):
        await ACME.submit(ask, "/api/v1/videos", b"{}", None)
    assert ask.count == 0


def test_the_example_takes_what_it_says() -> None:
    faults = compose(ACME, "acme-2", {"prompt": "ab", "duration": 7, "resolution": "4K", "quality": 5}).faults
    assert [(fault.code, fault.field) for fault in faults] == [
        ("B39", "prompt"),
        ("B41", "duration"),
        ("B42", "resolution"),
        ("B32", "quality"),
    ]
    [fault] = compose(ACME, "acme-still", {"prompt": "a hat"}, [Reference("images", "https://a.example/1.png")]).faults
    assert fault.code == "B32"
    assert ACME.hosting is not None
    assert (ACME.hosting.roles, ACME.hosting.max_bytes) == (("images", "first_frame", "last_frame"), 10_000_000)


# --- prices


@pytest.mark.parametrize(
    ("fields", "credits"),
    [
        ({}, "13"),  # 12.5, rounded up
        ({"duration": 10}, "25"),
        ({"resolution": "1080p"}, "30"),
        ({"resolution": "1080p", "audio": True}, "38"),
        ({"audio": True}, "13"),
    ],
)
def test_a_price_by_a_table(fields: dict[str, Any], credits: str) -> None:
    assert compose(ACME, "acme-2", {"prompt": "a hat", **fields}).price == Price.exactly(credits)


def test_a_price_by_count() -> None:
    assert compose(ACME, "acme-still", {"prompt": "a hat", "count": 3}).price == Price.exactly(12)
    assert compose(PLAIN, "sketch", {"prompt": "a hat"}).price == Price.exactly(1)
    assert compose(PLAIN, "painting", {"prompt": "a hat"}).price is None


@pytest.mark.parametrize(
    ("price", "low", "high"),
    [
        ('{credits: "0.3", per: duration}', "1.5", "2"),
        ('{credits: "0.3", per: duration, rounded_up: false}', "1.5", "1.5"),
        ('{credits: "0.3", per: duration, rounded_up: true}', "2", "2"),
        ("{credits: 2, per: duration}", "10", "10"),
        ('{credits: "1.5"}', "1.5", "1.5"),
        ("{credits: 0}", "0", "0"),
    ],
)
def test_what_is_not_said_of_rounding_is_an_interval(price: str, low: str, high: str, tmp_path: Path) -> None:
    text = GOOD.replace("{table: [{when: {resolution: 720p}, credits: 2, per: duration}], rounded_up: true}", price)
    found = compose(read(tmp_path, text), "one", {"prompt": "a hat"}).price
    assert found is not None
    assert (found.low, found.high) == (Decimal(low), Decimal(high))


def test_a_row_that_does_not_hold_is_no_price(tmp_path: Path) -> None:
    assert compose(read(tmp_path, GOOD), "one", {"prompt": "a hat", "resolution": "1080p"}).price is None


@given(st.decimals(0, 10**6, places=6), st.integers(1, 10))
def test_prices_are_exact(credits: Decimal, seconds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        text = GOOD.replace("credits: 2, per", f'credits: "{credits:f}", per').replace("up: true", "up: false")
        found = compose(read(Path(folder), text), "one", {"prompt": "a hat", "duration": seconds}).price
    assert found == Price.exactly(credits * seconds)


def test_the_shape_tells_apart_what_costs_differently() -> None:
    asked: list[dict[str, Any]] = [{}, {"duration": 10}, {"resolution": "1080p"}, {"audio": True}]
    shapes = {compose(ACME, "acme-2", {"prompt": "a hat", **fields}).shape for fields in asked}
    assert len(shapes) == len(asked)
    assert compose(ACME, "acme-2", {"prompt": "a coat", "seed": 5}).shape in shapes


# --- promises


def test_what_is_promised_follows_from_what_there_is(tmp_path: Path) -> None:
    shipped = registry()
    hour = GOOD.replace("trusted_seconds: 600", "trusted_seconds: 3600")
    assert read(tmp_path, hour).guarantee == shipped["seedance2ai"].guarantee
    minutes = read(tmp_path, GOOD)
    assert minutes.guarantee.startswith("effectively once within 10 minutes of a lost answer, if")
    assert minutes.key_window == 600
    unkeyed = GOOD.replace("    idempotency: {header: X-Key, trusted_seconds: 600}\n", "")
    looked_up = read(tmp_path, unkeyed)
    assert looked_up.guarantee.startswith("at most once: a lost answer is looked for in the history and adopted")
    assert (looked_up.keyed, [model.listed for model in looked_up.models]) == (False, [True, True])
    partly = read(tmp_path, unkeyed.replace("renders: image", "renders: image\n        in_history: false"))
    assert "otherwise, and for two, the job is held for you" in partly.guarantee
    history = next(line for line in GOOD.splitlines(keepends=True) if "history:" in line)
    neither = read(tmp_path, unkeyed.replace(history, ""))
    assert neither.guarantee == (
        "at most once: a lost answer cannot be looked up, so the job is held for you and never sent again by itself"
    )
    assert neither.history is None
    assert not any(model.listed for model in neither.models)


def test_a_model_without_a_prompt_cannot_be_looked_up(tmp_path: Path) -> None:
    provider = read(tmp_path, GOOD.replace("          prompt: {}\n", "          size: {}\n"))
    assert [model.listed for model in provider.models] == [True, False]


# --- known to the process, and no longer


def test_declared_providers_stand_among_the_shipped_ones() -> None:
    before = list(registry())
    declare(EXAMPLES.values())
    assert list(registry()) == sorted([*before, "acme-video", "plain-pictures"])
    told_ = describe(registry()["acme-video"])
    assert json.loads(json.dumps(told_)) == told_
    assert told_["described_in"] == str(EXAMPLE)
    assert "Acme Video API 2" in told_["documentation"]
    declare([PLAIN])
    assert "acme-video" not in registry()
    declare()
    assert list(registry()) == before


def test_a_shipped_provider_is_never_replaced(tmp_path: Path) -> None:
    declare([read(tmp_path, GOOD.replace("acme:", "happyhorse:"))])
    with pytest.raises(InternalError, match="happyhorse"):
        registry()


# --- what holds whatever a provider says

KNOWN = (
    "succeeded",
    "queued",
    "insufficient_credits",
    "unauthorized",
    "strange",
    "unreadable",
    "no_id",
    "http_500",
    2,
    60001,
)
ANY_JSON = st.recursive(
    SAID | st.sampled_from(KNOWN) | st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            WORDS | st.sampled_from(("job", "state", "task_id", "jobs", "msg", "text")), inner, max_size=6
        )
    ),
    max_leaves=14,
)
REPLIES = st.builds(Reply, ANY_STATUS, HEADERS, ANY_JSON, st.none() | st.just("cut short"))
CLEAR = {"unauthorized", "insufficient_credits", "plan_required", "invalid_input", "content_blocked", "too_many_tasks",
         "key_in_use", "60001", "20001"}  # fmt: skip


@pytest.mark.parametrize("name", EXAMPLES)
@given(reply=REPLIES)
async def test_an_order_is_never_refused_for_good_by_an_unclear_answer(name: str, reply: Reply) -> None:
    outcome = await EXAMPLES[name].submit(Once(reply), "/p", b"{}", "k")
    unclear = reply.status >= 500 or reply.status == 408 or 300 <= reply.status < 400 or reply.ok
    listed = isinstance(outcome, Refusal) and reply.unreadable is None and outcome.code in CLEAR
    if isinstance(outcome, Accepted):
        assert reply.ok
    elif unclear and not listed:
        assert outcome.action is Action.AMBIGUOUS


@pytest.mark.parametrize("name", EXAMPLES)
@given(reply=REPLIES)
async def test_a_question_never_fails_a_job_and_never_succeeds_by_guess(name: str, reply: Reply) -> None:
    outcome = await EXAMPLES[name].poll(Once(reply), "", "17")
    if isinstance(outcome, Refusal):
        assert outcome.action in (Action.LATER, Action.STOP, Action.NOT_FOUND)
    else:
        assert reply.ok
        assert (outcome.phase is Phase.DONE) == (outcome.status in ("succeeded", "2"))
        assert not outcome.files or outcome.phase is Phase.DONE


@given(reply=REPLIES, call=st.sampled_from([(PLAIN, "history", 1), (ACME, "balance", None)]))
async def test_the_other_questions_survive_every_answer(reply: Reply, call: tuple[Provider, str, Any]) -> None:
    provider, verb, said = call
    outcome = await perform(provider, {"call": {verb: said}}, Once(reply))
    if isinstance(outcome, Refusal):
        assert outcome.action in (Action.LATER, Action.STOP, Action.NOT_FOUND)
    else:
        assert reply.ok


@pytest.mark.parametrize(
    ("code", "reply"),
    [
        ("unreadable", Reply(200, {}, None, "cut short")),
        ("no_id", Reply(200, {}, {"data": {}})),
        ("bad_id", Reply(200, {}, {"data": {"id": "../x"}})),
        ("redirect", Reply(307, {}, {})),
        ("http_500", Reply(500, {}, {})),
        ("http_408", Reply(408, {}, {"error": {"message": "slow"}})),
    ],
)
async def test_no_listed_code_is_taken_for_a_name_of_ours(code: str, reply: Reply, tmp_path: Path) -> None:
    """A description cannot make an unclear answer clear by listing what we call it."""
    provider = read(tmp_path, GOOD.replace("{code: no_credits, means: credits}", f"{{code: {code}, means: fail}}"))
    outcome = await provider.submit(Once(reply), "/api/v1/videos", b"{}", "k")
    assert isinstance(outcome, Refusal)
    assert (outcome.action, outcome.code) == (Action.AMBIGUOUS, code)
    said = await provider.submit(Once(Reply(500, {}, {"error": {"code": code}})), "/api/v1/videos", b"{}", "k")
    assert isinstance(said, Refusal)
    assert (said.action is Action.FAIL) == (code != "redirect"), "what the provider itself says counts"


@pytest.mark.parametrize(
    ("error", "action", "code"),
    [({"code": "no_credits"}, Action.CREDITS, "no_credits"), ({"code": 0}, Action.FAIL, "task_failed"),
     (None, Action.FAIL, "task_failed")],
)  # fmt: skip
async def test_an_envelope_that_is_fine_does_not_hide_why_its_task_failed(
    error: Any, action: Action, code: str, tmp_path: Path
) -> None:
    """What an empty account refuses by failing the task would otherwise fail every job of the night."""
    provider = read(tmp_path, GOOD.replace("code: error.code, message", "code: [code, data.error.code], message"))
    body = {"code": 0, "data": {"id": "1", "status": "failed", "error": error}}
    outcome = await provider.poll(Once(Reply(200, {}, body)), "/api/v1/videos", "1")
    assert isinstance(outcome, Report)
    assert outcome.error is not None
    assert (outcome.error.action, outcome.error.code) == (action, code)


def test_a_list_that_tells_no_status_is_no_news_of_a_task() -> None:
    work: Any = SimpleNamespace(id=1, standing=SimpleNamespace(task_id="17", accepted_at=NOW, finished_at=None))
    desk: Any = SimpleNamespace(asked_alone={1: NOW}, now=lambda: NOW)
    listed = {"17": Listed("17", None, None, Report("17", Phase.GOING, ""))}
    assert following._told(desk, work, listed) is None
    listed = {"17": Listed("17", None, None, Report("17", Phase.GOING, "going"))}
    assert following._told(desk, work, listed) is listed["17"].report


async def test_a_task_is_left_alone_where_nobody_says_how_it_is_asked_for(tmp_path: Path) -> None:
    """The description was edited after the order: the task is not lost, and not asked for anywhere else."""
    poll = next(line for line in GOOD.splitlines(keepends=True) if "    poll:" in line)
    own = "        poll: {path: '/one/{task_id}'}\n"
    text = GOOD.replace(poll, "").replace("        renders: video\n", "        renders: video\n" + own)
    text = text.replace("        renders: image\n", "        renders: image\n" + own)
    provider, ask = read(tmp_path, text), Once(Reply(200, {}, {}))
    outcome = await provider.poll(ask, "/elsewhere", "t1")
    assert isinstance(outcome, Refusal)
    assert (outcome.action, outcome.code, ask.count) == (Action.LATER, "no_way", 0)


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["a.b"], 1),
        (["a.x", "a.b"], 1),
        (["a.empty", "a.none", "a.zero"], 0),
        (["a.b.c", "list.0"], None),
        (["."], {"a": {"b": 1, "empty": "", "none": None, "zero": 0}, "list": [5]}),
    ],
)
def test_the_first_path_that_leads_somewhere_counts(paths: list[str], found: Any) -> None:
    assert find({"a": {"b": 1, "empty": "", "none": None, "zero": 0}, "list": [5]}, paths) == found
    assert at([1], ".") == [1]


# --- the schema for editors


def inlined(rule: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(rule, dict):
        if "$ref" in rule:
            return inlined(definitions[rule["$ref"].removeprefix("#/$defs/")], definitions)
        known = {name: inner for name, inner in rule.items() if name != "$defs" and inner is not True}
        return {name: inlined(inner, definitions) for name, inner in known.items()}
    return [inlined(inner, definitions) for inner in rule] if isinstance(rule, list) else rule


MORE: dict[str, Any] = {
    "default": nothing,
    "enum": simple(lambda value, given: value in given),
    "minLength": simple(lambda value, given: not isinstance(value, str) or len(value) >= given),
    "maximum": simple(lambda value, given: not isinstance(value, int | float) or value <= given),
}


def marked(text: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    for keyword, check in MORE.items():
        monkeypatch.setitem(KEYWORDS, keyword, check)
    rule = inlined(schema(), schema()["$defs"])
    return list(wrong(yaml.load(text, CCoreLoader), rule))  # noqa: S506


def test_an_editor_takes_what_is_right_and_marks_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    assert json.loads(json.dumps(schema())) == schema()
    assert marked(EXAMPLE.read_text(encoding="utf-8"), monkeypatch) == []
    assert marked(GOOD, monkeypatch) == []
    for old, new in (
        ("limits:", "limit:"),
        ("renders: image", "renders: images"),
        ("bytes: 1000", "bytes: lots"),
    ):
        assert marked(GOOD.replace(old, new), monkeypatch), new
