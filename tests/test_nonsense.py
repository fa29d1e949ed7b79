"""Providers that answer nonsense: a key echoed, damaged bytes, half an answer, times that cannot be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from liar import Liar, Lie, Said, liar
from scene import Scene, scene, states, until

from runner import log
from runner.client.asking import _Veil, read_signals
from runner.engine import Exit
from runner.errors import ErrorKind
from runner.jobs import State
from runner.limits import RETRY_AFTER_CAP
from runner.providers.reading import moment

JSON = {"Content-Type": "application/json"}
ZERO = "0001-01-01T00:00:00+08:05"  # Go's zero time in Shanghai
DATE = datetime(2026, 11, 21, tzinfo=UTC)


def told(said: Said, change: Callable[[Any], None]) -> Said:
    """The same answer, its JSON changed."""
    data = json.loads(said.body)
    change(data)
    return replace(said, body=json.dumps(data).encode())


def is_poll(said: Said) -> bool:
    return said.method == "GET" and ("/tasks/" in said.path or "/videos/" in said.path)


def is_list(said: Said) -> bool:
    return said.method == "GET" and "/videos?" in said.path


def task_in(data: Any) -> Any:
    return data["data"] if isinstance(data.get("data"), dict) else data


A_WHILE = 6 * 3600.0  # scaled seconds of a render: nothing ends before the test says so


async def ending_after_a_list(s: Scene, proxy: Liar) -> Exit:
    """Runs what was asked for. The tasks go on until all are ordered and the list was asked for them, then they end."""
    running = asyncio.create_task(s.run())
    await until(lambda: len(s.tasks("happyhorse")) == len(s.orders) and proxy.count("GET", "/videos?") > 0)
    for task in s.tasks("happyhorse"):
        await s.control("finish", provider="happyhorse", task_id=task["id"])
    return await running


# R1


@pytest.mark.parametrize(("status", "code"), [(400, "invalid_request"), (401, "unauthorized")])
async def test_a_key_that_the_provider_echoes_reaches_no_file(tmp_path: Path, status: int, code: str) -> None:
    def echo(said: Said) -> Said | None:
        if said.method != "POST":
            return None
        message = f"Incorrect API key provided: {said.asked['Authorization'].split()[1]}"
        body = json.dumps({"error": {"code": code, "message": message}, "code": code, "message": message})
        return replace(said, status=status, headers=JSON, body=body.encode())

    async with scene(tmp_path) as s:
        key = s.sandbox.keys["seedance2ai"]
        s.ask("seedance2ai", "whose key is it")
        async with liar(s, "seedance2ai", echo):
            assert await s.run() in (Exit.SOME_FAILED, Exit.PAUSED)
        files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        assert b"Incorrect API key provided: [redacted]" in files, "the complaint itself is kept"
        assert key.encode() not in files


async def test_T30_a_prompt_that_a_provider_repeats_reaches_no_log(tmp_path: Path) -> None:
    def echo(status: int) -> Lie:
        body = json.dumps({"error": {"code": "no", "message": "your prompt 'a kumquat' is not nice"}}).encode()
        return lambda said: replace(said, status=status, headers=JSON, body=body) if said.method == "POST" else None

    with log.opened(2, tmp_path / "all.log"):
        async with scene(tmp_path) as s:
            for provider in ("seedance2ai", "seedhorse-video"):
                s.ask(provider, "a kumquat")
            async with liar(s, "seedance2ai", echo(400)), liar(s, "seedhorse-video", echo(500)):
                assert await s.run() is Exit.PERSON_NEEDED
            failures = [job.standing.failure for job in await s.jobs()]
    logged = (tmp_path / "all.log").read_text()
    assert [failure is not None and "a kumquat" in failure.message for failure in failures] == [True, True]
    assert "kumquat" not in logged
    events = {event["event"]: event for event in map(json.loads, logged.splitlines())}
    assert (events["refused"]["why"], events["refused"]["code"]) == ("invalid_request", "no")
    assert events["answer_lost"]["why"] == "unknown_submission"


@pytest.mark.parametrize("key", ["sk-plain", 'sk-"quoted"', "sk/with+signs=", "sk-ü"])
def test_a_key_is_veiled_however_it_is_spelt(key: str) -> None:
    from urllib.parse import quote

    veil = _Veil(key)
    for spelt in (key, json.dumps(key)[1:-1], quote(key, safe=""), key.replace("/", "\\/")):
        assert veil(f"you sent <{spelt}>.") == "you sent <[redacted]>."


# What no number and no text can be


@pytest.mark.parametrize("wild", ["date", "number"])
async def test_an_order_is_survived_whose_answer_holds_what_cannot_be_counted(tmp_path: Path, wild: str) -> None:
    lies = 1

    def overflow(said: Said) -> Said | None:
        nonlocal lies
        if said.method != "POST" or not lies:
            return None
        lies -= 1
        if wild == "date":
            return replace(said, headers={**JSON, "Date": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"})
        return replace(said, body=b'{"eta": 1e99999999999999999999, ' + said.body.lstrip()[1:])

    async with scene(tmp_path) as s:
        s.ask("seedance2ai", "overflowing")
        async with liar(s, "seedance2ai", overflow) as proxy:
            assert await s.run() is Exit.DONE
        assert len(s.tasks("seedance2ai")) == 1
        assert proxy.count("POST") == (1 if wild == "date" else 2)


@pytest.mark.parametrize("wild", ["amount", "address"])
async def test_a_finished_task_is_survived_whose_answer_no_queue_could_hold(tmp_path: Path, wild: str) -> None:
    lies = 1

    def change(data: Any) -> None:
        if wild == "amount":
            task_in(data)["credits_used"] = 10**14
        else:
            task_in(data)["output"]["video_url"] += "\ud800\0"

    def lie(said: Said) -> Said | None:
        nonlocal lies
        if not lies or not is_poll(said) or task_in(json.loads(said.body)).get("status") != "completed":
            return None
        lies -= 1
        return told(said, change)

    async with scene(tmp_path) as s:
        s.ask("seedance2ai", "beyond all bounds")
        async with liar(s, "seedance2ai", lie):
            assert await s.run() is Exit.DONE
        assert not lies


# R2


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_damaged_compression_is_no_answer_and_costs_nothing(tmp_path: Path, method: str, encoding: str) -> None:
    lies = 1

    def damage(said: Said) -> Said | None:
        nonlocal lies
        if said.method != method or not lies:
            return None
        lies -= 1
        headers = {**JSON, "Content-Encoding": encoding}
        return replace(said, headers=headers, body=b"\x1f\x8b\x08 nonsense that is no gzip")

    async with scene(tmp_path) as s:
        s.ask("seedance2ai", "inflated")
        async with liar(s, "seedance2ai", damage):
            assert await s.run() is Exit.DONE
        assert lies == 0
        assert len(s.tasks("seedance2ai")) == 1


# R3


async def test_a_thumbnail_alone_does_not_complete_a_video(tmp_path: Path) -> None:
    lies = 2

    def early(said: Said) -> Said | None:
        nonlocal lies
        if not lies or not is_poll(said) or task_in(json.loads(said.body)).get("status") != "completed":
            return None
        lies -= 1

        def only_the_thumbnail(data: Any) -> None:
            task = task_in(data)
            task["output"] = {"thumbnail_url": task["output"]["video_url"]}

        return told(said, only_the_thumbnail)

    async with scene(tmp_path) as s:
        s.ask("seedance2ai", "its address comes a moment later")
        async with liar(s, "seedance2ai", early):
            assert await s.run() is Exit.DONE
        assert lies == 0
        [job] = await s.jobs()
        assert (tmp_path / job.output).is_file(), "what was paid for is on disk"


async def test_a_video_that_never_gets_more_than_a_thumbnail_is_held(tmp_path: Path) -> None:
    def never(said: Said) -> Said | None:
        if not is_poll(said) or task_in(json.loads(said.body)).get("status") != "completed":
            return None
        return told(said, lambda data: task_in(data).update(output={"thumbnail_url": "http://127.0.0.1:9/x.png"}))

    async with scene(tmp_path) as s:
        s.ask("seedance2ai", "its address never comes")
        async with liar(s, "seedance2ai", never):
            assert await s.run() is Exit.PERSON_NEEDED
        assert states(await s.jobs()) == ["held"]


# R4


@pytest.mark.parametrize("status", [404, 410, 405, 500])
async def test_a_refused_list_says_nothing_about_any_task(tmp_path: Path, status: int) -> None:
    def no_route(said: Said) -> Said | None:
        body = b'{"data":null,"error":{"code":"not_found","message":"no route"}}'
        return replace(said, status=status, headers=JSON, body=body) if is_list(said) else None

    async with scene(tmp_path, render=A_WHILE) as s:
        for n in range(4):
            s.ask("happyhorse", f"the list is broken {n}", duration=5)
        async with liar(s, "happyhorse", no_route) as proxy:
            assert await ending_after_a_list(s, proxy) is Exit.DONE


# R7


def test_a_reset_in_milliseconds_is_read_as_one_and_a_far_one_is_capped() -> None:
    stamp = int(DATE.timestamp())

    def reset_in(value: int) -> float | None:
        return read_signals({"x-ratelimit-reset": str(value)}, DATE).reset_in

    assert reset_in(stamp + 30) == 30
    assert reset_in((stamp + 30) * 1000 + 499) == 30
    assert reset_in(stamp - 30) == 0
    assert reset_in(stamp + 30 * 86400) == reset_in(10**15 - 1) == RETRY_AFTER_CAP


@pytest.mark.parametrize("unit", [1000, 1])
async def test_a_run_survives_a_reset_in_milliseconds(tmp_path: Path, unit: int) -> None:
    async with scene(tmp_path) as s:

        def reset(said: Said) -> Said | None:
            if said.method != "POST":
                return None
            kept = {name: value for name, value in said.headers.items() if "ratelimit" not in name.lower()}
            at = str(int(s.clock.timestamp() + 30) * unit)
            return replace(said, headers={**kept, "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": at})

        s.ask("happyhorse", "when may I ask again", duration=5)
        async with liar(s, "happyhorse", reset):
            assert await s.run() is Exit.DONE


# R8


@pytest.mark.parametrize("text", [ZERO, "9999-12-31T23:59:59-08:00", "0001-01-01T00:00:00+00:01"])
def test_a_time_outside_of_all_calendars_is_no_time(text: str) -> None:
    assert moment(text) is None


async def test_a_history_with_zero_times_is_survived(tmp_path: Path) -> None:
    def zero(said: Said) -> Said | None:
        if not is_list(said):
            return None
        return replace(said, body=_with_times(said.body, ZERO))

    async with scene(tmp_path, render=A_WHILE) as s:
        for n in range(4):
            s.ask("happyhorse", f"made in the year one {n}", duration=5)
        async with liar(s, "happyhorse", zero) as proxy:
            assert await ending_after_a_list(s, proxy) is Exit.DONE
        assert any(said.body != _with_times(said.body, ZERO) for said in proxy.seen if is_list(said)), "it was told so"


def _with_times(body: bytes, text: str) -> bytes:
    def changed(found: dict[str, Any]) -> dict[str, Any]:
        return {name: text if name in ("created_at", "createdAt") else value for name, value in found.items()}

    return json.dumps(json.loads(body, object_hook=changed)).encode()


# R9


def failing_with(code: str, **more: Any) -> Callable[[Said], Said | None]:
    """Every task is told to have failed with `code`, and its cost is not told at all."""

    def change(data: Any) -> None:
        task = task_in(data)
        task.pop("credits_used", None)
        task.update(status="failed", error={"code": code, "message": "not for you"}, **more)

    return lambda said: told(said, change) if is_poll(said) else None


@pytest.mark.parametrize("code", ["insufficient_credits", "paid_access_required"])
async def test_a_refusal_as_task_failure_is_not_free_unless_it_is_said(tmp_path: Path, code: str) -> None:
    async with scene(tmp_path) as s:
        s.ask("happyhorse", "ordered once", duration=5)
        async with liar(s, "happyhorse", failing_with(code)):
            assert await s.run(wait=False) is Exit.SOME_FAILED
        assert len(s.tasks("happyhorse")) == 1
        [job] = await s.jobs()
        assert job.standing.state is State.FAILED
        assert job.charged - job.refunded == s.net("happyhorse") == 38
        assert job.standing.unsettled, "its refund is still asked for"


@pytest.mark.parametrize("code", ["insufficient_credits", "paid_access_required"])
async def test_a_free_refusal_as_task_failure_moves_the_account(tmp_path: Path, code: str) -> None:
    async with scene(tmp_path, speed=15) as s:  # slow enough to see a pause of 30 s before it is over
        s.ask("happyhorse", "ordered once", duration=5)
        async with liar(s, "happyhorse", failing_with(code, credits_used=0)):
            assert await s.run(wait=False) is Exit.PAUSED
        [job] = await s.jobs()
        assert job.standing.state is State.QUEUED
        assert job.charged - job.refunded == Decimal(0)
        assert len(s.tasks("happyhorse")) == 1, "the account waits; nothing is ordered in a circle"


# R29


async def test_a_dead_media_host_ends_with_a_person(tmp_path: Path) -> None:
    async with scene(tmp_path, speed=6000.0) as s:
        s.ask("seedance2ai", "its file's host is dead")
        await s.fault("seedance2ai", "lost_request", times=100_000, when="download")
        assert await s.run() is Exit.PERSON_NEEDED
        [job] = await s.jobs()
        assert job.standing.state is State.HELD
        assert job.standing.failure is not None
        assert job.standing.failure.kind is ErrorKind.DOWNLOAD_FAILED
        assert job.standing.task_id == s.tasks("seedance2ai")[0]["id"], "a later try costs a download, no render"
        assert len(s.tasks("seedance2ai")) == 1
