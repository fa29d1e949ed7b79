"""Bad manifests, each in a folder of its own under `bad/`: what a person is told, to the letter.

A folder is named after the number of its case in the catalogue of bad input, and holds `manifest.yaml`, the files it
names, and `expected.txt`; `hero.png.bytes` says how many bytes hero.png shall have, padded with zeros. Those that speak
of the providers in `picky.py` are read with these. `python tests/test_manifest_bad.py` writes what is told now over
what was expected; the difference is then for a person to judge.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from picky import with_picky

from runner.errors import InputError
from runner.expand import survey
from runner.manifest import read_manifest
from runner.problems import as_json, render
from runner.providers import registry
from runner.providers.description import Provider

CASES = sorted(folder for folder in (Path(__file__).parent / "bad").iterdir() if folder.is_dir())
SECRETS = ("hunter2", "4eC39HqLyjWDarjtT1", "abc123def456ghi789jkl")


def refusal(case: Path, folder: Path) -> InputError:
    """The error that refuses a case, read in a folder of its own as someone who stands in it would."""
    shutil.copytree(case, folder)
    for note in folder.glob("*.bytes"):
        os.truncate(note.with_suffix(""), int(note.read_text()))
    before = os.getcwd()
    os.chdir(folder)
    try:
        survey(read_manifest(Path("manifest.yaml")), known_to(case))
    except InputError as error:
        return error
    finally:
        os.chdir(before)
    raise AssertionError(f"{case.name} was accepted")


def known_to(case: Path) -> Mapping[str, Provider]:
    text = (case / "manifest.yaml").read_bytes()
    return with_picky() if b"picky" in text or b"proud" in text else registry()


def told(error: InputError, folder: Path) -> str:
    return f"{error.message}\n{render(error.problems)}".replace(str(folder.resolve()), "FOLDER")


def names_below(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


def test_there_are_cases() -> None:
    assert len(CASES) > 90


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_manifest(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_arguments: object) -> None:
        raise AssertionError("a bad manifest opened a socket")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    folder = tmp_path / "case"
    error = refusal(case, folder)

    assert told(error, folder) == (case / "expected.txt").read_text()
    assert error.exit_code == 2
    assert case.name[:3] in {problem.code for problem in error.problems}
    assert not any(secret in told(error, folder) for secret in SECRETS)
    assert names_below(folder) == names_below(case)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_manifest_as_data(case: Path, tmp_path: Path) -> None:
    """The same, for scripts: every problem, with a place that exists."""
    error = refusal(case, tmp_path / "case")
    data = as_json(error.problems)
    assert json.loads(json.dumps(data)) == data
    assert not any(secret in json.dumps(data) for secret in SECRETS)
    for problem in data:
        assert list(problem) == ["code", "file", "line", "col", "endcol", "msg", "help"]
        lines = (tmp_path / "case" / problem["file"]).read_bytes().decode(errors="replace").split("\n")
        assert 1 <= problem["line"] <= len(lines)
        assert 1 <= problem["col"] <= len(lines[problem["line"] - 1]) + 1
        assert problem["endcol"] is None or problem["endcol"] > problem["col"]


def rewrite() -> None:
    for case in CASES:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "case"
            (case / "expected.txt").write_text(told(refusal(case, folder), folder))


if __name__ == "__main__":
    rewrite()
    sys.exit()
