"""The README says what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.engine import Exit
from runner.jobs import diagram

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_its_diagram_is_drawn_from_the_table() -> None:
    assert f"```mermaid\n{diagram()}\n```" in README


@pytest.mark.parametrize("code", [code for code in Exit if code < Exit.INTERRUPTED])
def test_it_names_every_exit_code(code: Exit) -> None:
    assert f" {int(code)} " in README.replace("\n", " ")
