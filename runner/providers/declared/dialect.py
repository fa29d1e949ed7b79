"""How a described provider is asked, and how its answers are read: the same care as in a shipped adapter, by data.

An answer is read by the paths of the description: dotted keys, the first one that leads to something counts. What the
description does not list follows the rules for codes not listed (providers.md section 2), so what is unclear stays
unclear: an error that no listed code explains never means "not charged" where its status does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from runner.errors import ErrorKind, InternalError
from runner.exchange import Accepted, Action, Ask, Listed, Page, Phase, Refusal, Reply, Report, ResultFile, Upload
from runner.providers import reading
from runner.providers.declared.scalars import TASK_ID
from runner.providers.declared.shape import Answers, Balance, History, ProviderShape
from runner.providers.declared.shape import Upload as UploadShape
from runner.providers.reading import Verdict, Verdicts

KINDS = {
    Action.FAIL: ErrorKind.INVALID_REQUEST,
    Action.LATER: ErrorKind.UNAVAILABLE,
    Action.SLOT: ErrorKind.RATE_LIMITED,
    Action.CREDITS: ErrorKind.INSUFFICIENT_CREDITS,
    Action.STOP: ErrorKind.UNAUTHORIZED,
    Action.STOP_MODEL: ErrorKind.UNAUTHORIZED,
    Action.AMBIGUOUS: ErrorKind.UNAVAILABLE,
    Action.CONFLICT: ErrorKind.UNKNOWN_SUBMISSION,
    Action.NOT_FOUND: ErrorKind.NOT_FOUND,
}
# Refusals that may also come as the failure of a task: they say nothing about what the job asks for.
RETURNED = frozenset({Action.LATER, Action.SLOT, Action.CREDITS, Action.STOP, Action.STOP_MODEL})


def find(data: Any, paths: Sequence[str]) -> Any:
    """What the first of the paths that leads to something holds: neither null nor an empty text or list."""
    found = (at(data, path) for path in paths)
    return next((value for value in found if value not in (None, "", [])), None)


def at(data: Any, path: str) -> Any:
    """What stands at a dotted path, None where nothing does; `.` is all of it."""
    for step in [] if path == "." else path.split("."):
        data = data.get(step) if isinstance(data, Mapping) else None
    return data


def word(value: Any) -> str | None:
    """A status or a code as text, so that 2 and "2" are one word; None for what is none."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) and value != "" else None


@dataclass(frozen=True, slots=True)
class Way:
    """How tasks that were ordered at one path are followed: where they are asked for, and where their files are."""

    path: str
    query: Mapping[str, str]
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dialect:
    """One described provider's way of speaking. `ways` go by the path at which tasks are ordered; `otherwise` is for
    tasks ordered at a path that the description no longer has."""

    name: str
    answers: Answers
    codes: Verdicts
    statuses: Verdicts
    ways: Mapping[str, Way]
    otherwise: Way | None = None
    key_header: str | None = None
    listing: History | None = None
    counting: Balance | None = None
    hosting: UploadShape | None = None

    async def submit(self, ask: Ask, path: str, content: bytes, idempotency_key: str | None) -> Accepted | Refusal:
        """Order one task. An answer with an id and a status is about a task, whatever else it says: its id is
        followed."""
        if self.key_header is not None and idempotency_key is None:
            raise InternalError(f"{self.name} must never be asked without an idempotency key")
        headers = {self.key_header: idempotency_key} if self.key_header and idempotency_key else None
        reply = await ask("POST", path, headers=headers, content=content)
        said = find(reply.data, self.answers.task_id)
        known_id = reading.task_id(said)
        is_task = known_id is not None and self._status(reply.data) is not None
        if self._refuses(reply) and not (reply.ok and is_task):
            return self._refused_order(reply)
        if said is None:
            return self._refused_order(reply, "no_id", "the answer holds no task id")
        if known_id is None:
            return reading.refused_order(reply, {}, "bad_id", "the answer holds a task id that cannot be one")
        return Accepted(known_id, reading.amount(find(reply.data, self.answers.charged)))

    async def poll(self, ask: Ask, path: str, known_id: str) -> Report | Refusal:
        """Ask for one task, the way in which tasks ordered at `path` are asked for."""
        way = self.ways.get(path, self.otherwise)
        if way is None:
            return _no_way(path)
        if reading.task_id(known_id) is None:
            return reading.no_such_id(known_id)
        query = {name: text.replace(TASK_ID, known_id) for name, text in way.query.items()}
        reply = await ask("GET", way.path.replace(TASK_ID, reading.in_path(known_id)), query=query or None)
        status = self._status(reply.data)
        if not reply.ok or reply.unreadable is not None or (status is None and self._refuses(reply)):
            return self._refused_question(reply)
        if status is None:
            return self._refused_question(reply, "no_status", "the answer tells no status")
        if not self._is_for(reply.data, known_id):
            return reading.refused_question(reply, {}, "other_task", "the answer is about another task")
        report = self._report(known_id, status, reply.data, way.files)
        if not report.recognised and self._code(reply.data) in self.codes:
            return self._refused_question(reply)
        return report

    async def history(self, ask: Ask, page: int) -> Page | Refusal:
        """One page (from 1) of the account's own tasks; entries without a usable id are left out."""
        listing = self.listing
        assert listing is not None, "only a provider with a history is listed"
        query = {listing.page: str(page - 1 + listing.first_page)} if listing.page else {}
        query |= {listing.limit: str(listing.page_size)} if listing.limit else {}
        reply = await ask("GET", listing.path, query=query or None)
        lists = [at(reply.data, path) for path in listing.entries]
        entries = next((found for found in lists if isinstance(found, list)), None)
        if self._refuses(reply) or entries is None:
            return self._refused_question(reply, "no_list" if reply.ok else "", "the answer holds no list")
        items = tuple(item for entry in entries if (item := self._listed(listing, entry)) is not None)
        return Page(items, listing.page is not None and len(entries) >= listing.page_size)

    async def balance(self, ask: Ask) -> Decimal | Refusal:
        """The credits that are left."""
        assert self.counting is not None, "only a provider with a balance is asked for it"
        reply = await ask("GET", self.counting.path)
        left = None if self._refuses(reply) else reading.amount(find(reply.data, self.counting.amount))
        if left is None:
            return self._refused_question(reply, "no_balance" if reply.ok else "", "the answer holds no balance")
        return left

    async def upload(self, ask: Ask, filename: str, content: bytes, media_type: str) -> str | Refusal:
        """Host one file; gives its URL."""
        assert self.hosting is not None, "only a provider that hosts files is sent some"
        form = Upload(self.hosting.form_field, filename, content, media_type)
        reply = await ask("POST", self.hosting.path, upload=form)
        url = None if self._refuses(reply) else find(reply.data, self.hosting.url)
        if not isinstance(url, str):
            code = "no_url" if reply.ok else ""
            return reading.refused_upload(self._told(reply), self._verdicts(reply), code, "the answer holds no URL")
        return url

    def _refuses(self, reply: Reply) -> bool:
        """An error in the body beats a 200: one that is listed, or one in the usual words."""
        if not reply.ok or reply.unreadable is not None:
            return True
        code = self._code(reply.data)
        if code in self.answers.error.no_error:
            return False
        return code in self.codes or any(reading.complaint_in(level) for level in reading.levels(reply.data))

    def _refused_order(self, reply: Reply, code: str = "", message: str = "") -> Refusal:
        return reading.refused_order(self._told(reply), self._verdicts(reply), code, message)

    def _refused_question(self, reply: Reply, code: str = "", message: str = "") -> Refusal:
        return reading.refused_question(self._told(reply), self._verdicts(reply), code, message)

    def _verdicts(self, reply: Reply) -> Verdicts:
        """The listed statuses; of the listed codes only the one that this very body holds, so that no name that we
        give to an unclear answer ("unreadable", "no_id") is ever taken for it."""
        code = self._code(reply.data)
        return {**self.statuses, **({code: self.codes[code]} if code is not None and code in self.codes else {})}

    def _told(self, reply: Reply) -> Reply:
        """The answer with its error where `reading` looks for one."""
        return replace(reply, data={"error": self._complaint(reply.data)}) if reply.unreadable is None else reply

    def _complaint(self, data: Any) -> dict[str, str]:
        """The error that an answer tells: at the described paths, else in the usual words."""
        message = find(data, self.answers.error.message)
        said = {"code": self._code(data), "message": message if isinstance(message, str) else None}
        if not any(said.values()):
            found = next(filter(None, map(reading.complaint_in, reading.levels(data))), None)
            said = {"code": found.code, "message": found.message} if found is not None else {}
        return {name: text for name, text in said.items() if text}

    def _code(self, data: Any) -> str | None:
        """The code of the error that an answer tells, by the described paths, else by the usual words."""
        code = word(find(data, self.answers.error.code))
        if code is None:
            found = next(filter(None, map(reading.complaint_in, reading.levels(data))), None)
            code = found.code if found is not None else None
        return reading.legible(code)[:64] if code else None

    def _status(self, data: Any) -> str | None:
        return word(find(data, self.answers.status))

    def _is_for(self, data: Any, asked: str) -> bool:
        """Whether an answer is about the task asked for: one of the ids in it is, or it names none."""
        said = [word(at(data, path)) for path in self.answers.task_id]
        return not any(said) or asked in said

    def _phase(self, status: str) -> tuple[Phase, bool]:
        """The phase, and whether the word is listed. One that is not means "still going"."""
        answers = self.answers
        phases = (
            (Phase.DONE, answers.done), (Phase.FAILED, answers.failed),
            (Phase.CANCELLED, answers.cancelled), (Phase.GOING, answers.going),
        )  # fmt: skip
        found = next((phase for phase, words in phases if status in words), None)
        return found or Phase.GOING, found is not None

    def _report(self, known_id: str, status: str, data: Any, paths: Sequence[str]) -> Report:
        phase, recognised = self._phase(status)
        files, missing = self._files(data, paths) if phase is Phase.DONE else ((), ())
        ended, answers = phase is not Phase.GOING, self.answers
        return Report(
            task_id=known_id,
            phase=phase,
            status=reading.legible(status)[:64],
            recognised=recognised,
            progress=reading.progress(find(data, answers.progress)),
            files=files,
            missing=missing,
            used=reading.amount(find(data, answers.used)) if ended else None,
            charged=reading.amount(find(data, answers.charged)) if ended else None,
            refunded=reading.amount(find(data, answers.refunded)) if ended else None,
            error=self._failure(data) if phase is Phase.FAILED else None,
        )

    def _files(self, data: Any, paths: Sequence[str]) -> tuple[tuple[ResultFile, ...], tuple[str, ...]]:
        holder = {"files": find(data, paths), "thumbnails": find(data, self.answers.thumbnails)}
        return reading.results(holder, ("files",), ("thumbnails",))

    def _failure(self, data: Any) -> Refusal:
        returned = {
            code: verdict for code, verdict in self.codes.items()
            if verdict.action in RETURNED or verdict.kind is ErrorKind.MODERATED
        }  # fmt: skip
        return reading.failure({"error": {**self._complaint(data), "code": self._own_code(data)}}, returned)

    def _own_code(self, data: Any) -> str:
        """The code of a task's own error: an envelope may say before it that the answer as such is fine."""
        listed = (word(at(data, path)) for path in self.answers.error.code)
        own = next((code for code in listed if code and code not in self.answers.error.no_error), None)
        code = own or self._code(data) or ""
        return "" if code in self.answers.error.no_error else reading.legible(code)[:64]

    def _listed(self, listing: History, entry: Any) -> Listed | None:
        """An entry says how far its task is; what it costs and where its files are is asked of the task itself."""
        known_id = reading.task_id(find(entry, listing.id))
        if known_id is None or not isinstance(entry, Mapping):
            return None
        status = word(find(entry, listing.status)) or ""
        phase, recognised = self._phase(status) if status else (Phase.GOING, True)
        report = Report(known_id, phase, reading.legible(status)[:64], recognised)
        prompt, created = find(entry, listing.prompt), reading.moment(find(entry, listing.created))
        return Listed(known_id, prompt if isinstance(prompt, str) else None, created, report, dict(entry))


def _no_way(path: str) -> Refusal:
    message = f"the description no longer says how tasks that were ordered at {reading.legible(path)} are asked for"
    return Refusal(Action.LATER, ErrorKind.BAD_RESPONSE, "no_way", message)


def verdicts_of(shape: ProviderShape) -> tuple[Verdicts, Verdicts]:
    """What the listed codes mean, and what the listed statuses do."""
    codes: dict[str | int, Verdict] = {}
    statuses: dict[str | int, Verdict] = {}
    for entry in shape.errors:
        action = Action(entry.means)
        kind = ErrorKind(entry.kind) if entry.kind else KINDS[action]
        if entry.code is not None:
            codes.setdefault(entry.code, Verdict(action, kind))
        elif entry.status is not None:
            if entry.status == 429 and entry.kind is None:
                kind = ErrorKind.RATE_LIMITED
            statuses.setdefault(entry.status, Verdict(action, kind))
    return codes, statuses
