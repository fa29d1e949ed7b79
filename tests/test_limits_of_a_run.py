"""What a run may spend and ask: windows that are given back, caps that hold, consent, balances asked only for cause."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from liar import Said, liar
from scene import Scene, scene, states
from sqlalchemy import Connection, func, select
from test_endings import MANIFEST, settings_of

from runner.cli.app import EVERYDAY
from runner.cli.assembly import RunOptions, prepared, read_order
from runner.cli.run import perform
from runner.engine import Exit
from runner.errors import InputError
from runner.jobs import Change
from runner.lifecycle import deciding, following
from runner.limits import Window
from runner.store import accounts as account_rows
from runner.store import open_store
from runner.store.changes import requests

# R14


def without_end(connection: Connection) -> int:
    return connection.execute(
        select(func.count()).select_from(requests).where(requests.c.ended_at.is_(None))
    ).scalar_one()


@pytest.mark.parametrize("fault", [None, "poll_500"])
async def test_list_pages_that_were_not_needed_leave_the_window(tmp_path: Path, fault: str | None) -> None:
    async with scene(tmp_path) as s:
        s.windows = {"happyhorse": (Window(60, 60),)}
        s.ask("happyhorse", "a still", model="nano-banana-2")
        if fault:
            await s.fault("happyhorse", fault, when="list")
        async with s.engine() as engine:
            desk = engine.lanes[0].desk
            pages = [(await desk.permitted())[1] for _ in range(3)]
            assert await desk.store.read(without_end) == 3
            await following.poll_list(desk, [], pages)
            assert await desk.store.read(without_end) == 0
        asked = [r for r in (await s.control("requests"))["requests"] if "/videos" in r["path"]]
        assert len(asked) == 1, "the first page said that there is no more"


# R15


async def with_a_queue(s: Scene) -> RunOptions:
    """A queue that holds one job for 38 credits."""
    (s.folder / "m.yaml").write_text(MANIFEST)
    options = RunOptions(s.db, settings_of(s, "happyhorse"))
    async with prepared(read_order(s.folder / "m.yaml"), options, s.clock):
        return options


@pytest.mark.parametrize("with_manifest", [True, False])
async def test_a_cap_for_no_account_is_refused(tmp_path: Path, with_manifest: bool) -> None:
    async with scene(tmp_path) as s:
        options = replace(await with_a_queue(s), max_credits={"hapyhorse": Decimal(38)})
        order = read_order(tmp_path / "m.yaml") if with_manifest else None
        with pytest.raises(InputError, match="hapyhorse") as refused:
            async with prepared(order, options, s.clock):
                pass
        assert "'happyhorse'" in (refused.value.hint or "")


@pytest.mark.parametrize("with_manifest", [True, False])
@pytest.mark.parametrize("each", [True, False])
async def test_a_cap_holds_with_and_without_a_manifest(tmp_path: Path, with_manifest: bool, each: bool) -> None:
    async with scene(tmp_path) as s:
        order = None
        options = await with_a_queue(s)
        if with_manifest:
            order = read_order(tmp_path / "m.yaml")
        cap = Decimal(37)
        options = replace(options, max_credits_each=cap) if each else replace(options, max_credits={"happyhorse": cap})
        async with prepared(order, options, s.clock) as engine:
            assert await engine.run() is Exit.LIMIT
        assert s.tasks("happyhorse") == []
        assert states(await s.jobs()) == ["queued"]


async def test_T23_a_manifest_does_not_raise_the_cap_of_the_command_line(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        options = replace(await with_a_queue(s), max_credits={"happyhorse": Decimal(37)})
        rich = (tmp_path / "m.yaml").read_text() + "budget: {happyhorse: 1000000}\n"
        (tmp_path / "m.yaml").write_text(rich)
        async with prepared(read_order(tmp_path / "m.yaml"), options, s.clock) as engine:
            assert await engine.run() is Exit.LIMIT
        assert s.tasks("happyhorse") == []


async def test_T23_a_looser_cap_does_not_loosen_the_budget(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        options = await with_a_queue(s)
        for cap in (37, 500):
            capped = replace(options, max_credits={"happyhorse": Decimal(cap)})
            async with prepared(None, capped, s.clock) as engine:
                assert await engine.run() is Exit.LIMIT
        assert s.tasks("happyhorse") == []


# R16


async def test_what_is_made_without_a_bill_is_not_ordered_on_before_it_is_known(tmp_path: Path) -> None:
    """No document gives a price, and at first no answer tells what the first one cost. The next run asks, and is
    told."""
    told = False

    def keeps_the_bill_back(said: Said) -> Said | None:
        return None if told else replace(said, body=said.body.replace(b'"credits_used"', b'"to_be_told"'))

    async with scene(tmp_path) as s, liar(s, "seedance2ai", keeps_the_bill_back):
        s.budget = {"seedance2ai": Decimal(70)}
        for n in range(3):
            s.ask("seedance2ai", f"at what price {n}")
        assert await s.run() is Exit.LIMIT
        assert states(await s.jobs()) == ["succeeded", "queued", "queued"]
        told = True
        assert await s.run() is Exit.LIMIT
        assert states(await s.jobs()) == ["succeeded", "succeeded", "queued"]
        assert s.net("seedance2ai") == 60


async def test_a_job_that_a_person_cancelled_is_not_bought_unasked(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        options = await with_a_queue(s)
        [job] = await s.jobs()
        async with open_store(s.db, s.clock) as store:
            change = deciding.cancel(job, s.clock.now())
            assert isinstance(change, Change)
            await store.record(change)
        quiet = replace(EVERYDAY, quiet=True)
        with pytest.raises(InputError, match="1 new job"):
            await perform(read_order(tmp_path / "m.yaml"), options, quiet, yes=False)
        assert states(await s.jobs()) == ["cancelled"]
        assert s.tasks("happyhorse") == []


# R21


async def test_the_balance_is_asked_only_with_something_to_submit(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        s.ask("happyhorse", "poor", duration=5)
        async with liar(s, "happyhorse") as proxy, s.engine() as engine:
            [lane] = engine.lanes
            an_hour_ago = s.clock.now() - timedelta(hours=1)
            await engine.store.write(
                account_rows.pause, an_hour_ago, "happyhorse", "insufficient_credits", "poor", None
            )
            assert len(await lane._intents()) == 1
            assert proxy.count("GET", "/credits") == 1, "before an order is tried again"
            [job] = await s.jobs()
            change = deciding.cancel(job, s.clock.now())
            assert isinstance(change, Change)
            await engine.store.record(change)
            for _ in range(5):
                await lane._claim()
            assert proxy.count("GET", "/credits") == 1, "with nothing to submit nobody cares"
