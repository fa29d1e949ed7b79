"""`${name}`: one pass over flat text, no logic, nothing looked up anywhere else (reliability.md section 2, T15).

`$$` is a dollar; a dollar before anything else is itself. What is put in is never read again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

LONGEST_TEXT = 100_000  # characters of a filled template; no provider takes a fifth of it

_PIECE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>[^{}$\n]*)\}|(?P<open>\{)|(?P<word>[A-Za-z_]\w*))")


class TemplateError(Exception):
    """A `${` that cannot be read: the words it stands in, what is wrong, and how to write it."""

    def __init__(self, words: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.words, self.message, self.hint = words, message, hint


class NoValue(Exception):
    """A variable has no value here; `name` says which."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class TooLong(Exception):
    """A filled template would be longer than LONGEST_TEXT."""


@dataclass(frozen=True, slots=True)
class Template:
    """A text with variables: what stands around them, and their names in order.

    `words` are names that stand after a dollar without braces (`$scene`): text, unless a variable is called so.
    """

    text: str
    around: tuple[str, ...]
    names: tuple[str, ...]
    words: tuple[str, ...] = ()

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with every variable's value. Raises NoValue for a name without one, TooLong before it is built."""
        parts = [self.around[0]]
        try:
            for name, following in zip(self.names, self.around[1:], strict=True):
                parts += (values[name], following)
        except KeyError as missing:
            raise NoValue(missing.args[0]) from None
        if sum(map(len, parts)) > LONGEST_TEXT:
            raise TooLong
        return "".join(parts)

    @property
    def alone(self) -> str | None:
        """The variable's name, if the text is nothing but this variable."""
        return self.names[0] if len(self.names) == 1 and self.around == ("", "") else None


def read_template(text: str) -> str | Template:
    """The text itself where nothing in it varies (with `$$` read as a dollar), else its template.

    Raises TemplateError for `${` without its brace, an empty name, and a `${` inside a `${`.
    """
    if "$" not in text:
        return text
    pieces: list[list[str]] = [[]]
    names, words, end = [], [], 0
    for found in _PIECE.finditer(text):
        pieces[-1].append(text[end : found.start()])
        end = found.end()
        if found["name"] is not None:
            names.append(_checked(found["name"], text))
            pieces.append([])
        else:
            pieces[-1].append(_literal(found, text))
            words += [found["word"]] if found["word"] else []
    pieces[-1].append(text[end:])
    around = tuple("".join(between) for between in pieces)
    return Template(text, around, tuple(names), tuple(words)) if names or words else around[0]


def _literal(found: re.Match[str], text: str) -> str:
    if found["open"]:
        rest = text[found.start() :].splitlines()[0]
        nested = "${" in rest[2:].split("}")[0]
        message = "a variable cannot stand inside another" if nested else "${ has no closing brace"
        raise TemplateError(rest[:20], message, "write ${name}, or $${ for the signs themselves")
    return "$" if found["dollar"] else found[0]


def _checked(name: str, text: str) -> str:
    if not name.strip():
        raise TemplateError("${" + name + "}", "${} names nothing", "write ${name}, or $${} for the signs themselves")
    if name != name.strip():
        better = "write ${" + name.strip() + "}"
        raise TemplateError("${" + name + "}", "a variable's name has no spaces around it", better)
    return name


def templates_in(value: object) -> Iterator[Template]:
    """Every template in a value: itself, or inside lists and mappings."""
    if isinstance(value, Template):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from templates_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from templates_in(item)
