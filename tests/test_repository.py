"""The repository itself: what lies at its top, what no file may say, and that a bare machine can set it up."""

from __future__ import annotations

import re
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"
LOCK = SCRIPTS / "requirements.lock"

TOP_LEVEL = {
    "CHANGELOG.md", "LICENSE", "README.md", "jobs.example.yaml", "pyproject.toml", "runner", "scripts", "tests",
}  # fmt: skip
UNTRACKED = {"__pycache__", "build", "dist", "rehearsal", "renders", ".git", ".venv"}

# Each word is written in two halves, or this file would be the first offender.
HOSTS = [
    ("pypi", r"\.org"),
    ("python", r"hosted\."),
    ("npm", r"js\."),
    ("deb", r"ian\.org"),
    ("ubu", r"ntu\.com"),
    ("crates", r"\.io"),
    (r"proxy\.go", r"lang\.org"),
]
PLACES = [(r"(?:^|[^a-z0-9_.])/wo", "rk/"), (r"(?:^|[^a-z0-9_.])/fa", "rm/"), ("/ro", "ot/"), ("/opt/py", "pi")]
LEFT_OVER = [
    (r"\bTO", r"DO\b"),
    (r"\bFIX", r"ME\b"),
    (r"\bXX", r"X\b"),
    ("raise NotImpl", "emented"),
    (r"\bpytest\.sk", r"ip\("),
    ("importor", "skip"),
    (r"\bmark\.sk", "ip"),
    (r"\bmark\.xf", "ail"),
]


def either(halves: list[tuple[str, str]]) -> str:
    return "|".join(first + second for first, second in halves)


FORBIDDEN = {
    "a package registry's host": f"(?i:{either(HOSTS)})",
    "a path of one machine": f"(?i:{either(PLACES)})",
}


def tracked() -> list[Path]:
    """The files of the repository: by git, or all there are where the tree was unpacked without its history."""
    listing = subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=False
    )
    names = listing.stdout.split("\0") if listing.returncode == 0 else []
    return [ROOT / name for name in names if name and (ROOT / name).is_file()] or walked(ROOT)


def walked(folder: Path) -> list[Path]:
    files: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.name in UNTRACKED or fnmatch(path.name, ".*_cache") or fnmatch(path.name, "*.db*"):
            continue
        files += walked(path) if path.is_dir() else [path]
    return files


FILES = tracked()
PYTHON = [path for path in FILES if path.suffix == ".py"]
PROGRAMS = sorted(
    path for path in [*SCRIPTS.iterdir(), *(ROOT / ".ci").iterdir()] if path.is_file() and not path.suffix
)


def offences(pattern: str, files: list[Path]) -> list[str]:
    search = re.compile(pattern).search
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in files
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if search(line)
    ]


def locked() -> dict[str, list[str]]:
    """Requirement → its hashes, in the lock's own spelling."""
    found: dict[str, list[str]] = {}
    for entry in LOCK.read_text().replace("\\\n", " ").splitlines():
        requirement, *options = re.split(r"\s+--", entry)
        if requirement and not requirement.startswith("#"):
            found[requirement] = [option.removeprefix("hash=") for option in options]
    return found


def test_the_top_level_holds_what_was_agreed() -> None:
    tops = {path.relative_to(ROOT).parts[0] for path in FILES}
    assert {top for top in tops if not top.startswith(".")} - TOP_LEVEL == set()


@pytest.mark.parametrize(
    "name", ["LICENSE", "CHANGELOG.md", "pyproject.toml", ".ci/run", "scripts/test", "scripts/check"]
)
def test_the_top_level_lacks_nothing(name: str) -> None:
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_names(what: str) -> None:
    assert offences(FORBIDDEN[what], FILES) == []


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("a package registry's host", "https://" + "PyPI." + "org/simple"),
        ("a package registry's host", "registry." + "npmjs" + ".com"),
        ("a path of one machine", "cd /wo" + "rk/main"),
        ("a path of one machine", "'/ro" + "ot/.cache'"),
    ],
)
def test_the_patterns_find_what_they_are_for(what: str, line: str) -> None:
    assert re.search(FORBIDDEN[what], line)
    assert not re.search(FORBIDDEN[what], "see https://example.com/work/1 and ./work/here")


def test_nothing_is_unfinished_or_left_out() -> None:
    assert offences(either(LEFT_OVER), PYTHON) == []


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_a_script_can_be_run(program: Path) -> None:
    first = program.read_text().splitlines()[0]
    assert first.startswith("#!/usr/bin/env "), "it needs a first line that says what runs it"
    assert program.stat().st_mode & 0o111 == 0o111, "it has no run bit"
    if first.endswith("bash"):
        subprocess.run(["bash", "-n", program], check=True)


def test_T24_the_lock_pins_everything_by_hash() -> None:
    lock = locked()
    assert len(lock) > 50
    assert [name for name, hashes in lock.items() if not re.match(r"[a-z0-9-]+==[0-9][^ ]*( ; .+)?$", name)] == []
    assert [name for name, hashes in lock.items() if not hashes] == []
    assert all(re.fullmatch("sha256:[0-9a-f]{64}", digest) for hashes in lock.values() for digest in hashes)


def test_T24_the_lock_holds_no_addresses() -> None:
    assert offences(r"://|@|^-|--(index|extra|find|trusted)", [LOCK]) == []


def test_the_lock_covers_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + [each for extra in project["optional-dependencies"].values() for each in extra]
    names = {re.split(r"[\[<>=;~! ]", each, maxsplit=1)[0].lower() for each in asked}
    assert names - {entry.split("==")[0] for entry in locked()} == set()
