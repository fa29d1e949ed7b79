"""Trying things out without a key: the pretend providers as a server, and a rehearsal."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from torture.commands import Commands, Ended, Running
from torture.waiting import until

from cli.kit import parsed, side_by_side, states

MANIFEST = """\
version: 1
batch: dress
jobs:
  shawl: {provider: seedhorse-video, model: HappyHorse 1.0, prompt: a shawl, duration: 5}
  cloak: {provider: seedance2ai, model: nano-banana-pro, prompt: a cloak, takes: 2}
  crown: {provider: happyhorse, model: nano-banana-2, prompt: a crown}
  mask: {provider: happyhorse, model: doubao-seedance-1-5-pro, prompt: "a mask (sandbox:moderated)", duration: 5}
"""


# -- rehearse ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended, Ended]:
    """A rehearsal and the same one again, in an environment with keys and addresses that are none of its business."""
    folder = tmp_path_factory.mktemp("rehearsal")
    (folder / "dress.yaml").write_text(MANIFEST)
    strange = {"HAPPYHORSE_API_KEY": "not a key", "SEEDANCE2AI_BASE_URL": "http://127.0.0.1:9"}
    commands = Commands(folder, strange)
    words = ("rehearse", "dress.yaml", "--speed", "100", "--no-progress")
    return folder, commands.run(*words), commands.run(*words)


def test_a_rehearsal_is_a_run_without_a_key(rehearsed: tuple[Path, Ended, Ended]) -> None:
    folder, first, _ = rehearsed
    assert first.code == 1, first.said()
    assert first.out == ""
    assert "batch dress: 5 new, 0 kept, 0 gone" in first.err
    place = folder / "rehearsal" / "dress"
    assert f"files, queue and the sandbox's ledger are in {place}" in first.err
    assert sorted(states(place / "runner.db").values()) == ["failed", *["succeeded"] * 4]
    assert len([*(place / "renders").rglob("*.png")]) == 3
    assert {path.name for path in folder.iterdir()} == {"dress.yaml", "rehearsal", "said"}, "it keeps to its own folder"


def test_its_bill_is_the_pretend_providers(rehearsed: tuple[Path, Ended, Ended]) -> None:
    _, first, again = rehearsed
    bills = [line for line in first.err.splitlines() if line.startswith("bill of ")]
    assert len(bills) == 3
    assert "seedhorse-video" in first.err, "no key holds an account's name, which is said"
    assert "[redacted]" not in first.err
    assert all(line.endswith("(equal)") for line in bills), bills
    assert [line for line in again.err.splitlines() if line.startswith("bill of ")] == bills


def test_again_is_the_resume(rehearsed: tuple[Path, Ended, Ended]) -> None:
    _, first, again = rehearsed
    assert again.code == first.code, again.said()
    assert "batch dress: 0 new, 5 kept, 0 gone" in again.err


def test_a_rehearsal_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "dress.yaml").write_text(MANIFEST)
    no_fault, no_manifest, no_speed = side_by_side(
        Commands(tmp_path, {}),
        [("rehearse", "dress.yaml", "--faults", "earthquake=1"), ("rehearse", "press.yaml"),
         ("rehearse", "dress.yaml", "--speed", "0")],
    )  # fmt: skip
    assert "there is no fault 'earthquake'; known: " in no_fault.err
    assert "dress.yaml" in no_manifest.err, "a similar name that is there"
    assert "speed" in no_speed.err
    assert [each.code for each in (no_fault, no_manifest, no_speed)] == [2, 2, 2]
    assert {path.name for path in tmp_path.iterdir()} == {"dress.yaml", "said"}, "nothing is written"


# -- sandbox ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Running]:
    running = Commands(tmp_path, {}).start("sandbox", "--speed", "100", "--render", "4", "--seed", "7")
    try:
        until(lambda: "the sandbox is listening" in running.said(), "the sandbox")
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def exported(lines: str) -> dict[str, str]:
    """What a shell's environment is after these lines were pasted into it."""
    words = [shlex.split(line, comments=True) for line in lines.splitlines()]
    return dict(word.split("=", 1) for line in words if line for word in line[1:])


def test_the_lines_it_prints_lead_a_run_there(served: Running, tmp_path: Path) -> None:
    lines = served.out.read_text()
    assert all(line.startswith(("export ", "# then: runner run MANIFEST --speed 100")) for line in lines.splitlines())
    (tmp_path / "there").mkdir()
    there = Commands(tmp_path / "there", exported(lines))
    (there.folder / "dress.yaml").write_text(MANIFEST)
    ended = there.run("run", "dress.yaml", "--yes", "--no-progress", "--speed", "100")
    assert ended.code == 1, ended.said()
    served.send(signal.SIGINT)
    over = served.wait()
    assert over.code == 0, over.said()
    assert over.out == lines, "results on stdout, once"


def test_it_tells_where_it_is_as_data_too(tmp_path: Path) -> None:
    running = Commands(tmp_path, {}).start("sandbox", "--json", "--quiet", "--state", "state.db")
    until(lambda: running.out.read_text().endswith("\n"), "its first line")
    running.send(signal.SIGTERM)
    ended = running.wait()
    assert ended.code == 0, ended.said()
    assert ended.err == ""
    about = parsed(ended)
    assert list(about) == ["base_urls", "control", "media", "keys", "anchor", "speed", "seed"]
    assert about["base_urls"].keys() == about["keys"].keys()
    assert json.dumps(about) in ended.out, "on one line"
    assert (tmp_path / "state.db").is_file()


def test_it_refuses_what_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "prose").write_text("no state of a sandbox" * 100)
    told = side_by_side(
        Commands(tmp_path, {}),
        [("sandbox", "--host", "192.0.2.1"), ("sandbox", "--rate-limit", "lots"), ("sandbox", "--media-bytes", "long"),
         ("sandbox", "--port", "65536"), ("sandbox", "--state", "prose")],
    )  # fmt: skip
    assert [each.code for each in told] == [2, 2, 2, 2, 7], [each.said() for each in told]
    words = ["only listens on loopback", "not PROVIDER=N", "not a length in bytes", "Must be <= 65535", "prose"]
    assert [word in each.err for word, each in zip(words, told, strict=True)] == [True] * 5
    assert [each.out for each in told] == [""] * 5
