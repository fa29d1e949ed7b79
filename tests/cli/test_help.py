"""Help, as somebody gets it who does not know the command yet, and who mistypes it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from torture.commands import Commands, Ended

import runner
from cli.kit import side_by_side

EVERY = ("--db", "--verbose", "--quiet", "--no-progress", "--log-file")
OPTIONS = {
    "plan": ("MANIFEST", "--json"),
    "run": ("MANIFEST", "--yes", "--max-credits", "--until", "--no-wait", "--from-backup", "--speed"),
    "rehearse": ("MANIFEST", "--faults", "--speed", "--folder"),
    "status": ("--json",),
    "jobs": ("--json", "--state", "--batch", "--account", "--failed"),
    "show": ("JOB", "--json"),
    "credits": ("--json",),
    "retry": ("JOB",),
    "cancel": ("JOB",),
    "resolve": ("JOB", "--adopt", "--resubmit", "--abandon"),
    "providers": ("NAME", "--json"),
    "schema": (),
    "doctor": ("MANIFEST", "--verify", "--salvage", "--json"),
    "backup": ("PATH", "--json"),
    "sandbox": ("--speed", "--faults", "--state", "--port", "--json"),
}
MISTYPED = {
    "an option": (("jobs", "--jsno"), "Unknown option: --jsno. Did you mean --json?", "runner jobs --help"),
    "a word": (("status", "now"), 'one word too many: "now"', "runner status --help"),
    "an option first": (("--db", "x"), '"--db" stands before any command', "runner COMMAND --help"),
    "a command": (("jbos",), 'Unknown command "jbos". Did you mean "jobs"?', "runner --help"),
    "a value": (("run", "--speed", "fast"), 'unable to convert "fast"', "runner run --help"),
    "a state": (("jobs", "--state", "hold"), "hold", "runner jobs --help"),
    "nothing where a job is wanted": (("show",), "JOB", "runner show --help"),
    "one word too many": (("status", "alley"), "alley", "runner status --help"),
    "contradictions": (("status", "-q", "-v"), "-q and -v contradict each other", "leave one of them out"),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    words = {"": [], "--help": ["--help"], "-h": ["-h"], "--version": ["--version"]}
    words |= {command: [command, "--help"] for command in OPTIONS}
    words |= {what: list(mistyped) for what, (mistyped, *_) in MISTYPED.items()}
    commands = Commands(tmp_path_factory.mktemp("help"), {})
    ended = dict(zip(words, side_by_side(commands, words.values()), strict=True))
    assert [path.name for path in commands.folder.iterdir()] == ["said"], "asking for help leaves nothing behind"
    return ended


def helped(ended: Ended) -> str:
    """What it says on stdout. Help is what was asked for: a result."""
    assert ended.code == 0, ended.said()
    assert ended.err == ""
    return ended.out


@pytest.mark.parametrize("command", OPTIONS)
def test_every_command_explains_itself(command: str, told: dict[str, Ended]) -> None:
    text = helped(told[command])
    assert text.startswith(f"Usage: runner {command}")
    for option in (*OPTIONS[command], *EVERY):
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text), f"{option} is not named"


def test_runner_alone_and_its_help_name_every_command(told: dict[str, Ended]) -> None:
    text = helped(told[""])
    assert helped(told["--help"]) == helped(told["-h"]) == text
    for command in OPTIONS:
        assert re.search(rf"^│ {command} ", text, re.MULTILINE), f"{command} is not named"
    assert "Begin with: runner plan jobs.yaml" in text


def test_the_version_is_the_programs(told: dict[str, Ended]) -> None:
    assert helped(told["--version"]) == f"{runner.__version__}\n"


@pytest.mark.parametrize("what", MISTYPED)
def test_what_is_mistyped_is_told_with_a_hint(what: str, told: dict[str, Ended]) -> None:
    _, words, hint = MISTYPED[what]
    ended = told[what]
    assert ended.code == 2, ended.said()
    assert ended.out == ""
    error, *more = ended.err.splitlines()
    assert error.startswith("error: ")
    assert words in error
    assert [line for line in more if line.startswith("  help: ") and hint in line]
    assert "Traceback" not in ended.err


def test_every_command_of_the_program_is_tried_here() -> None:
    from runner.cli.app import COMMANDS

    assert {name for group in COMMANDS.values() for name in group} == set(OPTIONS), "add it to OPTIONS"


def test_help_is_readable_in_a_narrow_terminal(tmp_path: Path) -> None:
    text = helped(Commands(tmp_path, {"COLUMNS": "60"}).run("run", "--help"))
    assert max(map(len, text.splitlines())) <= 60
    assert "--max-credits" in text
