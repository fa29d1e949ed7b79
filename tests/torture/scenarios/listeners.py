"""Addresses on loopback that lead to trouble, and a resolver that leads to others."""

from __future__ import annotations

import os
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

LOCAL = "127.0.0.1"
HELLO = 1 << 14  # bytes of a handshake's first flight, at most

# What a name means, to a program that is started with `crooked_names`: the last label but one says it.
NAMES = """
import os, socket, time
honest = socket.getaddrinfo

def crooked(host, *more, **named):
    name = host.decode() if isinstance(host, bytes) else str(host)
    if not name.endswith(".crooked.test"):
        return honest(host, *more, **named)
    word = name.split(".")[0]
    if word == "hangs":
        time.sleep(60)
    if word in ("hangs", "later"):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    if word == "nowhere":
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    address = {"loop6": "::1"}.get(word, word.replace("-", "."))
    return honest(address, *more, **named)

socket.getaddrinfo = crooked
if "TRUSTED" in os.environ:
    import certifi
    certifi.where = lambda: os.environ["TRUSTED"]
"""


def crooked_names(folder: Path) -> dict[str, str]:
    """The environment of a program that hears lies about names below crooked.test, and trusts what TRUSTED names."""
    patch = folder / "names"
    patch.mkdir(parents=True, exist_ok=True)
    (patch / "sitecustomize.py").write_text(NAMES)
    return {"PYTHONPATH": os.pathsep.join([str(patch), *(path for path in sys.path if path)])}


@dataclass
class Listener:
    """`met` counts the connections, `heard` the bytes that came behind a handshake (or at all, without TLS)."""

    port: int
    met: int = 0
    heard: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, met: int = 0, heard: int = 0) -> None:
        with self._lock:
            self.met, self.heard = self.met + met, self.heard + heard


@contextmanager
def listening(host: str = LOCAL, tls: ssl.SSLContext | None = None, cuts: bool = False) -> Iterator[Listener]:
    """Hears whoever comes, and says nothing. With `tls` it shakes hands first; with `cuts` it hangs up instead, as
    soon as the handshake has begun."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as door:
        door.bind((host, 0))
        door.listen(64)
        there = Listener(door.getsockname()[1])
        threading.Thread(target=_serve, args=(door, there, tls, cuts), daemon=True).start()
        yield there
        with suppress(OSError):
            door.shutdown(socket.SHUT_RDWR)


def _serve(door: socket.socket, there: Listener, tls: ssl.SSLContext | None, cuts: bool) -> None:
    while True:
        try:
            wire, _ = door.accept()
        except OSError:
            return
        there.count(met=1)
        threading.Thread(target=_hear, args=(wire, there, tls, cuts), daemon=True).start()


def _hear(wire: socket.socket, there: Listener, tls: ssl.SSLContext | None, cuts: bool) -> None:
    with suppress(OSError), wire:
        wire.settimeout(30)
        if cuts:
            wire.recv(HELLO)
            return
        with tls.wrap_socket(wire, server_side=True) if tls else wire as heard:
            while piece := heard.recv(HELLO):
                there.count(heard=len(piece))


@contextmanager
def refusing() -> Iterator[Listener]:
    """A port that nobody listens on, and that nobody else gets."""
    with socket.socket() as kept:
        kept.bind((LOCAL, 0))
        yield Listener(kept.getsockname()[1])


@contextmanager
def silent() -> Iterator[Listener]:
    """A port whose queue of connections is full: whoever knocks there hears nothing."""
    with socket.socket() as door:
        door.bind((LOCAL, 0))
        door.listen(0)
        port = door.getsockname()[1]
        waiting = [_knock(port) for _ in range(4)]
        try:
            yield Listener(port)
        finally:
            for each in waiting:
                each.close()


def _knock(port: int) -> socket.socket:
    wire = socket.socket()
    wire.setblocking(False)
    wire.connect_ex((LOCAL, port))
    return wire
