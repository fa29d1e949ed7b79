"""What may be promised of a described provider: it follows from what it has, in the words of the shipped ones."""

from __future__ import annotations

from collections.abc import Sequence

from runner.providers.declared.shape import ProviderShape
from runner.providers.description import Model

HELD = "the job is held for you and never sent again by itself"
UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def guarantee(shape: ProviderShape, models: Sequence[Model]) -> str:
    """By what there is after a lost answer: a key to repeat the order under, a list to look into, or nothing."""
    if shape.idempotency is not None:
        return _keyed(shape.idempotency.trusted_seconds)
    listed = [model.name for model in models if model.listed]
    if not listed:
        return f"at most once: a lost answer cannot be looked up, so {HELD}"
    unlisted = [model.name for model in models if not model.listed and not model.unavailable]
    besides = f", and for {', '.join(unlisted)}," if unlisted else ""
    return (
        "at most once: a lost answer is looked for in the history and adopted where exactly one task can be it; "
        f"otherwise{besides} {HELD}"
    )


def _keyed(seconds: int) -> str:
    span = _span(seconds)
    after = "after that hour" if span == "an hour" else "after that"
    return (
        f"effectively once within {span} of a lost answer, if the provider honours its key: the same key and bytes are "
        f"sent again until the answer is clear; {after} at most once: the job is held for you"
    )


def _span(seconds: int) -> str:
    size, unit = next((size, unit) for size, unit in UNITS if seconds % size == 0)
    count = seconds // size
    if count > 1:
        return f"{count} {unit}s"
    return f"an {unit}" if unit == "hour" else f"a {unit}"


def assumptions(file: str, shape: ProviderShape) -> tuple[str, ...]:
    """What everything said of the provider rests on."""
    known = f"what {file} says of this provider is right; nobody but its author has tried it"
    free = "a refusal that is listed as such, and any other 4xx but 408, means that nothing was charged"
    return (known, free, *shape.assumptions)
