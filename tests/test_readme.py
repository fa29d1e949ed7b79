"""The README says what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest
from samples import png

from runner.engine import Exit
from runner.expand import survey
from runner.jobs import diagram
from runner.manifest import read_manifest
from runner.providers import registry

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_its_diagram_is_drawn_from_the_table() -> None:
    assert f"```mermaid\n{diagram()}\n```" in README


@pytest.mark.parametrize("code", [code for code in Exit if code < Exit.INTERRUPTED])
def test_it_names_every_exit_code(code: Exit) -> None:
    assert f" {int(code)} " in README.replace("\n", " ")


@pytest.mark.parametrize("name", registry())
def test_it_tells_what_is_promised_for_every_provider(name: str) -> None:
    promises = README.split("## What is promised, per provider")[1].split("## ")[0]
    assert f"| `{name}`" in promises


def test_its_manifest_is_one(tmp_path: Path) -> None:
    """Two shots: four stills and twice as many takes, a clip of each."""
    manifest = tmp_path / "shots.yaml"
    manifest.write_text(README.split("```yaml\n")[1].split("```")[0])
    (tmp_path / "shots.csv").write_text("shot,scene\nalley,a neon alley\nroof,a tin roof in the rain\n")
    (tmp_path / "stills").mkdir()
    for shot in ("alley", "roof"):
        (tmp_path / "stills" / f"{shot}.png").write_bytes(png())
    found = survey(read_manifest(manifest), registry())
    assert {name: totals.jobs for name, totals in found.accounts.items()} == {"seedance2ai": 8, "happyhorse": 2}
