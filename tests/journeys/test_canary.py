"""An API key appears nowhere: not in the queue or its WAL, logs at -vv, sidecars, messages, tracebacks, arguments."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from torture.canary import KEYS, Canary, hits
from torture.commands import Ended
from torture.manifests import PROVIDERS, few
from torture.trial import Trial, trial
from torture.waiting import until

CANARIES = [Canary(key) for key in KEYS.values()]
FAULTS = (
    "lost_answer@submit=0.2,error_after_charge@submit=0.1,rate_limited@poll=0.1,poll_500=0.1,reset_download=0.3,"
    "expired_url=0.2,html_media=0.1,task_failed=0.1"
)


@pytest.fixture
def caged(tmp_path: Path) -> Iterator[Trial]:
    """Providers who know our keys and misbehave, and a runner that says all it can."""
    flags = ("-vv", "--log-file", str(tmp_path / "all.log"))
    with trial(tmp_path, PROVIDERS, seed="canary", speed=60, render=30, faults=FAULTS, keys=KEYS, flags=flags) as here:
        here.orders.grow(few(PROVIDERS))
        here.commands.anew = True  # a process of its own from the start: its arguments are looked at too
        yield here


def test_T6_T29_it_is_nowhere_while_a_run_is_killed_and_goes_on(caged: Trial) -> None:
    running = caged.start()
    until(lambda: caged.sandbox.tasks() >= 4, "some orders")
    arguments = Path(f"/proc/{running.process.pid}/cmdline").read_bytes()
    assert b"orders.yaml" in arguments
    assert not any(canary.sings(arguments) for canary in CANARIES)
    running.send(signal.SIGKILL)
    caged.commands.over(running)
    wal = Path(caged.queue + "-wal")
    assert wal.stat().st_size > 0, "the kill was to leave a WAL"
    assert hits(caged.folder, CANARIES) == []
    assert caged.run().code in (0, 1, 4)
    for command in ("status", "jobs", "credits", "providers"):
        caged.commands.run(command, "--json", "-vv", "--db", caged.queue)
    for job in caged.jobs()[::4]:
        caged.commands.run("show", str(job.id), "-vv", "--db", caged.queue)
    assert (caged.folder / "all.log").stat().st_size > 1000
    assert list(caged.renders.rglob("*.mp4.json"))
    assert hits(caged.folder, CANARIES) == []


def test_T3_it_is_nowhere_after_refusals_and_echoes(caged: Trial) -> None:
    """The provider refuses the key, and sends us away with our own key in the address."""
    echo = f"{caged.sandbox.about['media']}/elsewhere?key={quote(KEYS['seedance2ai'])}&raw={KEYS['seedance2ai']}"
    caged.sandbox.fault("redirect", "seedance2ai", when="submit", location=echo)
    caged.sandbox.post("keys", provider="happyhorse", key=KEYS["happyhorse"], revoked=True)
    ended = caged.run()
    assert ended.code in (4, 5), ended.said()  # held jobs of the others come before a stopped account
    assert "is stopped" in ended.err
    assert hits(caged.folder, CANARIES) == []


BROKEN = {
    "a line break in it": KEYS["happyhorse"][:15] + "\n" + KEYS["happyhorse"][15:],
    "curly quotes around it": f"“{KEYS['happyhorse']}”",
    "a space in it": KEYS["happyhorse"].replace("/", " "),
    "the header with it": f"Authorization: Bearer {KEYS['happyhorse']}",
    "too much of it": KEYS["happyhorse"] * 20,
}


def test_T2_it_is_nowhere_when_it_is_malformed(caged: Trial) -> None:
    host = caged.commands.environment["HAPPYHORSE_BASE_URL"].removeprefix("http://")
    wrong = [{"HAPPYHORSE_API_KEY": value} for value in BROKEN.values()]
    for url in (f"http://me:{quote(KEYS['happyhorse'])}@{host}", f"http://{host}?key={quote(KEYS['happyhorse'])}"):
        wrong.append({"HAPPYHORSE_BASE_URL": url})
    for running in [caged.start(**each) for each in wrong]:
        _is_refused(caged, caged.commands.over(running))
    for name in ("curly quotes around it", "the header with it"):
        dotenv = caged.folder / ".env"  # in the working folder: ours to read, not ours to repeat
        dotenv.write_text(f"HAPPYHORSE_API_KEY={BROKEN[name]}\n")
        _is_refused(caged, caged.run(HAPPYHORSE_API_KEY=""))
        dotenv.unlink()
    assert hits(caged.folder, CANARIES) == []


def _is_refused(caged: Trial, ended: Ended) -> None:
    assert ended.code == 2, ended.said()
    assert "HAPPYHORSE_" in ended.err, "it does not say which variable is meant"
    assert not Path(caged.queue).exists()


A_BUG = """
from runner.client.asking import Line
def blow_up(line, *more):
    raise RuntimeError("while asking with " + line._credentials.key.reveal())
Line._request = blow_up
"""


def test_T4_it_is_nowhere_in_a_traceback(caged: Trial, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The worst of bugs: an exception that holds the key, from the middle of a request."""
    patched = tmp_path_factory.mktemp("patched")
    (patched / "sitecustomize.py").write_text(A_BUG)
    ended = caged.run(PYTHONPATH=os.pathsep.join([str(patched), *sys.path]))
    assert ended.code == 3, ended.said()
    assert "blow_up" in (caged.folder / "all.log").read_text(), "the log does not show where it comes from"
    assert "Traceback" not in ended.out
    assert hits(caged.folder, CANARIES) == []


def test_T1_it_is_nowhere_when_it_stands_in_a_manifest(caged: Trial) -> None:
    """Where it never should stand: refused, and not repeated. (The manifest itself holds it, of course.)"""
    caged.orders.manifest.write_text(caged.orders.manifest.read_text() + f"api_key: {json.dumps(KEYS['happyhorse'])}\n")
    for command in (("plan",), ("plan", "--json"), ("run", "--yes")):
        ended = caged.commands.run(*command, str(caged.orders.manifest), "-vv", "--db", caged.queue)
        assert ended.code == 2, ended.said()
    caged.orders.manifest.unlink()
    assert hits(caged.folder, CANARIES) == []


@pytest.mark.parametrize("key", KEYS.values())
def test_the_search_finds_what_it_is_for(tmp_path: Path, key: str) -> None:
    forms = [key.encode(), quote(key).encode(), json.dumps(key).encode(), key[5:17].encode()]
    forms += [base64.b64encode(b"x" * offset + key.encode() + b"tail") for offset in range(4)]
    forms += [base64.urlsafe_b64encode(key.encode()), key.encode().hex().upper().encode()]
    forms += [re.sub("%..", lambda found: found[0].lower(), quote(key, safe="")).encode()[9:]]
    for form in forms:
        (tmp_path / "queue.db-wal").write_bytes(b"\0" * 100 + form + b"\0" * 100)
        assert len(hits(tmp_path, [Canary(key)])) == 1, form
    (tmp_path / "clip-thumbnail.jpg").write_bytes(key.encode())
    assert len(hits(tmp_path, [Canary(key)])) == 2, "nobody compares thumbnails"
    (tmp_path / "clip-thumbnail.jpg").rename(tmp_path / f"{key[8:].replace('/', '%2f')}")
    assert len(hits(tmp_path, [Canary(key)])) == 2, "names tell, too"
    (tmp_path / f"{key[8:].replace('/', '%2f')}").unlink()
    (tmp_path / "queue.db-wal").write_bytes(key[:11].encode())
    assert hits(tmp_path, [Canary(key)]) == []
