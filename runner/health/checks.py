"""What a check is: what was looked at, what was found, whether that is well, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    TROUBLE = "trouble"


@dataclass(frozen=True, slots=True)
class Check:
    """`check` is the kind, for scripts; `subject` the account, path or job it is about. `exit_code` is what a trouble
    would have a run end with (design.md section 10), 0 for all else."""

    check: str
    subject: str
    verdict: Verdict
    found: str
    advice: str = ""
    exit_code: int = 0


def ok(check: str, subject: str, found: str) -> Check:
    return Check(check, subject, Verdict.OK, found)


def warning(check: str, subject: str, found: str, advice: str) -> Check:
    return Check(check, subject, Verdict.WARNING, found, advice)


def trouble(check: str, subject: str, found: str, advice: str, exit_code: int) -> Check:
    return Check(check, subject, Verdict.TROUBLE, found, advice, exit_code)
