"""Each fault does what its name says, at the place where it is ordered, and the ledger knows what it cost."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest
from sandbox_client import (
    PROVIDERS,
    Client,
    Tries,
    charged,
    ended,
    error_of,
    failing,
    task_id,
    until,
    url_of,
)

from runner.sandbox.faults import CATALOGUE

TRIES = Tries()


# -- the wire ------------------------------------------------------------------------------------------------------


@TRIES.of("lost_request")
async def lost_request_is_closed_or_reset_before_anything(client: Client) -> None:
    await client.fault("lost_request")
    await failing(client, httpx.RemoteProtocolError)
    await client.fault("lost_request", how="reset")
    await failing(client, httpx.ReadError)
    charged(client, 0)
    await client.ordered()
    charged(client)


@TRIES.of("lost_answer")
async def lost_answer_is_charged(client: Client) -> None:
    await client.fault("lost_answer")
    await failing(client, httpx.ReadError)
    charged(client)
    await client.fault("lost_answer", how="close")
    await failing(client, httpx.RemoteProtocolError)
    charged(client, 2)


@TRIES.of("late_accept", timed=True)
async def late_accept_is_charged_after_its_time(client: Client) -> None:
    await client.fault("late_accept", seconds=100)
    await failing(client, httpx.RemoteProtocolError)
    charged(client, 0)
    started = client.sandbox.clock.now()
    await until(lambda: tasks_of(client))
    assert client.sandbox.clock.now() - started > 80
    charged(client)


@TRIES.of("error_after_charge")
async def error_after_charge(client: Client) -> None:
    await client.fault("error_after_charge")
    assert error_of(await client.order()) == client.way.errors["internal"]
    charged(client)
    await client.fault("error_after_charge", status=503, code="55555")
    status, code = error_of(await client.order())
    assert (status, str(code)) == (503, "55555")
    charged(client, 2)


@TRIES.of("error_before_charge")
async def error_before_charge(client: Client) -> None:
    await client.fault("error_before_charge", status=502)
    assert error_of(await client.order()) == (502, client.way.errors["internal"][1])
    for problem in ("internal", "unavailable", "not_found"):
        status, code = client.way.errors[problem]
        if code:  # not every provider says one with every error
            await client.fault("error_before_charge", code=str(code))
            assert error_of(await client.order()) == (status, code)
    charged(client, 0)


@TRIES.of("unavailable")
async def unavailable_says_when_to_come_back_or_not(client: Client) -> None:
    waits: list[tuple[int, str | None]] = []
    for parameters in ({}, {"retry_after": "7"}, {"retry_after": "soon"}):
        await client.fault("unavailable", **parameters)
        answer = await client.order()
        waits.append((answer.status_code, answer.headers.get("Retry-After")))
    status = client.way.errors["unavailable"][0]
    assert waits == [(status, None), (status, "7"), (status, "soon")]
    await client.fault("unavailable", status=529)
    assert error_of(await client.order()) == (529, client.way.errors["unavailable"][1])
    await client.fault("unavailable", retry_after="date:90")
    answer = await client.order()
    moments = [parsedate_to_datetime(answer.headers[name]).timestamp() for name in ("Retry-After", "Date")]
    assert 88 <= moments[0] - moments[1] <= 92
    charged(client, 0)


@TRIES.of("rate_limited")
async def rate_limited_tells_the_reset_where_that_is_documented(client: Client) -> None:
    await client.fault("rate_limited", seconds=40, retry_after="40")
    answer = await client.order()
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "40")
    if client.provider == "happyhorse":
        now = parsedate_to_datetime(answer.headers["Date"]).timestamp()
        assert answer.headers["X-RateLimit-Remaining"] == "0"
        assert 38 <= int(answer.headers["X-RateLimit-Reset"]) - now <= 42
    charged(client, 0)


@TRIES.of("hang")
async def hang_answers_nothing(client: Client) -> None:
    for processed, times in ((True, 1), (False, 1)):
        await client.fault("hang", processed=processed)
        with pytest.raises(httpx.ReadTimeout):
            await client.order(timeout=0.4)
        charged(client, times)


@TRIES.of("redirect")
async def redirect_comes_after_acceptance_and_points_to_another_origin(client: Client) -> None:
    for status in (303, 307):
        await client.fault("redirect", status=status)
        answer = await client.order()
        assert answer.status_code == status
        assert answer.headers["Location"].startswith(client.sandbox.media + "/elsewhere/")
    charged(client, 2)
    await client.fault("redirect", location="https://example.com/x")
    assert (await client.order()).headers["Location"] == "https://example.com/x"


@TRIES.of("truncated")
async def truncated_is_cut_with_and_without_a_length(client: Client) -> None:
    await client.fault("truncated")
    answer = await client.order()
    assert answer.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        answer.json()
    await client.fault("truncated", how="length")
    await failing(client, httpx.RemoteProtocolError)
    charged(client, 2)


@TRIES.of("empty_200")
async def empty_200(client: Client) -> None:
    await client.fault("empty_200")
    answer = await client.order()
    assert (answer.status_code, answer.content) == (200, b"")
    charged(client)


@TRIES.of("html_502")
async def html_502_was_processed_or_not(client: Client) -> None:
    for processed in (False, True):
        await client.fault("html_502", processed=processed)
        answer = await client.order()
        assert (answer.status_code, answer.headers["Content-Type"].partition(";")[0]) == (502, "text/html")
        charged(client, int(processed))


@TRIES.of("bad_encoding")
async def bad_encoding_is_no_strict_utf8_json(client: Client) -> None:
    for how in ("utf8", "bom", "utf16"):
        await client.fault("bad_encoding", how=how)
        answer = await client.order()
        with pytest.raises((UnicodeDecodeError, json.JSONDecodeError)):
            json.loads(answer.content.decode("utf-8"))
    charged(client, 3)


@TRIES.of("huge_body")
async def huge_body_is_as_long_as_ordered(client: Client) -> None:
    for gzip in (False, True):
        await client.fault("huge_body", bytes=3 << 20, gzip=gzip)
        answer = await client.order()
        assert len(answer.content) > 3 << 20
        assert ("gzip" in answer.headers.get("Content-Encoding", "")) is gzip
        assert task_id(answer.json()) in [task["id"] for task in client.books()["tasks"]]


@TRIES.of("slow_body", timed=True)
async def slow_body_takes_its_time_and_is_whole(client: Client) -> None:
    for part in ("body", "headers"):
        await client.fault("slow_body", seconds=50, part=part)
        started = time.monotonic()
        answer = await client.order()
        assert time.monotonic() - started > 0.15
        assert task_id(answer.json()) in [task["id"] for task in client.books()["tasks"]]


@TRIES.of("wrong_task")
async def wrong_task_answers_for_another(client: Client) -> None:
    first = await client.ordered()
    await client.fault("wrong_task", when="poll")
    alone = await client.look(first)
    assert alone.id not in {first}
    second = await client.ordered()
    await client.fault("wrong_task", when="poll")
    assert (await client.look(second)).id == first
    await client.fault("wrong_task", when="submit")
    assert task_id((await client.order()).json()) == second
    charged(client, 3)


# -- whole and true, in an unusual way -----------------------------------------------------------------------------


@TRIES.of("latency", timed=True)
async def latency_comes_whole_and_later(client: Client) -> None:
    await client.fault("latency", seconds=40)
    started = client.sandbox.clock.now()
    await client.ordered()
    assert client.sandbox.clock.now() - started >= 40
    charged(client)


@TRIES.of("one_byte_segments")
async def one_byte_segments_are_the_whole_answer(client: Client) -> None:
    await client.fault("one_byte_segments")
    async with raw(client) as wire:
        pieces = [piece async for piece in wire]
    assert max(len(piece) for piece in pieces[:20]) < 10  # the first ones arrive before much has piled up
    head, _, body = b"".join(pieces).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    charged(client)
    await client.fault("one_byte_segments")
    assert task_id((await client.order()).json()) == client.books()["tasks"][-1]["id"]


@TRIES.of("early_hints")
async def early_hints_come_before_the_answer(client: Client) -> None:
    await client.fault("early_hints")
    async with raw(client) as wire:
        answer = b"".join([piece async for piece in wire])
    hints, _, rest = answer.partition(b"\r\n\r\n")
    assert hints.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: ")
    assert rest.startswith(b"HTTP/1.1 200 OK\r\n")
    await client.fault("early_hints")
    await client.ordered()
    charged(client, 2)


@TRIES.of("many_headers")
async def many_headers_or_a_long_one(client: Client) -> None:
    for how, fillings, least in ((None, 10_000, 10_000), ("long", 1, 1 << 20)):
        await client.fault("many_headers", **({"how": how} if how else {}))
        async with raw(client) as wire:
            head, _, body = b"".join([piece async for piece in wire]).partition(b"\r\n\r\n")
        assert head.count(b"X-Filling") == fillings
        assert len(head) > least
        assert task_id(json.loads(body)) == client.books()["tasks"][-1]["id"]
    charged(client, 2)


@TRIES.of("closes_idle")
async def closes_idle_is_found_out_by_the_next_request(client: Client) -> None:
    await client.fault("closes_idle")
    answer = await client.order()
    assert (answer.status_code, answer.headers.get("Connection")) == (200, None)
    fired = client.sandbox.observed()["faults_fired"]
    assert "closes_idle" not in fired
    await failing(client, httpx.RemoteProtocolError)  # on the same connection; it is not processed
    charged(client)
    await client.ordered()
    charged(client, 2)


# -- whole, but one thing is not so --------------------------------------------------------------------------------


@TRIES.of("odd_progress")
async def odd_progress_is_told_in_turn_or_as_ordered(client: Client) -> None:
    task = await client.ordered()
    for value in (None, None, None, None, "-1"):
        await client.fault("odd_progress", **({"value": value} if value else {}))
    told = [(await client.look(task)).shown["progress"] for _ in range(5)]
    assert told == [137, -1, None, "nearly done", -1]
    assert (await client.look(task)).shown.get("progress") in (None, 0)


@TRIES.of("respelled_status")
async def respelled_status_is_text_or_of_the_other_case(client: Client) -> None:
    task = await client.ordered()
    await client.finish(task)
    await client.fault("respelled_status")
    respelled, shown = (await client.look(task)).shown, await client.look(task)
    name = "taskStatus" if "taskStatus" in respelled else "status"
    word = shown.shown[name]
    assert respelled[name] == (word.swapcase() if isinstance(word, str) else str(word))
    assert respelled[name] != word
    assert url_of(respelled).partition("?")[0] == url_of(shown.shown).partition("?")[0]


@TRIES.of("unauthorized")
async def unauthorized(client: Client) -> None:
    await client.fault("unauthorized")
    assert error_of(await client.order()) == client.way.errors["unauthorized"]
    charged(client, 0)


# -- looking -------------------------------------------------------------------------------------------------------


@TRIES.of("poll_404", "poll_500")
async def polls_go_wrong(client: Client) -> None:
    task = await client.ordered()
    for name, problem in (("poll_404", "not_found"), ("poll_500", "internal")):
        await client.fault(name)
        answer = await client.ask("GET", client.way.poll_path.format(task))
        assert error_of(answer) == client.way.errors[problem]
    assert (await client.look(task)).id == task


@TRIES.of("unknown_status")
async def unknown_status_lasts_for_a_while_even_past_the_end(client: Client) -> None:
    for when in ("poll", "submit"):
        await client.fault("unknown_status", when=when, status="REVIEW", seconds=40)
        task = await client.ordered()
        assert (await client.finished(task)).state == "REVIEW"
        client.sandbox.clock.leap(41)
        shown = await client.look(task)
        assert shown.state == "completed"
        assert url_of(shown.shown)


@TRIES.of("stale_list")
async def stale_list_lags_behind(client: Client) -> None:
    if client.way.lists:
        task = await client.ordered()
        await client.finish(task)
        await client.fault("stale_list", seconds=1000)
        assert await listed(client) == []
        assert await listed(client) == [task]


@TRIES.of("late_output")
async def late_output_is_completed_and_empty_at_one_look(client: Client) -> None:
    await client.fault("late_output")
    task = await client.ordered()
    shown = await client.finished(task)
    assert (shown.state, url_of(shown.shown)) == ("completed", "")
    assert url_of(await client.status(task)).startswith(client.sandbox.media)


# -- the fate of a task --------------------------------------------------------------------------------------------


@TRIES.of("hidden")
async def hidden_is_not_in_the_list_but_can_be_polled(client: Client) -> None:
    if client.way.lists:
        await client.fault("hidden", seconds=30)
        task = await client.ordered()
        assert await listed(client) == []
        assert (await client.look(task)).id == task
        client.sandbox.clock.leap(31)
        assert await listed(client) == [task]


@TRIES.of("task_failed")
async def task_failed_gives_back_all_or_a_part(client: Client) -> None:
    for refund, kept in (("1", "0"), ("0", "1"), ("0.5", "0.5"), (None, "0" if client.way.refunds else "1")):
        await client.fault("task_failed", **({"refund": refund} if refund else {}))
        shown = await ended(client, await client.ordered())
        assert shown.state == "failed"
        assert shown.used in (None, Decimal(client.cost(kept)))
        assert client.books()["tasks"][-1]["net"] == client.cost(kept)


@TRIES.of("moderated")
async def moderated_comes_as_a_failure_or_as_a_refusal(client: Client) -> None:
    await client.fault("moderated")
    shown = await ended(client, await client.ordered())
    assert shown.state == "failed"
    assert re.search("moderat|safety", shown.error)
    await client.fault("moderated", **{"as": "refusal"})
    answer = await client.order()
    assert error_of(answer) == client.way.errors["refused"]
    assert "moderation" in answer.text
    assert client.money() == (client.cost(), client.cost() if client.way.refunds else "0")


@TRIES.of("cancelled")
async def cancelled_is_failed_where_there_is_no_such_word(client: Client) -> None:
    await client.fault("cancelled")
    shown = await ended(client, await client.ordered())
    assert shown.state == ("cancelled" if "cancelled" in client.way.words else "failed")
    assert "cancelled" in shown.error
    (task,) = client.books()["tasks"]
    assert (task["outcome"], task["state"]) == ("cancelled", "failed")
    assert client.money() == (client.cost(), client.cost() if client.way.refunds else "0")


@TRIES.of("partial")
async def partial_leaves_at_least_one_output(client: Client) -> None:
    for missing in (1, 5, -1):
        await client.fault("partial", missing=missing)
        shown = await client.finished(await client.ordered())
        assert shown.state == "completed"
        assert url_of(shown.shown)
        assert (client.books()["tasks"][-1]["outputs"], client.books()["tasks"][-1]["missing"]) == (1, 0)
    charged(client, 3)


@TRIES.of("review")
async def review_comes_before_the_end_and_takes_its_time(client: Client) -> None:
    await client.fault("review", seconds=5000)
    task = await client.ordered()
    ends = client.books()["tasks"][0]["finishes_at"]
    client.sandbox.clock.leap(ends - client.sandbox.clock.now() - 4000)
    shown = await client.look(task)
    assert shown.state == ("review" if "review" in client.way.words else "processing")
    assert client.books()["tasks"][0]["state"] == "review"
    assert (await ended(client, task)).state == "completed"
    charged(client)


@TRIES.of("late_refund")
async def late_refund_comes_after_the_failure(client: Client) -> None:
    price = client.cost()
    await client.fault("late_refund", seconds=60)
    task = await client.ordered()
    shown = await ended(client, task)
    assert shown.state == "failed"
    assert shown.used in (None, Decimal(price))
    assert client.money() == (price, "0")
    client.sandbox.clock.leap(61)
    assert (await client.look(task)).used in (None, Decimal(0))
    assert client.money() == (price, price if client.way.refunds else "0")


@TRIES.of("stuck")
async def stuck_never_ends_by_itself(client: Client) -> None:
    await client.fault("stuck")
    task = await client.ordered()
    client.sandbox.clock.leap(10**7)
    assert (await client.look(task)).state not in ("completed", "failed")
    assert client.books()["tasks"][0]["finishes_at"] > client.sandbox.clock.now() + 10**8


@TRIES.of("no_output")
async def no_output_is_completed_and_empty(client: Client) -> None:
    await client.fault("no_output")
    shown = await client.finished(await client.ordered())
    assert shown.state == "completed"
    assert url_of(shown.shown) == ""
    charged(client)


@TRIES.of("overcharged")
async def overcharged_costs_more_than_the_price(client: Client) -> None:
    await client.fault("overcharged", factor="1.2")
    await client.ordered()
    assert client.money() == (client.cost("1.2"), "0")


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    "name", sorted(name for name, kind in CATALOGUE.items() if kind.where not in ("file", "callback"))
)
async def test_fault(name: str, provider: str) -> None:
    await TRIES.run(name, provider)


@asynccontextmanager
async def raw(client: Client) -> AsyncIterator[AsyncIterator[bytes]]:
    """An order sent by hand, on a connection of its own; the bytes of its answer as they arrive, until its end."""
    way, base = client.way, httpx.URL(client.sandbox.base_urls[client.provider])
    given = {"prompt": "a cat"}
    body = json.dumps({**way.body, **({way.nest: given} if way.nest else given)}).encode()
    head = (
        f"POST {base.path}{way.video_path} HTTP/1.1\r\nHost: {base.netloc.decode()}\r\nConnection: close\r\n"
        f"Authorization: Bearer {client.key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(base.host, base.port)
    writer.write(head.encode() + body)
    try:
        yield _pieces(reader)
    finally:
        writer.close()


async def _pieces(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while piece := await reader.read(1 << 16):
        yield piece


async def listed(client: Client) -> list[str]:
    answer = await client.ask("GET", "/api/v1/videos")
    return [item["id"] for item in answer.json()["data"]["videos"]]


async def tasks_of(client: Client) -> Any:
    return client.books()["tasks"]
