"""How a sandbox is set up: the same fields as `python -m runner.sandbox` has options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from ipaddress import ip_address

from .faults import parse_rates


class BadOptions(ValueError):
    """Its text is for a person."""


@dataclass(frozen=True, slots=True)
class Options:
    """Times in scaled seconds. `state` is a file, or ":memory:". `anchor`: seconds since 1970, by default the moment
    the state was made. `seed` is drawn and kept in the state where it is None. `faults` as in `faults.parse_rates`.
    `media_bytes`: how long results are, least and most. `rate_limits` (requests within 60 s) and `concurrency` (tasks
    at once) by provider, 0 for none. `error_statuses` by provider: the HTTP status of errors where the body alone says
    that they are errors. `key_retention`: how long an idempotency key is remembered.

    Raises BadOptions.
    """

    host: str = "127.0.0.1"
    port: int = 0
    media_port: int = 0
    state: str = ":memory:"
    speed: float = 1.0
    anchor: float | None = None
    seed: str | None = None
    render: float = 60.0
    faults: str = ""
    fast_disk: bool = False
    credits: Decimal = Decimal(100000)
    media_bytes: tuple[int, int] = (64_000, 300_000)
    url_lifetime: float = 3600.0
    rate_limits: Mapping[str, int] = field(default_factory=dict)
    concurrency: Mapping[str, int] = field(default_factory=dict)
    error_statuses: Mapping[str, int] = field(default_factory=dict)
    key_retention: float = 86400.0
    ignore_keys: bool = False
    list_images: bool = False

    def __post_init__(self) -> None:
        if not is_loopback(self.host):
            raise BadOptions(f"the sandbox only listens on loopback, not on {self.host}")
        if not self.speed > 0 or not self.render > 0 or self.url_lifetime <= 0:
            raise BadOptions("speed, render and url lifetime must be above 0")
        if not all(0 <= port < 1 << 16 for port in (self.port, self.media_port)):
            raise BadOptions("ports must be from 0 to 65535")
        if not 0 <= self.media_bytes[0] <= self.media_bytes[1] < 1 << 32:
            raise BadOptions("media bytes must be a least and a most below 4 GiB")
        if self.credits < 0:
            raise BadOptions("credits must not be negative")
        if not all(200 <= status <= 599 for status in self.error_statuses.values()):
            raise BadOptions("error statuses must be from 200 to 599")
        try:
            parse_rates(self.faults)
        except ValueError as error:
            raise BadOptions(str(error)) from None


def is_loopback(host: str) -> bool:
    """A loopback address, or the name that stands for one."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
