"""What a file of providers may say, as models that check it. Descriptions are for editors and for messages.

Every model checks what stands within it; what needs a look around is in `checks`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from runner.problems import quoted
from runner.providers.declared.scalars import (
    TASK_ID,
    Address,
    BaseUrl,
    Code,
    Codes,
    Credits,
    Extension,
    Header,
    Limits,
    Name,
    Names,
    Note,
    Number,
    OrderAddress,
    Paths,
    Scalar,
    refuse,
)

Role = Literal["images", "videos", "audios", "first_frame", "last_frame"]
Means = Literal["fail", "later", "slot", "credits", "stop", "stop_model", "ambiguous", "conflict", "not_found"]
KindOfError = Literal[
    "invalid_request", "unauthorized", "insufficient_credits", "rate_limited", "unavailable", "moderated", "not_found",
    "task_failed", "timeout", "bad_response", "unknown_submission",
]  # fmt: skip
KindOfField = Literal["text", "integer", "number", "boolean", "url", "urls"]
Written = Literal["plain", "text", "seconds"]
MediaType = Annotated[str, Field(pattern=r"^[a-z]+/[a-z0-9.+-]+$", max_length=100)]


class Shape(BaseModel):
    """Unknown keys are refused, nothing is converted, and no error repeats what was entered."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class Idempotency(Shape):
    header: Header = Field(description="The header that takes the idempotency key.")
    trusted_seconds: int = Field(3600, ge=1, le=2_592_000, description="How long the provider surely knows a key.")


class Submit(Shape):
    path: OrderAddress | None = Field(None, description="Where a task is ordered (POST).")
    model_field: Name | None = Field(None, description="The field that holds the model; none where the path says it.")
    nest: Name | None = Field(None, description="The object that holds the prompt and all other fields.")
    constants: dict[Name, Any] = Field({}, description="What always goes beside the model.")


class Poll(Shape):
    path: Address = Field(description="Where a task is asked for (GET); {task_id} stands for its id.")
    query: dict[Name, Name] = Field({}, description="What follows the ?, {task_id} in one of them or in the path.")

    @model_validator(mode="after")
    def _names_the_task_once(self) -> Self:
        if sum(text.count(TASK_ID) for text in (self.path, *self.query.values())) != 1:
            refuse("B27", "{task_id} must stand once in path or query", "for example path: /api/v1/tasks/{task_id}")
        return self


class History(Shape):
    path: OrderAddress = Field(description="Where the account's own tasks are listed (GET), newest first.")
    entries: Paths = Field(description="Where the list is in the answer; . where the answer is the list.")
    id: Paths = Field(description="Where the task id is in an entry.")
    prompt: Paths = Field(description="Where the prompt is in an entry.")
    created: Paths = Field(description="Where the time of creation is in an entry.")
    status: Paths = Field((), description="Where the status is in an entry.")
    page: Name | None = Field(None, description="The query name that takes the page; none where there is one page.")
    first_page: int = Field(1, ge=0, le=1, description="The number of the first page.")
    limit: Name | None = Field(None, description="The query name that takes the number of entries of a page.")
    page_size: int = Field(50, ge=1, le=1000, description="How many entries a full page has.")


class Balance(Shape):
    path: OrderAddress = Field(description="Where the balance is asked for (GET).")
    amount: Paths = Field(description="Where the credits that are left stand in the answer.")


class Upload(Shape):
    path: OrderAddress = Field(description="Where a file is sent (POST, as a form).")
    form_field: Name = Field(description="The form's field that takes the file.")
    roles: Annotated[tuple[Role, ...], Field(strict=False, min_length=1, description="Which references it hosts.")]
    media_types: Annotated[tuple[MediaType, ...], Field(strict=False, min_length=1, description="image/png …")]
    max_bytes: int = Field(ge=1, le=10**10, description="The largest file, in bytes.")
    url: Paths = Field(description="Where the file's URL is in the answer.")


class ErrorPaths(Shape):
    code: Paths = Field((), description="Where the code of an error is.")
    message: Paths = Field((), description="Where the reason is, in words.")
    no_error: Codes = Field(("0",), description="Codes that mean that nothing is wrong.")


class Answers(Shape):
    task_id: Paths = Field(description="Where the task id is.")
    status: Paths = Field(description="Where the status is.")
    done: Codes = Field(min_length=1, description="Words for a finished task.")
    failed: Codes = Field(min_length=1, description="Words for a failed task.")
    cancelled: Codes = Field((), description="Words for a task that was cancelled.")
    going: Codes = Field((), description="Words for a task that is still going.")
    files: Paths = Field((), description="Where the finished files are: a URL, a list, or mappings with a url.")
    thumbnails: Paths = Field((), description="Where thumbnails are: kept beside, not counted.")
    progress: Paths = Field((), description="Where the percentage is.")
    used: Paths = Field((), description="Credits that remain charged after refunds.")
    charged: Paths = Field((), description="Credits deducted, in the answer to an order or to a question.")
    refunded: Paths = Field((), description="Credits given back.")
    error: ErrorPaths = Field(ErrorPaths(), description="Where errors are told.")


class ErrorEntry(Shape):
    code: Code | None = Field(None, description="A code in the body, whatever the HTTP status.")
    status: int | None = Field(None, ge=400, le=599, description="An HTTP status, where no listed code comes with it.")
    means: Means = Field(description="What to do next.")
    kind: KindOfError | None = Field(None, description="The error.kind of the job; else it follows from means.")

    @model_validator(mode="after")
    def _is_clear(self) -> Self:
        if (self.code is None) == (self.status is None):
            refuse("B32", "an error is known by a code or by a status", "write either {code: …} or {status: …}")
        if self.status is not None and (self.status >= 500 or self.status == 408) and self.means != "ambiguous":
            message = f"a bare {self.status} cannot mean {self.means}: the order may have been accepted and billed"
            refuse("B40", message, "leave it out; only a code in the body can say that nothing was charged")
        return self


class FieldShape(Shape):
    native: Name | None = Field(None, description="The provider's name for it; else the same.")
    kind: KindOfField = Field("text", description="What it holds.")
    choices: Annotated[tuple[Scalar, ...], Field(strict=False, description="All that is allowed.")] = ()
    low: Number | None = Field(None, description="Least value; for text, characters; for urls, how many.")
    high: Number | None = Field(None, description="Most of the same.")
    default: Scalar | None = Field(None, description="What the provider takes where nothing is sent.")
    required: bool = Field(False, description="Whether it must be written.")
    write: Written = Field("plain", description='As it is (5), as text ("5"), as text with a unit ("5s").')
    translate: dict[Name, Name] = Field({}, description='Further spellings, and what is sent: {"16:9": 1280x720}.')
    note: Note | None = None
    assumed: bool = Field(False, description="Whether no document names it.")

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        allowed = {"text": str, "integer": int, "number": object}.get(self.kind, ())
        wrong = [c for c in self.choices if not isinstance(c, allowed) or (self.kind != "text" and _no_number(c))]
        if wrong:
            hint = "quote them" if self.kind == "text" else "choices are for text, integer and number"
            refuse("B40", f"{quoted(wrong[0])} is no choice of a field of kind {self.kind}", hint)
        if self.low is not None and self.high is not None and self.low > self.high:
            refuse("B40", f"low {self.low} is more than high {self.high}", "exchange them")
        if self.translate and self.kind != "text":
            refuse("B40", "translate is for text", "leave it out, or write kind: text")
        return self


class DemandsShape(Shape):
    media_types: Annotated[tuple[MediaType, ...], Field(strict=False)] = ()
    max_bytes: int | None = Field(None, ge=1, le=10**10)
    min_side: int | None = Field(None, ge=1, le=100_000, description="Least pixels of the shorter side.")
    max_ratio: Number | None = Field(None, description="How many times longer the longer side may be.")
    max_seconds: Number | None = Field(None, description="The longest video or audio.")


class SlotShape(Shape):
    native: Name = Field(description="The provider's name for the field that takes the URL.")
    many: bool = Field(False, description="Whether it takes a list of URLs.")
    least: int = Field(0, ge=0, le=1000)
    most: int | None = Field(None, ge=1, le=1000, description="None: one, or any number where it is a list.")
    demands: DemandsShape | None = Field(None, description="What the files must be like.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.many and max(self.least, self.most or 1) > 1:
            refuse("B40", "a field that is no list takes one reference", "write many: true")
        if self.most is not None and self.least > self.most:
            refuse("B40", f"least {self.least} is more than most {self.most}", "exchange them")
        return self


class ModeShape(Shape):
    name: Name | None = Field(None, description="What mode: may say in a manifest.")
    references: dict[Role, SlotShape] = Field({}, description="Which references it takes, and where they go.")
    sends: dict[Name, Any] = Field({}, description="What it adds to the request, among the fields.")
    least: int = Field(0, ge=0, le=1000, description="References of all roles together.")
    most: int | None = Field(None, ge=1, le=1000)


class PriceRow(Shape):
    when: dict[Name, Scalar] = Field(min_length=1, description="Values of fields; the first row that holds counts.")
    credits: Credits
    per: Name | None = Field(None, description="The number field that multiplies it: duration, count.")


class PriceShape(Shape):
    credits: Credits | None = Field(None, description="What a task costs.")
    per: Name | None = Field(None, description="The number field that multiplies it: duration, count.")
    table: Annotated[tuple[PriceRow, ...], Field(strict=False, description="Prices by the values of fields.")] = ()
    rounded_up: bool | None = Field(None, description="Whether part of a credit counts as one; none: nobody says.")

    @model_validator(mode="after")
    def _is_one_price(self) -> Self:
        if (self.credits is None) != bool(self.table):
            refuse("B32", "a price is credits or a table", "{credits: 5}, {credits: 2, per: duration} or {table: […]}")
        if self.table and self.per:
            refuse("B32", "per stands in the rows of a table", "move it there")
        return self


class ModelShape(Shape):
    renders: Literal["video", "image"]
    aliases: Names = Field((), description="Further names of the same model.")
    submit: Submit | None = Field(None, description="What is different from the provider's submit.")
    poll: Poll | None = Field(None, description="Instead of the provider's poll.")
    files: Paths | None = Field(None, description="Instead of the files of answers.")
    fields: dict[str, FieldShape] = Field(min_length=1, description="The fields of a manifest that it knows.")
    params: dict[Name, FieldShape] = Field({}, description="Fields that are reached through params: only.")
    open_params: bool = Field(False, description="Whether params that are not listed are passed on.")
    modes: Annotated[tuple[ModeShape, ...], Field(strict=False, description="Ways to use it.")] = ()
    price: PriceShape | None = Field(None, description="What it costs; none where no price is documented.")
    shape: Names | None = Field(None, description="The fields that decide about price and duration.")
    extension: Extension | None = Field(None, description="The type of its files: mp4, png …")
    in_history: bool = Field(True, description="Whether the history shows its tasks.")
    unavailable: Note | None = Field(None, description="Why it can be named, but not be used.")
    note: Note | None = None


class ProviderShape(Shape):
    base_url: BaseUrl = Field(description="https://host, with a path before the others' if any.")
    documentation: Note = Field(description="Which document this was written from.")
    idempotency: Idempotency | None = Field(None, description="Where the provider honours an idempotency key.")
    limits: Limits = Field((), description="Requests in a window at most: 60/minute.")
    submit: Submit = Field(Submit(), description="How a task is ordered.")
    poll: Poll | None = Field(None, description="How a task is asked for.")
    history: History | None = Field(None, description="The list of the account's own tasks.")
    balance: Balance | None = Field(None, description="The credits that are left.")
    upload: Upload | None = Field(None, description="Where local files are hosted.")
    answers: Answers = Field(description="How answers are read.")
    errors: Annotated[tuple[ErrorEntry, ...], Field(strict=False, description="What refusals mean.")] = ()
    refunds_failures: bool = Field(False, description="Whether failed tasks are documented to be refunded.")
    assumptions: Annotated[tuple[Note, ...], Field(strict=False, description="What this rests on.")] = ()
    models: dict[Name, ModelShape] = Field(min_length=1)


class File(Shape):
    """A file of providers for `runner`: data, without expressions."""

    version: Literal[1] = Field(description="The version of this format.")
    providers: dict[str, ProviderShape] = Field(min_length=1, description="Providers by name.")


def schema() -> dict[str, Any]:
    """The JSON Schema of a file of providers, for editors: `# yaml-language-server: $schema=FILE` as its first line."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **File.model_json_schema()}


def _no_number(choice: object) -> bool:
    return isinstance(choice, str | bool)
