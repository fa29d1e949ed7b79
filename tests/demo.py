"""The demo: rehearses a manifest, shows how it stands, and checks that it ended as the example announces.

Exits 0 when every job has the state its own prompt announces, every file is whole, and the bill equals the ledgers of
the pretend providers; the run's own exit code is shown (it is 1: moderated, failed and partial jobs are part of it).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from runner.manifest import read_manifest
from runner.media import flaw, sniff

ANNOUNCED = {
    "sandbox:moderated": ("failed", "moderated"),
    "sandbox:failed": ("failed", "task_failed"),
    "sandbox:partial": ("partial", "task_failed"),
}
COMMAND = [str(Path(sys.executable).with_name("runner"))]


class Bytes:
    """A file as the container checks read it."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    @property
    def size(self) -> int:
        return len(self.content)

    def read(self, offset: int, length: int) -> bytes:
        return self.content[offset : offset + length]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--speed", default="15", help="how much faster than real time (default: 15)")
    given = parser.parse_args()
    batch = read_manifest(given.manifest).batch
    place = Path("rehearsal") / batch
    code = run("rehearse", str(given.manifest), "--speed", given.speed)
    print(f"\nthe run's own exit code: {code}\n")
    queue = ["--db", str(place / "runner.db")]
    run("status", *queue)
    run("credits", *queue)
    jobs = json.loads(run_for_text("jobs", "--json", *queue))
    wrong = [*wrong_states(jobs, given.manifest), *broken_files(jobs), *wrong_bill(jobs, place / "sandbox.db")]
    for line in wrong:
        print(f"NOT AS ANNOUNCED: {line}")
    files = sum(len(job["outputs"]) for job in jobs)
    print(
        f"{len(jobs)} jobs, {files} files, each checked whole; the bill equals the pretend providers' ledger"
        * (not wrong)
    )
    print(f"look at them: {(place / 'renders').absolute()}")
    return 1 if wrong else 0


def run(*words: str) -> int:
    print(f"$ runner {' '.join(words)}", flush=True)
    return subprocess.run([*COMMAND, *words], check=False).returncode


def run_for_text(*words: str) -> str:
    return subprocess.run([*COMMAND, *words], check=True, capture_output=True, text=True).stdout


def wrong_states(jobs: Sequence[dict[str, Any]], manifest: Path) -> list[str]:
    """Each job must have ended as the words in its prompt announce."""
    entries = read_manifest(manifest).jobs
    announced = {name: _announced(str(entry.fields.get("prompt"))) for name, entry in entries.items()}
    return [
        f"{job['job']} is {job['state']} ({job['error']})"
        for job in jobs
        if (job["state"], job["error"] and job["error"]["kind"]) != announced[job["job"]]
    ]


def _announced(prompt: str) -> tuple[str, str | None]:
    return next((end for word, end in ANNOUNCED.items() if word in prompt), ("succeeded", None))


def broken_files(jobs: Sequence[dict[str, Any]]) -> list[str]:
    return [why for job in jobs for output in job["outputs"] if (why := _broken(output))]


def _broken(output: dict[str, Any]) -> str | None:
    content = Path(output["path"]).read_bytes()
    media = sniff(content[:64])
    if media is None or (len(content), hashlib.sha256(content).hexdigest()) != (output["bytes"], output["sha256"]):
        return f"{output['path']} is not the file that was recorded"
    return flaw(media, Bytes(content))


def wrong_bill(jobs: Sequence[dict[str, Any]], ledger: Path) -> list[str]:
    with sqlite3.connect(ledger) as books:
        rows = books.execute("SELECT provider, kind, sum(credits) FROM ledger GROUP BY provider, kind").fetchall()
    theirs: dict[str, Decimal] = {}
    for provider, kind, micros in rows:
        sign = 1 if kind == "charged" else -1
        theirs[provider] = theirs.get(provider, Decimal(0)) + sign * Decimal(micros) / 1_000_000
    ours: dict[str, Decimal] = {}
    for job in jobs:
        credits = job["credits"]
        net = Decimal(credits["charged"] or 0) - Decimal(credits["refunded"] or 0)
        ours[job["provider"]] = ours.get(job["provider"], Decimal(0)) + net
    return [
        f"{name}: our bill {ours[name]}, their ledger {theirs.get(name)}"
        for name in ours
        if ours[name] != theirs.get(name)
    ]


if __name__ == "__main__":
    sys.exit(main())
