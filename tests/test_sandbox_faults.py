"""Each fault does what its name says, at the place where it is ordered, and the ledger knows what it cost."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest
from sandbox_client import Client, client_of, error_of, task_id, until, url_of

from runner.sandbox.faults import CATALOGUE, POINTS, BadFault, Faults, fate_of, make_fault, make_order, parse_rates

PROVIDERS = ["seedance2ai", "happyhorse"]
PRICE = {"seedance2ai": "30", "happyhorse": "25"}
NEED_A_LIST = ("stale_list", "hidden")
Try = Callable[[Client], Awaitable[None]]
TRIED: dict[str, list[Try]] = {}


def tries(*names: str) -> Callable[[Try], Try]:
    """What follows shows that these faults work, on both providers."""

    def register(test: Try) -> Try:
        for name in names:
            TRIED.setdefault(name, []).append(test)
        return test

    return register


def charged(client: Client, times: int = 1) -> None:
    assert client.money() == (str(int(PRICE[client.provider]) * times), "0")
    assert len(client.books()["tasks"]) == times


async def failing(client: Client, error: type[httpx.TransportError], **more: Any) -> None:
    with pytest.raises(error):
        await client.order(**more)


# -- the wire ------------------------------------------------------------------------------------------------------


@tries("lost_request")
async def lost_request_is_closed_or_reset_before_anything(client: Client) -> None:
    await client.fault("lost_request")
    await failing(client, httpx.RemoteProtocolError)
    await client.fault("lost_request", how="reset")
    await failing(client, httpx.ReadError)
    charged(client, 0)
    await client.ordered()
    charged(client)


@tries("lost_answer")
async def lost_answer_is_charged(client: Client) -> None:
    await client.fault("lost_answer")
    await failing(client, httpx.ReadError)
    charged(client)
    await client.fault("lost_answer", how="close")
    await failing(client, httpx.RemoteProtocolError)
    charged(client, 2)


@tries("late_accept")
async def late_accept_is_charged_after_its_time(client: Client) -> None:
    await client.fault("late_accept", seconds=20)
    await failing(client, httpx.RemoteProtocolError)
    charged(client, 0)
    started = client.sandbox.clock.now()
    await until(lambda: tasks_of(client))
    assert client.sandbox.clock.now() - started > 15
    charged(client)


@tries("error_after_charge")
async def error_after_charge(client: Client) -> None:
    await client.fault("error_after_charge")
    assert error_of(await client.order()) == (500, "internal_error")
    charged(client)


@tries("error_before_charge")
async def error_before_charge(client: Client) -> None:
    await client.fault("error_before_charge", status=502)
    assert error_of(await client.order()) == (502, "internal_error")
    charged(client, 0)


@tries("unavailable")
async def unavailable_says_when_to_come_back_or_not(client: Client) -> None:
    waits: list[tuple[int, str | None]] = []
    for parameters in ({}, {"retry_after": "7"}, {"retry_after": "soon"}):
        await client.fault("unavailable", **parameters)
        answer = await client.order()
        waits.append((answer.status_code, answer.headers.get("Retry-After")))
    assert waits == [(503, None), (503, "7"), (503, "soon")]
    await client.fault("unavailable", retry_after="date:90")
    answer = await client.order()
    moments = [parsedate_to_datetime(answer.headers[name]).timestamp() for name in ("Retry-After", "Date")]
    assert 88 <= moments[0] - moments[1] <= 92
    charged(client, 0)


@tries("rate_limited")
async def rate_limited_tells_the_reset_where_that_is_documented(client: Client) -> None:
    await client.fault("rate_limited", seconds=40, retry_after="40")
    answer = await client.order()
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "40")
    if client.provider == "happyhorse":
        now = parsedate_to_datetime(answer.headers["Date"]).timestamp()
        assert answer.headers["X-RateLimit-Remaining"] == "0"
        assert 38 <= int(answer.headers["X-RateLimit-Reset"]) - now <= 42
    charged(client, 0)


@tries("hang")
async def hang_answers_nothing(client: Client) -> None:
    for processed, times in ((True, 1), (False, 1)):
        await client.fault("hang", processed=processed)
        with pytest.raises(httpx.ReadTimeout):
            await client.ask("POST", path_of(client), json={"prompt": "a cat"}, timeout=0.15)
        charged(client, times)


@tries("redirect")
async def redirect_comes_after_acceptance_and_points_to_another_origin(client: Client) -> None:
    for status in (303, 307):
        await client.fault("redirect", status=status)
        answer = await client.order()
        assert answer.status_code == status
        assert answer.headers["Location"].startswith(client.sandbox.media + "/elsewhere/")
    charged(client, 2)
    await client.fault("redirect", location="https://example.com/x")
    assert (await client.order()).headers["Location"] == "https://example.com/x"


@tries("truncated")
async def truncated_is_cut_with_and_without_a_length(client: Client) -> None:
    await client.fault("truncated")
    answer = await client.order()
    assert answer.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        answer.json()
    await client.fault("truncated", how="length")
    await failing(client, httpx.RemoteProtocolError)
    charged(client, 2)


@tries("empty_200")
async def empty_200(client: Client) -> None:
    await client.fault("empty_200")
    answer = await client.order()
    assert (answer.status_code, answer.content) == (200, b"")
    charged(client)


@tries("html_502")
async def html_502_was_processed_or_not(client: Client) -> None:
    for processed in (False, True):
        await client.fault("html_502", processed=processed)
        answer = await client.order()
        assert (answer.status_code, answer.headers["Content-Type"].partition(";")[0]) == (502, "text/html")
        charged(client, int(processed))


@tries("bad_encoding")
async def bad_encoding_is_no_strict_utf8_json(client: Client) -> None:
    for how in ("utf8", "bom", "utf16"):
        await client.fault("bad_encoding", how=how)
        answer = await client.order()
        with pytest.raises((UnicodeDecodeError, json.JSONDecodeError)):
            json.loads(answer.content.decode("utf-8"))
    charged(client, 3)


@tries("huge_body")
async def huge_body_is_as_long_as_ordered(client: Client) -> None:
    for gzip in (False, True):
        await client.fault("huge_body", bytes=3 << 20, gzip=gzip)
        answer = await client.order()
        assert len(answer.content) > 3 << 20
        assert ("gzip" in answer.headers.get("Content-Encoding", "")) is gzip
        assert task_id(answer.json()) in [task["id"] for task in client.books()["tasks"]]


@tries("slow_body")
async def slow_body_takes_its_time_and_is_whole(client: Client) -> None:
    for part in ("body", "headers"):
        await client.fault("slow_body", seconds=50, part=part)
        started = time.monotonic()
        answer = await client.order()
        assert time.monotonic() - started > 0.15
        assert task_id(answer.json()) in [task["id"] for task in client.books()["tasks"]]


@tries("wrong_task")
async def wrong_task_answers_for_another(client: Client) -> None:
    first = await client.ordered()
    await client.fault("wrong_task", when="poll")
    alone = await client.status(first)
    assert alone["id"] not in {first}
    second = await client.ordered()
    await client.fault("wrong_task", when="poll")
    assert (await client.status(second))["id"] == first
    await client.fault("wrong_task", when="submit")
    assert task_id((await client.order()).json()) == second
    charged(client, 3)


@tries("unauthorized")
async def unauthorized(client: Client) -> None:
    await client.fault("unauthorized")
    assert error_of(await client.order()) == (401, "unauthorized")
    charged(client, 0)


# -- looking -------------------------------------------------------------------------------------------------------


@tries("poll_404", "poll_500")
async def polls_go_wrong(client: Client) -> None:
    task = await client.ordered()
    for name, status in (("poll_404", 404), ("poll_500", 500)):
        await client.fault(name)
        answer = await client.ask("GET", poll_of(client, task))
        assert answer.status_code == status
    assert (await client.status(task))["id"] == task


@tries("unknown_status")
async def unknown_status_lasts_for_a_while_even_past_the_end(client: Client) -> None:
    for when in ("poll", "submit"):
        await client.fault("unknown_status", when=when, status="REVIEW", seconds=40)
        shown = await client.finish(await client.ordered())
        assert shown["status"] == "REVIEW"
        while shown["status"] == "REVIEW":
            shown = await client.status(shown["id"])
        assert shown["status"] == "completed"
        assert url_of(shown)


@tries("stale_list")
async def stale_list_lags_behind(client: Client) -> None:
    if client.provider == "happyhorse":
        task = await client.ordered()
        await client.finish(task)
        await client.fault("stale_list", seconds=1000)
        assert await listed(client) == []
        assert await listed(client) == [task]


# -- the fate of a task --------------------------------------------------------------------------------------------


@tries("hidden")
async def hidden_is_not_in_the_list_but_can_be_polled(client: Client) -> None:
    if client.provider == "happyhorse":
        await client.fault("hidden", seconds=30)
        task = await client.ordered()
        assert await listed(client) == []
        assert (await client.status(task))["id"] == task
        await client.sandbox.clock.sleep(31)
        assert await listed(client) == [task]


@tries("task_failed")
async def task_failed_gives_back_all_or_a_part(client: Client) -> None:
    for refund, used in (("1", 0), ("0", int(PRICE[client.provider])), ("0.5", int(PRICE[client.provider]) / 2)):
        await client.fault("task_failed", refund=refund)
        shown = await ended(client, await client.ordered())
        assert (shown["status"], shown["credits_used"]) == ("failed", used)


@tries("moderated")
async def moderated_comes_as_a_failure_or_as_a_refusal(client: Client) -> None:
    await client.fault("moderated")
    shown = await ended(client, await client.ordered())
    assert shown["status"] == "failed"
    assert "moderat" in json.dumps(shown["error"]).lower()
    await client.fault("moderated", **{"as": "refusal"})
    answer = await client.order()
    assert answer.status_code == 400
    assert "moderation" in answer.text
    assert client.money() == (PRICE[client.provider],) * 2


@tries("late_refund")
async def late_refund_comes_after_the_failure(client: Client) -> None:
    price = PRICE[client.provider]
    await client.fault("late_refund", seconds=60)
    task = await client.ordered()
    shown = await ended(client, task)
    assert (shown["status"], shown["credits_used"]) == ("failed", int(price))
    assert client.money() == (price, "0")
    await client.sandbox.clock.sleep(61)
    assert (await client.status(task))["credits_used"] == 0
    assert client.money() == (price, price)


@tries("stuck")
async def stuck_never_ends_by_itself(client: Client) -> None:
    await client.fault("stuck")
    task = await client.ordered()
    await client.sandbox.clock.sleep(60)
    assert (await client.status(task))["status"] not in ("completed", "failed")
    assert client.books()["tasks"][0]["finishes_at"] > client.sandbox.clock.now() + 10**8


@tries("no_output")
async def no_output_is_completed_and_empty(client: Client) -> None:
    await client.fault("no_output")
    shown = await client.finish(await client.ordered())
    assert shown["status"] == "completed"
    assert url_of(shown) == "None"
    charged(client)


@tries("overcharged")
async def overcharged_costs_more_than_the_price(client: Client) -> None:
    await client.fault("overcharged", factor="1.2")
    await client.ordered()
    assert client.money() == (str(int(PRICE[client.provider]) * 12 // 10), "0")


# -- downloads -----------------------------------------------------------------------------------------------------


@tries("expired_url", "gone")
async def refused_downloads(client: Client) -> None:
    url = await client.result()
    for name, status in (("expired_url", 403), ("gone", 410)):
        await client.fault(name)
        assert (await client.http.get(url)).status_code == status
    assert (await client.http.get(url)).status_code == 200


@tries("reset_download", "short_media")
async def downloads_break_off(client: Client) -> None:
    url = await client.result()
    whole = (await client.http.get(url)).content
    for name, parameters, error, expected in (
        ("reset_download", {"after": 5000}, httpx.ReadError, None),
        ("reset_download", {"after": 5000, "how": "close"}, httpx.RemoteProtocolError, 5000),
        ("short_media", {"missing": 7}, httpx.RemoteProtocolError, len(whole) - 7),
    ):
        await client.fault(name, **parameters)
        got = bytearray()
        with pytest.raises(error):
            await download(client, url, got)
        assert whole.startswith(got)
        assert expected in (None, len(got))


@tries("cut_media", "empty_media", "html_media", "corrupt_media")
async def files_are_not_what_they_say(client: Client) -> None:
    url = await client.result()
    whole = (await client.http.get(url)).content
    got: dict[str, bytes] = {}
    for name in ("cut_media", "empty_media", "html_media", "corrupt_media"):
        await client.fault(name)
        answer = await client.http.get(url)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "video/mp4")
        got[name] = answer.content
    assert got["cut_media"] == whole[:-1000]
    assert got["empty_media"] == b""
    assert got["html_media"].startswith(b"<html>")
    assert len(got["corrupt_media"]) == len(whole)
    assert got["corrupt_media"][4:8] != b"ftyp"


@tries("ignore_range", "wrong_range")
async def ranges_are_misunderstood(client: Client) -> None:
    url = await client.result()
    whole = (await client.http.get(url)).content
    await client.fault("ignore_range")
    await client.fault("wrong_range", shift=3)
    assert (await client.http.get(url)).content == whole  # neither strikes a request without a range
    headers = {"Range": "bytes=1000-"}
    ignored, wrong = [await client.http.get(url, headers=headers) for _ in range(2)]
    assert (ignored.status_code, ignored.content) == (200, whole)
    assert (wrong.status_code, wrong.content) == (206, whole[1003:])
    assert wrong.headers["Content-Range"] == f"bytes 1003-{len(whole) - 1}/{len(whole)}"


@tries("changed_etag")
async def changed_etag_is_another_file_from_now_on(client: Client) -> None:
    url = await client.result()
    before = await client.http.get(url)
    await client.fault("changed_etag")
    headers = {"Range": "bytes=1000-", "If-Range": before.headers["ETag"]}
    after = await client.http.get(url, headers=headers)
    assert after.status_code == 200
    assert after.headers["ETag"] != before.headers["ETag"]
    assert after.content != before.content
    assert (await client.http.get(url)).content == after.content


@tries("slow_download")
async def slow_download_takes_its_time(client: Client) -> None:
    url = await client.result()
    await client.fault("slow_download", seconds=60)
    started = time.monotonic()
    slow = (await client.http.get(url)).content
    assert time.monotonic() - started > 0.2
    assert slow == (await client.http.get(url)).content


@tries("lost_request", "hang", "redirect", "unavailable", "rate_limited")
async def the_wire_of_a_download_breaks_too(client: Client) -> None:
    url = await client.result()
    await client.fault("lost_request", when="download")
    with pytest.raises(httpx.RemoteProtocolError):
        await client.http.get(url)
    await client.fault("hang", when="download")
    with pytest.raises(httpx.ReadTimeout):
        await client.http.get(url, timeout=0.2)
    for name, status in (("redirect", 303), ("unavailable", 503), ("rate_limited", 429)):
        await client.fault(name, when="download")
        assert (await client.http.get(url)).status_code == status


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("name", sorted(CATALOGUE))
async def test_fault(name: str, provider: str) -> None:
    for tried in TRIED[name]:
        async with client_of(provider, speed=200, render=30, rate_limits={provider: 0}) as client:
            await tried(client)
            fired = client.sandbox.observed()["faults_fired"]
            assert name in fired or (provider == "seedance2ai" and name in NEED_A_LIST), "it did not fire"
            assert [each["name"] for each in client.sandbox.observed()["violations"]] == []


# -- who is struck -------------------------------------------------------------------------------------------------


async def test_a_queued_fault_strikes_as_often_as_ordered_and_only_there() -> None:
    async with client_of("happyhorse") as client:
        await client.fault("unavailable", times=2, when="list")
        await client.ordered()
        statuses = [(await client.ask("GET", "/api/v1/videos")).status_code for _ in range(3)]
        assert statuses == [503, 503, 200]
        queued = await client.control("faults")
        assert (queued["queue"], queued["fired"]) == ([], {"unavailable": 2})


async def test_faults_at_uploads_and_balances() -> None:
    async with client_of("happyhorse") as client:
        for when, method, path in (("upload", "POST", "/api/v1/upload"), ("credits", "GET", "/api/v1/credits")):
            await client.fault("error_before_charge", when=when)
            assert (await client.ask(method, path)).status_code == 500


async def test_an_outage_lasts_for_its_time() -> None:
    async with client_of("happyhorse", speed=100) as client:
        await client.control("outage", {"provider": "happyhorse", "seconds": 60})
        assert (await client.ask("GET", "/api/v1/credits")).status_code == 503
        assert (await client.order()).status_code == 503
        await client.sandbox.clock.sleep(61)
        await client.ordered()
        await client.control(
            "outage", {"provider": "happyhorse", "seconds": 60, "name": "lost_request", "how": "reset"}
        )
        await failing(client, httpx.ReadError)
        charged(client)


async def test_rates_strike_as_often_as_said_and_the_same_requests_again() -> None:
    runs: list[list[bool]] = []
    for _ in range(2):
        async with client_of("seedance2ai", faults="error_before_charge@submit=0.3") as client:
            runs.append([(await client.order()).status_code == 500 for _ in range(100)])
    assert runs[0] == runs[1]
    assert 15 <= sum(runs[0]) <= 45


async def test_a_wire_fault_and_a_fate_can_meet() -> None:
    async with client_of("happyhorse", speed=50, faults="happyhorse.lost_answer@submit=1,task_failed=1") as client:
        await failing(client, httpx.ReadError)
        charged(client)
        assert client.books()["tasks"][0]["outcome"] == "failed"
        assert client.sandbox.observed()["faults_fired"] == {"lost_answer": 1, "task_failed": 1}


@pytest.mark.parametrize("marker", ["moderated", "failed", "refused", "slow"])
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_prompt_can_ask_for_a_fate(provider: str, marker: str) -> None:
    async with client_of(provider, speed=200, render=30) as client:
        answer = await client.order({"prompt": f"a cat sandbox:{marker}"})
        if marker == "refused":
            assert (answer.status_code, client.money()) == (400, ("0", "0"))
        elif marker == "slow":
            (task,) = client.books()["tasks"]
            assert task["finishes_at"] - task["created_at"] > 90
        else:
            shown = await ended(client, task_id(answer.json()))
            assert client.books()["tasks"][0]["outcome"] == marker
            assert (shown["status"], client.money()) == ("failed", (PRICE[provider],) * 2)


def test_a_rate_without_a_place_strikes_everywhere_the_fault_can() -> None:
    (rate,) = parse_rates(" unavailable=0.5:retry_after=3 ")
    assert (rate.order.points, rate.probability) == (POINTS, 0.5)
    assert rate.order.fault.parameters["retry_after"] == "3"
    assert make_order("unavailable", {}).points == ("submit",)


def test_the_sum_of_the_rates_is_the_rate_of_any() -> None:
    faults = Faults("seed", parse_rates("lost_answer@submit=0.2,lost_request@submit=0.2,hidden=0.5"))
    struck = [faults.strike("happyhorse", "submit", number, now=0.0) for number in range(4000)]
    hits = [each.wire.name for each in struck if each.wire]
    shares = [hits.count(name) / 4000 for name in ("lost_answer", "lost_request")]
    assert all(abs(share - 0.2) < 0.03 for share in shares)
    assert abs(sum(each.fate is not None for each in struck) / 4000 - 0.5) < 0.03


@pytest.mark.parametrize(
    "text",
    [
        *("lost=0.1", "lost_answer", "lost_answer=1.5", "lost_answer=-1", "lost_answer=x"),
        *("lost_answer@download=0.1", "lost_answer=0.1:how=gently", "lost_answer=0.1:when=submit"),
        *("task_failed=0.1:refund=2", "late_accept=0.1:seconds=soon", "hang=0.1:processed=maybe"),
    ],
)
def test_faults_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(BadFault):
        parse_rates(text)


def test_every_fault_names_its_places_and_its_values() -> None:
    for name, kind in CATALOGUE.items():
        assert kind.points
        fault = make_fault(name, {key: value for key, value in kind.parameters.items() if value is not None})
        assert fault.parameters == {**kind.parameters, **fault.parameters}
        assert kind.where != "fate" or fate_of(fault) is not None


def path_of(client: Client) -> str:
    return {"seedance2ai": "/api/v1/video/seedance", "happyhorse": "/api/v1/generate"}[client.provider]


def poll_of(client: Client, task: str) -> str:
    return {"seedance2ai": f"/api/v1/tasks/{task}", "happyhorse": f"/api/v1/videos/{task}"}[client.provider]


async def listed(client: Client) -> list[str]:
    answer = await client.ask("GET", "/api/v1/videos")
    return [item["id"] for item in answer.json()["data"]["videos"]]


async def ended(client: Client, task: str) -> Any:
    async def look() -> Any:
        shown = await client.status(task)
        return shown if shown["status"] in ("completed", "failed") else None

    return await until(look)


async def tasks_of(client: Client) -> Any:
    return client.books()["tasks"]


async def download(client: Client, url: str, got: bytearray) -> None:
    """What came stays in `got`, also when it breaks off."""
    async with client.http.stream("GET", url) as answer:
        async for piece in answer.aiter_raw():
            got += piece
