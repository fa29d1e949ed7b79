"""Where no URL of a provider leads: the address that is connected to counts, at every hop, and never its name (T9)."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import certificates
import pytest
from test_fetching import fetched, hello
from test_sockets import LOOPBACK, OTHERS
from wire import Asked, served
from wire import Line as Connection

from runner.client.asking import Line
from runner.client.fetching import Fetcher, FetchError, UnsafeUrl
from runner.client.sockets import fast_transport
from runner.clock import Clock
from runner.errors import NotSent
from runner.settings import Credentials, Secret

PUBLIC, ELSEWHERE = "93.184.215.14", "93.184.215.15"


@dataclass
class World:
    """What names lead to, one answer a look-up (the last one stays), and where was connected to. PUBLIC is our own
    server in disguise, ELSEWHERE refuses, and nothing else is on this network but what a test must not reach."""

    answers: list[list[str]] = field(default_factory=list)
    went: list[str] = field(default_factory=list)

    def look_up(self, host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        if not host.endswith(".example"):
            return REAL_LOOK_UP(host, port, type=socket.SOCK_STREAM)
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [info for each in addresses for info in REAL_LOOK_UP(each, port, type=socket.SOCK_STREAM)]

    def connect(self, end: socket.socket, address: Any) -> None:
        self.went.append(address[0])
        if address[0] == ELSEWHERE:
            raise ConnectionRefusedError(111, "refused")
        REAL_CONNECT(end, ("127.0.0.1", address[1]) if address[0] == PUBLIC else address)


REAL_LOOK_UP, REAL_CONNECT = socket.getaddrinfo, socket.socket.connect


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(socket, "getaddrinfo", made.look_up)
    monkeypatch.setattr(socket.socket, "connect", lambda end, address: made.connect(end, address))
    return made


def abroad() -> Fetcher:
    """For a provider out in the world. (That the certificate is for another name is not the point here.)"""
    trusting = certificates.client_side()
    trusting.check_hostname = False
    return Fetcher(transport=fast_transport(ssl_context=trusting), connect=2, idle=2)


async def test_T9_a_public_server_cannot_send_us_inside(world: World, tmp_path: Path) -> None:
    """By a redirect, to any spelling of an address that is none of its business."""
    world.answers = [[PUBLIC]]
    hosts = [*LOOPBACK, *OTHERS]
    assert len(set(hosts)) > 80

    async def inside(_: Asked, line: Connection) -> None:
        target = f"https://{hosts[0]}/latest/meta-data"
        await line.answer(302, location=target.encode().decode("latin-1"))  # its bytes, as they are

    async with abroad() as fetcher, served(inside, tls=certificates.server_side(tmp_path)) as wire:
        while hosts:
            with pytest.raises(FetchError) as refused:
                await fetched(fetcher, wire.url(host="cdn.example"))
            assert isinstance(refused.value, UnsafeUrl) or "no such host" in refused.value.why, hosts[0]
            del hosts[0]
    assert set(world.went) == {PUBLIC}


async def test_T9_a_name_that_is_public_first_and_private_then(world: World, tmp_path: Path) -> None:
    """What was looked up is kept for a few seconds, and what is kept is judged again; who looks anew is refused."""
    world.answers = [[PUBLIC], ["127.0.0.1"]]
    async with served(hello, tls=certificates.server_side(tmp_path)) as wire:
        url = wire.url(host="rebinding.example")
        async with abroad() as fetcher:
            assert (await fetched(fetcher, url))[1] == b"hello"
            assert (await fetched(fetcher, url))[1] == b"hello"
        async with abroad() as fetcher:
            with pytest.raises(UnsafeUrl):
                await fetched(fetcher, url)
        assert wire.connections == 2
    assert world.went == [PUBLIC, PUBLIC]


@pytest.mark.parametrize("inside", ["127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "64:ff9b::7f00:1"])
async def test_T9_a_public_address_does_not_cover_for_a_private_one(inside: str, world: World, tmp_path: Path) -> None:
    """A name with both: should the public one not answer, the other is still not asked."""
    world.answers = [[ELSEWHERE, inside], [inside, ELSEWHERE]]
    async with abroad() as fetcher, served(hello, tls=certificates.server_side(tmp_path)) as wire:
        for _ in range(2):
            with pytest.raises(FetchError):
                await fetched(fetcher, wire.url(host="both.example"))
        assert wire.connections == 0
    assert set(world.went) <= {ELSEWHERE}


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1", "10.0.0.1", "::ffff:127.0.0.1"])
async def test_T9_F05_a_provider_whose_name_leads_inside_is_sent_nothing(address: str, world: World) -> None:
    """Its base is not on loopback, so its key and the order stay here."""
    world.answers = [[address]]
    credentials = Credentials("acme", "acme", Secret("sk-canary0123456789"), "https://api.acme.example", False)

    async def never() -> None:
        raise AssertionError("the brink was reached")

    async with Line(credentials, Clock()) as line:
        with pytest.raises(NotSent):
            await line.submission(never)("POST", "/api/v1/videos", json={})
    assert world.went == []
