"""Whole runs against the sandbox, which is the judge: its ledger says what was paid, its log what was asked."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from scene import scene, states, until
from structlog.testing import CapturingLogger

from runner.client import sockets
from runner.engine import Exit
from runner.errors import ErrorKind
from runner.jobs import State
from runner.lifecycle import following
from runner.limits import Window
from runner.store import read_store
from runner.store.queries import sums

BOTH = ["happyhorse", "seedance2ai"]
MEDIA = Path(__file__).parent.parent / "runner" / "sandbox" / "media"


@pytest.mark.parametrize("provider", BOTH)
async def test_jobs_become_files_and_the_bill_is_the_providers_own(tmp_path: Path, provider: str) -> None:
    async with scene(tmp_path) as s:
        for n in range(6):
            s.ask(provider, f"a fox in the snow, number {n}", duration=5)
        assert await s.run() is Exit.DONE
        jobs = await s.jobs()
        assert states(jobs) == ["succeeded"] * 6
        assert sum((j.charged - j.refunded for j in jobs), Decimal(0)) == s.net(provider) > 0
        assert len(s.tasks(provider)) == 6
        assert len(list((tmp_path / "out").glob("*.mp4"))) == len(list((tmp_path / "out").glob("*.mp4.json"))) == 6
        assert await s.run() is Exit.DONE
        assert len(s.tasks(provider)) == 6, "running it again buys nothing"


@pytest.mark.parametrize("fault", ["lost_answer", "error_after_charge", "truncated", "empty_200", "html_502"])
async def test_a_lost_answer_is_resent_under_the_same_key(tmp_path: Path, fault: str) -> None:
    async with scene(tmp_path) as s:
        s.ask("seedance2ai", "one lighthouse at dawn")
        await s.fault("seedance2ai", fault, when="submit")
        assert await s.run() is Exit.DONE
        [task] = s.tasks("seedance2ai")
        [job] = await s.jobs()
        assert job.standing.task_id == task["id"]
        assert job.standing.attempts == 1, "keyed resends are one attempt"


@pytest.mark.parametrize("fault", ["lost_answer", "error_after_charge", "truncated"])
async def test_a_lost_answer_is_found_in_the_history(tmp_path: Path, fault: str) -> None:
    async with scene(tmp_path) as s:
        for prompt in ("one lighthouse", "two lighthouses"):
            s.ask("happyhorse", prompt, duration=5)
        await s.fault("happyhorse", fault, when="submit")
        assert await s.run() is Exit.DONE
        jobs = await s.jobs()
        assert {j.standing.task_id for j in jobs} == {t["id"] for t in s.tasks("happyhorse")}
        prompts = {t["id"]: t["prompt"] for t in s.tasks("happyhorse")}
        assert all(prompts[j.standing.task_id or ""] in j.spec for j in jobs)


async def test_a_lost_request_is_looked_for_and_then_held_never_sent_again(tmp_path: Path) -> None:
    async with scene(tmp_path, speed=600) as s:
        s.ask("happyhorse", "never arrived", duration=5)
        await s.fault("happyhorse", "lost_request", when="submit")
        assert await s.run() is Exit.PERSON_NEEDED
        [job] = await s.jobs()
        assert job.standing.state is State.HELD
        assert job.standing.looks >= 2
        assert s.tasks("happyhorse") == []


async def test_an_image_without_history_is_held_at_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.ask("happyhorse", "a still", model="nano-banana-2")
        await s.fault("happyhorse", "lost_answer", when="submit")
        assert await s.run() is Exit.PERSON_NEEDED
        [job] = await s.jobs()
        assert job.standing.state is State.HELD
        assert job.standing.looks == 0
        assert len(s.tasks("happyhorse")) == 1


async def test_a_late_acceptance_is_adopted_by_a_later_look(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.ask("happyhorse", "accepted late", duration=5)
        await s.fault("happyhorse", "late_accept", when="submit", seconds=20)
        assert await s.run() is Exit.DONE
        [job] = await s.jobs()
        [task] = s.tasks("happyhorse")
        assert job.standing.task_id == task["id"]


async def test_equal_takes_with_lost_answers_are_paired(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        for _ in range(3):
            s.ask("happyhorse", "the very same", duration=5)
        await s.fault("happyhorse", "lost_answer", times=2, when="submit")
        assert await s.run() is Exit.DONE
        assert len({j.standing.task_id for j in await s.jobs()}) == len(s.tasks("happyhorse")) == 3


@pytest.mark.parametrize("provider", BOTH)
async def test_a_refused_key_stops_the_account_and_keeps_its_jobs(tmp_path: Path, provider: str) -> None:
    async with scene(tmp_path) as s:
        s.ask(provider, "locked out", duration=5)
        await s.control("keys", provider=provider, key=s.sandbox.keys[provider], revoked=True)
        assert await s.run() is Exit.PAUSED
        assert states(await s.jobs()) == ["queued"]
        await s.control("keys", provider=provider, key=s.sandbox.keys[provider], revoked=False)
        assert await s.run() is Exit.DONE
        assert len(s.tasks(provider)) == 1


@pytest.mark.parametrize("provider", BOTH)
async def test_without_credits_the_account_pauses_and_no_wait_ends(tmp_path: Path, provider: str) -> None:
    async with scene(tmp_path) as s:
        key = s.sandbox.keys[provider]
        s.ask(provider, "poor", duration=5)
        await s.control("credits", provider=provider, key=key, balance="0")
        assert await s.run(wait=False) is Exit.PAUSED
        assert states(await s.jobs()) == ["queued"]
        await s.control("credits", provider=provider, key=key, balance="1000")
        assert await s.run() is Exit.DONE
        assert (await s.jobs())[0].standing.attempts == 1


async def test_a_failed_task_is_failed_and_its_refund_is_booked(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.ask("happyhorse", "this one fails sandbox:failed", duration=5)
        s.ask("happyhorse", "this one is moderated sandbox:moderated", duration=5)
        s.ask("seedance2ai", "and this one sandbox:moderated")
        assert await s.run() is Exit.SOME_FAILED
        kinds = Counter(j.standing.failure.kind for j in await s.jobs() if j.standing.failure)
        assert kinds == {ErrorKind.TASK_FAILED: 1, ErrorKind.MODERATED: 2}
        assert s.net("happyhorse") == s.net("seedance2ai") == 0
        async with read_store(s.db, s.clock) as store:
            for row in await store.read(sums):
                assert (row.charged - row.refunded, row.reserved) == (0, 0)


async def test_a_late_refund_is_asked_for_and_booked(tmp_path: Path) -> None:
    async with scene(tmp_path, speed=300) as s:
        s.ask("happyhorse", "refunded late", duration=5)
        s.ask("happyhorse", "keeps the run going sandbox:slow", duration=5)
        await s.fault("happyhorse", "late_refund", when="submit", seconds=30)
        await s.run()
        jobs = await s.jobs()
        assert sum((j.charged - j.refunded for j in jobs), Decimal(0)) == s.net("happyhorse")


async def test_an_unknown_status_is_survived_and_told_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.ask("seedance2ai", "strange words")
        await s.fault("seedance2ai", "unknown_status", times=1, when="poll")
        assert await s.run() is Exit.DONE


async def test_an_expired_url_costs_a_poll_not_a_render(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.ask("seedance2ai", "expired")
        await s.fault("seedance2ai", "expired_url", times=2, when="download")
        assert await s.run() is Exit.DONE
        assert len(s.tasks("seedance2ai")) == 1


@pytest.mark.parametrize("fault", ["rate_limited", "unavailable"])
async def test_busy_providers_are_waited_for(tmp_path: Path, fault: str) -> None:
    async with scene(tmp_path) as s:
        for n in range(4):
            s.ask("seedance2ai", f"patience {n}")
        await s.fault("seedance2ai", fault, times=3, when="submit")
        assert await s.run() is Exit.DONE
        assert len(s.tasks("seedance2ai")) == 4
        assert all(j.standing.attempts == 1 for j in await s.jobs())


async def test_a_local_file_is_uploaded_once_per_content(tmp_path: Path) -> None:
    picture = tmp_path / "frame.png"
    picture.write_bytes(next(iter(sorted(MEDIA.glob("*.png")))).read_bytes())
    async with scene(tmp_path) as s:
        for n in range(4):
            s.ask("happyhorse", f"moves {n}", duration=5, files={"first_frame": picture})
        assert await s.run() is Exit.DONE
        uploads = [r for r in (await s.control("requests"))["requests"] if r["path"].endswith("/upload")]
        assert len(uploads) == 1
        assert len({t["body"].split('"image_url":"')[1].split('"')[0] for t in s.tasks("happyhorse")}) == 1


async def test_a_budget_is_never_exceeded(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.budget = {"happyhorse": Decimal(100), "seedance2ai": Decimal(100)}
        for n in range(5):
            s.ask("happyhorse", f"dear {n}", duration=5)  # 38 each
            s.ask("seedance2ai", f"unpriced {n}")  # 30 each, as the first of them will tell
        assert await s.run() is Exit.LIMIT
        assert s.net("happyhorse") == 76
        assert s.net("seedance2ai") == 90
        assert Counter(states(await s.jobs())) == {"succeeded": 5, "queued": 5}


async def test_F58_a_budget_counts_with_what_is_really_charged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = CapturingLogger()
    monkeypatch.setattr(following, "log", log)
    async with scene(tmp_path) as s:
        s.budget, s.concurrency = {"happyhorse": Decimal(200)}, 1
        for n in range(4):
            s.ask("happyhorse", f"dearer than documented {n}", duration=5)  # 38 each, by the document
        await s.fault("happyhorse", "overcharged", times=4, when="submit", factor="2")
        assert await s.run() is Exit.LIMIT
        assert s.net("happyhorse") == 152, "a third one would cost 76, though the document says that it fits"
        [told] = log.calls
        assert (told.method_name, told.kwargs["expected"], told.kwargs["charged"]) == ("warning", "38", "76")

        s.budget = {"happyhorse": Decimal(400)}
        assert await s.run() is Exit.DONE
        assert s.net("happyhorse") == 304
        assert [job.estimated for job in await s.jobs()] == [38, 76, 76, 76]


async def test_limits_hold_as_the_provider_sees_them(tmp_path: Path) -> None:
    async with scene(tmp_path, render=5) as s:
        s.windows = {"happyhorse": (Window(30, 60),)}
        for n in range(12):
            s.ask("happyhorse", f"busy {n}", duration=5)
        assert await s.run() is Exit.DONE
        [seen] = (await s.control("observed"))["accounts"]["happyhorse"].values()
        assert seen["max_in_flight"] <= 4
        assert seen["max_requests_60s"] <= 30
        assert (await s.control("observed"))["leaks"] == []


async def test_one_list_request_asks_for_many_tasks(tmp_path: Path) -> None:
    async with scene(tmp_path, render=60) as s:
        s.concurrency = 10
        for n in range(10):
            s.ask("happyhorse", f"listed {n}", duration=5)
        assert await s.run() is Exit.DONE
        paths = Counter(r["path"].split("/")[-1][:4] for r in (await s.control("requests"))["requests"])
        assert paths["vide"] > 0, "the list was asked"
        assert paths["vid_"] < 5 * 10, "and few tasks by themselves"


async def test_another_key_holds_open_questions_and_stops_the_account(tmp_path: Path) -> None:
    async with scene(tmp_path, render=600) as s:
        s.ask("seedance2ai", "paid with the first key")
        async with s.engine() as engine:
            work = asyncio.create_task(engine.run())
            await until(lambda: bool(s.tasks("seedance2ai")) and engine.tallies[0].of(State.RUNNING) == 1)
            engine.stop.set()
            await work
        assert states(await s.jobs()) == ["running"]
        s.keys["seedance2ai"] = "another-key-of-another-account"
        s.ask("seedance2ai", "must not be sent with it")
        assert await s.run() is Exit.PAUSED
        assert states(await s.jobs()) == ["running", "queued"]
        assert len(s.tasks("seedance2ai")) == 1


@pytest.mark.parametrize(("leads_to", "orders"), [("224.0.0.1", 1), (None, 3)])
async def test_who_cannot_be_reached_by_right_stops_the_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leads_to: str | None, orders: int
) -> None:
    """An address where we may not go is a person's matter at once, a name that nobody knows after three orders."""
    looked_up: list[str] = []

    async def crooked(host: str, port: int) -> list[tuple[Any, ...]]:
        looked_up.append(host)
        if leads_to is None:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (leads_to, port))]

    async with scene(tmp_path, speed=600.0) as s:
        for n in range(4):
            s.ask("happyhorse", f"a fox in the snow, number {n}", duration=5)
        monkeypatch.setattr(sockets, "look_up", crooked)
        assert await s.run() is Exit.PAUSED
        assert states(await s.jobs()) == ["queued"] * 4
        assert len(looked_up) == orders
        monkeypatch.undo()
        assert await s.run() is Exit.DONE, "once that is mended, all goes on"
        assert [job.standing.attempts for job in await s.jobs()] == [1] * 4


async def test_a_question_to_who_may_not_be_asked_stops_the_account_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stands there cannot be asked for the task: its job is kept as it is."""
    objections = iter([None])  # the order goes out, and nothing after it

    async with scene(tmp_path, speed=600.0) as s:
        s.ask("happyhorse", "a fox in the snow", duration=5)
        monkeypatch.setattr(sockets, "objection", lambda *_: next(objections, "somebody else's"))
        assert await s.run() is Exit.PAUSED
        assert states(await s.jobs()) == ["running"]
        monkeypatch.undo()
        assert await s.run() is Exit.DONE


@pytest.mark.parametrize("way", ["fields", "params"])
async def test_F55_outputs_that_did_not_come_are_missed_in_whatever_way_they_were_asked_for(
    tmp_path: Path, way: str
) -> None:
    """`batchCount` is the provider's own name for `count`."""
    async with scene(tmp_path) as s:
        s.ask("seedance2ai", "four lighthouses", model="gpt-image-2", resolution="1K", aspect_ratio="1:1")
        spec = json.loads(s.orders[0].spec)
        spec[way] |= {"count": 4} if way == "fields" else {"batchCount": 4}
        s.orders[0] = replace(s.orders[0], spec=json.dumps(spec))
        await s.fault("seedance2ai", "partial", when="submit")
        assert await s.run() is Exit.SOME_FAILED
        [job] = await s.jobs()
        assert (job.standing.state, len(s.tasks("seedance2ai"))) == (State.PARTIAL, 1)
        assert job.standing.failure is not None
        assert job.standing.failure.message == "1 of 4 outputs did not come"
