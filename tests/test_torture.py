"""The torture test's own parts: what is counted adds up, survives being written down, and no fault is forgotten."""

from __future__ import annotations

import signal
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from torture import random_kills
from torture.__main__ import main, missed
from torture.catalogue import FAULTS, numbered, numbers, of_signal
from torture.commands import Ended, Running
from torture.judge import Finding
from torture.kills import Kill
from torture.parts import Part, Setting, chosen, known, play
from torture.programme import _scenario, every_part, quick_parts
from torture.report import ENOUGH, figures, table
from torture.scenarios.scene import Scenario
from torture.scenarios.syscalls import NO_STRACE
from torture.tally import Account, Tally, as_data, from_data, percentile, total
from torture.trial import Trial

from runner.sandbox.faults import CATALOGUE


def told(**more: object) -> Tally:
    account = Account(3, 2, 2, Counter({"succeeded": 2, "held": 1}), Counter({"unknown_submission": 1}), 1,
                      Decimal("7.25"), Decimal("9.25"), Decimal(2), (3, 4), (10, 60))  # fmt: skip
    basis = Tally(["s"], Counter({"SIGKILL": 2}), Counter({"lost_answer@submit": 3, "F94": 1}),
                  accounts={"seegen": account}, recoveries=[1.0, 2.0], mutants={"M7": True}, seconds=5.0)  # fmt: skip
    for name, value in more.items():
        setattr(basis, name, value)
    return basis


def test_tallies_add_up_and_survive_being_written_down() -> None:
    twice = total([told(), from_data(as_data(told(accounts={"seegen": Account(per_minute=(50, 60))})))])
    assert twice.kills == {"SIGKILL": 4}
    assert twice.jobs == 3
    assert twice.accounts["seegen"].per_minute == (50, 60), "the one that came nearest to its limit"
    assert twice.accounts["seegen"].net == Decimal("7.25")
    assert as_data(from_data(as_data(twice))) == as_data(twice)


def test_the_report_counts_by_number_and_names_what_never_fired() -> None:
    report = figures(told(), commit="abc", seconds=9.0)
    assert (report["faults"]["F10"], report["faults"]["F94"]) == (3, 1)
    assert "F65" in report["unfired"]
    assert report["seldom"] == ["F10", "F94"], f"quick ones, fewer than {ENOUGH}"
    assert report["providers"]["seegen"]["difference"] == "0.00"
    assert table(report).splitlines()[-1] == "clean"


def test_a_finding_or_a_surviving_mutant_is_not_clean() -> None:
    guilty = told()
    guilty.find(Finding("doubles", "twice"))
    assert not guilty.clean
    assert figures(guilty, commit="abc", seconds=1.0)["crimes"]["doubles"] == 1
    assert not told(mutants={"M7": False}).clean


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--speed", "0"), "above 0"),
        (("--speed", "-3"), "above 0"),
        (("--speed", "nan"), "above 0"),
        (("--seed", ""), "must not be empty"),
        (("--folder", __file__), "is no folder"),
        (("--folder", f"{__file__}/night"), "is no folder"),
    ],
)
def test_wrong_words_play_nothing(words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A speed that goes backwards would find everybody guilty."""
    with pytest.raises(SystemExit) as ended:
        main([*words, "--list"])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("number", FAULTS)
def test_every_fault_of_the_catalogue_has_a_part_that_fires_it(number: str) -> None:
    assert any(number in part.fires for part in every_part())


def test_every_label_is_of_a_fault_that_the_providers_know() -> None:
    wanted = {label.partition("@")[0] for fault in FAULTS.values() for label in fault.labels}
    assert {name for name in wanted if "*" not in name} <= {*CATALOGUE, "outage"}


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("lost_request@submit", ["F09"]),
        ("lost_request@submit:how=reset", ["F08"]),
        ("rate_limited@submit:retry_after=5", ["F27"]),
        ("task_failed@submit:refund=0.5", ["F57"]),
        ("truncated@poll:how=length", ["F32"]),
        ("error_before_charge@submit", ["F40"]),
        ("error_before_charge@submit:status=200", ["F38"]),
        ("error_before_charge@submit:code=forbidden:status=403", []),
        ("stale_list@list:seconds=10", []),
        ("F94", ["F94"]),
    ],
)
def test_a_label_is_read(label: str, expected: list[str]) -> None:
    assert numbers(label) == expected
    assert [number for number, count in numbered({label: 2}).counts.items() if count == 2] == expected


def test_signals_have_numbers() -> None:
    assert [of_signal(name) for name in ("SIGTERM", "SIGINT+SIGINT", "SIGKILL")] == ["F100", "F102", "F104"]


def test_names_are_unique_and_quick_parts_are_few() -> None:
    names = [part.name for part in every_part()]
    assert len(names) == len(set(names))
    assert 3 < len(quick_parts()) < len(names) / 2
    assert [part.name for part in chosen(every_part(), ["k2-after-link"], [])] == ["k2-after-link"]


def test_a_part_that_breaks_is_a_finding_and_one_that_ended_is_known(tmp_path: Path) -> None:

    folder, setting = tmp_path, Setting("s", ("seegen",))

    def broken(*_: object) -> Tally:
        raise RuntimeError("out of order")

    part = Part("broken", broken)
    assert known(folder, part) is None
    assert play(part, folder, setting).findings == ["broken: broken: RuntimeError: out of order"]
    again = known(folder, part)
    assert again is not None
    assert not again.clean


def test_a_part_that_has_done_nothing_is_a_finding(tmp_path: Path) -> None:
    """Its fail point is reached by nobody any more, say."""

    def idle(*_: object) -> Tally:
        return Tally(["s"], done=Counter({"partial": 1, "files compared with their hashes": 9}))

    told = play(Part("idle", idle), tmp_path, Setting("s", ("seegen",)))
    assert told.findings == ["idle: idle has killed, fired, done and tried nothing"]


def test_a_scenario_that_never_fires_its_fault_is_a_finding(tmp_path: Path) -> None:
    def harmless(*_: object) -> Tally:
        return Tally(["s"], fired=Counter({"lost_answer@submit": 1}))

    for number, found in (("F10", []), ("F94", ["F94: harmless never fired it"])):
        told = _scenario(Scenario("harmless", (number,), harmless), tmp_path, Setting("s", ("seegen",)))
        assert told.findings == found


def test_a_full_torture_that_has_not_met_every_fault_is_not_clean() -> None:
    every = Counter(dict.fromkeys(FAULTS, 1))
    for gone, done, found in ((None, {}, []), ("F65", {}, ["F65"]), ("F86", {NO_STRACE: 1}, [])):
        tally = Tally(fired=Counter({number: 1 for number in every if number != gone}), done=Counter(done))
        missed(tally)
        assert tally.findings == [f"unfired: {number}" for number in found]


class Struck:
    """A run that lives so long behind a signal, and ends with that code."""

    pid = 1 << 22  # nobody's

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def lives(self, seconds: float) -> bool:
        return seconds < self.seconds


@pytest.mark.parametrize(("seconds", "code", "counted"), [
    (5.0, 143, "SIGTERM+SIGTERM"), (0.1, 143, "SIGTERM"), (0.1, 0, None),
])  # fmt: skip
def test_what_is_counted_is_what_has_struck(
    seconds: float, code: int, counted: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second signal that was never sent is none, nor is a kill that came when all was over."""
    sent: list[int] = []
    monkeypatch.setattr(random_kills.os, "killpg", lambda pid, number: sent.append(number))
    kill, tally, here = Kill(signal.SIGTERM, 0.0, again=1.0), Tally(), SimpleNamespace(stops=[])
    twice = random_kills._strike(cast("Running", SimpleNamespace(process=Struck, lives=Struck(seconds).lives)), kill)
    ended = Ended(("run",), code, "", "", 1.0)
    random_kills._note(cast("Trial", here), ended, kill if twice else replace(kill, again=None), 0.5, tally)
    assert sent == [signal.SIGTERM] * (1 + twice)
    assert tally.kills == ({counted: 1} if counted else {})
    assert [stop.code for stop in here.stops] == [code]


def test_percentiles() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert percentile(list(map(float, range(1, 101))), 0.5) == 50.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)
