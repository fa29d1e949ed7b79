"""`runner resolve JOB`: the decision about a held job that only a person can take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from runner.cli import evidence, output
from runner.cli.app import EVERYDAY, Common, Job
from runner.errors import ErrorKind, InputError, NoAnswer, NotSent, Taken
from runner.jobs import State
from runner.problems import quoted

if TYPE_CHECKING:
    from runner.exchange import Refusal, Report
    from runner.jobs import Change
    from runner.lifecycle.deciding import Declined
    from runner.providers.description import Provider
    from runner.settings import Credentials
    from runner.store import Store
    from runner.store.work import Work

CHOICES = "--adopt ID, --resubmit or --abandon"


async def resolve(
    job: Job,
    /,
    *,
    adopt: Annotated[
        str | None,
        Parameter(help="Its task is at the provider under this id: verify it, then follow it.", metavar="ID"),
    ] = None,
    resubmit: Annotated[
        bool, Parameter(help="Order it again under a new key. If it was accepted after all, it is paid twice.")
    ] = False,
    abandon: Annotated[bool, Parameter(help="Give it up. What it may have cost stays unsettled.")] = False,
    common: Common = EVERYDAY,
) -> int:
    """Decide about a held job. Without a decision, shows the evidence and the commands.

    Nothing is asked. An adopted task is verified by one status call with the account's key; if that fails, the job
    stays held.
    """
    from runner.clock import Clock
    from runner.store import open_store

    chosen = (adopt is not None) + resubmit + abandon
    if chosen > 1:
        raise InputError("only one decision at a time", f"one of {CHOICES}")
    if not chosen:
        return await _show_evidence(common, job)
    async with open_store(common.db, Clock()) as store:
        if adopt is not None:
            await _adopt(store, job, adopt.strip())
        elif resubmit:
            await _resubmit(store, job)
        else:
            await _abandon(store, job)
    return 0


async def _show_evidence(common: Common, job: str) -> int:
    from runner.cli.decisions import title
    from runner.cli.naming import find_one
    from runner.clock import Clock
    from runner.lifecycle.deciding import not_held
    from runner.store import read_store

    async with read_store(common.db, Clock()) as store:
        work = await find_one(store, job)
    if work.standing.state is not State.HELD:
        no = not_held(work)
        raise InputError(f"{title(work)} cannot be resolved: {no.why}", no.hint)
    rows = [((label, "dim"), text) for label, text in evidence.in_lines(evidence.gather(work))]
    output.emit(output.table(("", ""), rows, heading=False))
    raise InputError(f"nothing was decided about {title(work)}", f"say {CHOICES}")


async def _resubmit(store: Store, job: str) -> None:
    from runner.cli.decisions import decide, tell
    from runner.lifecycle import deciding
    from runner.store.work import outputs_of

    async def decision(work: Work) -> Change | Declined:
        return deciding.resubmit(work, await store.read(outputs_of, work.id), store.clock.now())

    written = await decide(store, [job], "be submitted again", decision)
    tell(written)
    [(work, _)] = written
    price = deciding.at_most(work)
    cost = f"{output.credits(price)} credits are" if price is not None else "its price, which is not known, is"
    output.say(f"it is ordered anew; if the first order was accepted after all, {cost} paid a second time")


async def _abandon(store: Store, job: str) -> None:
    from runner.cli.decisions import decide, tell
    from runner.lifecycle import deciding

    async def decision(work: Work) -> Change | Declined:
        return deciding.abandon(work, store.clock.now())

    written = await decide(store, [job], "be given up", decision)
    tell(written)
    [(work, _)] = written
    if work.attempt is not None and work.attempt.bill.reserved:
        reserved = output.credits(work.attempt.bill.reserved)
        output.say(f"it may have cost {reserved} credits; they stay in runner credits as unsettled")


async def _adopt(store: Store, job: str, task_id: str) -> None:
    from runner.cli.decisions import decide, tell, title
    from runner.cli.naming import find_one
    from runner.lifecycle import deciding
    from runner.store.work import outputs_of

    work = await find_one(store, job)
    if work.standing.state is not State.HELD:
        no = deciding.not_held(work)
        raise InputError(f"{title(work)} cannot adopt a task: {no.why}", no.hint)
    await _check_owner(store, work, task_id)
    answer = await _ask(store, work, task_id)

    async def decision(found: Work) -> Change | Declined:
        return deciding.adopt(found, task_id, answer, await store.read(outputs_of, found.id), store.clock.now())

    try:
        written = await decide(store, [str(work.id)], "adopt it", decision)
    except Taken:
        await _check_owner(store, work, task_id)
        raise InputError(f"task {quoted(task_id)} belongs to another job") from None
    tell(written)
    said = written[0][1].standing.status
    output.say(f"checked: the provider shows task {task_id} to account {work.account}; its status: {said}")
    output.say("not checked, because the provider does not tell: that it is a render of this job's prompt")


async def _check_owner(store: Store, work: Work, task_id: str) -> None:
    """Raises InputError where another job of the account has this task, naming it, or where it was the answer
    to another order."""
    from runner.cli.decisions import title
    from runner.store.work import answered_before, owned_task_ids

    owned = await store.read(owned_task_ids, work.account, [task_id])
    if owned and work.standing.task_id != task_id:
        owner = await _owner(store, work.account, task_id)
        named = title(owner) if owner is not None else "another job"
        raise InputError(f"task {quoted(task_id)} belongs to {named}", "runner show JOB tells more about it")
    if await store.read(answered_before, work, task_id):
        why = f"task {quoted(task_id)} was the answer to another order, and is on its bill"
        raise InputError(why, "look for another id; runner show JOB tells what became of each order")


async def _owner(store: Store, account: str, task_id: str) -> Work | None:
    """The job that has this task. Looked for page by page: this is only ever asked for an error message."""
    from runner.store.queries import page_after

    last = 0
    while page := await store.read(page_after, last, None, (), account):
        for work in page:
            if work.standing.task_id == task_id:
                return work
        last = page[-1].id
    return None


async def _ask(store: Store, work: Work, task_id: str) -> Report | Refusal:
    """What the provider says of the task, asked once with the account's key and within its request limit."""
    from runner.cli.permits import LONGEST_WAIT, permitted
    from runner.client.asking import Line
    from runner.exchange import Action, Refusal

    provider, credentials = _credentials(work)
    async with permitted(store, work.account, LONGEST_WAIT):
        try:
            async with Line(credentials, store.clock) as line:
                return await provider.poll(line.ask, _path(provider, work), task_id)
        except (NoAnswer, NotSent) as silence:
            return Refusal(Action.LATER, ErrorKind.NETWORK, "no_answer", str(silence))


def _path(provider: Provider, work: Work) -> str:
    """Where the task was ordered; for a job that never was, where its model's are."""
    model = provider.model(work.model)
    return work.attempt.path if work.attempt is not None else model.path if model is not None else ""


def _credentials(work: Work) -> tuple[Provider, Credentials]:
    """Raises InputError for a missing or malformed key."""
    from runner import log
    from runner.providers import registry
    from runner.settings import Settings, Wanted

    provider = registry().get(work.provider)
    if provider is None:
        from runner.cli.accounts import unknown_provider

        raise InputError(unknown_provider(work.provider), "without it nobody can be asked about the task")
    found = Settings.read(Path.cwd()).one(Wanted(work.account, provider.name, provider.base_url))
    log.keep(found.key)
    for note in found.notes:
        output.warn(note)
    return provider, found
