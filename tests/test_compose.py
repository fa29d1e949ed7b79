"""From common fields to the bytes that are sent: translation, faults, defaults, prices; and that it is fast."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.ledger import Price
from runner.providers import registry
from runner.providers.compose import Composed, canonical, compose
from runner.providers.description import Fault, Provider, Reference
from runner.references import placeholder

SEEDANCE2AI = registry()["seedance2ai"]
HAPPYHORSE = registry()["happyhorse"]
PROMPT = "a cat on a wall"


def video(fields: dict[str, Any] | None = None, **rest: Any) -> Composed:
    return compose(SEEDANCE2AI, "seedance", {"prompt": PROMPT, **(fields or {})}, **rest)


def gpt(fields: dict[str, Any] | None = None, **rest: Any) -> Composed:
    given_fields = {"prompt": PROMPT, "resolution": "1K", "aspect_ratio": "1:1", **(fields or {})}
    return compose(SEEDANCE2AI, "gpt-image-2", given_fields, **rest)


def horse(model: str = "doubao-seedance-2-0", fields: dict[str, Any] | None = None, **rest: Any) -> Composed:
    return compose(HAPPYHORSE, model, {"prompt": PROMPT, **(fields or {})}, **rest)


def refs(**roles: Sequence[str]) -> list[Reference]:
    return [Reference(role, url) for role, urls in roles.items() for url in urls]


def codes(composed: Composed) -> list[tuple[str, str]]:
    return [(fault.code, fault.field) for fault in composed.faults]


# --- what is sent


def test_the_body_is_canonical() -> None:
    one = video({"duration": 5, "seed": 7}, params={"channel": "wild", "fixed_lens": True})
    other = video({"seed": "7", "duration": "5"}, params={"fixed_lens": "true", "channel": "WILD"})
    assert one.content == other.content
    assert one.content == (
        b'{"channel":"wild","duration":"5","fixed_lens":true,'
        b'"mode":"text-to-video","prompt":"a cat on a wall","seed":7}'
    )
    assert json.loads(one.content) == one.body


def test_text_goes_out_as_utf_8() -> None:
    assert "Zürich 東京 🎬\\n".encode() in video({"prompt": 'Zürich 東京 🎬\n"quoted"'}).content


def test_numbers_are_exact() -> None:
    composed = horse(fields={"duration": Decimal("2.30")})
    assert b'"duration":2.3,' in composed.content
    assert composed.body["duration"] == Decimal("2.3")
    assert horse(fields={"duration": 2.3}).content == composed.content


@pytest.mark.parametrize("written", ["5", 5, "5.0", Decimal("5.00"), 5.0, " 5 ", "+5", "005", "0x5", "0o5"])
def test_a_whole_number_has_one_form(written: Any) -> None:
    assert horse(fields={"duration": written}).body["duration"] == 5
    assert type(horse(fields={"duration": written}).body["duration"]) is int
    assert video({"duration": written}).body["duration"] == "5"
    assert video({"duration": written}).fields["duration"] == 5


def test_fields_are_kept_in_the_providers_spelling() -> None:
    composed = compose(
        SEEDANCE2AI, "nano-banana-pro", {"prompt": PROMPT, "size": "4k", "format": "JPG", "aspect_ratio": "AUTO"}
    )
    assert composed.fields == {"prompt": PROMPT, "resolution": "4K", "format": "jpeg", "aspect_ratio": "auto"}
    assert composed.body["resolution"] == "4K"


def test_size_and_resolution_are_one_field_of_images() -> None:
    assert gpt({"size": "1k"}).faults == ()
    assert codes(gpt({"size": "4K"})) == [("B42", "size")]
    assert codes(video({"size": "720p"})) == [("B32", "size")]


@pytest.mark.parametrize(
    ("composed", "extension"),
    [
        (video(), "mp4"),
        (gpt(), "png"),
        (compose(SEEDANCE2AI, "nano-banana-pro", {"prompt": PROMPT}, params={"output_format": "jpeg"}), "jpg"),
        (compose(HAPPYHORSE, "nano-banana-2", {"prompt": PROMPT, "format": "webp"}), "webp"),
        (compose(HAPPYHORSE, "nano-banana-2", {"prompt": PROMPT}), "png"),
    ],
)
def test_the_extension_follows_the_format(composed: Composed, extension: str) -> None:
    assert composed.extension == extension


def test_params_go_last() -> None:
    assert video({"duration": 5}, params={"duration": 9}).body["duration"] == "9"
    assert gpt(
        references=refs(images=["https://a.example/1.png"]), params={"imageUrls": ["https://a.example/2.png"]}
    ).body["imageUrls"] == ["https://a.example/2.png"]


def test_params_are_checked_like_the_rest() -> None:
    wrong = {"duration": 30, "channel": "fast", "image_url": "http://a.example/1", "media_urls": "x", "made_up": 1}
    composed = video(params=wrong)
    assert codes(composed) == [
        ("B41", "params.duration"),
        ("B42", "params.channel"),
        ("B61", "params.image_url"),
        ("B40", "params.media_urls"),
        ("B32", "params.made_up"),
    ]
    assert codes(horse(params={"negative_prompt": "x"})) == [("B32", "params.negative_prompt")]
    assert codes(horse(params={"model": "x"})) == [("B32", "params.model")]


def test_too_many_urls_in_params() -> None:
    composed = video(params={"mode": "media-to-video", "media_urls": [f"https://a.example/{n}" for n in range(13)]})
    assert codes(composed) == [("B46", "params.media_urls")]


# --- the mode follows from the references


@pytest.mark.parametrize(
    ("references", "mode"),
    [
        (refs(), "text-to-video"),
        (refs(first_frame=["https://a.example/1"]), "image-to-video"),
        (refs(first_frame=["https://a.example/1"], last_frame=["https://a.example/2"]), "image-to-video"),
        (refs(images=["https://a.example/1"] * 12), "media-to-video"),
        (refs(audios=["https://a.example/1"]), "media-to-video"),
    ],
)
def test_the_mode(references: list[Reference], mode: str) -> None:
    assert video(references=references).body["mode"] == mode
    assert video({"mode": mode.upper()}, references=references).fields["mode"] == mode


@pytest.mark.parametrize(
    ("references", "mode", "wrong"),
    [
        (refs(images=["https://a.example/1"] * 13), None, [("B46", "references.images")]),
        (refs(images=["https://a.example/1"] * 7, videos=["https://a.example/2"] * 6), None, [("B46", "references")]),
        (refs(last_frame=["https://a.example/1"]), None, [("B46", "references.first_frame")]),
        (refs(first_frame=["https://a.example/1"] * 2), None, [("B46", "references.first_frame")]),
        (refs(first_frame=["https://a.example/1"], images=["https://a.example/2"]), None, [("B46", "references")]),
        (refs(images=["https://a.example/1"]), "text-to-video", [("B46", "references.images")]),
        (refs(), "image-to-video", [("B46", "references.first_frame")]),
        (refs(), "media-to-video", [("B46", "references")]),
        (refs(), "sideways", [("B42", "mode")]),
        (refs(), True, [("B42", "mode")]),
    ],
)
def test_references_that_do_not_fit(references: list[Reference], mode: Any, wrong: list[tuple[str, str]]) -> None:
    composed = video({} if mode is None else {"mode": mode}, references=references)
    assert codes(composed) == wrong
    assert composed.content == b""
    assert composed.price is None


def test_roles_a_model_does_not_have() -> None:
    assert codes(gpt(references=refs(videos=["https://a.example/1"]))) == [("B32", "references.videos")]
    assert codes(horse(references=refs(last_frame=["https://a.example/1"]))) == [("B32", "references.last_frame")]
    two = horse(references=refs(images=["https://a.example/1", "https://a.example/2"]))
    assert codes(two) == [("B46", "references.images")]
    assert codes(compose(HAPPYHORSE, "nano-banana-2", {"prompt": PROMPT, "mode": "x"})) == [("B32", "mode")]


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://a.example/1.png", None),
        ("https://8.8.8.8/1.png", None),
        ("https://a.example:8443/1.png?x=1", None),
        ("hello", "B60"),
        ("https://", "B60"),
        ("https://a b.example/", "B60"),
        ("https://a.example:99999/", "B60"),
        ("https://[::1/", "B60"),
        ("http://a.example/", "B61"),
        ("https://localhost/", "B62"),
        ("https://printer.local/", "B62"),
        ("https://127.0.0.1/", "B62"),
        ("https://10.1.2.3/", "B62"),
        ("https://169.254.169.254/", "B62"),
        ("https://[::1]/", "B62"),
        ("https://[::ffff:127.0.0.1]/", "B62"),
        ("https://2130706433/", "B62"),
        ("https://0x7f.1/", "B62"),
        ("file:///etc/passwd", "B63"),
        ("ftp://a.example/", "B63"),
        ("asset://asset-1", "B63"),
        ("https://me:hunter2@a.example/", "B31"),
    ],
)
def test_urls_a_provider_is_to_read(url: str, code: str | None) -> None:
    composed = horse(references=refs(first_frame=[url]))
    assert codes(composed) == ([] if code is None else [(code, "references.first_frame")])
    assert not any("hunter2" in fault.message + fault.hint for fault in composed.faults)


def test_a_local_file_composes_before_it_is_hosted() -> None:
    url = placeholder("ab" * 32, "image/png")
    composed = horse(references=[Reference("first_frame", url, path="hero.png")])
    assert composed.faults == ()
    assert composed.body["image_url"] == url
    hosted = horse(references=[Reference("first_frame", "http://127.0.0.1:9/u/1.png", path="hero.png")])
    assert hosted.faults == (), "a provider's own answer is not judged like a person's words"


# --- what is wrong


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"prompt": ""}, ("B38", "prompt")),
        ({"prompt": "  \n"}, ("B38", "prompt")),
        ({"prompt": "ab "}, ("B39", "prompt")),
        ({"prompt": "x" * 10_001}, ("B39", "prompt")),
        ({"prompt": True}, ("B20", "prompt")),
        ({"prompt": None}, ("B20", "prompt")),
        ({"prompt": 1984}, ("B22", "prompt")),
        ({"prompt": ["a"]}, ("B40", "prompt")),
        ({"prompt": "half \ud800 a sign"}, ("B26", "prompt")),
        ({"duration": 30}, ("B41", "duration")),
        ({"duration": 3}, ("B41", "duration")),
        ({"duration": "five"}, ("B40", "duration")),
        ({"duration": "5s"}, ("B40", "duration")),
        ({"duration": "5.5"}, ("B40", "duration")),
        ({"duration": "1e1"}, ("B23", "duration")),
        ({"duration": ".inf"}, ("B24", "duration")),
        ({"duration": float("nan")}, ("B24", "duration")),
        ({"duration": True}, ("B40", "duration")),
        ({"duration": ""}, ("B40", "duration")),
        ({"duration": [5]}, ("B40", "duration")),
        ({"duration": None}, ("B40", "duration")),
        ({"duration": Decimal("1E+999999")}, ("B40", "duration")),
        ({"duration": 10**5000}, ("B40", "duration")),
        ({"duration": "9" * 5000}, ("B40", "duration")),
        ({"resolution": "4K"}, ("B42", "resolution")),
        ({"resolution": 720}, ("B42", "resolution")),
        ({"resolution": False}, ("B20", "resolution")),
        ({"aspect_ratio": "2:1"}, ("B42", "aspect_ratio")),
        ({"quality": "best"}, ("B42", "quality")),
        ({"seed": -2}, ("B45", "seed")),
        ({"seed": 4_294_967_296}, ("B45", "seed")),
        ({"audio": "yes"}, ("B40", "audio")),
        ({"audio": 1}, ("B40", "audio")),
        ({"count": 2}, ("B32", "count")),
        ({"negative_prompt": "x"}, ("B32", "negative_prompt")),
        ({"fixed_lens": True}, ("B32", "fixed_lens")),
    ],
)
def test_what_is_written_wrong(fields: dict[str, Any], wrong: tuple[str, str]) -> None:
    composed = video(fields)
    assert codes(composed) == [wrong]
    assert (composed.content, composed.price) == (b"", None)
    assert len(composed.faults[0].message) < 300


@pytest.mark.parametrize("count", [0, -1, 5, "5"])
def test_image_counts(count: Any) -> None:
    assert codes(gpt({"count": count})) == [("B44", "count")]


def test_all_faults_are_told_at_once() -> None:
    composed = video({"prompt": "", "duration": 99, "resolution": "8K", "nonsense": 1}, params={"chanel": "real"})
    assert [code for code, _ in codes(composed)] == ["B38", "B41", "B42", "B32", "B32"]


def test_a_fault_names_the_limit_and_the_way_out() -> None:
    (fault,) = video({"duration": 30}).faults
    assert fault.message == "duration 30 is outside 4–15 for seedance2ai seedance"
    assert "runner providers" in fault.hint
    (fault,) = video({"resolution": "1080"}).faults
    assert fault.message == 'resolution "1080" is not allowed for seedance2ai seedance: 720p or 1080p'
    assert fault.hint == "did you mean 1080p?"
    (fault,) = video({"prompt": "x" * 10_001}).faults
    assert "10,001" in fault.message
    assert "3–10,000" in fault.message
    (fault,) = video(params={"fixed_lense": True}).faults
    assert fault.hint == "did you mean fixed_lens?"
    (fault,) = video({"fixed_lens": True}).faults
    assert fault.hint == "write it under params: {fixed_lens: …}"


def test_missing_fields() -> None:
    assert codes(compose(SEEDANCE2AI, "seedance", {})) == [("B37", "prompt")]
    composed = compose(SEEDANCE2AI, "gpt-image-2", {"prompt": PROMPT})
    assert codes(composed) == [("B42", "resolution"), ("B42", "aspect_ratio")]
    assert "1K, 2K or 4K" in composed.faults[0].message
    assert codes(compose(HAPPYHORSE, "nano-banana-2", {})) == [("B37", "prompt")]


@pytest.mark.parametrize(
    ("provider", "model", "code", "hint"),
    [
        (SEEDANCE2AI, "Seedance", "B35", "did you mean seedance?"),
        (SEEDANCE2AI, "zzz", "B35", "its models: seedance, gpt-image-2, nano-banana-pro"),
        (HAPPYHORSE, "gpt-image-2", "B36", "write provider: seedance2ai, or choose another model"),
        (HAPPYHORSE, "seedance-2-0", "B35", "did you mean doubao-seedance-2-0?"),
    ],
)
def test_unknown_models(provider: Provider, model: str, code: str, hint: str) -> None:
    composed = compose(provider, model, {"prompt": PROMPT})
    assert codes(composed) == [(code, "model")]
    assert composed.faults[0].hint == hint
    assert composed.content == b""


# --- forbidden combinations, as documented


def test_no_seed_on_the_real_channel() -> None:
    assert codes(video({"seed": 1}, params={"channel": "real"})) == [("B45", "seed")]
    assert codes(video(params={"channel": "real", "seed": 1})) == [("B45", "params.seed")]
    assert video({"seed": 1}, params={"channel": "wild"}).faults == ()
    assert video(params={"channel": "real"}, defaults={"seed": 1}).dropped == ("seed",)


def test_auto_is_for_1k_only() -> None:
    assert gpt({"aspect_ratio": "auto"}).faults == ()
    assert codes(gpt({"aspect_ratio": "auto", "resolution": "2K"})) == [("B42", "resolution")]


def test_square_4k_needs_the_economy_channel() -> None:
    assert codes(gpt({"resolution": "4K"})) == [("B42", "resolution")]
    assert codes(gpt({"resolution": "2K"}, params={"resolution": "4K"})) == [("B42", "params.resolution")]
    assert gpt({"resolution": "4K"}, params={"channel": "economy"}).faults == ()
    assert gpt({"resolution": "4K", "aspect_ratio": "16:9"}).faults == ()


def test_params_cannot_contradict_the_references() -> None:
    image = refs(first_frame=["https://a.example/1"])
    assert codes(video(params={"mode": "image-to-video"})) == [("B46", "params.mode")]
    assert codes(video(params={"mode": "media-to-video"}, references=image)) == [("B46", "params.mode")]
    assert video(params={"mode": "image-to-video", "image_url": "https://a.example/1"}).faults == ()
    assert codes(gpt(params={"type": "image-to-image"})) == [("B46", "params.type")]
    nano = compose(SEEDANCE2AI, "nano-banana-pro", {"prompt": PROMPT}, params={"image_urls": ["https://a.example/1"]})
    assert codes(nano) == [("B46", "references")]
    assert codes(horse(params={"generation_type": "text_to_video"}, references=image)) == [
        ("B46", "params.generation_type")
    ]


def test_a_video_of_no_length() -> None:
    assert codes(horse(fields={"duration": 0})) == [("B41", "duration")]
    assert codes(horse(params={"duration": -1})) == [("B41", "params.duration")]


# --- defaults


def test_defaults_fill_what_the_job_leaves_open() -> None:
    composed = video({"duration": 7}, defaults={"duration": 5, "resolution": "1080P", "prompt": "other"})
    assert composed.body["duration"] == "7"
    assert composed.body["resolution"] == "1080p"
    assert composed.body["prompt"] == PROMPT
    assert composed.dropped == ()
    assert composed.fields == {"prompt": PROMPT, "duration": 7, "resolution": "1080p"}


def test_defaults_a_model_does_not_know_or_allow_are_dropped() -> None:
    defaults = {"duration": 30, "count": 2, "resolution": "720p", "mode": "text-to-image", "quality": 9}
    composed = video(defaults=defaults)
    assert composed.faults == ()
    assert composed.dropped == ("duration", "count", "mode", "quality")
    assert composed.fields == {"prompt": PROMPT, "resolution": "720p"}
    assert "duration" not in composed.body


def test_a_default_mode_yields_to_the_references() -> None:
    defaults = {"mode": "text-to-video"}
    assert video(defaults=defaults).fields["mode"] == "text-to-video"
    composed = video(references=refs(first_frame=["https://a.example/1"]), defaults=defaults)
    assert composed.body["mode"] == "image-to-video"
    assert composed.dropped == ("mode",)
    assert composed.fields == {"prompt": PROMPT}
    assert video({"mode": "TEXT-to-video"}, defaults={"mode": "media-to-video"}).dropped == ()


def test_a_default_yields_to_the_same_field_by_its_other_name() -> None:
    composed = gpt({"resolution": "2K"}, defaults={"size": "1K"})
    assert composed.body["resolution"] == "2K"
    assert composed.dropped == ()


def test_a_default_does_not_hide_a_mistake_in_the_job() -> None:
    assert codes(video({"duration": 99}, defaults={"duration": 5})) == [("B41", "duration")]


def test_a_dropped_default_that_was_needed_is_named() -> None:
    composed = compose(
        SEEDANCE2AI, "gpt-image-2", {"prompt": PROMPT, "aspect_ratio": "1:1"}, defaults={"resolution": "720p"}
    )
    assert codes(composed) == [("B42", "resolution")]
    assert "the default is not allowed here" in composed.faults[0].message


# --- prices and shapes


@pytest.mark.parametrize(
    ("model", "duration", "price"),
    [
        ("doubao-seedance-2-0", 5, Price.exactly(38)),
        ("doubao-seedance-2-0", 4, Price.exactly(30)),
        ("doubao-seedance-2-0", None, Price.exactly(38)),
        ("doubao-seedance-2-0", "1.1", Price.exactly(9)),
        ("doubao-seedance-2-0-fast", 5, Price.exactly(25)),
        ("doubao-seedance-1-5-pro", 10, Price.exactly(50)),
        ("seedance-1-5-pro", 10, Price.exactly(50)),
        ("seedance-1-5-pro", None, Price.exactly(25)),
        ("seedance-1-5-pro", "2.4", Price.exactly(12)),
    ],
)
def test_documented_prices(model: str, duration: Any, price: Price) -> None:
    assert horse(model, {} if duration is None else {"duration": duration}).price == price


def test_a_price_whose_rounding_is_unknown_is_an_interval() -> None:
    price = horse("seedance-1-5-pro", {"duration": "2.5"}).price
    assert price is not None
    assert (price.low, price.high) == (Decimal("12.5"), Decimal(13))
    assert price.note


def test_an_image_costs_five() -> None:
    assert compose(HAPPYHORSE, "nano-banana-2", {"prompt": PROMPT, "size": "4k"}).price == Price.exactly(5)


def test_a_price_sees_the_params() -> None:
    assert horse(fields={"duration": 5}, params={"duration": 10}).price == Price.exactly(75)


def test_both_spellings_are_one_model_and_are_sent_as_written() -> None:
    one, other = horse("seedance-1-5-pro"), horse("doubao-seedance-1-5-pro")
    assert one.model == other.model == "doubao-seedance-1-5-pro"
    assert one.body["model"] == "seedance-1-5-pro"
    assert other.body["model"] == "doubao-seedance-1-5-pro"


def test_what_costs_differently_has_another_shape() -> None:
    shapes = {
        video().shape,
        video({"resolution": "1080p"}).shape,
        video({"duration": 10}).shape,
        video({"quality": "pro"}).shape,
        video({"audio": False}).shape,
        video(params={"channel": "real"}).shape,
        video(references=refs(first_frame=["https://a.example/1"])).shape,
        gpt().shape,
        gpt({"count": 4}).shape,
        gpt(params={"channel": "economy"}).shape,
        gpt({"resolution": "2K"}).shape,
    }
    assert len(shapes) == 11
    assert video().price is None


def test_two_models_never_share_a_shape() -> None:
    """Prices are learned by provider and shape: one model's must not be taken for another's."""
    shapes = {compose(HAPPYHORSE, model.name, {"prompt": "a hat"}).shape for model in HAPPYHORSE.models}
    assert len(shapes) == len(HAPPYHORSE.models)


def test_a_documented_default_has_the_same_shape_as_when_it_is_written() -> None:
    assert video({"duration": 5, "resolution": "720p", "audio": True, "quality": "standard"}).shape == video().shape
    assert video().shape == (
        "seedance mode=text-to-video resolution=720p duration=5 quality_tier=standard channel=standard "
        "generate_audio=true"
    )


# --- whatever is written


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.decimals() | st.text(max_size=30) | st.just([1])
NAMES = st.sampled_from(
    [
        "prompt",
        "mode",
        "duration",
        "resolution",
        "aspect_ratio",
        "size",
        "count",
        "seed",
        "audio",
        "quality",
        "format",
        "negative_prompt",
        "channel",
    ]
)
SOME_FIELDS = st.dictionaries(NAMES, VALUES, max_size=4)
LIKELY_FIELDS = st.fixed_dictionaries(
    {"prompt": st.text("abc ", min_size=1, max_size=9), "resolution": st.sampled_from(("720p", "1k", "2K", "4K"))},
    optional={
        "aspect_ratio": st.sampled_from(("16:9", "1:1", "AUTO")),
        "duration": st.sampled_from((5, "7", Decimal("2.5"), 30)),
        "seed": st.integers(-2, 5),
        "audio": st.sampled_from((True, "false", "yes")),
        "format": st.sampled_from(("jpg", "PNG")),
        "mode": st.sampled_from(("text-to-video", "Text-To-Image", "image-to-video")),
    },
)
LIKELY_PARAMS = st.dictionaries(st.sampled_from(("channel", "fixed_lens", "seed")), st.sampled_from(("real", True, 3)))


@given(
    name=st.sampled_from([(p, m.name) for p in registry().values() for m in p.models]),
    fields=LIKELY_FIELDS | SOME_FIELDS,
    params=LIKELY_PARAMS | SOME_FIELDS,
    defaults=LIKELY_FIELDS | SOME_FIELDS,
)
@settings(max_examples=500)
def test_compose_never_raises_and_sends_only_what_is_right(
    name: tuple[Provider, str], fields: dict[str, Any], params: dict[str, Any], defaults: dict[str, Any]
) -> None:
    composed = compose(name[0], name[1], fields, (), params, defaults)
    assert bool(composed.content) == (not composed.faults)
    assert all(isinstance(fault, Fault) and fault.message and fault.code for fault in composed.faults)
    assert set(composed.dropped) <= set(defaults)
    if composed.content:
        model = name[0].model(name[1])
        assert model is not None
        assert set(fields) <= {*model.fields, "mode"}
        assert model.open_params or set(params) <= {*(field.native for field in model.fields.values()), *model.params}
        again = compose(name[0], name[1], composed.fields, (), params)
        assert again.content == composed.content, "normalised fields compose to the same request"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.decimals(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_canonical_json_says_the_same(value: Any) -> None:
    assert json.loads(canonical(value), parse_float=Decimal, parse_int=Decimal) == value


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=5))
def test_canonical_json_has_one_order(value: dict[str, Any]) -> None:
    assert canonical(dict(reversed(value.items()))) == canonical(value)
