"""Who is struck by which fault: exact orders, rates from the seed, outages, prompts that ask for a fate."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from sandbox_client import PROVIDERS, charged, client_of, ended, error_of, failing, task_id

from runner.sandbox.faults import CATALOGUE, POINTS, BadFault, Faults, fate_of, make_fault, make_order, parse_rates


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
    async with client_of("happyhorse") as client:
        await client.control("outage", {"provider": "happyhorse", "seconds": 60})
        assert (await client.ask("GET", "/api/v1/credits")).status_code == 503
        assert (await client.order()).status_code == 503
        client.sandbox.clock.leap(61)
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


async def test_what_fired_is_counted_by_where_and_how_and_outlives_a_restart(tmp_path: Path) -> None:
    state = str(tmp_path / "state.db")
    rates = "task_failed=1:refund=0.5,unavailable@credits=1:retry_after=date:90:status=529"
    async with client_of("happyhorse", state=state, faults=rates) as client:
        await client.fault("lost_answer")
        await failing(client, httpx.ReadError)
        for how in ("length", "close"):
            await client.fault("truncated", how=how)
        await failing(client, httpx.RemoteProtocolError)
        await client.order()
        await client.ask("GET", "/api/v1/credits")
    counted = {
        "lost_answer@submit": 1,
        "task_failed@submit:refund=0.5": 3,
        "truncated@submit:how=close": 1,
        "truncated@submit:how=length": 1,
        "unavailable@credits:retry_after=date:90:status=529": 1,
    }
    async with client_of("happyhorse", state=state) as client:
        assert client.sandbox.observed()["faults_fired_at"] == counted
        assert (await client.control("faults"))["fired_at"] == counted
        await client.fault("error_before_charge", status=200)
        assert (await client.order()).status_code == 200
        await client.fault("stuck")
        await client.fault("latency", seconds=0, when="submit")
        await client.ordered()
        added = {"error_before_charge@submit:status=200": 1, "stuck@submit": 1, "latency@submit:seconds=0": 1}
        assert client.sandbox.observed()["faults_fired_at"] == counted | added


async def test_what_fired_in_an_outage_is_told_apart() -> None:
    async with client_of("happyhorse") as client:
        await client.control("outage", {"provider": "happyhorse", "seconds": 60})
        for _ in range(2):
            assert (await client.order()).status_code == 503
        outage = {"provider": "happyhorse", "seconds": 60, "name": "lost_request", "how": "reset"}
        await client.control("outage", outage)
        await failing(client, httpx.ReadError)
        observed = client.sandbox.observed()
        assert observed["faults_fired"] == {"unavailable": 2, "lost_request": 1}
        assert observed["faults_fired_at"] == {"outage@submit": 2, "outage@submit:how=reset:name=lost_request": 1}


def test_a_rate_may_give_an_address_as_a_value() -> None:
    spec = "redirect@download=0.5:location=file:///etc/passwd:status=302,redirect@download=0.5:location=http://127.0.0.1:9/x"
    first, second = parse_rates(spec)
    assert first.order.fault.label("download") == "redirect@download:location=file:///etc/passwd:status=302"
    assert second.order.fault.parameters == {"location": "http://127.0.0.1:9/x", "status": 303}


@pytest.mark.parametrize("marker", ["moderated", "failed", "cancelled", "refused", "slow"])
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_prompt_can_ask_for_a_fate(provider: str, marker: str) -> None:
    async with client_of(provider) as client:
        answer = await client.order({"prompt": f"a cat sandbox:{marker}"})
        if marker == "refused":
            assert (error_of(answer), client.money()) == (client.way.errors["refused"], ("0", "0"))
        elif marker == "slow":
            (task,) = client.books()["tasks"]
            assert task["finishes_at"] - task["created_at"] > 180
        else:
            shown = await ended(client, task_id(answer.json()))
            assert client.books()["tasks"][0]["outcome"] == marker
            assert shown.state == (marker if marker in client.way.words else "failed")
            assert client.money() == (client.cost(), client.cost() if client.way.refunds else "0")


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
        *("error_before_charge=0.1:status=bad", "partial=0.1:missing=some", "review=0.1:seconds=soon"),
        *("many_headers=0.1:how=length", "odd_progress=0.1:value=12", "lost_answer=0.1:reset", "closes_idle=0.1::"),
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
