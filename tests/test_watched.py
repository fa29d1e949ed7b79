"""What the program does outside of itself, seen by Python's own audit hook: when it is imported, and in a whole
rehearsal under the worst of environments (open file modes, proxies everywhere, a key log for TLS, keys of others)."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from manifests import write, yaml_of
from torture.canary import Canary, hits
from watched import CHILDREN

PROGRAM = Path(__file__).with_name("watched.py")
KEY = 'Yv6(oT3"g/Mh9+d\\Pq1=Sf5&cU8~n'  # nothing that a pattern knows
PROMPT = "zanzibar kumquat"
JOBS = {
    "still": {"provider": "seedance2ai", "model": "nano-banana-pro", "rows": [{"what": PROMPT}], "prompt": "${what}"},
    "clip": {"provider": "happyhorse", "model": "doubao-seedance-2-0", "prompt": f"{PROMPT} at night", "duration": 5,
             "references": {"first_frame": "hero.png"}},
}  # fmt: skip
FLAGS = ("--speed", "200", "-vv", "--log-file", "all.log", "--faults", "poll_500=0.2,expired_url=0.3")


@dataclass(frozen=True)
class Watched:
    """What a rehearsal left and what was seen of it. `proxy` is the port that every proxy variable named; `calls` is
    how often somebody came there."""

    folder: Path
    said: str
    code: int
    ports: list[int]
    seen: list[tuple[str, str, Any]]
    proxy: int
    calls: int

    def events(self, phase: str, *names: str) -> list[Any]:
        return [about for when, event, about in self.seen if when == phase and (not names or event in names)]


def environment(folder: Path, proxy: str) -> dict[str, str]:
    proxies = [f"{scheme}_proxy" for scheme in ("http", "https", "all", "ws", "wss", "ftp")]
    return {
        **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
        **{spelt: proxy for name in proxies for spelt in (name, name.upper())}, "NO_PROXY": "", "no_proxy": "",
        "SSLKEYLOGFILE": str(folder / "tls-keys"), "SSL_CERT_FILE": "/dev/null", "NETRC": str(folder / "netrc"),
        "HAPPYHORSE_API_KEY": KEY, "AWS_SECRET_ACCESS_KEY": KEY, "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    import samples

    folder = tmp_path_factory.mktemp("watched")
    manifest = write(folder, yaml_of(JOBS, batch="watched"), hero_png=samples.png(300))
    with socket.create_server(("127.0.0.1", 0)) as sink:
        proxy = sink.getsockname()[1]
        (folder / "netrc").write_text(f"machine 127.0.0.1 login me password {KEY}\n")
        done = subprocess.run(
            [sys.executable, PROGRAM, manifest, *FLAGS], cwd=folder, capture_output=True, text=True, check=False,
            env=environment(folder, f"http://127.0.0.1:{proxy}"),
        )  # fmt: skip
        calls = _waiting(sink)
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "netrc").unlink()
    (folder / "stdout").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)
    return Watched(folder, done.stderr, **json.loads(done.stdout.splitlines()[-1]), proxy=proxy, calls=calls)


def _waiting(sink: socket.socket) -> int:
    """How many connections nobody has accepted yet."""
    sink.setblocking(False)
    calls = 0
    while True:
        try:
            sink.accept()[0].close()
        except BlockingIOError:
            return calls
        calls += 1


def test_the_rehearsal_went_through(watched: Watched) -> None:
    assert watched.code == 0, watched.said
    assert len(list(watched.folder.rglob("*.png.json"))) == len(list(watched.folder.rglob("*.mp4.json"))) == 1


def test_T24_importing_it_opens_no_socket_writes_no_file_and_starts_nothing(watched: Watched) -> None:
    assert watched.events("importing") == []


def test_T28_nobody_is_spoken_to_but_the_provider(watched: Watched) -> None:
    called = [tuple(address) for address in watched.events("rehearsing", "socket.connect")]
    assert {host for host, *_ in called} == {"127.0.0.1"}
    assert {port for _, port, *_ in called} == set(watched.ports)
    assert set(map(str, watched.events("rehearsing", "socket.getaddrinfo"))) <= {"127.0.0.1", "b'127.0.0.1'"}
    assert watched.events("rehearsing", "socket.sendto", "socket.sendmsg") == []
    assert {tuple(address) for address in watched.events("rehearsing", "socket.bind")} == {("127.0.0.1", 0)}


def test_T27_proxies_and_key_logs_of_the_environment_are_ignored(watched: Watched) -> None:
    assert watched.calls == 0
    assert watched.proxy not in watched.ports
    assert not (watched.folder / "tls-keys").exists(), "a library opened it"


def test_T27_no_child_inherits_a_key_because_there_is_no_child(watched: Watched) -> None:
    assert watched.events("rehearsing", *CHILDREN) == []


def test_T7_everything_it_makes_is_its_owners_alone_even_without_a_umask(watched: Watched) -> None:
    made = [watched.folder / "all.log", watched.folder / "rehearsal", *(watched.folder / "rehearsal").rglob("*")]
    modes = {str(path.relative_to(watched.folder)): stat.S_IMODE(path.stat().st_mode) for path in made}
    assert {"rehearsal/watched/runner.db", "rehearsal/watched/sandbox.db", "rehearsal/watched/renders"} <= set(modes)
    wanted = {str(path.relative_to(watched.folder)): 0o700 if path.is_dir() else 0o600 for path in made}
    assert modes == wanted


def test_T30_the_log_holds_ids_of_jobs_and_no_prompt(watched: Watched) -> None:
    log = (watched.folder / "all.log").read_text()
    events = [json.loads(line) for line in log.splitlines()]
    assert {"accepted", "finished", "completed", "answer"} <= {event["event"] for event in events}
    assert {"1", "2"} <= {event.get("job") for event in events}
    for said in (log, watched.said):
        assert not any(word in said.lower() for word in PROMPT.split())


def test_T6_neither_keys_nor_signed_addresses_are_on_the_disk(watched: Watched) -> None:
    queue = (watched.folder / "rehearsal" / "watched" / "runner.db").read_bytes()
    assert PROMPT.encode() in queue, "this is where the jobs are"
    assert b"sig=" not in queue
    assert hits(watched.folder, [Canary(KEY)]) == []
