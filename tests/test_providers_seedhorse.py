"""seedhorse and seedhorse-video: what their transcripts cannot say (faults at plan, marks, answers of every kind)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transcripts import Once, documented_codes

from runner.errors import ErrorKind
from runner.exchange import Accepted, Action, Phase, Refusal, Reply
from runner.providers import registry
from runner.providers.compose import Composed, compose, stamped
from runner.providers.description import Reference

SEEDHORSE, VIDEO = registry()["seedhorse"], registry()["seedhorse-video"]
PROMPT = "a cat on a wall"
URL = "https://a.example/1"
SEEDANCE, BANANA = "Seedance 2.0", "Imagen Nano Banana 2"
FILMS = ["seedance-2.0", "HappyHorse 1.0", "Vido Q3-Pro"]
PICTURES = ["NanoBanana Pro", "NanoBanana 2.0", "gpt-image 2.0"]


def refs(**roles: int) -> list[Reference]:
    return [Reference(role, URL) for role, count in roles.items() for _ in range(count)]


def codes(composed: Composed) -> list[tuple[str, str]]:
    return [(fault.code, fault.field) for fault in composed.faults]


def asked(model: str, fields: dict[str, Any] | None = None, **rest: Any) -> Composed:
    provider = SEEDHORSE if model in (SEEDANCE, BANANA) else VIDEO
    return compose(provider, model, {"prompt": PROMPT, **(fields or {})}, **rest)


# --- seedhorse at plan


@pytest.mark.parametrize(
    ("model", "fields", "wrong"),
    [
        (SEEDANCE, {"duration": 3}, ("B41", "duration")),
        (SEEDANCE, {"duration": 16}, ("B41", "duration")),
        (SEEDANCE, {"duration": "4.5"}, ("B40", "duration")),
        (SEEDANCE, {"resolution": "480p"}, ("B42", "resolution")),
        (SEEDANCE, {"resolution": "1080p"}, ("B42", "resolution")),
        (SEEDANCE, {"aspect_ratio": "1:1"}, ("B42", "aspect_ratio")),
        (SEEDANCE, {"quality": 49}, ("B42", "quality")),
        (SEEDANCE, {"quality": 101}, ("B42", "quality")),
        (SEEDANCE, {"quality": "high"}, ("B40", "quality")),
        (SEEDANCE, {"seed": -2}, ("B45", "seed")),
        (SEEDANCE, {"seed": 2**63}, ("B45", "seed")),
        (SEEDANCE, {"audio": "loud"}, ("B40", "audio")),
        (SEEDANCE, {"size": "2K"}, ("B32", "size")),
        (SEEDANCE, {"count": 1}, ("B32", "count")),
        (SEEDANCE, {"negative_prompt": "rain"}, ("B32", "negative_prompt")),
        (SEEDANCE, {"mode": "txt"}, ("B42", "mode")),
        (SEEDANCE, {"prompt": " "}, ("B38", "prompt")),
        (BANANA, {"duration": 5}, ("B32", "duration")),
        (BANANA, {"audio": True}, ("B32", "audio")),
        (BANANA, {"format": "png"}, ("B32", "format")),
        (BANANA, {"count": 0}, ("B44", "count")),
        (BANANA, {"count": 5}, ("B44", "count")),
        (BANANA, {"size": "8K"}, ("B42", "size")),
        (BANANA, {"resolution": "720p"}, ("B42", "resolution")),
        (BANANA, {"size": "2K", "resolution": "4K"}, ("B42", "resolution")),
        (BANANA, {"aspect_ratio": "4:3"}, ("B42", "aspect_ratio")),
        (BANANA, {"quality": 0}, ("B42", "quality")),
        (BANANA, {"mode": "img_vid_txt"}, ("B42", "mode")),
    ],
)
def test_what_seedhorse_does_not_take(model: str, fields: dict[str, Any], wrong: tuple[str, str]) -> None:
    composed = asked(model, fields)
    assert codes(composed) == [wrong]
    assert composed.content == b""


@pytest.mark.parametrize(
    ("model", "references", "mode", "kind"),
    [
        (SEEDANCE, refs(), None, "img_txt"),
        (SEEDANCE, refs(images=5), None, "img_txt"),
        (SEEDANCE, refs(images=5, videos=5), None, "img_vid_txt"),
        (SEEDANCE, refs(audios=5, images=1), None, "img_aud_txt"),
        (SEEDANCE, refs(images=5, videos=5, audios=5), "IMG_vid_aud_TXT", "img_vid_aud_txt"),
        (BANANA, refs(), None, "txt"),
        (BANANA, refs(images=5), None, "img_txt"),
    ],
)
def test_the_type_follows_from_the_references(
    model: str, references: Sequence[Reference], mode: str | None, kind: str
) -> None:
    composed = asked(model, {} if mode is None else {"mode": mode}, references=references)
    assert composed.faults == ()
    assert composed.body["type"] == kind


@pytest.mark.parametrize(
    ("model", "references", "mode", "wrong"),
    [
        (SEEDANCE, refs(videos=1), None, [("B46", "references.images")]),
        (SEEDANCE, refs(audios=1), None, [("B46", "references.images")]),
        (SEEDANCE, refs(videos=1, audios=1), None, [("B46", "references.images")]),
        (SEEDANCE, refs(images=6), None, [("B46", "references.images")]),
        (SEEDANCE, refs(images=1, videos=6), None, [("B46", "references.videos")]),
        (SEEDANCE, refs(images=1, audios=6), None, [("B46", "references.audios")]),
        (SEEDANCE, refs(images=1, videos=1), "img_txt", [("B46", "references.videos")]),
        (SEEDANCE, refs(images=1), "img_aud_txt", [("B46", "references.audios")]),
        (SEEDANCE, refs(first_frame=1), None, [("B32", "references.first_frame")]),
        (BANANA, refs(images=6), None, [("B46", "references.images")]),
        (BANANA, refs(), "img_txt", [("B46", "references.images")]),
        (BANANA, refs(images=1), "txt", [("B46", "references.images")]),
        (BANANA, refs(images=1, videos=1), None, [("B32", "references.videos")]),
    ],
)
def test_references_that_do_not_fit(
    model: str, references: Sequence[Reference], mode: str | None, wrong: list[tuple[str, str]]
) -> None:
    composed = asked(model, {} if mode is None else {"mode": mode}, references=references)
    assert codes(composed) == wrong
    assert composed.content == b""


@pytest.mark.parametrize(
    ("model", "params", "wrong"),
    [
        (SEEDANCE, {"type": "img_vid_txt"}, [("B46", "params.type")]),
        (SEEDANCE, {"type": "txt"}, [("B42", "params.type")]),
        (SEEDANCE, {"refVideoUrls": [URL]}, [("B46", "params.refVideoUrls")]),
        (SEEDANCE, {"refVideoUrls": [URL], "refAudioUrls": [URL], "type": "img_vid_aud_txt"},
         [("B46", "params.refVideoUrls"), ("B46", "params.refAudioUrls")]),
        (SEEDANCE, {"refImageUrls": [URL] * 6}, [("B46", "params.refImageUrls")]),
        (SEEDANCE, {"refImageUrls": []}, [("B46", "params.refImageUrls")]),
        (SEEDANCE, {"refImageUrls": [URL], "refAudioUrls": [URL]}, [("B46", "references")]),
        (SEEDANCE, {"durationSeconds": 16}, [("B41", "params.durationSeconds")]),
        (SEEDANCE, {"imageCount": 2}, [("B32", "params.imageCount")]),
        (SEEDANCE, {"model": BANANA}, [("B32", "params.model")]),
        (SEEDANCE, {"taskName": " "}, [("B40", "params.taskName")]),
        (BANANA, {"type": "img_txt"}, [("B46", "params.type")]),
        (BANANA, {"refImageUrls": [URL]}, [("B46", "references")]),
        (BANANA, {"refVideoUrls": [URL]}, [("B32", "params.refVideoUrls")]),
        (BANANA, {"size": "3K"}, [("B42", "params.size")]),
    ],
)  # fmt: skip
def test_params_are_checked_like_the_rest(model: str, params: dict[str, Any], wrong: list[tuple[str, str]]) -> None:
    composed = asked(model, params=params)
    assert codes(composed) == wrong


def test_params_may_say_all_that_references_say() -> None:
    urls = {"refImageUrls": [URL], "refVideoUrls": [URL], "refAudioUrls": [URL]}
    by_params = asked(SEEDANCE, params={"type": "img_vid_aud_txt", **urls})
    assert by_params.content == asked(SEEDANCE, references=refs(images=1, videos=1, audios=1)).content
    assert asked(BANANA, params={"type": "img_txt", "refImageUrls": [URL]}).faults == ()


@pytest.mark.parametrize(
    ("written", "sent"), [("1k", "1K"), ("1K", "1K"), ("2k", "2K"), ("2K", "2K"), ("4k", "4k"), ("4K", "4k")]
)
@pytest.mark.parametrize("name", ["size", "resolution"])
def test_sizes_are_sent_as_the_document_spells_them(name: str, written: str, sent: str) -> None:
    composed = asked(BANANA, {name: written})
    assert composed.body["size"] == sent
    assert composed.fields == {"prompt": PROMPT, "size": sent}
    assert asked(BANANA, params={"size": written}).content == composed.content


def test_an_order_is_marked_by_its_task_name_unless_it_has_one() -> None:
    for model in SEEDHORSE.models:
        plain = asked(model.name)
        assert json.loads(stamped(plain, {model.mark_field: "runner-0f"})) == {**plain.body, "taskName": "runner-0f"}
        named = asked(model.name, params={"taskName": "Mine"})
        assert stamped(named, {model.mark_field: "runner-0f"}) == named.content
        assert b'"taskName":"Mine"' in named.content


def test_what_seedhorse_promises() -> None:
    assert (SEEDHORSE.idempotency_header, SEEDHORSE.key_window) == ("X-Idempotency-Key", 3600)
    assert (SEEDHORSE.history, SEEDHORSE.balance, SEEDHORSE.hosting, SEEDHORSE.windows) == (None, None, None, ())
    assert not SEEDHORSE.refunds_failures, "no refund is documented there"
    assert "if the provider honours its key" in SEEDHORSE.guarantee


# --- seedhorse-video at plan


@pytest.mark.parametrize("model", FILMS)
@pytest.mark.parametrize(
    ("fields", "references", "wrong"),
    [
        ({"duration": 3}, refs(), ("B41", "duration")),
        ({"duration": 31}, refs(), ("B41", "duration")),
        ({"duration": "5s"}, refs(), ("B40", "duration")),
        ({"resolution": "1080p"}, refs(), ("B42", "resolution")),
        ({"audio": 1}, refs(), ("B40", "audio")),
        ({"size": "2K"}, refs(), ("B32", "size")),
        ({"count": 2}, refs(), ("B32", "count")),
        ({"quality": 80}, refs(), ("B32", "quality")),
        ({"mode": "text-to-video"}, refs(), ("B32", "mode")),
        ({}, refs(images=10), ("B46", "references.images")),
        ({}, refs(videos=4), ("B46", "references.videos")),
        ({}, refs(audios=4), ("B46", "references.audios")),
        ({}, refs(last_frame=1), ("B46", "references.first_frame")),
        ({}, refs(first_frame=2), ("B46", "references.first_frame")),
        ({}, refs(first_frame=1, images=1), ("B46", "references")),
        ({}, refs(first_frame=1, last_frame=1, audios=1), ("B46", "references")),
    ],
)
def test_what_seedhorse_video_does_not_take(
    model: str, fields: dict[str, Any], references: Sequence[Reference], wrong: tuple[str, str]
) -> None:
    composed = asked(model, fields, references=references)
    assert codes(composed) == [wrong]
    assert composed.content == b""


@pytest.mark.parametrize(
    ("references", "native"),
    [
        (refs(), set()),
        (refs(first_frame=1), {"image_url"}),
        (refs(first_frame=1, last_frame=1), {"image_url", "end_image_url"}),
        (refs(images=9, videos=3, audios=3), {"reference_images", "reference_videos", "reference_audios"}),
        (refs(videos=1), {"reference_videos"}),
    ],
)
def test_references_of_seedhorse_video(references: Sequence[Reference], native: set[str]) -> None:
    composed = asked("seedance-2.0", references=references)
    assert composed.faults == ()
    assert composed.body.keys() == {"model", "prompt"} | native


def test_names_that_are_assumed_are_checked_and_others_passed_on() -> None:
    wrong = {"duration": 31, "reference_images": [URL] * 10, "end_image_url": "http://a.example/1"}
    assert codes(asked("seedance-2.0", params=wrong)) == [
        ("B41", "params.duration"),
        ("B46", "params.reference_images"),
        ("B61", "params.end_image_url"),
    ]
    passed_on = {"images": [URL], "seconds": Decimal("5.50")}
    assert asked("seedance-2.0", params=passed_on).body == {"model": "seedance-2.0", "prompt": PROMPT, **passed_on}
    assert codes(asked("seedance-2.0", params={"model": "x"})) == [("B32", "params.model")]


@pytest.mark.parametrize("model", PICTURES)
def test_image_models_are_known_and_cannot_be_ordered(model: str) -> None:
    (fault,) = asked(model).faults
    assert (fault.code, fault.field) == ("B35", "model")
    assert fault.message == f"seedhorse-video cannot render {model}: no endpoint is documented for images"
    assert fault.hint == f"models that render: {', '.join(FILMS)}"


def test_nobody_is_sent_to_a_model_that_cannot_be_ordered() -> None:
    (fault,) = compose(registry()["happyhorse"], "NanoBanana Pro", {"prompt": PROMPT}).faults
    assert (fault.code, fault.field) == ("B35", "model")
    (fault,) = compose(SEEDHORSE, "seedance-2.0", {"prompt": PROMPT}).faults
    assert fault.hint == "write provider: seedhorse-video, or choose another model"


def test_what_seedhorse_video_promises() -> None:
    assert not VIDEO.keyed
    assert (VIDEO.history, VIDEO.balance, VIDEO.hosting, VIDEO.windows) == (None, None, None, ())
    assert VIDEO.refunds_failures
    assert VIDEO.guarantee.startswith("at most once, whatever the provider does")


# --- prices


def test_no_price_is_documented_and_what_costs_differently_has_another_shape() -> None:
    one = [
        asked(SEEDANCE),
        asked(SEEDANCE, {"duration": 5}),
        asked(SEEDANCE, {"duration": 10}),
        asked(SEEDANCE, {"quality": 80}),
        asked(SEEDANCE, {"resolution": "720p"}),
        asked(SEEDANCE, {"audio": False}),
        asked(SEEDANCE, references=refs(images=1, videos=1)),
        asked(BANANA),
        asked(BANANA, {"size": "2K"}),
        asked(BANANA, {"count": 2}),
        asked(BANANA, references=refs(images=1)),
    ]
    other = [asked(model, fields) for model in FILMS for fields in ({}, {"duration": 5}, {"resolution": "480p"})]
    for composed in (one, other):
        assert len({c.shape for c in composed}) == len(composed)
        assert all(c.price is None and not c.faults for c in composed)
    assert asked(SEEDANCE, {"audio": True}).shape == asked(SEEDANCE).shape, "that is the documented default"
    assert asked(FILMS[0], references=refs(first_frame=1)).shape == FILMS[0], "no URL is part of a shape"


# --- whatever is answered

DOCUMENTED = (
    0, 10001, 10006, 20001, 20002, 20003, 20008, 30001, 40002, 40003, 50001, 50002, 50003, 50006, 50007, 50008, 50009,
    50010, 50011, 50014, 50015, 60001, 60002,
)  # fmt: skip
IN_DOUBT = {"10001", "10006", "60002", "20003", "40002"}  # the last two speak of a task: no order gets them
STATUS = st.sampled_from((200, 201, 303, 400, 401, 402, 403, 404, 409, 422, 500, 503))
ODD = st.none() | st.booleans() | st.integers(-1, 7) | st.sampled_from(("2", "3", "5", "Completed", "", [], {}))
URLS = st.sampled_from((None, "", URL, "https://a.example/2", 7))
RESULTS = st.lists(
    st.fixed_dictionaries({}, optional={"fileUrl": URLS, "subStatus": ODD, "failReason": ODD, "thumbnailUrl": URLS})
    | ODD,
    max_size=5,
)
TASK = st.fixed_dictionaries(
    {"taskStatus": ODD},
    optional={
        "taskId": st.sampled_from((9034, "9034", 9035, None)),
        "results": RESULTS | ODD,
        "failReason": ODD | st.just("blocked by policy"),
        "imageCount": ODD,
        "subTaskTotal": st.integers(-1, 10**12),
        "progress": ODD,
        "estimatedCredits": ODD,
    },
)
ENVELOPE = st.fixed_dictionaries(
    {"code": st.sampled_from(DOCUMENTED) | st.integers(0, 99999) | st.sampled_from(("0", "60001", None, False))},
    optional={"data": TASK | st.none(), "msg": st.text(max_size=9), "ok": st.sampled_from((True, False, None))},
)
ANSWERS = st.builds(Reply, STATUS, st.just({}), ENVELOPE)


@given(reply=ANSWERS)
async def test_only_a_documented_code_refuses_an_order(reply: Reply) -> None:
    outcome = await SEEDHORSE.submit(Once(reply), "/p", b"{}", "k")
    told = str(reply.data["code"])
    if isinstance(outcome, Accepted):
        assert reply.ok
        assert told == "0"
        assert reply.data.get("ok") is not False
        assert outcome.task_id == str(reply.data["data"]["taskId"])
    elif outcome.action is not Action.AMBIGUOUS:
        assert outcome.code == told
        assert int(told) in DOCUMENTED
        assert told not in IN_DOUBT
        assert 200 <= reply.status < 300 or reply.status >= 400
    elif reply.status != 303:
        assert not told.isdigit() or told in IN_DOUBT or told == "0" or int(told) not in DOCUMENTED


@given(reply=ANSWERS)
async def test_a_poll_believes_only_what_is_said_in_so_many_words(reply: Reply) -> None:
    outcome = await SEEDHORSE.poll(Once(reply), "", "9034")
    if isinstance(outcome, Refusal):
        assert outcome.action in (Action.LATER, Action.STOP, Action.NOT_FOUND)
        return
    task = reply.data["data"]
    assert reply.ok
    assert str(reply.data["code"]) == "0"
    assert str(task.get("taskId") or 9034) == "9034"
    ends = {"2": Phase.DONE, "3": Phase.FAILED, "5": Phase.CANCELLED}
    assert outcome.phase is ends.get(outcome.status, Phase.GOING)
    assert outcome.recognised == (outcome.status in {"0", "1", "2", "3", "4", "5"})
    assert (outcome.used, outcome.charged, outcome.refunded) == (None, None, None)
    assert (outcome.error is not None) == (outcome.phase in (Phase.FAILED, Phase.CANCELLED))
    good = {r["fileUrl"] for r in as_list(task.get("results")) if comes(r)}
    assert {file.url for file in outcome.outputs} == (good if outcome.phase is Phase.DONE else set())
    assert len(outcome.missing) <= 5


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def comes(result: Any) -> bool:
    """The rule of the document's own example: a file, and a subtask that did not fail."""
    return (
        isinstance(result, dict)
        and isinstance(result.get("fileUrl"), str)
        and result["fileUrl"] != ""
        and str(result.get("subStatus")) != "2"
    )


def test_every_documented_code_stands_in_the_transcript() -> None:
    clear = {code for code in documented_codes("seedhorse") if code.isdigit() and len(code) == 5}
    assert {str(code) for code in DOCUMENTED[1:]} <= clear | {"10001", "10006", "60002"}


@pytest.mark.parametrize("status", [*range(500, 512), 408, 200, 201, 204, 302])
async def test_credits_are_deducted_before_a_task_is_submitted(status: int) -> None:
    """So whatever is no clear refusal may have cost a render, even where it speaks of credits."""
    for said in ({"error": {"code": "insufficient_credits"}}, {"error": "Insufficient credits"}, {"code": 402}, {}):
        outcome = await VIDEO.submit(Once(Reply(status, {}, said)), "/p", b"{}", None)
        assert isinstance(outcome, Refusal)
        assert outcome.action is Action.AMBIGUOUS


@pytest.mark.parametrize("status", [400, 404, 405, 409, 413, 415, 422])
async def test_other_refusals_concern_the_job(status: int) -> None:
    outcome = await VIDEO.submit(Once(Reply(status, {}, {"message": "no"})), "/p", b"{}", None)
    assert isinstance(outcome, Refusal)
    assert (outcome.action, outcome.message) == (Action.FAIL, "no")
    assert outcome.kind in (ErrorKind.INVALID_REQUEST, ErrorKind.NOT_FOUND)
