"""What is wrong with what a person wrote, as text for people and as data for scripts. Pure.

    shots.yaml:14:15: B41 duration 30 is outside 4–15 for seedance
        duration: 30
                  ^^
      help: use 4–15, or choose a model that allows 30 (see: runner providers)

Everything shown may come from a stranger's file: control characters, escape sequences and direction marks are never
printed as they are (reliability.md section 2, T16), and what looks like a key is masked (B31).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import islice
from pathlib import PurePath
from typing import Any

from runner.errors import InputError, Place, Problem

SHOWN = 50  # problems; the rest is a count
LONGEST = 2_000  # characters of a message or a hint: a name in it may be as long as the file
LONGEST_PATH = 500  # characters of a path in a message
COMPARED = 500  # names that a wrong one is compared with: a manifest can have a million, and a thousand wrong ones
WIDTH = 100  # columns of a source line that are shown around its caret

# Keys as the providers and the great services write them. A random part is asked for, so that prose does not match.
# What is looked ahead for is bounded: a text of nothing but beginnings must not be read to its end from each of them.
SECRET = re.compile(
    r"""(?<![A-Za-z0-9%/=])(?:
        sk[-_](?:sd_|live_|test_|proj-|ant-|or-)[A-Za-z0-9_-]{8,}
      | sk[-_](?=[A-Za-z_-]{0,64}+[0-9])[A-Za-z0-9_-]{16,}
      | gh[pousr]_[A-Za-z0-9]{30,} | xox[abprs]-[A-Za-z0-9-]{10,}
      | AKIA[0-9A-Z]{16} | AIza[0-9A-Za-z_-]{35}
      | eyJ[A-Za-z0-9_-]{8,512}+\.eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}
      | -----BEGIN\ [A-Z ]{0,64}PRIVATE\ KEY-----
      | [Bb]earer\ +(?=[A-Za-z._~+/-]{0,64}+[0-9])[A-Za-z0-9._~+/-]{16,}
    )""",
    re.VERBOSE,
)

# The user name and password of a URL.
USER_INFO = re.compile(r"(?<=://)[^/\s\"']+(?=@)")

# What no text of a manifest or a table may hold (B26): control characters but tab and line breaks, half characters.
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

# What is not shown as it is: these, and direction marks, which make text read as what it is not.
UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def looks_secret(text: str) -> bool:
    return SECRET.search(text) is not None


def mask(text: str) -> str:
    """The text with everything that looks like a key replaced by as many stars, so that columns stay where they are."""
    return USER_INFO.sub(_stars, SECRET.sub(_stars, text))


def _stars(found: re.Match[str]) -> str:
    return "*" * len(found[0])


def printable(text: str) -> str:
    """Safe to print on a terminal: what would steer it is spelled out, line breaks too."""
    text = text.replace("\r", "\\r").replace("\n", "\\n").replace("\t", "\\t")
    return UNPRINTABLE.sub(lambda found: f"\\u{{{ord(found[0]):x}}}", text)


def quoted(value: object, limit: int = 60) -> str:
    """A value as a message may name it: masked, printable, shortened (a path to what a person can still find)."""
    limit = LONGEST_PATH if isinstance(value, PurePath) else limit
    text = printable(mask(value if isinstance(value, str) else str(value)))
    return f'"{text[: limit - 1]}…"' if len(text) > limit else f'"{text}"'


def listed(names: Iterable[str], limit: int = 30) -> str:
    """`a, b, c`, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - limit} more" if len(every) > limit else ""
    return ", ".join(printable(mask(name)) for name in every[:limit]) + more


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, one of the first COMPARED; letters' case does not count."""
    folded = {name.casefold(): name for name in islice(known, COMPARED)}
    found = get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def suggestion(word: str, known: Sequence[str], what: str) -> str:
    """`did you mean "style"? Known here: …`, for the hint of an unknown name."""
    near = nearest(word, known)
    meant = f"did you mean {quoted(near)}? " if near else ""
    return f"{meant}{what}: {listed(known)}" if known else f"{meant}{what}: none"


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """As a reader meets them: file by file in the order of their first problem, then by line and column."""
    found = list(problems)
    files = list(dict.fromkeys(p.place.file for p in found if p.place))
    return tuple(sorted(found, key=lambda p: _rank(p, files)))


def _rank(problem: Problem, files: Sequence[str]) -> tuple[int, int, int]:
    if problem.place is None:
        return (-1, 0, 0)
    return (files.index(problem.place.file), problem.place.line, problem.place.column)


def refused(file: str, problems: Iterable[Problem], *, cut: bool = False) -> InputError:
    """The error that refuses a whole file for all its problems; `cut` where nobody looked for more."""
    ordered = _discreet(in_order(problems))
    count = f"{len(ordered):,} problem{'s' if len(ordered) != 1 else ''}{' or more' if cut else ''}"
    return InputError(f"{printable(file)}: {count}; nothing was written, nothing was sent", problems=ordered)


def _discreet(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """Without a trace of a secret: what looks like one is masked, and a line with one (B31) is not shown at all."""
    secret = {(p.place.file, p.place.line) for p in problems if p.code == "B31" and p.place}
    lines: dict[str, str] = {}  # each masked once: a thousand problems may stand in one long line
    return tuple(_masked(p, p.place is not None and (p.place.file, p.place.line) in secret, lines) for p in problems)


def _masked(problem: Problem, hide: bool, lines: dict[str, str]) -> Problem:
    text = None if hide else problem.text
    if text is not None and text not in lines:
        lines[text] = mask(text)
    shown = None if text is None else lines[text]
    return replace(problem, message=_short(mask(problem.message)), hint=_short(mask(problem.hint)), text=shown)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def render(problems: Sequence[Problem], shown: int = SHOWN) -> str:
    """All problems as text for a terminal, no colours: at most `shown` of them, then how many more there are."""
    parts = [_render(problem) for problem in problems[:shown]]
    if len(problems) > shown:
        parts.append(f"+{len(problems) - shown} more")
    return "\n".join(parts) + "\n" if parts else ""


def as_json(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """Every problem as data: `code, file, line, col, endcol, msg, help`; null where there is no place or no hint."""
    return [_as_json(problem) for problem in problems]


def _as_json(problem: Problem) -> dict[str, Any]:
    place = problem.place
    return {
        "code": problem.code,
        "file": place.file if place else None,
        "line": place.line if place else None,
        "col": place.column if place else None,
        "endcol": place.end_column if place else None,
        "msg": problem.message,
        "help": problem.hint or None,
    }


def _render(problem: Problem) -> str:
    code = f"{problem.code} " if problem.code else ""
    lines = [f"{_where(problem.place)}{code}{printable(problem.message)}"]
    if problem.text and not problem.text.isspace() and problem.place is not None:
        lines += _excerpt(problem.text, problem.place)
    if problem.hint:
        first, *rest = problem.hint.splitlines()
        lines += [f"  help: {printable(first)}", *(f"        {printable(line)}" for line in rest)]
    return "\n".join(lines)


def _where(place: Place | None) -> str:
    return f"{printable(place.file)}:{place.line}:{place.column}: " if place else ""


def _excerpt(text: str, place: Place) -> list[str]:
    """The source line and, under it, carets from the place to its end (at least one)."""
    start = place.column - 1
    end = max(start + 1, min((place.end_column or place.column + 1) - 1, len(text)))
    first = max(0, start - WIDTH * 2 // 3) if len(text) > WIDTH else 0
    shown = text[first : first + WIDTH]
    before, under = text[first:start], text[start : min(end, first + WIDTH)]
    lead, tail = ("…" if first else ""), ("…" if first + WIDTH < len(text) else "")
    caret = " " * (len(lead) + _columns(before)) + "^" * max(1, _columns(under))
    return [f"    {lead}{_cells(shown)}{tail}", f"    {caret}"]


def _cells(text: str) -> str:
    """One printed sign for each character, so that the caret stands where it should."""
    return "".join(" " if sign == "\t" else "\N{REPLACEMENT CHARACTER}" if _steers(sign) else sign for sign in text)


def _steers(sign: str) -> bool:
    return sign in "\r\n" or UNPRINTABLE.match(sign) is not None


def _columns(text: str) -> int:
    """How many columns a terminal needs: two for wide signs, none for accents that join the sign before them."""
    return sum(_sign_columns(sign) for sign in text)


def _sign_columns(sign: str) -> int:
    if _steers(sign):
        return 1
    if unicodedata.combining(sign) or unicodedata.category(sign) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(sign) in "WF" else 1
