"""Where a connection may go: names to addresses, and what speaks against an address."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Iterable
from typing import Any

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def objection(address: str, allow_private: bool) -> str | None:
    """What speaks against connecting to this numeric address; None where nothing does.

    Private and loopback are fine where `allow_private` says so; link-local (the metadata services of clouds),
    multicast, reserved and unspecified addresses never are.
    """
    outer = ipaddress.ip_address(address.partition("%")[0])
    return next((why for ip in (*_hidden(outer), outer) if (why := _against(ip, allow_private))), None)


def _against(ip: Address, allow_private: bool) -> str | None:
    if ip.is_unspecified:
        return "unspecified"
    if ip.is_loopback:
        return None if allow_private else "a loopback address"
    if ip.is_link_local:
        return "link-local"
    if ip.is_multicast:
        return "a multicast address"
    if _is_private(ip):
        return None if allow_private else "a private address"
    return None if _is_public(ip) else "a reserved address"


def _networks(*names: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(name) for name in names)


# Lists of our own beside `ipaddress`, whose verdicts differ between Python versions.
_PRIVATE = _networks("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "fec0::/10")
_NEVER = _networks("192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "2001:db8::/32", "3fff::/20") + _networks(
    "2001::/23",  # Teredo among others: leads to an IPv4 address of the sender's choice
    "2002::/16",  # 6to4: likewise
)
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
# An address in these stands for the IPv4 address at its end (mapped, translated, NAT64): that one alone is judged.
_TRANSLATED = _networks("::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)


def _is_private(ip: Address) -> bool:
    return any(ip in network for network in _PRIVATE)


def _is_public(ip: Address) -> bool:
    if any(ip in network for network in _TRANSLATED):
        return True
    if any(ip in network for network in _NEVER):
        return False
    return ip.is_global and not ip.is_reserved and (ip.version == 4 or ip in _GLOBAL_V6)


def _hidden(ip: Address) -> Iterable[ipaddress.IPv4Address]:
    """The IPv4 address that an IPv6 address would lead to."""
    number = int(ip)
    if any(ip in network for network in _TRANSLATED) or (number >> 32) & 0xFFFFFFFF in _ISATAP:
        yield ipaddress.IPv4Address(number & 0xFFFFFFFF)


async def look_up(host: str, port: int) -> list[tuple[Any, ...]]:
    """`socket.getaddrinfo` in a thread that nobody has to wait for: neither a deadline nor the end of the process.

    OSError (mostly `socket.gaierror`, or UnicodeError for a name that cannot be one) as `getaddrinfo` raises it.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[tuple[Any, ...]]] = loop.create_future()

    def settle(found: list[tuple[Any, ...]] | None, error: Exception | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(found or [])

    def ask() -> None:
        found, error = None, None
        try:
            found = list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as failure:
            error = failure
        try:
            loop.call_soon_threadsafe(settle, found, error)
        except RuntimeError:  # The loop is closed: nobody waits any more.
            return

    threading.Thread(target=ask, name="look-up", daemon=True).start()
    return await answer
