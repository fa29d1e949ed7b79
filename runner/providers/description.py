"""How an adapter describes itself: models, modes, fields, prices, limits and promises, as data.

A provider is one file in this folder with a `PROVIDER = Provider(...)`. `compose` (in `providers/compose.py`) turns the
common fields of a job into its finished body by these tables alone, so that plan, price, check and `runner providers`
all speak of the same thing.

Two kinds of names: *common* ones are what a person writes in a manifest ("aspect_ratio"), *native* ones are what the
provider reads ("aspectRatio"). Two forms of what a request holds: its *values*, by native name, numbers as numbers; and
its *body*, where each value stands as the provider wants it written ("5", "5s").
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from runner.exchange import Accepted, Ask, Asset, Page, Refusal, Report
from runner.ledger import Price
from runner.limits import Window

Body = dict[str, Any]
Values = Mapping[str, Any]
Scalar = str | int | Decimal | bool

ASSET = "asset://"
REFERENCE_ROLES = ("images", "videos", "audios", "first_frame", "last_frame")


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a request: its native name, what it may hold, and how it is written.

    `low` and `high` bound a number's value, a text's length in characters, or how many URLs a list holds. `choices` are
    the allowed values in the provider's own spelling; upper and lower case (and jpg/jpeg) are translated to it.
    `translate` gives further spellings of a manifest and what each becomes ("16:9": "1280x720"). `default` is what the
    document says happens when the field is not sent (it is not sent by us either, but checks and prices assume it).
    `write` names how the value is written: as it is, or as text ("5"), or as text with a unit ("5s"). A person may
    write that unit too, and `unit` where a document shows it although it is not sent.
    `schemes` are those that a URL in it may have. `assumed` marks a field that no document names (providers.md section
    7).
    """

    native: str
    kind: Literal["text", "integer", "number", "boolean", "url", "urls"] = "text"
    choices: tuple[Scalar, ...] = ()
    low: Decimal | int | None = None
    high: Decimal | int | None = None
    default: Scalar | None = None
    required: bool = False
    write: Literal["plain", "text", "seconds"] = "plain"
    unit: Literal["", "s"] = ""
    translate: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    assumed: bool = False
    schemes: tuple[str, ...] = ("https",)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with one job's request, before anything is sent.

    `field` is the *common* name the person wrote ("duration", "references.images", "params.seed"), so that the error
    can point at the manifest; `code` is a number of the catalogue of bad input.
    """

    code: str
    field: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Reference:
    """One input of a job. `role` is one of REFERENCE_ROLES; `url` is what the provider will read (https, asset://, or
    a placeholder while a local file is not hosted yet); `path` is the local file, if it is one, relative as
    written."""

    role: str
    url: str
    path: str | None = None
    review: bool = False


@dataclass(frozen=True, slots=True)
class Demands:
    """What a document demands of a reference's file: None where it demands nothing.

    `media_types`, `max_bytes`; `min_side` is the least number of pixels of the shorter side, `max_ratio` the most that
    the longer side may be of the shorter one; `max_seconds` bounds the length of a video or audio.
    """

    media_types: tuple[str, ...] = ()
    max_bytes: int | None = None
    min_side: int | None = None
    max_ratio: Decimal | None = None
    max_seconds: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """Where the references of one role go: a native field that holds one URL, or (`many`) a list of them.

    Between `least` and `most` of them; `most` None where no document bounds them. `wrap` is for a provider that wants
    more than a bare URL. `demands` is what the files themselves must be like.
    """

    native: str
    least: int = 0
    most: int | None = 1
    many: bool = False
    wrap: Callable[[str], Any] | None = None
    demands: Demands | None = None


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to use a model: which references it takes (by role), and what it adds to the request to say so.

    A job that names no mode gets the first one of its model that takes exactly the references it has. `name` is what
    `mode:` may say, empty where the provider has no word for it. `least` and `most` bound the references of all roles
    together.
    """

    name: str = ""
    slots: Mapping[str, Slot] = field(default_factory=dict)
    sends: Mapping[str, Any] = field(default_factory=dict)
    least: int = 0
    most: int | None = None


def no_fault(_values: Values) -> list[Fault]:
    return []


def no_price(_values: Values) -> Price | None:
    return None


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """One model of a provider: where its requests go, what may stand in them, what they cost.

    `fields` maps common names to native fields (two common names may share one field); a common field not in it does
    not exist for this model. `params` are the further documented native fields, reached through `params:`; where the
    document does not list its fields (`open_params`) unknown ones are passed on as they are. `model_field` is the
    native name under which the model is sent, as the person spelled it; empty where the path says it. `nest` names
    the object that holds the prompt and everything else, empty where that is the body itself. `constants` always go
    beside the model.

    Two fields beside the model tell one order from all others without changing the picture; they are filled in when an
    order is frozen, unless `params` already did. `mark_field` takes a short text that a person can find again in the
    provider's web console, `callback_field` the URL to be told when the task ends.

    `takes_assets` says whether its references may be the provider's assets (`Registering`); where not, none is
    registered for it and `asset://…` is refused.

    `check` finds forbidden combinations, `price` computes the cost where a document gives one (None elsewhere). Both
    see the request's values with documented defaults filled in. A fault of `check` names the *native* field;
    `compose` translates it back to where the person wrote it. `shape` names the native fields that tell apart
    requests of different price or duration. `listed` says whether the provider's history shows its tasks.
    `unavailable` says why the model can be named but not used.
    """

    name: str
    renders: Literal["video", "image"]
    path: str
    fields: Mapping[str, Field]
    modes: tuple[Mode, ...] = (Mode(),)
    params: Mapping[str, Field] = field(default_factory=dict)
    open_params: bool = False
    aliases: tuple[str, ...] = ()
    model_field: str = ""
    nest: str = ""
    constants: Mapping[str, Any] = field(default_factory=dict)
    mark_field: str = ""
    callback_field: str = ""
    takes_assets: bool = True
    check: Callable[[Values], list[Fault]] = no_fault
    price: Callable[[Values], Price | None] = no_price
    price_note: str = ""
    shape: tuple[str, ...] = ()
    extension: str = "mp4"
    listed: bool = False
    unavailable: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Hosting:
    """What a provider can host: `roles` it takes, largest size in bytes, media types; `upload` sends one file.

    `upload(ask, filename, content, media_type)` gives the URL under which the provider serves the file from now on.
    """

    roles: tuple[str, ...]
    media_types: tuple[str, ...]
    max_bytes: int
    upload: Callable[[Ask, str, bytes, str], Awaitable[str | Refusal]]


@dataclass(frozen=True, slots=True)
class Registering:
    """How inputs become the provider's own *assets*, which it may review first: once per content and account.

    References of `roles` must be assets at every model that takes assets; those of the other roles only become some
    where the manifest asks for their review. One written as `asset://…` already is one. `register(ask, url, role,
    name)` hands over a public URL under a `name` of at most 64 characters that is derived from the content;
    `inspect(ask, asset_id)` asks how its review stands; `find(ask, name)` looks for one that was registered before and
    whose answer got lost (None: there is none).
    None of them is ever charged.
    """

    roles: tuple[str, ...]
    register: Callable[[Ask, str, str, str], Awaitable[Asset | Refusal]]
    inspect: Callable[[Ask, str], Awaitable[Asset | Refusal]]
    find: Callable[[Ask, str], Awaitable[Asset | Refusal | None]]


@dataclass(frozen=True, slots=True, eq=False)
class Provider:
    """One provider, whole. The functions speak its dialect through `Ask`; they never sleep, retry or log, and they let
    `errors.NotSent` and `errors.NoAnswer` pass.

    `submit(ask, path, content, idempotency_key)`, `poll(ask, path, task_id)` where `path` is the one the task was
    ordered at, `history(ask, page)` with pages from 1, `balance(ask)` in credits that can be spent.
    `idempotency_header` is the name of its key header, None where it honours none: then a lost answer can only be
    looked into (`history`, one page of its own list, newest first) or be held. `key_window` is how long (seconds) we
    trust it to know a key. `windows` are the documented request limits (polls included). `guarantee` is the promise
    that may be printed, `assumptions` what it and the reading of answers rest on. `source` names the file of a provider
    that a person described (empty for a shipped one), `documentation` what that person described it from.
    """

    name: str
    base_url: str
    models: tuple[Model, ...]
    submit: Callable[[Ask, str, bytes, str | None], Awaitable[Accepted | Refusal]]
    poll: Callable[[Ask, str, str], Awaitable[Report | Refusal]]
    guarantee: str
    idempotency_header: str | None = None
    key_window: float = 3600.0
    windows: tuple[Window, ...] = ()
    history: Callable[[Ask, int], Awaitable[Page | Refusal]] | None = None
    balance: Callable[[Ask], Awaitable[Decimal | Refusal]] | None = None
    hosting: Hosting | None = None
    registering: Registering | None = None
    refunds_failures: bool = False
    assumptions: tuple[str, ...] = ()
    url_schemes: tuple[str, ...] = ("https",)
    source: str = ""
    documentation: str = ""

    @property
    def keyed(self) -> bool:
        return self.idempotency_header is not None

    def must_register(self, model: Model | None, reference: Reference) -> bool:
        """Whether this reference has to become an asset before an order of this model may name it."""
        if self.registering is None or model is None or not model.takes_assets or reference.url.startswith(ASSET):
            return False
        return reference.review or reference.role in self.registering.roles

    def model(self, name: str) -> Model | None:
        return next((m for m in self.models if name == m.name or name in m.aliases), None)
