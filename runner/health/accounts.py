"""Accounts: their keys (of which nothing is ever told but whether they will do), their provider's answer, its clock."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from runner.errors import ErrorKind, Problem
from runner.exchange import Action, Page, Refusal, Report
from runner.health.checks import Check, ok, trouble, warning
from runner.ledger import as_text

NO_KEY, NO_ANSWER = 2, 5  # exit codes
SKEW_NOTICED, SKEW_HARMFUL = 30.0, 300.0  # seconds
NO_TASK = "runner-doctor-asks"  # no provider has a task of that name
HOPED_FOR = (ErrorKind.NOT_FOUND, ErrorKind.INVALID_REQUEST)  # what is said of it, and never of a refused key
NOT_REFUSED = "it answers and does not refuse the key; it documents no way to ask for a balance"


def key(account: str, variable: str, problems: Sequence[Problem], *, is_set: bool, needed: bool) -> list[Check]:
    """`needed`: the manifest asks for this account, or work of its own waits in the queue. Without one it may lack."""
    if not problems:
        return [ok("key", account, f"{variable} is set and well-formed")]
    if is_set or needed:
        return [trouble("key", account, problem.message, problem.hint, NO_KEY) for problem in problems]
    return [warning("key", account, problem.message, problem.hint) for problem in problems]


def fingerprint(account: str, variable: str, own: str, in_queue: str | None) -> Check | None:
    """Whether this is the key that the queue knows the account by; None where it knows none."""
    if in_queue is None:
        return None
    if own == in_queue:
        return ok("fingerprint", account, "the key is the one this queue was last used with")
    found = "not the key, or not the address, that this queue was last used with"
    advice = (
        "a new key of the same account: nothing to do, the first answer about one of its tasks will confirm it. "
        f"Another account's: put the old key back into {variable}, for nobody else can see the tasks it has paid for"
    )
    return warning("fingerprint", account, found, advice)


def answer(account: str, variable: str, said: Decimal | Report | Refusal) -> Check:
    """What the provider answered to one unpaid question: for the balance or, where no document tells how to ask for
    that, for a task that does not exist (`NO_TASK`)."""
    if isinstance(said, Decimal):
        return _balance(account, said)
    if isinstance(said, Report) or said.kind in HOPED_FOR:
        return ok("answer", account, NOT_REFUSED)
    return _refusal(account, variable, said)


def _balance(account: str, credits: Decimal) -> Check:
    if credits > 0:
        return ok("answer", account, f"it answers and takes the key; balance: {as_text(credits)} credits")
    return warning("answer", account, "it answers and takes the key; the balance is 0", "top up its credits")


def _refusal(account: str, variable: str, refusal: Refusal) -> Check:
    told = f"{refusal.message} (HTTP {refusal.status})" if refusal.status else refusal.message
    base = variable.replace("_API_KEY", "_BASE_URL")
    match refusal:
        case Refusal(kind=ErrorKind.NETWORK, action=Action.STOP):
            advice = f"mend {base} if it is set, or what answers in the provider's place: runner run stops this account"
            return trouble("answer", account, f"it may not be spoken to: {told}", advice, NO_ANSWER)
        case Refusal(kind=ErrorKind.NETWORK):
            advice = f"is this machine online, and {base} right if it is set? runner run waits and goes on by itself"
            return trouble("answer", account, f"it cannot be reached: {told}", advice, NO_ANSWER)
        case Refusal(action=Action.STOP) | Refusal(kind=ErrorKind.UNAUTHORIZED):
            advice = f"make a new key on the provider's page of API keys, and set {variable}"
            return trouble("answer", account, f"it refuses the key: {told}", advice, NO_ANSWER)
        case Refusal(kind=ErrorKind.RATE_LIMITED | ErrorKind.INSUFFICIENT_CREDITS):
            return warning("answer", account, f"it answers: {told}", "runner run waits and goes on by itself")
        case Refusal(kind=ErrorKind.UNAVAILABLE | ErrorKind.TIMEOUT):
            advice = "nothing to do here; runner run waits and goes on by itself"
            return trouble("answer", account, f"it is out of service: {told}", advice, NO_ANSWER)
    return warning("answer", account, f"its answer is unclear: {told}", "if it stays so, its interface has changed")


def history(account: str, said: Page | Refusal) -> Check | None:
    """Whether the provider's list tells of a task what finding a lost one again takes: its prompt and when it was
    made. None where it could not be had, or shows nothing to judge by."""
    if isinstance(said, Refusal) or not said.items:
        return None
    if all(item.prompt is not None and item.created_at is not None for item in said.items):
        return ok("history", account, "its list tells prompts and times: an order whose answer gets lost can be found")
    found = "its list tells no prompt, or no time: an order whose answer gets lost cannot be found in it"
    return warning("history", account, found, "such a job is held; then see: runner resolve JOB")


def skew(account: str, seconds: float | None) -> Check | None:
    """How far the provider's clock (its `Date` header) is ahead of ours; None where it told no time."""
    if seconds is None:
        return None
    off = abs(seconds)
    if off < SKEW_NOTICED:
        return ok("clock", account, f"this machine's clock and the provider's agree within {SKEW_NOTICED:.0f} s")
    found = f"this machine's clock is {off:.0f} s {'behind' if seconds > 0 else 'ahead of'} the provider's"
    advice = "set this machine's clock (by NTP): it judges when links expire, and which task is the one that got lost"
    if off < SKEW_HARMFUL:
        return warning("clock", account, found, advice)
    return trouble("clock", account, found, advice, NO_ANSWER)
