"""A bug of ours ends in exit 3 and one clear line; where it comes from stands in the log file, wherever it strikes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from torture.commands import Commands, Ended

# Python imports `sitecustomize` before anything else: it plants the bug.
PLACES = {
    "while the command is imported": """
import sys
class Trap:
    def find_spec(self, name, *_):
        if name == "runner.cli.status":
            raise RuntimeError("a planted bug")
sys.meta_path.insert(0, Trap())
""",
    "while its words are read": """
import cyclopts
def blow_up(*_, **__):
    raise RuntimeError("a planted bug")
cyclopts.App.parse_args = blow_up
""",
    "while it works": """
import runner.store
def blow_up(*_, **__):
    raise RuntimeError("a planted bug")
runner.store.read_store = blow_up
""",
}


def with_a_bug(folder: Path, where: str, *words: str) -> Ended:
    (folder / "sitecustomize.py").write_text(PLACES[where])
    path = os.pathsep.join([str(folder), *sys.path])
    return Commands(folder, {"PYTHONPATH": path}).run("status", *words)


@pytest.mark.parametrize("where", PLACES)
def test_T4_its_traceback_reaches_the_log_file_and_nobody_else(tmp_path: Path, where: str) -> None:
    ended = with_a_bug(tmp_path, where, "--log-file", "all.log")
    assert ended.code == 3, ended.said()
    assert ended.out == ""
    assert ended.err.startswith("error: internal error: RuntimeError in ")
    assert "Traceback" not in ended.err
    assert "planted" not in ended.err, "what an exception says may hold a key or a prompt"
    [line] = (tmp_path / "all.log").read_text().splitlines()
    assert "RuntimeError: a planted bug" in json.loads(line)["traceback"]


@pytest.mark.parametrize("words", [("--log-file=all.log", "-vv"), ("-vv", "--log-file", "."), ("-vv", "--log-file")])
def test_it_is_told_on_the_terminal_too_if_asked_for(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Also where the log file cannot be written, or is not named at all: the bug comes first."""
    ended = with_a_bug(tmp_path, "while the command is imported", *words)
    assert ended.code == 3, ended.said()
    assert "error: internal error: RuntimeError" in ended.err
    if words[-1] == "-vv":
        assert "in find_spec" in ended.err
        assert "in find_spec" in (tmp_path / "all.log").read_text()
