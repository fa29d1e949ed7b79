"""The catalogue of bad input, B01 to B90: every number stands in the name of the test that covers it, or is void."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
PROGRAM = TESTS.parent / "runner"
NUMBERS = frozenset(range(1, 91))
NEVER_GIVEN = frozenset({5, 15, 21, 25, 28, 29, 43, 47, 58, 64, 70, 74, 76, 83})
VOID = {
    50: "no field of a manifest is deprecated: version 1 is the first, and unknown fields are errors",
    66: "references and tables are named one by one: there are no globs that could match nothing",
    67: "nor any that could match too much",
    86: "there is no command of its own to resume: running again is it, and without a queue it says so",
}
NUMBER = re.compile(r"(?<![A-Za-z0-9])B(\d\d)(?!\d)")
TEST = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)


def names() -> list[str]:
    """Of every test function, and of every case with golden files."""
    found = [name for path in TESTS.rglob("test_*.py") for name in TEST.findall(path.read_text(encoding="utf-8"))]
    return found + [case.name for case in (TESTS / "bad").iterdir() if (case / "expected.json").exists()]


def numbers_in(texts: list[str]) -> set[int]:
    return {int(number) for text in texts for number in NUMBER.findall(text.replace("_", " "))}


def test_every_number_is_covered_by_name_or_void() -> None:
    assert numbers_in(names()) == NUMBERS - NEVER_GIVEN - VOID.keys()
    assert not NEVER_GIVEN & VOID.keys()


def test_the_program_tells_no_number_that_nothing_covers() -> None:
    told = numbers_in([path.read_text(encoding="utf-8") for path in PROGRAM.rglob("*.py")])
    assert told <= numbers_in(names())
