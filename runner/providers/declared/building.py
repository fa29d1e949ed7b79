"""From a described provider to an ordinary `Provider`; what only a look at the whole can tell is noted on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from runner.manifest.findings import Findings
from runner.manifest.places import Path, Spot
from runner.problems import quoted
from runner.providers.declared.dialect import Dialect, Way, verdicts_of
from runner.providers.declared.fields import Fields, read_fields
from runner.providers.declared.pricing import note_of, read_price
from runner.providers.declared.promises import assumptions, guarantee
from runner.providers.declared.shape import (
    DemandsShape,
    ModelShape,
    ModeShape,
    Poll,
    ProviderShape,
    Role,
    SlotShape,
    Submit,
)
from runner.providers.description import Demands, Hosting, Mode, Model, Provider, Slot

PLAIN = ("prompt", "negative_prompt", "seed", "format")  # fields that change neither price nor duration
EXTENSIONS = {"video": "mp4", "image": "png"}


@dataclass(frozen=True, slots=True)
class Described:
    """One entry of `providers`: its name, what it says, where it stands in which file."""

    name: str
    shape: ProviderShape
    path: Path
    file: str


def build(described: Described, found: Findings) -> Provider:
    """The provider. Only to be used where nothing was noted."""
    shape = described.shape
    _check_errors(described, found)
    _check_words(described, found)
    _check_names(described, found)
    models = tuple(_model(described, name, found) for name in shape.models)
    dialect = _dialect(described, found)
    key = shape.idempotency
    return Provider(
        name=described.name,
        base_url=shape.base_url,
        models=models,
        submit=dialect.submit,
        poll=dialect.poll,
        history=dialect.history if shape.history else None,
        balance=dialect.balance if shape.balance else None,
        hosting=_hosting(shape, dialect),
        guarantee=guarantee(shape, models),
        idempotency_header=key.header if key else None,
        key_window=float(key.trusted_seconds) if key else 3600.0,
        windows=shape.limits,
        refunds_failures=shape.refunds_failures,
        assumptions=assumptions(described.file, shape),
        source=described.file,
        documentation=shape.documentation,
    )


def _model(described: Described, name: str, found: Findings) -> Model:
    shape, path = described.shape.models[name], (*described.path, "models", name)
    label = f"{described.name} {name}"
    submit = _submit(described.shape, shape)
    if submit.path is None:
        hint = "write submit: {path: /api/v1/…}"
        found.add("B32", f"nothing says where {label} is ordered", hint, Spot(path, on_key=True))
    fields = read_fields(shape, submit, path, label, found)
    return Model(
        name=name,
        aliases=shape.aliases,
        renders=shape.renders,
        path=submit.path or "",
        fields=fields.common,
        params=fields.params,
        open_params=shape.open_params,
        modes=_modes(shape, path, found) or (Mode(),),
        model_field=submit.model_field or "",
        nest=submit.nest or "",
        constants=submit.constants,
        price=read_price(shape.price, fields, (*path, "price"), label, found),
        price_note=note_of(shape.price),
        shape=_shape(shape, fields, path, label, found),
        extension=shape.extension or EXTENSIONS[shape.renders],
        listed=described.shape.history is not None and shape.in_history and "prompt" in shape.fields,
        unavailable=shape.unavailable or "",
        note=shape.note or "",
    )


def _submit(provider: ProviderShape, model: ModelShape) -> Submit:
    """The provider's way of ordering, with what the model says of its own."""
    own = model.submit
    return provider.submit if own is None else provider.submit.model_copy(update=_said(own))


def _said(shape: Submit) -> Mapping[str, object]:
    return {name: getattr(shape, name) for name in shape.model_fields_set}


def _shape(model: ModelShape, fields: Fields, path: Path, label: str, found: Findings) -> tuple[str, ...]:
    """What tells apart requests of different price or duration: said, or every field that could."""
    if model.shape is None:
        common = [field.native for name, field in fields.common.items() if name not in PLAIN]
        return tuple(dict.fromkeys((*common, *fields.params, *fields.sent)))
    natives = {name: fields.native(name) for name in model.shape}
    for place, name in enumerate(model.shape):
        if natives[name] is None:
            hint = f"its fields: {', '.join(fields.names)}"
            found.add("B32", f"{label} has no field {quoted(name)}", hint, (*path, "shape", place))
    return tuple(native for native in natives.values() if native is not None)


def _modes(model: ModelShape, path: Path, found: Findings) -> tuple[Mode, ...]:
    names: set[str] = set()
    for place, mode in enumerate(model.modes):
        if mode.name and mode.name.casefold() in names:
            found.add("B10", f"two modes are called {quoted(mode.name)}", "rename one", (*path, "modes", place, "name"))
        names.add((mode.name or "").casefold())
        _check_slots(mode, (*path, "modes", place), found)
    return tuple(_mode(mode) for mode in model.modes)


def _check_slots(mode: ModeShape, path: Path, found: Findings) -> None:
    """Two roles may share one field that is no list only where just one of them can be there."""
    first: dict[str, Role] = {}
    for role, slot in mode.references.items():
        other = first.setdefault(slot.native, role)
        if other != role and slot.many != mode.references[other].many:
            found.add("B40", f"{quoted(slot.native)} is a list for one role only", "write many: for both", path)
        elif other != role and not slot.many and mode.most != 1:
            message = f"{other} and {role} would stand in one field, {quoted(slot.native)}"
            found.add("B40", message, "write most: 1 for the mode, or many: true", (*path, "references", role))


def _mode(mode: ModeShape) -> Mode:
    slots: dict[str, Slot] = {role: _slot(slot) for role, slot in mode.references.items()}
    return Mode(mode.name or "", slots, mode.sends, mode.least, mode.most)


def _slot(slot: SlotShape) -> Slot:
    most = slot.most if slot.many else 1
    return Slot(slot.native, slot.least, most, slot.many, None, _demands(slot.demands) if slot.demands else None)


def _demands(said: DemandsShape) -> Demands:
    ratio, seconds = (None if n is None else Decimal(n) for n in (said.max_ratio, said.max_seconds))
    return Demands(said.media_types, said.max_bytes, said.min_side, ratio, seconds)


def _hosting(shape: ProviderShape, dialect: Dialect) -> Hosting | None:
    said = shape.upload
    return Hosting(said.roles, said.media_types, said.max_bytes, dialect.upload) if said else None


def _dialect(described: Described, found: Findings) -> Dialect:
    shape = described.shape
    codes, statuses = verdicts_of(shape)
    return Dialect(
        name=described.name,
        answers=shape.answers,
        codes=codes,
        statuses=statuses,
        ways=_ways(described, found),
        otherwise=_way(shape.poll, shape.answers.files) if shape.poll else None,
        key_header=shape.idempotency.header if shape.idempotency else None,
        listing=shape.history,
        counting=shape.balance,
        hosting=shape.upload,
    )


def _ways(described: Described, found: Findings) -> dict[str, Way]:
    """By the path of the order, which is all that is known of a task when it is asked for."""
    ways: dict[str, Way] = {}
    first: dict[str, str] = {}
    for name, model in described.shape.models.items():
        poll, spot = model.poll or described.shape.poll, Spot((*described.path, "models", name), on_key=True)
        files = described.shape.answers.files if model.files is None else model.files
        ordered_at = _submit(described.shape, model).path
        if poll is None:
            found.add("B32", f"nothing says where a task of {name} is asked for", "write poll: {path: …}", spot)
        elif not files and model.unavailable is None:
            found.add("B32", f"nothing says where the files of {name} are", "write files: under answers", spot)
        elif ordered_at is not None and ways.setdefault(ordered_at, _way(poll, files)) != _way(poll, files):
            message = f"{first[ordered_at]} and {name} are ordered at one path: they must be followed in one way"
            found.add("B10", message, "write the same poll and files for both", spot)
        first.setdefault(ordered_at or "", name)
    return ways


def _way(poll: Poll, files: tuple[str, ...]) -> Way:
    return Way(poll.path, poll.query, files)


def _check_errors(described: Described, found: Findings) -> None:
    seen: dict[str | int | None, int] = {}
    for place, entry in enumerate(described.shape.errors):
        path: Path = (*described.path, "errors", place)
        key = entry.code if entry.code is not None else entry.status
        if seen.setdefault(key, place) != place:
            found.add("B10", f"{quoted(key)} stands in errors twice", "keep one of the two", path)
        if entry.means == "conflict" and described.shape.idempotency is None:
            hint = "say idempotency: {header: …}, or another meaning"
            found.add("B40", "a conflict is about an idempotency key, and there is none", hint, (*path, "means"))
        if entry.kind == "moderated" and entry.means != "fail":
            found.add("B40", "what is moderated fails", "write means: fail", (*path, "means"))


def _check_words(described: Described, found: Findings) -> None:
    """One word of a status has one meaning."""
    first: dict[str, str] = {}
    for phase in ("done", "failed", "cancelled", "going"):
        for said in getattr(described.shape.answers, phase):
            other = first.setdefault(said, phase)
            if other != phase:
                path = (*described.path, "answers", phase)
                found.add("B10", f"the status {quoted(said)} is both {other} and {phase}", "keep one", path)


def _check_names(described: Described, found: Findings) -> None:
    """One name means one model."""
    owners: dict[str, str] = {name: name for name in described.shape.models}
    for name, place, alias in _aliases(described.shape):
        if owners.setdefault(alias, name) != name or alias == name:
            path = (*described.path, "models", name, "aliases", place)
            found.add("B72", f"{quoted(alias)} is the name of {owners[alias]} already", "leave it out", path)


def _aliases(shape: ProviderShape) -> Iterable[tuple[str, int, str]]:
    return ((name, place, alias) for name, model in shape.models.items() for place, alias in enumerate(model.aliases))
