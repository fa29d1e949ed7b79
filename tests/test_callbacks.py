"""Providers that call back: let in by a secret word, read for a task id, believed only after a question of ours."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.client.callbacks import BODY_CAP, CallbackPlace, digest, listening, new_word, task_in
from runner.errors import InputError, LocalError


def free_place() -> CallbackPlace:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return CallbackPlace.read(f"http://127.0.0.1:{port}/hooks", None)


@asynccontextmanager
async def heard_by(*words: str) -> Any:
    """A place that waits for these words; yields its address and what it was told."""
    known, told = {digest(word): word for word in words}, []

    async def heard(word: str, task_id: str | None) -> bool:
        if word in known:
            told.append((known[word], task_id))
        return word in known

    place = free_place()
    async with listening(place, heard), httpx.AsyncClient() as client:
        yield place, client, told


async def test_T20_what_is_no_http_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    word = new_word()
    async with heard_by(word) as (place, _, told):
        reader, writer = await asyncio.open_connection(place.host, place.port)
        writer.write(f"POST /hooks/ {word} HTTP/1.1\r\n\r\n".encode())
        assert b" 400 " in await reader.readline()
        writer.close()
    assert (told, caplog.text) == ([], "")


@pytest.mark.parametrize("path", ["/{x", "/{word}", "/a b", "/a%20b", "/é"])
def test_a_path_that_may_not_arrive_as_it_is_is_refused(path: str) -> None:
    with pytest.raises(InputError, match="path"):
        CallbackPlace.read(f"https://relay.example{path}", None)


async def test_T20_a_call_with_its_word_is_heard_with_its_task() -> None:
    word = new_word()
    async with heard_by(word) as (place, client, told):
        answer = await client.post(f"{place.url}/{word}", json={"taskId": "task_1", "status": "COMPLETED"})
        assert answer.status_code == 204
        assert told == [(word, "task_1")]


@pytest.mark.parametrize(
    "path", ["/hooks", "/hooks/", "/", "/hooks/short", f"/hooks/{'0' * 64}", f"/hooks/{'G' * 64}", f"/x/{'0' * 64}"]
)
async def test_T20_everything_else_is_not_there(path: str) -> None:
    async with heard_by(new_word()) as (place, client, told):
        base = place.url.removesuffix("/hooks")
        assert (await client.post(base + path, json={"taskId": "task_1"})).status_code == 404
        assert (await client.get(base + path)).status_code in (404, 405)
        assert told == []


async def test_a_call_that_cannot_be_kept_is_asked_to_come_again(capfd: pytest.CaptureFixture[str]) -> None:
    async def full(_word: str, _task_id: str | None) -> bool:
        raise LocalError("the disk is full")

    place = free_place()
    async with listening(place, full), httpx.AsyncClient() as client:
        assert (await client.post(f"{place.url}/{new_word()}", json={"taskId": "t"})).status_code == 503
    assert "Traceback" not in "".join(capfd.readouterr())


async def test_T20_a_call_that_says_nonsense_is_only_a_knock() -> None:
    word = new_word()
    nonsense = [b"", b"[", b"\xff", b"[1]", b'"x"', b'{"taskId": null}', b'{"taskId": "../../account"}', b"[" * 50_000]
    async with heard_by(word) as (place, client, told):
        for body in nonsense:
            assert (await client.post(f"{place.url}/{word}", content=body)).status_code == 204
        assert told == [(word, None)] * len(nonsense)


async def test_T20_a_call_of_more_than_64_kib_is_refused() -> None:
    word = new_word()
    async with heard_by(word) as (place, client, told):
        body = json.dumps({"taskId": "task_1", "more": "x" * BODY_CAP})
        assert (await client.post(f"{place.url}/{word}", content=body)).status_code == 413
        assert told == []


def test_a_word_is_never_used_twice_and_is_kept_as_a_digest_only() -> None:
    words = {new_word() for _ in range(100)}
    assert len(words) == 100
    assert all(len(word) == 64 and digest(word) not in words for word in words)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_whatever_is_sent_is_survived(payload: Any) -> None:
    for said in (payload, {"taskId": payload}, {"data": payload}, {"data": {"id": payload}}):
        found = task_in(said)
        assert found is None or "/" not in found


def test_where_to_listen() -> None:
    assert CallbackPlace.read("http://localhost:9000/a/", None) == CallbackPlace(
        "http://localhost:9000/a", "localhost", 9000
    )
    assert CallbackPlace.read("https://relay.example/h", None) == CallbackPlace(
        "https://relay.example/h", "127.0.0.1", 8377
    )
    assert CallbackPlace.read("https://relay.example/h", "0.0.0.0:80").port == 80


@pytest.mark.parametrize(
    ("url", "listen"),
    [
        ("http://relay.example/h", None), ("ftp://relay.example", None), ("relay.example", None), ("https://", None),
        ("https://relay.example/h?key=1", None), ("https://me:secret@relay.example/h", None), ("https://[", None),
        ("https://relay.example/h", "8377"), ("https://relay.example/h", "127.0.0.1:0"),
        ("https://relay.example/h", "127.0.0.1:99999"),
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_called_is_refused(url: str, listen: str | None) -> None:
    with pytest.raises(InputError):
        CallbackPlace.read(url, listen)


async def test_a_port_that_is_taken_is_told() -> None:
    async def heard(word: str, task_id: str | None) -> bool:
        return False

    place = free_place()
    async with listening(place, heard):
        with pytest.raises(LocalError, match="cannot listen"):
            async with listening(place, heard):
                pass
