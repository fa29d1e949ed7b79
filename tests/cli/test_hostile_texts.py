"""Nothing that is printed steers a terminal, wherever it comes from: prompts, providers, names, paths, the words of a
command. What is data stays the same data in JSON, escaped."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from liar import Lie, liar
from scene import Scene, scene, states
from test_nonsense import JSON

from runner.cli.calling import call
from runner.engine import Exit
from runner.problems import UNPRINTABLE

EVIL = (
    "\x1b]8;;file:///etc/passwd\x1b\\click\x1b]8;;\x1b\\ \x1b[2J\x1b[1;31mred \x9b31m \x9d0;title\x07 \x90q\x9c "
    "\x08 \x7f \u202egnp.exe\u202c \u2066x\u2069 \u200f\u061c\ufeff [bold red]markup[/] :skull:"
)
PLAIN = ("click", "gnp.exe", "[bold red]markup[/]", ":skull:")  # of which nothing is taken for more than it is


def refusing(status: int) -> Lie:
    said = {"code": EVIL, "message": f"refused: {EVIL}"}
    body = json.dumps({**said, "error": said}).encode()
    return lambda asked: replace(asked, status=status, headers=JSON, body=body) if asked.method == "POST" else None


def ask(s: Scene, provider: str) -> None:
    s.ask(provider, f"a prompt {EVIL}")
    s.orders[-1] = replace(
        s.orders[-1], name=f"job {EVIL}", variables=json.dumps({f"row {EVIL}": EVIL}), place=f"m.yaml{EVIL}",
        output=f"out/{provider} {EVIL.replace('/', '')}.mp4",
    )  # fmt: skip


async def fill(folder: Path) -> str:
    """A queue whose jobs were written by somebody hostile: one is refused, one held, both in hostile words."""
    async with scene(folder) as s:
        ask(s, "seedance2ai")
        ask(s, "seedhorse-video")
        async with liar(s, "seedance2ai", refusing(400)), liar(s, "seedhorse-video", refusing(500)):
            assert await s.run() is Exit.PERSON_NEEDED
        assert sorted(states(await s.jobs())) == ["failed", "held"]
        return s.db


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> str:
    return asyncio.run(fill(tmp_path_factory.mktemp("hostile")))


def harmless(text: str) -> bool:
    return UNPRINTABLE.search(text) is None


LOOKS = [("status",), ("jobs",), ("credits",), ("show", "1"), ("show", "2"), ("jobs", "--state", "held")]


@pytest.mark.parametrize("words", LOOKS, ids=" ".join)
@pytest.mark.parametrize("how", [[], ["--json"]], ids=["text", "data"])
def test_T16_nothing_in_a_queue_steers_a_terminal(
    words: tuple[str, ...], how: list[str], queue: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call([*words, *how, "--db", queue, "-vv"]) == 0
    out, err = capfd.readouterr()
    assert harmless(out + err)
    if words[0] == "show":
        assert all(word in out for word in PLAIN)
    if how:
        found = json.dumps(json.loads(out))
        assert words[0] in ("status", "credits") or json.dumps(EVIL)[1:-1] in found, "the data are not the same"


def test_T16_nor_do_decisions(queue: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(["retry", "1", "--db", queue]) == 0
    assert call(["cancel", "1", "--db", queue]) == 0
    assert call(["cancel", "2", "--db", queue]) == 2
    assert harmless("".join(capfd.readouterr()))


WORDS: list[tuple[str, ...]] = [
    ("show", EVIL), ("cancel", EVIL), ("retry", EVIL), ("resolve", EVIL, "--abandon"), (EVIL,),
    ("resolve", "2", "--adopt", EVIL), ("jobs", "--state", EVIL), ("providers", EVIL), ("status", f"--{EVIL}"),
    ("status", "--db", f"/dev/null/{EVIL}"),
    ("plan", f"{EVIL}.yaml"), ("run", f"{EVIL}.yaml"), ("rehearse", f"{EVIL}.yaml"), ("run", "--until", EVIL),
    ("run", "--max-credits", f"{EVIL}=1"), ("run", "--max-credits", EVIL), ("run", "--resubmit-unknown", EVIL),
    ("run", "--callback-url", f"https://x.example/{EVIL}", "--callback-listen", EVIL), ("run", "--callback-url", EVIL),
    ("run", "--speed", EVIL), ("run", "--allow-files", EVIL), ("plan", "m.yaml", "--allow-files", EVIL),
    ("status", "--log-file", f"/dev/null/{EVIL}"), ("status", "--providers", EVIL), ("sandbox", "--faults", EVIL),
]  # fmt: skip


def test_T16_no_word_of_a_command_comes_back_as_it_was(
    queue: str, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEEDHORSE_VIDEO_API_KEY", "")
    for words in WORDS:
        more = [] if "--db" in words or words[0] in (EVIL, "sandbox") else ["--db", queue]
        assert call([*words, *more]) in (2, 7, 8), words
        out, err = capfd.readouterr()
        assert "error: " in err, words
        assert harmless(out + err), (words, err)
