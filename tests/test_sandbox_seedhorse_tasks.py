"""What the pretend seedhorse shows of a task, from its document (001): every status, several images, its traps."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sandbox_client import Client, client_of, url_of

GENERATE = "/api/v1/task/generate"
IMAGE = {"model": "Imagen Nano Banana 2", "taskName": "a still", "type": "txt"}
ASKED = {
    "aspectRatio": "16:9",
    "durationSeconds": 5,
    "generateAudio": False,
    "quality": 55,
    "refAudioUrls": ["https://example.com/music.mp3"],
    "refImageUrls": ["https://example.com/cat.jpg"],
    "refVideoUrls": ["https://example.com/reference.mp4"],
    "resolution": "720p",
    "seed": 9,
}


async def test_a_finished_video_looks_like_the_documents_example() -> None:
    """Completed, and yet `subStatus` is 0 (pending) and `subTaskTotal` 0; the whole task's duration is 0 too."""
    async with client_of("seedhorse") as client:
        task = await client.ordered({"prompt": "A grey kitten", "taskName": "Image-Text Video Generation"})
        shown = await client.finish(task)
        url, created = url_of(shown), shown.pop("createTime")
        assert len(created) == len("2026-04-22T11:01:32")
        (result,) = shown.pop("results")
        thumbnail = result.pop("thumbnailUrl")
        assert (thumbnail is None) == (int(task) % 2 == 0)
        assert result == {
            "durationSeconds": 5, "failReason": "", "fileUrl": url, "height": 0, "subStatus": 0, "width": 0,
        }  # fmt: skip
        assert shown == {
            "aspectRatio": "", "durationSeconds": 0, "failReason": "", "genMethod": "img_txt", "generateAudio": True,
            "imageCount": 1, "modelId": 4, "negativePrompt": None, "progress": 100, "prompt": "A grey kitten",
            "quality": 80, "refAudioUrls": [], "refImageUrls": [], "refVideoUrls": [], "resolution": "720p",
            "seed": -1, "size": "", "subTaskDone": 0, "subTaskTotal": 0, "taskId": int(task),
            "taskName": "Image-Text Video Generation", "taskStatus": 2, "taskType": 1,
        }  # fmt: skip
        assert url.startswith(client.sandbox.media + f"/media/seedhorse/{task}/0.mp4?")
        assert (await client.http.get(url)).content[4:8] == b"ftyp"


async def test_what_was_asked_is_shown_and_no_cost_ever() -> None:
    async with client_of("seedhorse") as client:
        shown = await client.status(await client.ordered({"prompt": "a cat", "type": "img_vid_aud_txt", **ASKED}))
        assert shown["genMethod"] == "img_vid_aud_txt"
        assert {name: shown[name] for name in ASKED} == ASKED
        assert not [name for name in shown if "credit" in name.lower() or "cost" in name.lower()]


async def test_thumbnails_are_given_or_not_and_are_pictures() -> None:
    async with client_of("seedhorse") as client:
        shown = [await client.finish(await client.ordered()) for _ in range(12)]
        thumbnails = [each["results"][0]["thumbnailUrl"] for each in shown]
        assert None in thumbnails
        (first, *_) = [thumbnail for thumbnail in thumbnails if thumbnail]
        assert (await client.http.get(first)).headers["Content-Type"] == "image/jpeg"


async def test_the_creation_has_no_zone_and_is_not_utc() -> None:
    async with client_of("seedhorse") as client:
        created = datetime.fromisoformat((await client.status(await client.ordered()))["createTime"])
        assert created.tzinfo is None
        ahead = created.replace(tzinfo=UTC).timestamp() - client.sandbox.clock.now()
        assert abs(ahead - 8 * 3600) < 60


async def test_a_task_goes_its_way() -> None:
    async with client_of("seedhorse") as client:
        task, seen = await client.ordered(), []
        while (shown := await client.status(task))["taskStatus"] != 2:
            seen.append((shown["taskStatus"], shown["progress"]))
            assert (shown["results"], shown["failReason"]) == ([], "")
            client.sandbox.clock.leap(1)
        assert list(dict.fromkeys(status for status, _ in seen)) == [0, 1]
        assert seen == sorted(seen)
        assert seen[0] == (0, 0)
        assert 85 < seen[-1][1] < 100


@pytest.mark.parametrize(
    ("outcome", "status", "reason"),
    [
        ("failed", 3, "The upstream model could not render this task."),
        ("moderated", 3, "The result was blocked by the content safety review."),
        ("cancelled", 5, "The task was cancelled."),
    ],
)
async def test_what_did_not_complete_stays_charged(outcome: str, status: int, reason: str) -> None:
    async with client_of("seedhorse") as client:
        shown = await client.finish(await client.ordered(), outcome)
        assert (shown["taskStatus"], shown["failReason"], shown["results"]) == (status, reason, [])
        assert shown["progress"] == 99
        client.sandbox.clock.leap(10**6)
        assert client.money() == ("38", "0")
        assert client.books()["balance"] == "99962"


async def test_a_cancelled_task_never_becomes_completed_or_failed() -> None:
    """Who waits for 2 or 3, as the document says, waits for ever."""
    async with client_of("seedhorse") as client:
        task = await client.ordered({"prompt": "a cat sandbox:cancelled"})
        client.sandbox.clock.leap(10**7)
        assert (await client.status(task))["taskStatus"] == 5


@pytest.mark.parametrize(("then", "end"), [("", 2), (" sandbox:moderated", 3), (" sandbox:cancelled", 5)])
async def test_a_safety_review_goes_on_for_a_while_and_then_the_task_ends(then: str, end: int) -> None:
    async with client_of("seedhorse", render=10) as client:
        task, seen = await client.ordered({"prompt": f"a cat sandbox:review{then}"}), []
        while (status := (await client.status(task))["taskStatus"]) != end:
            seen.append(status)
            client.sandbox.clock.leap(1)
        assert list(dict.fromkeys(seen)) == [0, 1, 4]
        assert 58 <= seen.count(4) <= 61


async def test_an_unknown_status_may_be_a_number_or_a_word() -> None:
    async with client_of("seedhorse") as client:
        for told, shown in (("7", 7), ("REVIEW", "REVIEW")):
            await client.fault("unknown_status", status=told, when="submit", seconds=1000)
            found = await client.finish(await client.ordered())
            assert (found["taskStatus"], found["results"]) == (shown, [])


# -- several images ------------------------------------------------------------------------------------------------


async def images(client: Client, count: int, prompt: str = "a cat") -> tuple[str, Any]:
    task = await client.ordered({**IMAGE, "prompt": prompt, "imageCount": count, "size": "2K"}, path=GENERATE)
    return task, await client.finish(task)


async def test_several_images_come_as_several_results() -> None:
    async with client_of("seedhorse") as client:
        _, shown = await images(client, 4)
        assert (shown["subTaskTotal"], shown["subTaskDone"], shown["imageCount"]) == (4, 4, 4)
        assert (shown["taskType"], shown["modelId"], shown["generateAudio"]) == (2, 7, False)
        assert [result["subStatus"] for result in shown["results"]] == [1] * 4
        urls = [result["fileUrl"] for result in shown["results"]]
        assert [url.partition("?")[0].rpartition("/")[2] for url in urls] == ["0.png", "1.png", "2.png", "3.png"]
        for url in urls:
            assert (await client.http.get(url)).headers["Content-Type"] == "image/png"
        assert client.money() == ("30", "0")


async def test_a_single_image_has_no_subtasks() -> None:
    async with client_of("seedhorse") as client:
        _, shown = await images(client, 1)
        (result,) = shown["results"]
        assert (shown["subTaskTotal"], shown["subTaskDone"], result["subStatus"]) == (0, 0, 0)
        assert result["fileUrl"]


async def test_images_are_counted_while_they_come() -> None:
    async with client_of("seedhorse") as client:
        body = {**IMAGE, "prompt": "a cat sandbox:slow", "imageCount": 4}
        task, seen = await client.ordered(body, path=GENERATE), []
        while (shown := await client.status(task))["taskStatus"] != 2:
            assert shown["subTaskTotal"] == 4
            seen.append(shown["subTaskDone"])
            client.sandbox.clock.leap(2)
        assert list(dict.fromkeys(seen)) == [0, 1, 2, 3]


@pytest.mark.parametrize(("missing", "came"), [(1, 3), (3, 1), (9, 1)])
async def test_a_part_of_the_images_can_be_missing_and_is_paid_for(missing: int, came: int) -> None:
    async with client_of("seedhorse") as client:
        await client.fault("partial", missing=missing)
        _, shown = await images(client, 4)
        assert (shown["taskStatus"], shown["subTaskTotal"], shown["subTaskDone"]) == (2, 4, came)
        good = [result for result in shown["results"] if result["subStatus"] == 1]
        bad = [result for result in shown["results"] if result["subStatus"] == 2]
        assert (len(good), len(bad)) == (came, 4 - came)
        assert all(result["fileUrl"] and not result["failReason"] for result in good)
        assert all(result["fileUrl"] == "" and result["failReason"] for result in bad)
        assert all(result["thumbnailUrl"] is None for result in bad)
        for result in good:
            assert (await client.http.get(result["fileUrl"])).status_code == 200
        (booked,) = client.books()["tasks"]
        assert (booked["outputs"], booked["missing"], client.money()) == (4, 4 - came, ("30", "0"))


async def test_which_image_is_missing_differs_and_it_cannot_be_had() -> None:
    async with client_of("seedhorse") as client:
        missing = set[int]()
        for _ in range(12):
            task, shown = await images(client, 2, "a cat sandbox:partial")
            (lost,) = [index for index, result in enumerate(shown["results"]) if result["subStatus"] == 2]
            missing.add(lost)
            signed = client.sandbox.reports.desk.signer.url(f"/media/seedhorse/{task}/{lost}.png", 4e9)
            assert (await client.http.get(signed)).status_code == 404
        assert missing == {0, 1}


async def test_completed_with_nothing_at_all() -> None:
    """A video stays pending for ever with an empty address; of several images every one has failed."""
    async with client_of("seedhorse") as client:
        await client.fault("no_output")
        (result,) = (await client.finish(await client.ordered()))["results"]
        assert (result["fileUrl"], result["subStatus"], result["thumbnailUrl"]) == ("", 0, None)
        await client.fault("no_output")
        _, shown = await images(client, 2)
        assert [(each["fileUrl"], each["subStatus"]) for each in shown["results"]] == [("", 2)] * 2
        assert (shown["taskStatus"], shown["subTaskDone"]) == (2, 0)
