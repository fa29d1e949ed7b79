"""Equal jobs (B71) and equal output paths (B72) among a million, in bounded memory.

The first pass keeps 64 bits of each key and path; only where some of them are equal, a further pass looks at what truly
is, and names both places.
"""

from __future__ import annotations

from collections.abc import Iterable

from runner.expand.order import Order
from runner.expand.outputs import folded
from runner.expand.twins import Twins
from runner.manifest.findings import Findings
from runner.manifest.places import Spot
from runner.problems import listed, quoted

WORD = (1 << 64) - 1


class Clashes:
    """Takes every order, then tells which of them clash. To be closed."""

    def __init__(self) -> None:
        self._keys, self._paths = Twins(), Twins()

    def add(self, order: Order) -> None:
        self._keys.add(_digest_of_key(order))
        self._paths.add(_digest(folded(order.output)))

    def close(self) -> None:
        self._keys.close()
        self._paths.close()

    def note(self, orders: Iterable[Order], found: Findings) -> None:
        """Notes every order that is equal to an earlier one. `orders` are gone through only where any may be."""
        keys, paths = self._keys.found(), self._paths.found()
        seen: dict[str, Order] = {}
        for order in orders if keys or paths else ():
            path = folded(order.output)
            if _digest_of_key(order) in keys and (first := seen.setdefault(order.key, order)) is not order:
                _note_equal(order, first, found)
            elif _digest(path) in paths and (first := seen.setdefault(path, order)) is not order:
                _note_same_path(order, first, found)


def _digest_of_key(order: Order) -> int:
    return int(order.key[:16], 16) & WORD


def _digest(text: str) -> int:
    return hash(text) & WORD


def _note_equal(order: Order, first: Order, found: Findings) -> None:
    differ = _differ(order, first)
    unused = f"nothing in the request uses {listed(differ)}; " if differ else ""
    message = f"this job asks for the same as job {quoted(first.job)} (first at {_at(first)})"
    _note(order, "B71", message, f"{unused}to render the same twice write takes: 2", found)


def _note_same_path(order: Order, first: Order, found: Findings) -> None:
    differ = _differ(order, first) or (["take"] if order.take != first.take else ["key"])
    message = f"{quoted(order.output, 120)} would be written by two jobs (first at {_at(first)})"
    _note(order, "B72", message, f"add ${{{differ[0]}}} or ${{key}} to outputs.name", found)


def _differ(order: Order, first: Order) -> list[str]:
    """The columns and axes that tell two orders apart."""
    return [name for name, text in order.variables.items() if first.variables.get(name) != text]


def _note(order: Order, code: str, message: str, hint: str, found: Findings) -> None:
    if isinstance(order.where, Spot):
        found.add(code, message, hint, order.where)
    else:
        found.add_at(code, message, hint, order.where, None)


def _at(order: Order) -> str:
    place = order.place
    return f"{place.file}:{place.line}:{place.column}"
