"""What a person or a script gets to see: results on stdout, everything else on stderr.

Every text may hold a stranger's words (a prompt, a provider's message): on its way to a terminal, what would steer it
is spelled out, and in JSON it is escaped. A reader who closes the pipe early has had enough; that is not an error.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

from runner.errors import InputError, LocalError, Problem, RunnerError
from runner.ledger import as_text
from runner.problems import UNPRINTABLE, as_json, printable, render

PIPED_WIDTH = 1000  # columns of a table that no terminal shows: nothing is folded
STATE_STYLES = {
    "succeeded": "green", "partial": "yellow", "failed": "red", "held": "bold magenta", "unknown": "yellow",
    "cancelled": "dim", "queued": "", "waiting": "",
}  # fmt: skip
Cell = str | int | tuple[str, str]  # a tuple is (text, style)


def emit(text: str) -> bool:
    """Writes results to stdout. False once nobody reads them any more: whoever has more to say may stop.

    Raises LocalError where they cannot be written (a full disk behind a redirection).
    """
    from runner.log import let_go

    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        let_go(sys.stdout)
        return False
    except UnicodeEncodeError:
        known = sys.stdout.encoding or "ascii"
        return emit(text.encode(known, "backslashreplace").decode(known))
    except OSError as error:
        let_go(sys.stdout)
        raise LocalError(f"the results cannot be written: {error.strerror}") from None
    return True


def line(text: str = "") -> bool:
    """One line of results; line breaks inside it are spelled out."""
    return emit(printable(text) + "\n")


def emit_json(value: Any) -> bool:
    return emit(encode(value, indent=2) + "\n")


def encode(value: Any, indent: int | None = None) -> str:
    """JSON: amounts as decimal strings, times as RFC 3339 in UTC. What would steer a terminal is escaped, so that the
    data stay the same and printing them does no harm."""
    ascii_only = not (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent, default=_plain)
    return UNPRINTABLE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _plain(value: Any) -> Any:
    match value:
        case Decimal():
            return as_text(value)
        case datetime():
            return rfc3339(value)
        case Path():
            return str(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


def rfc3339(moment: datetime) -> str:
    """A moment for machines: UTC, with milliseconds and a Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonArray:
    """An array written item by item, however long it grows. `add` is False once nobody reads it any more."""

    def __init__(self) -> None:
        self._started = False

    def add(self, item: Any) -> bool:
        lead = ",\n" if self._started else "[\n"
        self._started = True
        return emit(lead + encode(item))

    def end(self) -> bool:
        return emit("\n]\n" if self._started else "[]\n")


def table(
    heads: Sequence[str], rows: Iterable[Sequence[Cell]], *, right: Sequence[str] = (), heading: bool = True
) -> str:
    """A table as text, as wide as the terminal at most. Columns named in `right` are aligned to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=SIMPLE_HEAD if heading else None, show_header=heading, pad_edge=False, show_edge=False)
    for head in heads:
        drawn.add_column(Text(head), justify="right" if head in right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(_cell(cell) for cell in row))
    return drawn_text(drawn)


def _cell(cell: Cell) -> Any:
    from rich.text import Text

    text, style = cell if isinstance(cell, tuple) else (str(cell), "")
    return Text(printable(text), style=style)


def drawn_text(drawable: Any) -> str:
    """Anything that rich can draw, as text for stdout: coloured on a terminal only, no spaces at the ends of lines."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    paper = StringIO()
    shown = Console(file=sys.stdout if terminal else paper, width=None if terminal else PIPED_WIDTH, markup=False,
                    highlight=False, emoji=False)  # fmt: skip
    with shown.capture() as captured:
        shown.print(drawable)
    return "".join(f"{drawn.rstrip()}\n" for drawn in captured.get().splitlines())


def state_cell(state: str, text: str = "") -> Cell:
    """A state, or what is said of it, in the state's colour."""
    return text or state, STATE_STYLES.get(state, "cyan")


def credits(amount: Decimal | None) -> str:
    """An amount for people; a dash where it is not known."""
    return as_text(amount) or "–"


def local(moment: datetime | None, now: datetime | None = None) -> str:
    """A moment for people, by their own clock; with the day where that is not today's."""
    if moment is None:
        return "–"
    here = moment.astimezone()
    today = now is not None and here.date() == now.astimezone().date()
    return f"{here:%H:%M:%S}" if today else f"{here:%Y-%m-%d %H:%M:%S}"


def say(text: str, style: str = "") -> None:
    """One message for the person, on stderr, above any progress display; without secrets."""
    from rich.text import Text

    from runner import log

    log.console().print(Text(log.clean(text), style=style), soft_wrap=True)


def warn(text: str) -> None:
    say(f"warning: {text}", "yellow")


def complain(error: RunnerError, *, as_data: bool = False) -> None:
    """What ended a command: one clear line, how to mend it, and every problem with its place. `as_data`: what is wrong
    with the input, or with the queue before it was opened, on stdout too, for scripts:
    `{"problems": [{code, file, line, col, endcol, msg, help}, …]}`."""
    from runner import log

    say(f"error: {error.message}", "red")
    problems = error.problems if isinstance(error, InputError) else ()
    told_already = len(problems) == 1 and problems[0].place is None
    if problems and not told_already:
        _say_lines(render(problems))
    if error.hint and (told_already or not problems):
        _say_lines("\n".join(f"  help: {said}" for said in error.hint.splitlines()))
    if as_data and (isinstance(error, InputError) or error.code):
        told = as_json(problems or (Problem(error.code, error.message, error.hint),))
        emit_json({"problems": log.redactor().scrub(told)})


def _say_lines(text: str, speak: Callable[[str], None] = say) -> None:
    for said in text.splitlines():
        speak(said)
