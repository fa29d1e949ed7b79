"""Reading answers generously: what every adapter needs to find its way in a body whose shape no document shows.

An answer is read by looking for the first of the spellings listed, at the top level or under `data`; what is not
understood is kept as it came and never guessed into success (providers.md section 7). The body is read before the HTTP
status, and an error in it beats a 200 (providers.md section 2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import quote

from runner.errors import ErrorKind
from runner.exchange import Accepted, Action, Phase, Refusal, Reply, ResultFile
from runner.limits import RETRY_AFTER_CAP

Said = Mapping[str, Any]

TASK_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:[eE]\+?[0-9]{1,3})?")
CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
LONGEST_MESSAGE = 500
MILLISECONDS_FROM = 100_000_000_000  # as seconds that is the year 5138; as milliseconds, 1973
MODERATION_WORDS = ("moderat", "safety", "policy", "sensitive", "blocked")
IDS_IN_ERROR = ("code", "error_code", "errorCode")
TEXTS_IN_ERROR = ("message", "msg", "error_message", "errorMessage", "failReason", "fail_reason", "reason", "detail")


class Verdict(NamedTuple):
    """What a documented refusal means: what to do next, and its kind."""

    action: Action
    kind: ErrorKind


Verdicts = Mapping[str | int, Verdict]


class Complaint(NamedTuple):
    code: str
    message: str


def levels(data: Any) -> Iterator[Said]:
    """Where a spelling may stand: the top level, then under `data`."""
    if isinstance(data, Mapping):
        yield data
        if isinstance(data.get("data"), Mapping):
            yield data["data"]


def first(data: Any, names: Sequence[str]) -> Any:
    """The first of the spellings that is there and not null."""
    for name in names:
        for level in levels(data):
            if level.get(name) is not None:
                return level[name]
    return None


def task_in(data: Any, status: str = "status") -> Said | None:
    """The object that tells of one task: the innermost level with a `status`; None where there is none."""
    return next((level for level in reversed([*levels(data)]) if level.get(status) is not None), None)


def task_id(value: Any) -> str | None:
    """A task id that may safely stand in a path, None for anything else (reliability.md T22)."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(text, str) and TASK_ID.fullmatch(text) and text.strip("."):
        return text
    return None


def in_path(known_id: str) -> str:
    """A task id percent-encoded for a path. Raises `ValueError` for one that cannot be a task's."""
    if task_id(known_id) is None:
        raise ValueError("not a task id")
    return quote(known_id, safe="")


def no_such_id(asked: str) -> Refusal:
    """The answer to a question about an id that no provider could have given: nothing is sent for it."""
    message = f"{legible(asked)[:40]} is not a task id"
    return Refusal(Action.NOT_FOUND, ErrorKind.NOT_FOUND, "bad_id", message)


def is_for(data: Any, names: Sequence[str], asked: str) -> bool:
    """Whether an answer is about the task asked for: one of the ids in it is, or it names none."""
    said = [str(level[name]) for level in levels(data) for name in names if level.get(name) is not None]
    return not said or asked in said


MOST_CREDITS = 12  # digits before the point: many such amounts still fit into the ledger's sums


def amount(value: Any) -> Decimal | None:
    """Credits, exact; None for what is no amount. Binary floats do not occur: the client parses numbers as Decimal."""
    number = _number(value)
    return number if number is not None and number.adjusted() < MOST_CREDITS else None


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        return None
    try:
        number = Decimal(value)
    except ArithmeticError:
        return None
    return number if number.is_finite() and number >= 0 and number.adjusted() < 15 else None


def progress(value: Any) -> float | None:
    """A percentage for display; None for what is none."""
    number = amount(value)
    return float(number) if number is not None and number <= 100 else None


def moment(value: Any) -> datetime | None:
    """A time in UTC from ISO 8601 or an epoch in seconds or milliseconds. One without a zone is taken as UTC."""
    number = _number(value)
    try:
        if number is not None:
            return datetime.fromtimestamp(float(number / 1000 if number >= MILLISECONDS_FROM else number), UTC)
        read = datetime.fromisoformat(value) if isinstance(value, str) else None
        if read is None:
            return None
        return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None


def legible(text: str) -> str:
    """A provider's text in one line, without control characters, cut at 500 characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * LONGEST_MESSAGE]).split())
    return line if len(line) <= LONGEST_MESSAGE else line[:LONGEST_MESSAGE] + "…"


def results(
    holder: Any, files: Sequence[str], thumbnails: Sequence[str] = ()
) -> tuple[tuple[ResultFile, ...], tuple[str, ...]]:
    """The files an answer offers, in its order, and why others did not come.

    Each spelling may hold a URL, a mapping with one, or a list of either; an entry of a list without a URL is an output
    that is missing. A URL said twice (alone and in the list) is one file.
    """
    found: list[ResultFile] = []
    missing: list[str] = []
    seen: set[str] = set()
    index = 0
    for item in _items(holder, files):
        url = _url(item, files)
        if url is None:
            missing.append(_reason(item) or f"output {index + 1} did not come")
            index += 1
        elif url not in seen:
            seen.add(url)
            found.append(ResultFile(url, index))
            index += 1
    for position, item in enumerate(_items(holder, thumbnails)):
        url = _url(item, thumbnails)
        if url is not None and url not in seen:
            seen.add(url)
            found.append(ResultFile(url, position, thumbnail=True))
    return tuple(found), tuple(missing)


def _items(holder: Any, names: Sequence[str]) -> Iterator[Any]:
    spelled: list[Any] = [holder] if isinstance(holder, str | list) else []
    if isinstance(holder, Mapping):
        spelled = [holder[name] for name in names if holder.get(name) is not None]
    for value in spelled:
        if isinstance(value, list):
            yield from value
        elif value != "":
            yield value


def _url(item: Any, names: Sequence[str]) -> str | None:
    if isinstance(item, Mapping):
        item = next((item[name] for name in ("url", *names) if isinstance(item.get(name), str)), None)
    return item if isinstance(item, str) and item else None


def _reason(item: Any) -> str | None:
    if not isinstance(item, Mapping):
        return None
    complaint = complaint_in(item) or _complaint(item)
    return complaint.message or complaint.code or None


def complaint_in(said: Any) -> Complaint | None:
    """The error a mapping speaks of (`error` not null, `ok` or `success` false); None where it speaks of none."""
    if not isinstance(said, Mapping):
        return None
    error = said.get("error")
    if isinstance(error, Mapping) and error:
        return _complaint(error)
    if isinstance(error, str) and error:
        beside = _complaint(said)
        code = error if CODE.fullmatch(error) else ""
        return Complaint(beside.code or code, beside.message or legible(error))
    if error or said.get("ok") is False or said.get("success") is False:
        return _complaint(said)
    return None


def _complaint(said: Said) -> Complaint:
    code = next((said[n] for n in IDS_IN_ERROR if isinstance(said.get(n), str | int)), "")
    text = next((said[n] for n in TEXTS_IN_ERROR if isinstance(said.get(n), str)), "")
    return Complaint(legible(str(code))[:64], legible(text))


def failure(task: Said, returned: Verdicts, words: Sequence[str] = MODERATION_WORDS) -> Refusal:
    """Why a task failed: `moderated` where code or message names moderation, else `task_failed` (providers.md section
    2).

    `returned` lists the codes that keep their own meaning, whatever their message says: refusals that also come as a
    task failure (want of credits).
    """
    code, message = complaint_in(task) or _complaint(task)
    named = f"{code} {message}".casefold()
    moderated = any(word in named for word in words)
    unlisted = Verdict(Action.FAIL, ErrorKind.MODERATED if moderated else ErrorKind.TASK_FAILED)
    action, kind = returned.get(code, unlisted)
    return Refusal(action, kind, code or kind.value, message or "the provider gives no reason")


def refused_order(reply: Reply, verdicts: Verdicts, code: str = "", message: str = "") -> Refusal:
    """What a refused or unclear answer to a *submission* means.

    A known code in the body decides, then the status as the document lists it, then the rules for codes not listed:
    other 4xx refuse for good, and whatever is no clear refusal may have been accepted and billed.
    """
    complaint = _said_wrong(reply, verdicts, code, message)
    verdict = _verdict(reply, complaint, verdicts) or Verdict(_unlisted_order(reply.status), kind_of(reply.status))
    action = Action.FAIL if verdict.action is Action.NOT_FOUND else verdict.action
    return _refusal(reply, Verdict(action, verdict.kind), complaint)


def refused_question(reply: Reply, verdicts: Verdicts, code: str = "", message: str = "") -> Refusal:
    """What a refused or unclear answer to a *question* (a poll, a list, a balance) means.

    It never speaks about the job itself, and asking costs nothing: so it is asked again later, unless the key is
    refused or the task unknown.
    """
    complaint = _said_wrong(reply, verdicts, code, message)
    verdict = _verdict(reply, complaint, verdicts) or Verdict(_unlisted_question(reply.status), kind_of(reply.status))
    final = verdict.action in (Action.STOP, Action.NOT_FOUND)
    return _refusal(reply, verdict if final else Verdict(Action.LATER, verdict.kind), complaint)


def refused_upload(reply: Reply, verdicts: Verdicts, code: str = "", message: str = "") -> Refusal:
    """What a refused or unclear answer to an *upload* means: it is never billed, so nothing about it is ambiguous."""
    refusal = refused_order(reply, verdicts, code, message)
    if refusal.code == "redirect":
        return refused_question(reply, verdicts)
    if refusal.action in (Action.AMBIGUOUS, Action.CONFLICT):
        return refused_question(reply, verdicts, code, message)
    return refusal


def accepted(reply: Reply, names: Sequence[str], verdicts: Verdicts) -> Accepted | Refusal:
    """A 2xx to a submission: the task id in it, or an open question."""
    said = first(reply.data, names)
    if said is None:
        return refused_order(reply, verdicts, "no_id", "the answer holds no task id")
    known_id = task_id(said)
    if known_id is None:
        return refused_order(reply, {}, "bad_id", "the answer holds a task id that cannot be one")
    return Accepted(known_id)


def phase_of(
    word: Any, done: Sequence[str], failed: Sequence[str], going: Sequence[str], cancelled: Sequence[str] = ()
) -> tuple[Phase, str, bool]:
    """Phase, the provider's own word, and whether it is a known one. An unknown word means "still going"."""
    status = legible(str(word))[:64]
    known = ((Phase.DONE, done), (Phase.FAILED, failed), (Phase.GOING, going), (Phase.CANCELLED, cancelled))
    for phase, words in known:
        if word in words:
            return phase, status, True
    return Phase.GOING, status, False


def kind_of(status: int) -> ErrorKind:
    if status in (401, 403):
        return ErrorKind.UNAUTHORIZED
    if status >= 500:
        return ErrorKind.UNAVAILABLE
    if status < 400:
        return ErrorKind.BAD_RESPONSE
    by_status = {402: "insufficient_credits", 404: "not_found", 408: "timeout", 429: "rate_limited"}
    return ErrorKind(by_status.get(status, "invalid_request"))


def wait_of(reply: Reply, reset_header: str = "x-ratelimit-reset") -> float | None:
    """Seconds the provider asks us to wait: `Retry-After` (seconds or a date), else on a 429 the reset of its window.

    Dates are measured against the answer's own `Date`, never our clock; capped at an hour; junk counts as nothing.
    """
    asked = reply.headers.get("retry-after", "").strip()
    wait = float(asked) if SECONDS.fullmatch(asked) else _until(_http_date(asked), reply)
    if wait is None and reply.status == 429:
        wait = _until(moment(reply.headers.get(reset_header)), reply)
    return None if wait is None else min(max(wait, 0.0), RETRY_AFTER_CAP)


def _until(then: datetime | None, reply: Reply) -> float | None:
    return (then - reply.date).total_seconds() if then is not None and reply.date is not None else None


def _http_date(text: str) -> datetime | None:
    try:
        then = parsedate_to_datetime(text)
    except (ValueError, ArithmeticError, TypeError, IndexError):
        return None
    return then.replace(tzinfo=UTC) if then.tzinfo is None else then


def _said_wrong(reply: Reply, verdicts: Verdicts, code: str, message: str) -> Complaint:
    """What to call the trouble: the body's own code if it is a documented one, else what we found (`code`,
    `message`)."""
    if 300 <= reply.status < 400:
        return Complaint("redirect", f"HTTP {reply.status}: the provider points elsewhere, where no key is ever sent")
    if reply.unreadable is not None:
        return Complaint("unreadable", f"HTTP {reply.status}, {legible(reply.unreadable)}")
    said = complaint_in(reply.data) or _complaint(reply.data if isinstance(reply.data, Mapping) else {})
    if said.code in verdicts or not code:
        return Complaint(said.code or f"http_{reply.status}", said.message or f"HTTP {reply.status}")
    return Complaint(code, message)


def _verdict(reply: Reply, complaint: Complaint, verdicts: Verdicts) -> Verdict | None:
    if complaint.code == "redirect":
        return None
    return verdicts.get(complaint.code) or verdicts.get(reply.status)


def _unlisted_order(status: int) -> Action:
    if status == 429:
        return Action.LATER
    return Action.FAIL if 400 <= status < 500 and status != 408 else Action.AMBIGUOUS


def _unlisted_question(status: int) -> Action:
    if status in (401, 403) or 300 <= status < 400:
        return Action.STOP
    return Action.NOT_FOUND if status in (404, 410) else Action.LATER


def _refusal(reply: Reply, verdict: Verdict, complaint: Complaint) -> Refusal:
    return Refusal(verdict.action, verdict.kind, complaint.code, complaint.message, reply.status, wait_of(reply))
