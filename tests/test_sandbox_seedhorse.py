"""The pretend seedhorse behaves as its document (001) says, its traps included."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from sandbox_client import KEY, OTHER_KEY, Client, client_of, error_of, until

GENERATE = "/api/v1/task/generate"
REFERENCE = {kind: f"https://example.com/reference.{kind}" for kind in ("jpg", "mp4", "mp3")}
IMAGE = {"model": "Imagen Nano Banana 2", "taskName": "a still", "type": "txt", "prompt": "a cat"}
VIDEO = {"model": "Seedance 2.0", "taskName": "a clip", "type": "img_txt", "prompt": "a cat"}
WITH_ALL = {
    "type": "img_vid_aud_txt",
    "refImageUrls": [REFERENCE["jpg"]],
    "refVideoUrls": [REFERENCE["mp4"]],
    "refAudioUrls": [REFERENCE["mp3"]],
}
SAID = {  # the values that the document's video examples share
    "durationSeconds": 5,
    "resolution": "720p",
    "aspectRatio": "16:9",
    "generateAudio": True,
}


async def refused(client: Client, body: Any, **more: Any) -> int:
    """The code of a refusal, which charges nothing."""
    before = client.money()
    answer = await client.ask("POST", GENERATE, json=body, **more)
    found = answer.json()
    assert (answer.status_code, found["ok"], found["data"]) == (200, False, None)
    assert found["msg"]
    assert client.money() == before
    return int(found["code"])


async def polled(client: Client, task: str | int, query: str = "") -> int:
    answer = await client.ask("GET", f"/api/v1/query/{task}{query}")
    assert answer.status_code == 200
    return int(answer.json()["code"])


# -- what is accepted ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "price"),
    [
        ({**IMAGE, "aspectRatio": "9:16", "imageCount": 1, "size": "4k"}, 13),
        ({**IMAGE, "type": "img_txt", "refImageUrls": [REFERENCE["jpg"]], "imageCount": 1, "size": "4k"}, 13),
        ({**VIDEO, **SAID}, 38),
        ({**VIDEO, **SAID, "refImageUrls": [REFERENCE["jpg"]]}, 38),
        ({**VIDEO, **SAID, **WITH_ALL, "type": "img_vid_txt", "refAudioUrls": []}, 38),
        ({**VIDEO, **SAID, **WITH_ALL, "type": "img_aud_txt", "refVideoUrls": []}, 38),
        ({**VIDEO, **SAID, **WITH_ALL}, 38),
        ({**VIDEO, "durationSeconds": 4}, 30),
        ({**VIDEO, "durationSeconds": 15, "seed": 2**63 - 1, "quality": 100}, 113),
        ({**VIDEO, "refImageUrls": [REFERENCE["jpg"]] * 5}, 38),
        (IMAGE, 5),
        ({**IMAGE, "size": "2K", "imageCount": 3, "quality": 50, "seed": -1}, 23),
        ({**IMAGE, "size": "1K", "imageCount": 4}, 20),
    ],
)
async def test_what_the_tables_allow_is_accepted_and_pre_deducted_in_whole_credits(
    body: dict[str, Any], price: int
) -> None:
    async with client_of("seedhorse") as client:
        answer = await client.ask("POST", GENERATE, json=body)
        assert answer.status_code == 200
        found = answer.json()
        assert (found["code"], found["msg"], found["ok"]) == (0, "success", True)
        assert found["data"]["estimatedCredits"] == price
        assert len(found["data"]["taskNo"]) == 32
        assert client.money() == (str(price), "0")
        assert client.sandbox.observed()["violations"] == []


async def test_an_id_is_a_number_beyond_what_a_float_holds() -> None:
    async with client_of("seedhorse") as client:
        data = (await client.order()).json()["data"]
        assert isinstance(data["taskId"], int)
        assert 2**53 < data["taskId"] < 2**63
        assert client.books()["tasks"][0]["id"] == str(data["taskId"])
        assert (await client.status(str(data["taskId"])))["taskId"] == data["taskId"]


async def test_each_task_has_a_number_of_its_own() -> None:
    async with client_of("seedhorse") as client:
        made = [(await client.order()).json()["data"] for _ in range(20)]
        for name in ("taskId", "taskNo"):
            assert len({data[name] for data in made}) == 20


# -- every code ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code"),
    [
        *(({missing: None}, 30001) for missing in ("model", "taskName", "type", "prompt")),
        ({"prompt": "  "}, 30001),
        ({"taskName": 5}, 30001),
        ({"model": 5}, 30001),
        ({"durationSeconds": "5"}, 30001),
        ({"durationSeconds": 5.0}, 30001),
        ({"durationSeconds": True}, 30001),
        ({"resolution": 720}, 30001),
        ({"aspectRatio": None}, 30001),
        ({"generateAudio": "true"}, 30001),
        ({"quality": 49}, 30001),
        ({"quality": 101}, 30001),
        ({"seed": -2}, 30001),
        ({"seed": 2**63}, 30001),
        ({"refImageUrls": REFERENCE["jpg"]}, 30001),
        ({"refImageUrls": [REFERENCE["jpg"]] * 6}, 30001),
        ({"refImageUrls": ["http://example.com/a.jpg"]}, 30001),
        ({"refImageUrls": ["https://127.0.0.1/a.jpg"]}, 30001),
        ({"imageCount": 1}, 30001),
        ({"size": "1K"}, 30001),
        ({"refVideoUrls": [REFERENCE["mp4"]]}, 30001),
        ({"refAudioUrls": [REFERENCE["mp3"]]}, 30001),
        ({**WITH_ALL, "refVideoUrls": []}, 30001),
        ({**WITH_ALL, "refAudioUrls": [REFERENCE["mp3"]] * 6}, 30001),
        ({"model": "Seedance 3.0"}, 40003),
        ({"model": "seedance 2.0"}, 40003),
        ({"type": "txt"}, 50003),
        ({"type": "vid_txt"}, 50003),
        ({"resolution": "1080p"}, 50006),
        ({"durationSeconds": 3}, 50007),
        ({"durationSeconds": 16}, 50007),
        ({"aspectRatio": "1:1"}, 50009),
        ({**WITH_ALL, "refImageUrls": []}, 50011),
        ({"refImageUrls": ["https://example.com/sandbox-unsafe.jpg"]}, 50014),
        ({"prompt": "a cat sandbox:refused"}, 50015),
    ],
)
async def test_videos_that_are_refused(change: dict[str, Any], code: int) -> None:
    async with client_of("seedhorse") as client:
        assert await refused(client, {**VIDEO, **change}) == code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        *(({name: value}, 30001) for name, value in SAID.items() if name != "aspectRatio"),
        ({"refImageUrls": [REFERENCE["jpg"]]}, 30001),
        ({"refVideoUrls": [REFERENCE["mp4"]]}, 30001),
        ({"imageCount": "2"}, 30001),
        ({"size": 4}, 30001),
        ({"type": "img_vid_txt"}, 50003),
        ({"size": "8K"}, 50008),
        ({"size": ""}, 50008),
        ({"aspectRatio": "4:3"}, 50009),
        ({"imageCount": 0}, 50010),
        ({"imageCount": 5}, 50010),
        ({"type": "img_txt"}, 50011),
        ({"type": "img_txt", "refImageUrls": []}, 50011),
    ],
)
async def test_images_that_are_refused(change: dict[str, Any], code: int) -> None:
    async with client_of("seedhorse") as client:
        assert await refused(client, {**IMAGE, **change}) == code


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'"text"', b"\xff\xfe{}"])
async def test_a_body_that_is_no_json_object_is_refused(content: bytes) -> None:
    async with client_of("seedhorse") as client:
        answer = await client.ask("POST", GENERATE, content=content, headers={"Content-Type": "application/json"})
        assert error_of(answer) == (200, 30001)


async def test_an_unknown_model_is_named_as_documented() -> None:
    async with client_of("seedhorse") as client:
        answer = await client.ask("POST", GENERATE, json={**VIDEO, "model": "Seedance 9"})
        assert answer.json() == {"code": 40003, "msg": "Seedance 9 model does not exist", "ok": False, "data": None}


@pytest.mark.parametrize(
    ("header", "code"), [("", 20001), ("Bearer", 20008), ("Bearer short", 20008), ("Basic abcdefghij", 20008)]
)
async def test_a_missing_key_and_a_bad_one_are_told_apart(header: str, code: int) -> None:
    async with client_of("seedhorse") as client:
        assert await refused(client, VIDEO, headers={"Authorization": header}) == code
        answer = await client.http.get(f"{client.sandbox.base_urls['seedhorse']}/api/v1/query/1")
        assert error_of(answer) == (200, 20001)


async def test_a_revoked_key_and_one_without_access() -> None:
    async with client_of("seedhorse") as client:
        task = await client.ordered()
        await client.control("keys", {"provider": "seedhorse", "key": KEY, "revoked": True})
        assert (await refused(client, VIDEO), await polled(client, task)) == (20008, 20008)
        await client.control("keys", {"provider": "seedhorse", "key": KEY, "revoked": False})
        await client.control("credits", {"provider": "seedhorse", "key": KEY, "paid_access": False})
        assert (await refused(client, VIDEO), await polled(client, task)) == (20002, 0)


async def test_another_accounts_task_and_one_that_is_not_there_are_told_apart() -> None:
    async with client_of("seedhorse") as client:
        task = await client.ordered()
        assert await polled(client, 9034) == 40002
        assert await polled(client, "a-name") == 30001
        client.key = OTHER_KEY
        assert await polled(client, task) == 20003


async def test_credits_that_do_not_suffice() -> None:
    async with client_of("seedhorse", credits=37) as client:
        assert await refused(client, VIDEO) == 60001
        await client.ordered({"durationSeconds": 4, "prompt": "a cat"})
        assert client.books()["balance"] == "7"


@pytest.mark.parametrize("code", [10001, 10006, 50001, 50002, 60002, 77777])
async def test_any_code_comes_on_request_before_and_after_the_charge(code: int) -> None:
    async with client_of("seedhorse") as client:
        await client.fault("error_before_charge", code=code)
        assert await refused(client, VIDEO) == code
        await client.fault("error_after_charge", code=str(code))
        assert error_of(await client.order()) == (200, code)
        assert client.money() == ("38", "0")
        await client.fault("error_before_charge", code=code, when="poll")
        assert await polled(client, client.books()["tasks"][0]["id"]) == code


async def test_a_code_need_not_be_a_number() -> None:
    async with client_of("seedhorse") as client:
        await client.fault("error_before_charge", code="E_BUSY", status=503)
        assert error_of(await client.order()) == (503, "E_BUSY")


async def test_an_unavailable_channel_and_a_busy_system() -> None:
    async with client_of("seedhorse") as client:
        for fault, code in (("unavailable", 50002), ("error_before_charge", 10001)):
            await client.fault(fault)
            assert await refused(client, VIDEO) == code


async def test_codes_can_come_at_a_rate() -> None:
    faults = "seedhorse.error_before_charge@submit=0.5:code=60002"
    async with client_of("seedhorse", faults=faults) as client:
        codes = [(await client.order()).json()["code"] for _ in range(60)]
        assert set(codes) == {0, 60002}
        assert client.money() == (str(38 * codes.count(0)), "0")


@pytest.mark.parametrize("status", [400, 500])
async def test_errors_can_have_another_http_status(status: int) -> None:
    async with client_of("seedhorse", error_statuses={"seedhorse": status}) as client:
        assert error_of(await client.order({"prompt": "  "})) == (status, 30001)
        assert error_of(await client.ask("GET", "/api/v1/query/9034")) == (status, 40002)
        await client.fault("error_after_charge")
        assert error_of(await client.order()) == (status, 10001)
        await client.fault("unavailable", status=503)
        assert error_of(await client.order()) == (503, 50002)
        await client.ordered()


async def test_other_paths_are_not_found() -> None:
    async with client_of("seedhorse") as client:
        assert error_of(await client.ask("GET", "/api/v1/tasks/1")) == (404, 40002)
        assert error_of(await client.ask("DELETE", "/api/v1/query/1")) == (404, 40002)


async def test_a_key_in_the_query_is_refused_and_told() -> None:
    async with client_of("seedhorse") as client:
        assert await polled(client, 1, f"?api_key={KEY}") == 30001
        (leak,) = client.sandbox.observed()["leaks"]
        assert (leak["name"], KEY in str(leak)) == ("key_in_query", False)


async def test_a_field_nobody_documents_is_ignored_and_told() -> None:
    async with client_of("seedhorse") as client:
        await client.ordered({"prompt": "a cat", "negativePrompt": "dogs"})
        (violation,) = client.sandbox.observed()["violations"]
        assert violation["detail"] == "/seedhorse/api/v1/task/generate: negativePrompt"


async def test_no_limit_of_requests_is_documented_but_tasks_at_once_can_be_limited() -> None:
    async with client_of("seedhorse", concurrency={"seedhorse": 70}) as client:
        for _ in range(70):
            await client.ordered()
        assert error_of(await client.order()) == (429, 10001)
        (account,) = client.sandbox.observed()["accounts"]["seedhorse"].values()
        assert (account["max_in_flight"], account["rate_limited"]) == (70, 1)


# -- keys ----------------------------------------------------------------------------------------------------------


async def test_the_same_key_and_body_are_answered_again_without_a_second_charge() -> None:
    async with client_of("seedhorse") as client:
        answers = [await client.order(key="order-1") for _ in range(2)]
        await client.finish(answers[0].json()["data"]["taskId"], "failed")
        answers.append(await client.order(key="order-1"))
        assert len({answer.content for answer in answers}) == 1
        assert client.money() == ("38", "0")
        assert client.books()["tasks"][0]["idempotency_key"] == "order-1"


async def test_the_same_key_with_another_body_is_refused() -> None:
    async with client_of("seedhorse") as client:
        await client.ordered(key="order-1")
        assert await refused(client, VIDEO, headers={"X-Idempotency-Key": "order-1"}) == 30001
        (violation,) = client.sandbox.observed()["violations"]
        assert violation["name"] == "key_reused"


async def test_only_the_documented_header_is_a_key() -> None:
    async with client_of("seedhorse") as client:
        client.headers = {"Idempotency-Key": "order-1"}
        assert await client.ordered() != await client.ordered()
        assert client.money() == ("76", "0")


async def test_a_key_whose_request_is_still_being_processed_fails_to_get_the_lock_and_then_is_a_replay() -> None:
    async with client_of("seedhorse", speed=200) as client:
        await client.fault("late_accept", seconds=150)
        with pytest.raises(httpx.TransportError):
            await client.order(key="order-1")
        assert error_of(await client.order(key="order-1")) == (200, 10006)
        assert error_of(await client.order({"prompt": "a dog"}, key="order-1")) == (200, 30001)
        assert client.money() == ("0", "0")

        async def try_again() -> Any:
            data = (await client.order(key="order-1")).json()
            return data["data"] if data["code"] != 10006 else None

        data = await until(try_again)
        assert str(data["taskId"]) == client.books()["tasks"][0]["id"]
        assert client.money() == ("38", "0")


async def test_a_lost_answer_is_found_again_under_its_key() -> None:
    async with client_of("seedhorse") as client:
        await client.fault("lost_answer")
        with pytest.raises(httpx.TransportError):
            await client.order(key="order-1")
        assert await client.ordered(key="order-1") == client.books()["tasks"][0]["id"]
        assert client.money() == ("38", "0")


async def test_a_refusal_is_not_kept_under_the_key() -> None:
    async with client_of("seedhorse", credits=0) as client:
        assert error_of(await client.order(key="order-1")) == (200, 60001)
        await client.control("credits", {"provider": "seedhorse", "key": KEY, "balance": 38})
        await client.ordered(key="order-1")
        assert client.books()["balance"] == "0"


async def test_sixty_four_at_once_under_one_key_are_one_order() -> None:
    async with client_of("seedhorse") as client:
        answers = await asyncio.gather(*(client.order(key="order-1") for _ in range(64)))
        assert {str(answer.json()["data"]["taskId"]) for answer in answers} == {client.books()["tasks"][0]["id"]}
        assert client.money() == ("38", "0")
