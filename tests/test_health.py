"""What a check-up makes of its facts: verdicts, advice and exit codes of `runner doctor`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from store.kit import HandClock

from runner.cli.doctor import exit_code
from runner.errors import ErrorKind, Problem
from runner.exchange import Action, Listed, Page, Phase, Refusal, Report
from runner.health import Verdict, machine, ok, trouble, warning
from runner.health import accounts as judged
from runner.health.accounts import SKEW_HARMFUL, SKEW_NOTICED
from runner.store import open_store, place


@pytest.mark.parametrize(
    ("version", "has_it"),
    [
        ("3.6.23", False), ("3.7.0", True), ("3.40.1", True), ("3.44.5", True), ("3.44.6", False), ("3.44.9", False),
        ("3.45.0", True), ("3.50.6", True), ("3.50.7", False), ("3.51.0", True), ("3.51.2", True), ("3.51.3", False),
        ("3.53.0", False), ("4.0.0", False),
    ],
)  # fmt: skip
def test_which_sqlite_has_the_wal_reset_bug(version: str, has_it: bool) -> None:
    numbers = tuple(map(int, version.split(".")))
    assert machine.has_wal_reset_bug(numbers) is has_it
    assert (machine.sqlite(numbers).verdict is Verdict.WARNING) is has_it


def test_F97_a_queue_on_a_network_disk_is_in_trouble_and_in_a_synced_folder_in_doubt() -> None:
    facts: Mapping[str, Any] = {"network": False, "synced": None, "memory": False}
    assert machine.place("/q", "ext4", **facts).verdict is Verdict.OK
    assert machine.place("/q", None, **facts).verdict is Verdict.OK
    network = machine.place("/q", "nfs4", **{**facts, "network": True})
    assert (network.verdict, network.exit_code) == (Verdict.TROUBLE, 7)
    assert "PostgreSQL" in network.advice
    for doubtful in ({"synced": "Dropbox"}, {"memory": True}):
        assert machine.place("/q", "ext4", **{**facts, **doubtful}).verdict is Verdict.WARNING


@pytest.mark.parametrize(
    ("folder", "service"),
    [
        ("Dropbox/films", "Dropbox"), ("OneDrive - Studio", "OneDrive"), ("Google Drive/My Drive", "Google Drive"),
        ("Library/Mobile Documents/com~apple~CloudDocs", "iCloud"), ("Library/CloudStorage/Box-Box", "A cloud service"),
        ("Nextcloud", "Nextcloud"), ("marked/deep/er", "Syncthing"), ("films", None), ("Dropboxes", None),
    ],
)  # fmt: skip
def test_F97_synced_folders_are_known_by_their_names_and_marks(
    tmp_path: Path, folder: str, service: str | None
) -> None:
    (tmp_path / folder).mkdir(parents=True)
    if folder.startswith("marked"):
        (tmp_path / "marked" / ".stfolder").mkdir()
    assert place.synced(tmp_path / folder) == service


async def test_F97_T7_a_run_says_so_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("runner.store.store.log.warning", lambda _, **more: said.append(more["why"]), raising=False)
    queue = tmp_path / "Dropbox" / "runner.db"
    for _ in range(2):
        async with open_store(str(queue), HandClock(), own=True):
            pass
        queue.chmod(0o644)
    assert said == ["Dropbox keeps its folder in step with other places"] * 2 + ["others on this machine may read it"]


@pytest.mark.parametrize(
    ("seconds", "verdict"),
    [
        (0, Verdict.OK), (SKEW_NOTICED - 1, Verdict.OK), (SKEW_NOTICED, Verdict.WARNING), (-45, Verdict.WARNING),
        (SKEW_HARMFUL - 1, Verdict.WARNING), (SKEW_HARMFUL, Verdict.TROUBLE), (-86400, Verdict.TROUBLE),
    ],
)  # fmt: skip
def test_a_clock_that_is_off_is_told_with_its_direction(seconds: float, verdict: Verdict) -> None:
    check = judged.skew("seegen", seconds)
    assert check is not None
    assert check.verdict is verdict
    if verdict is not Verdict.OK:
        assert ("behind" if seconds > 0 else "ahead of") in check.found


def test_no_time_told_is_no_finding() -> None:
    assert judged.skew("seegen", None) is None


@pytest.mark.parametrize(
    ("free", "verdict"), [(0, "trouble"), (50 << 20, "trouble"), (500 << 20, "warning"), (5 << 30, "ok")]
)
def test_room_on_the_disk(free: int, verdict: str) -> None:
    assert machine.space("/renders", free).verdict == verdict


@pytest.mark.parametrize(("fsync", "verdict"), [("on", "ok"), ("off", "warning")])
def test_a_server_that_does_not_flush_is_in_doubt(fsync: str, verdict: str) -> None:
    assert machine.durability("the database", "off", fsync).verdict == verdict


@pytest.mark.parametrize(
    ("action", "kind", "verdict", "words"),
    [
        (Action.LATER, ErrorKind.NETWORK, "trouble", "cannot be reached"),
        (Action.STOP, ErrorKind.NETWORK, "trouble", "may not be spoken to"),
        (Action.STOP, ErrorKind.UNAUTHORIZED, "trouble", "refuses the key"),
        (Action.LATER, ErrorKind.UNAVAILABLE, "trouble", "out of service"),
        (Action.LATER, ErrorKind.RATE_LIMITED, "warning", "it answers"),
        (Action.LATER, ErrorKind.BAD_RESPONSE, "warning", "unclear"),
        (Action.NOT_FOUND, ErrorKind.NOT_FOUND, "ok", "does not refuse the key"),
    ],
)
def test_what_a_refusal_means(action: Action, kind: ErrorKind, verdict: str, words: str) -> None:
    check = judged.answer("seegen", "SEEGEN_API_KEY", Refusal(action, kind, "code", "a reason", 500))
    assert check.verdict == verdict
    assert words in check.found
    assert check.exit_code == (5 if verdict == "trouble" else 0)
    assert bool(check.advice) == (verdict != "ok")


def test_a_list_without_prompts_or_times_is_in_doubt() -> None:
    report = Report("t", Phase.DONE, "done")
    whole = Listed("t", "a face", HandClock().now(), report)
    for items, verdict in (
        ((whole,), "ok"), ((whole, replace(whole, prompt=None)), "warning"),
        ((replace(whole, created_at=None),), "warning"),
    ):  # fmt: skip
        check = judged.history("happyhorse", Page(items, more=False))
        assert check is not None
        assert check.verdict == verdict
    assert judged.history("happyhorse", Page((), more=False)) is None


def test_an_empty_account_is_in_doubt() -> None:
    assert judged.answer("seegen", "SEEGEN_API_KEY", Decimal(0)).verdict is Verdict.WARNING
    assert "12.5 credits" in judged.answer("seegen", "SEEGEN_API_KEY", Decimal("12.50")).found


def test_a_missing_key_matters_where_it_is_needed() -> None:
    missing = [Problem("", "no key", "set it")]
    for is_set, needed, code in ((False, False, 0), (False, True, 2), (True, False, 2)):
        [check] = judged.key("seegen", "SEEGEN_API_KEY", missing, is_set=is_set, needed=needed)
        assert check.exit_code == code
        assert (check.found, check.advice) == ("no key", "set it")


def test_the_gravest_trouble_decides() -> None:
    """The precedence of design.md section 10."""
    codes = [7, 2, 4, 5]
    checks = [ok("a", "b", "c"), warning("a", "b", "c", "d"), *(trouble("a", "b", "c", "d", code) for code in codes)]
    assert exit_code(checks[:2]) == 0
    found: list[int] = []
    while codes:
        found.append(exit_code([check for check in checks if check.exit_code in (0, *codes)]))
        codes.remove(found[-1])
    assert found == [7, 2, 4, 5]
