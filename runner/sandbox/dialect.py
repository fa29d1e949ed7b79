"""What a pretend provider is made of: routes, words, refusals. Each provider is one file in `providers/`.

A handler is a plain function from a `Call` to an `Answer`, or a `Refusal` raised: it never waits, so what it reads and
writes is of one moment. Everything the providers share (accounts, money, keys, faults, the wire) is behind the `Desk`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, ClassVar

from .assets import Assets
from .books import Account, Books, Buyer, InsufficientCredits
from .callbacks import Callbacks
from .faults import Point
from .idempotency import Conflict, Keyed, KeyMemory, keyed
from .journal import Journal
from .parameters import Field, Invalid, read
from .signing import Signer
from .tasks import Fate, Order, Task, marked
from .uploads import Uploads
from .windows import Room


@dataclass(frozen=True, slots=True)
class Answer:
    """`task_id` is for the journal: the task that the answer is about."""

    status: int
    payload: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    task_id: str | None = None


class Refusal(Exception):
    """`code` is one of the dialect's own."""

    def __init__(self, code: str, message: str, status: int) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status


@dataclass(frozen=True, slots=True)
class Desk:
    """What all the pretend providers share. `lists_images`: history lists show images too."""

    books: Books
    keys: KeyMemory
    journal: Journal
    signer: Signer
    uploads: Uploads
    assets: Assets
    callbacks: Callbacks
    lists_images: bool = False


@dataclass(frozen=True, slots=True)
class FormFile:
    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated request at the moment it is processed. `as_of` is the moment its list speaks of;
    `without_files`: its answer knows of no files yet.
    """

    desk: Desk
    account: Account
    method: str
    path: str
    match: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    form: Mapping[str, FormFile | str]
    now: float
    as_of: float
    fate: Fate
    without_files: bool = False

    def json(self) -> Any:
        """The body. Raises Invalid where it is not JSON or not called so."""
        if self.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
            raise Invalid("Content-Type must be application/json")
        try:
            return json.loads(self.body, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            raise Invalid("the body is not JSON") from None


def _no_constant(name: str) -> Any:
    raise ValueError(name)


Handler = Callable[[Call], Answer]


@dataclass(frozen=True, slots=True)
class Route:
    """`path` is as documented, with {names}; `point` is what a fault may strike."""

    method: str
    path: str
    point: Point
    handle: Handler


class Dialect(ABC):
    """One provider. `codes` maps what the shared pipeline has to say to the provider's own (code, HTTP status).

    Its keys: unauthorized invalid insufficient_credits rate_limited not_found internal unavailable, and conflict where
    `key_header` names an idempotency header. Finer ones (`COARSER`, and what a parameter table calls its problems) only
    where the document tells them apart.
    """

    name: ClassVar[str]
    example_key: ClassVar[str]  # how its keys begin
    task_prefix: ClassVar[Mapping[str, str | None]]  # by kind of task, as in `tasks.spelled`
    rate_limit: ClassVar[int]  # requests within 60 s; 0 where none is documented
    key_header: ClassVar[str | None] = None
    codes: ClassVar[Mapping[str, tuple[str, int]]]
    strict: ClassVar[bool] = True  # refuses fields the document does not name
    refunds: ClassVar[bool] = True  # what a task that did not complete has cost comes back

    @abstractmethod
    def routes(self) -> Sequence[Route]: ...

    @abstractmethod
    def error(self, code: str, message: str) -> Any:
        """The payload of a refusal."""

    def asked_task(self, match: Mapping[str, str], query: Mapping[str, str]) -> str:
        """The id of the task that a request asks about."""
        return match.get("id", "")

    def told(self, desk: Desk, task: Task, now: float) -> Any:
        """The payload of the task's callback; only for providers that have callbacks."""
        return None

    def limit_headers(self, room: Room) -> Mapping[str, str]:
        """What every answer says about the account's window."""
        return {}

    # -- shared steps of the handlers -------------------------------------------------------------------------------

    def refusal(self, problem: str, message: str, status: int | None = None) -> Refusal:
        code, usual = self.codes.get(problem) or self.codes[COARSER.get(problem, "invalid")]
        return Refusal(code, message, status or usual)

    def coded(self, code: str, message: str, status: int | None = None) -> Refusal:
        """A refusal with exactly this code; without `status`, with the one that usually goes with it."""
        usual = min((known for name, known in self.codes.values() if name == code), default=self.codes["invalid"][1])
        return Refusal(code, message, status or usual)

    def answer(self, refused: Refusal) -> Answer:
        return Answer(refused.status, self.error(refused.code, refused.message))

    def values(self, call: Call, table: Sequence[Field]) -> dict[str, Any]:
        """The checked body, with defaults. A field nobody documents is refused, or remarked upon."""
        body = call.json()
        values = read(table, body, call.desk.signer.origin, strict=self.strict)
        for name in sorted(set(body) - set(values)):
            call.desk.journal.remark(call.now, "violation", self.name, "undocumented_field", f"{call.path}: {name}")
        return values

    def order(self, call: Call, order: Order, *, probed: bool = False) -> Task:
        """Charges and begins the task; a `probed` one is charged later. Raises Refusal: no credits, or content that is
        refused at once.
        """
        fate = marked(call.fate, order.prompt)
        if fate.refund is None and not self.refunds:
            fate = replace(fate, refund=Decimal(0))
        if fate.refused:
            raise self.refusal("refused", "The prompt was refused by content moderation: it breaks our safety policy.")
        key = call.headers.get(self.key_header) if self.key_header else None
        buyer = Buyer(self.name, call.account.account, call.body, key)
        try:
            prefix = self.task_prefix[order.kind]
            return call.desk.books.accept(buyer, order, fate, prefix=prefix, now=call.now, probed=probed)
        except InsufficientCredits:
            raise self.refusal("insufficient_credits", "Not enough credits for this request.") from None

    def once(self, call: Call, handle: Handler) -> Answer:
        """`handle`, but once a key: the same request again gets the same answer, another one a conflict."""
        asked = self.asked(call.account.account, call.headers, call.method, call.path, call.body)
        if asked is None:
            return handle(call)
        try:
            known = call.desk.keys.recall(asked, call.now)
        except Conflict as conflict:
            if conflict.reused:
                detail = f"{call.path}: one idempotency key with another request"
                call.desk.journal.remark(call.now, "violation", self.name, "key_reused", detail)
            problem = "conflict" if conflict.reused else "key_busy"
            raise self.refusal(problem, f"The {self.key_header} is {conflict}.") from None
        if known is not None:
            return Answer(*known)
        answer = handle(call)
        call.desk.keys.keep(asked, answer.status, answer.payload, call.now)
        return answer

    def asked(self, account: str, headers: Mapping[str, str], method: str, path: str, body: bytes) -> Keyed | None:
        """The submission as the memory of keys knows it; None where it has no key, or the provider knows none."""
        key = headers.get(self.key_header) if self.key_header else None
        return keyed(self.name, account, key, method, path, body) if key else None

    def own_task(self, call: Call) -> Task:
        """The task asked about. Raises Refusal where it is missing or another account's."""
        task = call.desk.books.task(self.name, self.asked_task(call.match, call.query))
        if task is None:
            raise self.refusal("not_found", "There is no such task.")
        if task.account != call.account.account:
            raise self.refusal("not_yours", "There is no such task.")
        return task

    def files(self, call: Call, task: Task) -> list[str]:
        """Signed URLs of the task's files, valid from the moment of the call; those that did not come have none."""
        return [] if call.without_files else self.addresses(call.desk, task, call.now)

    def addresses(self, desk: Desk, task: Task, now: float) -> list[str]:
        return [self.address(desk, task, index, task.extension, now) for index in task.came]

    def file(self, call: Call, task: Task, index: int, extension: str) -> str:
        return self.address(call.desk, task, index, extension, call.now)

    def address(self, desk: Desk, task: Task, index: int, extension: str, now: float) -> str:
        return desk.signer.url(f"/media/{self.name}/{task.id}/{index}.{extension}", now)


COARSER = {  # what a problem is for those who do not tell it apart; else it is "invalid"
    "no_key": "unauthorized",
    "not_yours": "not_found",
    "key_busy": "conflict",
}


def whole_credits(amount: Decimal) -> Decimal:
    """Rounded up to whole credits."""
    return amount.to_integral_value(rounding="ROUND_CEILING")
