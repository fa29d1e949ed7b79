"""The mode follows from the references: which way of using a model takes exactly what a job brings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from runner.providers.description import Body, Fault, Mode, Model, Reference, Slot
from runner.providers.values import check_url

Counts = Mapping[str, int]
Slots = Mapping[str, Slot]


def arrange(
    model: Model, references: Sequence[Reference], mode: str | None, schemes: tuple[str, ...], label: str
) -> tuple[Body, Slots, list[Fault]]:
    """What references and mode put into the request, by native name, and the slots they go to, by role; or what is
    wrong with them.

    A named mode must take the references as they are; without one the first mode that does is taken. URLs are checked
    here too (all but those of local files, whose URL the provider itself gives).
    """
    faults = [fault for reference in references if (fault := _check_reference(reference, schemes)) is not None]
    counts = Counter(reference.role for reference in references)
    candidates = [m for m in model.modes if mode is None or m.name == mode]
    for candidate in candidates:
        if not _misfits(candidate, counts, label):
            return _placed(candidate, references), candidate.slots, faults
    return {}, {}, [*faults, *_why_none(model, candidates, counts, mode, label)]


def mode_named(model: Model, written: object) -> str | None:
    """The model's own spelling of a mode, None where it has none of that name."""
    folded = written.strip().casefold() if isinstance(written, str) else ""
    return next((m.name for m in model.modes if m.name and m.name.casefold() == folded), None)


def _check_reference(reference: Reference, schemes: tuple[str, ...]) -> Fault | None:
    if reference.path is not None:
        return None
    return check_url(reference.url, f"references.{reference.role}", schemes)


def _placed(mode: Mode, references: Sequence[Reference]) -> Body:
    body = dict(mode.sends)
    for role, slot in mode.slots.items():
        for reference in references:
            if reference.role != role:
                continue
            value = slot.wrap(reference.url) if slot.wrap else reference.url
            if slot.many:
                body.setdefault(slot.native, []).append(value)
            else:
                body[slot.native] = value
    return body


def _misfits(mode: Mode, counts: Counts, label: str) -> list[Fault]:
    """Why a mode does not take so many references of such roles; empty when it does."""
    if not counts and not mode.slots:
        return []
    name = f"{mode.name} of {label}" if mode.name else label
    strange = [role for role in counts if role not in mode.slots]
    faults = [Fault("B46", f"references.{role}", f"{name} takes no {role}") for role in strange]
    for role, slot in mode.slots.items():
        given = counts.get(role, 0)
        if given < slot.least or (slot.most is not None and given > slot.most):
            needed = _range(slot.least, slot.most)
            faults.append(Fault("B46", f"references.{role}", f"{name} takes {needed} {role}, not {given}"))
    total = sum(counts.values())
    if not faults and (total < mode.least or (mode.most is not None and total > mode.most)):
        needed = f"{_range(mode.least, mode.most)} of {' and '.join(counts or mode.slots)}"
        faults.append(Fault("B46", "references", f"{name} takes {needed}, not {total}"))
    return faults


def _range(least: int, most: int | None) -> str:
    if most is None:
        return f"at least {least}"
    if least == most:
        return f"exactly {least}"
    return f"{least} to {most}" if least else f"at most {most}"


def _why_none(model: Model, candidates: list[Mode], counts: Counts, mode: str | None, label: str) -> list[Fault]:
    known = {role for m in model.modes for role in m.slots}
    strange = [role for role in counts if role not in known]
    if strange:
        takes = f"it takes {', '.join(sorted(known))}" if known else "it takes no references"
        return [Fault("B32", f"references.{role}", f"{label} has no {role}", takes) for role in strange]
    fullest = [m for m in candidates if all(role in m.slots for role in counts)]
    if not fullest and mode is None:
        return [Fault("B46", "references", f"{label} does not take {' with '.join(counts)}", _hint(model))]
    nearest = min((_misfits(m, counts, label) for m in fullest or candidates), key=len)
    return [Fault(f.code, f.field, f.message, _hint(model)) for f in nearest]


def _hint(model: Model) -> str:
    ways = [f"{m.name or 'this model'}: {', '.join(m.slots) or 'no references'}" for m in model.modes]
    return "; ".join(ways)
