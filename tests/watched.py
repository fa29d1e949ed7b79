"""A process that notes what Python does outside of itself: while `runner` is imported, then in a whole rehearsal.

`python watched.py MANIFEST WORD…` rehearses the manifest and prints what was seen as one line of JSON, its last.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
FILES = {"os.mkdir", "os.rename", "os.remove", "os.link", "os.symlink", "os.chmod", "os.truncate", "sqlite3.connect"}
NETWORK = {"socket.connect": 1, "socket.bind": 1, "socket.sendto": 1, "socket.sendmsg": 1, "socket.getaddrinfo": 0}
CHILDREN = {
    "subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "pty.spawn",
}  # fmt: skip

phase = "importing"
seen: list[tuple[str, str, Any]] = []  # phase, event, what it was about


def writes(event: str, arguments: tuple[Any, ...]) -> bool:
    return event in FILES or (event == "open" and bool(arguments[2] & WRITING))


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: Python calls it before anything of this kind happens, whoever asked for it."""
    if event in NETWORK:
        seen.append((phase, event, arguments[NETWORK[event]]))
    elif event in CHILDREN or (phase == "importing" and writes(event, arguments)):
        seen.append((phase, event, repr(arguments[0])))


def import_everything() -> None:
    import runner

    for module in pkgutil.walk_packages(runner.__path__, "runner."):
        if not module.name.endswith("__main__") and ".migrations." not in module.name:  # those run when imported
            importlib.import_module(module.name)


def note_ports() -> list[int]:
    """Filled with the ports of the pretend providers, and the one that the program opens itself to try its brink."""
    import anyio

    from runner.cli import rehearse
    from runner.client import asking

    ports: list[int] = []
    serve, listen = rehearse.serve, asking.anyio.create_tcp_listener

    @asynccontextmanager
    async def serving(*arguments: Any) -> AsyncIterator[Any]:
        async with serve(*arguments) as sandbox:
            ports.extend(urlsplit(url).port or 0 for url in {*sandbox.base_urls.values(), sandbox.media})
            yield sandbox

    async def listening(**arguments: Any) -> Any:
        listener = await listen(**arguments)
        ports.append(listener.extra(anyio.abc.SocketAttribute.local_port))  # noqa: S610  # no Django here
        return listener

    rehearse.serve, asking.anyio.create_tcp_listener = serving, listening
    return ports


def main(words: list[str]) -> None:
    global phase
    os.umask(0)
    sys.addaudithook(watch)
    from runner.cli import main as runner

    runner(["--version"])  # first of all, as in life, the program prepares its process
    import_everything()
    phase = "rehearsing"
    ports = note_ports()
    code = runner(["rehearse", *words])
    print(json.dumps({"code": code, "ports": ports, "seen": seen}, default=str))


if __name__ == "__main__":
    main(sys.argv[1:])
