"""What a person needs in order to decide about a held job: what was asked, when it went out, what it may have cost,
what to look for at the provider, and the commands."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from runner.cli.output import credits, local
from runner.lifecycle.deciding import at_most, lacks_only_files
from runner.verdicts.submission import mark_of

if TYPE_CHECKING:
    from runner.store.work import Work

AROUND = timedelta(minutes=2)  # how far a provider's clock and ours may lie apart, with some time on the way


@dataclass(frozen=True, slots=True)
class Evidence:
    """`sent_at`: when the first byte left (or the intent, where that is not known); `costs`: credits, at most; `told`:
    the task that the provider named when it called back."""

    why: str
    prompt: str
    sent_at: datetime | None
    costs: Decimal | None
    answer: str | None
    told: str | None
    look_for: str
    commands: tuple[tuple[str, str], ...]


def gather(work: Work) -> Evidence:
    failure, attempt = work.standing.failure, work.attempt
    why = f"{failure.kind}: {failure.message}" if failure else "a person is needed"
    answered = attempt is not None and attempt.outcome is not None
    sent_at = (attempt.brink_at or attempt.intent_at) if attempt is not None else None
    return Evidence(
        why, prompt_of(work), sent_at, at_most(work), _answer(work) if answered else None,
        attempt.hint if attempt is not None else None, _look_for(work, sent_at), _commands(work),
    )  # fmt: skip


def as_data(evidence: Evidence) -> dict[str, Any]:
    return {
        "why": evidence.why, "prompt": evidence.prompt, "sent_at": evidence.sent_at, "costs_at_most": evidence.costs,
        "answer": evidence.answer, "called_back": evidence.told, "look_for": evidence.look_for,
        "commands": [command for command, _ in evidence.commands],
    }  # fmt: skip


def in_lines(evidence: Evidence) -> list[tuple[str, str]]:
    """(label, text) for people."""
    lines = [
        ("held because", evidence.why),
        ("prompt", evidence.prompt),
        ("sent at", local(evidence.sent_at)),
        ("costs at most", f"{credits(evidence.costs)} credits" if evidence.costs is not None else "not known"),
    ]
    if evidence.answer:
        lines.append(("answer", evidence.answer))
    if evidence.told:
        lines.append(("called back", f"the provider called, and told of task {evidence.told}"))
    lines.append(("look for", evidence.look_for))
    return [*lines, *(("", f"{command}   {meaning}") for command, meaning in evidence.commands)]


def prompt_of(work: Work) -> str:
    return str(json.loads(work.spec)["fields"].get("prompt", ""))


def _answer(work: Work) -> str:
    attempt = work.attempt
    assert attempt is not None
    words = {
        "no_answer": "none came", "crash": "this program ended before one came", "ambiguous": "it was unclear",
        "conflict": "the provider knew the key already", "accepted": "accepted",
    }  # fmt: skip
    told = words.get(attempt.outcome or "", attempt.outcome or "")
    detail = attempt.message or attempt.code
    return f"{told} ({detail})" if detail else told


def _look_for(work: Work, sent_at: datetime | None) -> str:
    """What to look for in the provider's web console."""
    task = work.standing.task_id
    if lacks_only_files(work):
        return f"the files of task {task}: the render is complete and paid for"
    if task is not None:
        return f"task {task}: whether it still exists, and what became of it"
    if sent_at is None:
        return "a task with this prompt"
    span = f"{local(sent_at - AROUND)} and {local(sent_at + AROUND, sent_at)}"
    price = at_most(work)
    spent = f", or {credits(price)} credits spent then" if price is not None else ", or credits spent then"
    return f"a task {_named(work)}made between {span}{spent}"


def _named(work: Work) -> str:
    """By what a person will know it: its mark, where the provider shows one, and its prompt."""
    attempt, key = work.attempt, work.attempt.idempotency_key if work.attempt else None
    marked = attempt is not None and key is not None and mark_of(key) in attempt.body
    return f"named {mark_of(key or '')} " if marked else "with this prompt "


def _commands(work: Work) -> tuple[tuple[str, str], ...]:
    price = at_most(work)
    cost = f"{credits(price)} credits" if price is not None else "its price"
    resolve = f"runner resolve {work.id}"
    hint = work.attempt.hint if work.attempt is not None else None
    own = work.standing.task_id or hint or "ID"
    if lacks_only_files(work):
        first = (f"runner retry {work.id}", "fetch its files again; costs nothing")
    else:
        first = (f"{resolve} --adopt {own}", "it is there: follow that task")
    return (
        first,
        (f"{resolve} --resubmit", f"it is not there: order it again (if it was accepted after all, {cost} twice)"),
        (f"{resolve} --abandon", "give it up"),
    )
