"""Every threat to keys, files, terminals and purses (reliability.md, section 2) has a test that bears its number."""

from __future__ import annotations

import re
from pathlib import Path

from runner.cli.app import COMMANDS

HERE = Path(__file__).parent
THREATS = range(1, 31)
TEST = re.compile(r"^ *(?:async )?def (test_\w+)", re.MULTILINE)
NUMBER = re.compile(r"(?:^|_)[Tt](\d+)(?=_|$)")

# What a threat would need, and this version does not have. Of some others a part does not apply: there is no keyring
# that keys come from (T1, T29), no ffprobe (T21), no published package (T24), no plugin in Python (T25), and neither
# `--log-prompts` nor `purge` (T30).
NOT_APPLICABLE = {
    17: "no report is written, as HTML or as CSV: `runner report` does not exist, what is printed is text or JSON",
    18: "there is no dashboard, and no server of pages: what listens is the callback receiver alone (T20)",
    19: "no media are served to a browser; those of the sandbox are its own, made by it",
}


def covered() -> dict[int, list[str]]:
    """The threats that stand in the names of tests, with those tests."""
    found: dict[int, list[str]] = {}
    for path in sorted(HERE.rglob("test_*.py")):
        for name in TEST.findall(path.read_text(encoding="utf-8")):
            for number in NUMBER.findall(name):
                found.setdefault(int(number), []).append(f"{path.relative_to(HERE)}::{name}")
    return found


def test_every_threat_has_a_test_or_a_reason() -> None:
    tested = covered()
    assert sorted({*tested, *NOT_APPLICABLE}) == list(THREATS)
    assert not tested.keys() & NOT_APPLICABLE.keys(), "what is tested is applicable"


def test_what_is_not_applicable_does_not_exist() -> None:
    commands = {name for commands in COMMANDS.values() for name in commands}
    assert not commands & {"report", "dashboard", "serve", "web"}
