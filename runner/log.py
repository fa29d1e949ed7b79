"""What is written down beside the work: lines for a person on stderr, lines of JSON in a file, no secret in either.

Everything passes one door: known secrets and what looks like one are cut out (by value and by pattern), prompts and
request bodies are left out by name, and signs that would steer a terminal are spelled out. A traceback goes into the
file, and to the terminal only at -vv; it never shows local variables. Other people's loggers (httpx, aiohttp …) write
whole addresses below WARNING, so they are heard from there on only.

The terminal has one `console()`, so that lines appear above a progress display instead of through it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, TextIO

import structlog
from rich.console import Console
from rich.text import Text

from runner.clock import Clock
from runner.errors import InputError, LocalError
from runner.problems import printable
from runner.settings import KEY, Redactor, Secret

Event = MutableMapping[str, Any]

THRESHOLDS = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}
NOISY = ("httpx", "httpcore", "aiohttp", "asyncio", "sqlalchemy", "aiosqlite", "alembic", "filelock")
STYLES = {"debug": "dim", "info": "", "warning": "yellow", "error": "bold red", "critical": "bold red"}
WITHHELD = frozenset({"prompt", "negative_prompt", "body", "content", "spec", "variables"})  # what people write
SECRETS = frozenset({"authorization", "api_key", "password", "secret", "cookie", "set_cookie", "x_api_key"})
SQLITE = b"SQLite format 3\0"
LONGEST_MESSAGE = 300  # characters of an exception's own text in a traceback
DETAIL = re.compile(r"\n *(?:DETAIL|CONTEXT):.*?(?=\n\[SQL|\Z)", re.DOTALL)  # PostgreSQL repeats whole rows in it


class _Stderr(Console):
    """The terminal may go away while we work (a closed window, `2>&1 | head`): then nobody reads on, that is all. And
    the disk behind a redirection may be full: no message is worth the work that it tells of."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        let_go(sys.stderr)

    def _check_buffer(self) -> None:
        try:
            super()._check_buffer()
        except OSError:  # rich knows of broken pipes only
            del self._buffer[:]


def let_go(stream: TextIO) -> None:
    """Nobody reads this stream any more: what is still written to it goes nowhere, quietly, to the end of Python."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@cache
def console() -> Console:
    """The one console on stderr: messages, log lines and progress displays share it."""
    return _Stderr(stderr=True, markup=False, highlight=False, emoji=False)


@cache
def redactor() -> Redactor:
    """The one redactor: it knows the keys in the environment from the start, `keep` tells it of others."""
    return Redactor(_keys_in_environment())


def _keys_in_environment() -> Iterator[Secret]:
    named = (value.strip() for name, value in os.environ.items() if name.endswith("_API_KEY"))
    return (Secret(value) for value in named if KEY.fullmatch(value))


def keep(secret: Secret) -> None:
    """From now on this secret never appears in what is logged or said."""
    redactor().learn(secret)


def clean(text: str) -> str:
    """Text from anywhere, fit for a terminal and a file: no secret, nothing that steers."""
    return printable(redactor().clean(text))


@contextmanager
def opened(verbosity: int = 0, file: Path | None = None, clock: Clock | None = None) -> Iterator[None]:
    """Logging for the length of a command. `verbosity`: -1 errors only, 0 warnings, 1 news, 2 everything.

    `file` gets everything as lines of JSON, appended; it is made for its owner alone (0600). Raises LocalError where it
    cannot be written, InputError where it is something else than a log.
    """
    threshold = THRESHOLDS[max(-1, min(verbosity, 2))]
    sink = _Sink(threshold, _open(file) if file is not None else None)
    bridge = _Bridge(sink)
    levels, before = _listen_to_others(bridge), structlog.get_config()
    structlog.configure(
        processors=[structlog.stdlib.add_log_level, _timestamp(clock or Clock()), _explain, _withhold],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if sink.file is not None else threshold),
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)
        _stop_listening(bridge, levels)
        sink.close()


def _open(path: Path) -> int:
    try:
        if path.is_file() and _is_database(path):
            raise InputError(f"--log-file: {clean(str(path))} is a database, not a log", "name another file")
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    except OSError as error:
        raise LocalError(f"the log file {clean(str(path))} cannot be written: {error.strerror}") from None


def _is_database(path: Path) -> bool:
    """Whether this is somebody's queue. Only asked before any queue is opened: closing a handle drops its locks."""
    with path.open("rb") as file:
        return file.read(len(SQLITE)) == SQLITE


def _timestamp(clock: Clock) -> structlog.typing.Processor:
    def stamp(_logger: Any, _method: str, event: Event) -> Event:
        event.setdefault("at", clock.now())
        return event

    return stamp


def _explain(_logger: Any, _method: str, event: Event) -> Event:
    """`exc_info` as a traceback that may be kept: where it happened and what kind it is, no local variable."""
    trouble = event.pop("exc_info", None)
    if trouble is True:
        trouble = sys.exc_info()[1]
    if isinstance(trouble, tuple):
        trouble = trouble[1]
    if isinstance(trouble, BaseException):
        event["traceback"] = describe(trouble)
    return event


def _withhold(_logger: Any, _method: str, event: Event) -> Event:
    return {name: _cleaned(name, value) for name, value in event.items()}


def _cleaned(name: str, value: Any) -> Any:
    folded = name.lower().replace("-", "_")
    if folded in SECRETS:
        return "[redacted]"
    if folded in WITHHELD:
        return "[not logged]"
    if isinstance(value, Mapping):
        return {str(inner): _cleaned(str(inner), item) for inner, item in value.items()}
    return value if isinstance(value, datetime) else redactor().scrub(value)


def describe(trouble: BaseException) -> str:
    """A traceback as text, built from what may be told: files, lines, functions, kinds of errors, and their messages
    (cleaned and cut short; those of pydantic, which repeat what was entered, are left out)."""
    lines: list[str] = []
    for one in _chain(trouble):
        lines += [f"{type(one).__module__}.{type(one).__qualname__}: {_message(one)}"]
        lines += [
            f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in traceback.extract_tb(one.__traceback__)
        ]
        if isinstance(one, BaseExceptionGroup):
            lines += [f"  | {line}" for inner in one.exceptions for line in describe(inner).splitlines()]
    return "\n".join(lines)


def _chain(trouble: BaseException) -> list[BaseException]:
    """The exception and those it came from, as Python would show them, the last one first."""
    chain = [trouble]
    while len(chain) < 10:
        last = chain[-1]
        before = last.__cause__ or (None if last.__suppress_context__ else last.__context__)
        if before is None or before in chain:
            break
        chain.append(before)
    return chain


def _message(trouble: BaseException) -> str:
    if type(trouble).__module__.partition(".")[0] in ("pydantic", "pydantic_core"):
        return "[not logged]"
    try:
        text = clean(DETAIL.sub("", str(trouble)))
    except Exception:
        return "[without words]"
    return text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 1] + "…"


class _Sink:
    """Where log lines end: the terminal for what reaches `threshold`, and the file for all."""

    def __init__(self, threshold: int, file: int | None) -> None:
        self.threshold, self.file = threshold, file

    def msg(self, **event: Any) -> None:
        if self.file is not None:
            self._write(self.file, event)
        if logging.getLevelNamesMapping()[event["level"].upper()] >= self.threshold:
            self._show(event)

    debug = info = warning = error = critical = exception = msg

    def _write(self, file: int, event: Mapping[str, Any]) -> None:
        line = json.dumps(_in_order(event), ensure_ascii=True, default=str) + "\n"
        try:
            os.write(file, line.encode())
        except OSError as error:
            self.close()
            self._show({"at": event["at"], "level": "warning", "event": "the log file cannot be written any more",
                        "why": error.strerror})  # fmt: skip

    def _show(self, event: Mapping[str, Any]) -> None:
        facts = dict(event)
        at, level, what = facts.pop("at"), facts.pop("level"), facts.pop("event")
        trace = facts.pop("traceback", None)
        told = " ".join(f"{name}={printable(str(value))}" for name, value in facts.items())
        line = f"{at.astimezone():%H:%M:%S} {level}: {printable(str(what))}  {told}".rstrip()
        console().print(Text(line, style=STYLES.get(level, "")), soft_wrap=True)
        if trace is not None and self.threshold <= logging.DEBUG:
            console().print(Text(trace, style="dim"), soft_wrap=True)

    def close(self) -> None:
        if self.file is not None:
            with suppress(OSError):
                os.close(self.file)
        self.file = None


def _in_order(event: Mapping[str, Any]) -> dict[str, Any]:
    at: datetime = event["at"]
    first = {
        "at": at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "level": event["level"],
        "event": event["event"],
    }
    return {**first, **{name: value for name, value in event.items() if name not in first}}


class _Bridge(logging.Handler):
    """What libraries log through the standard library comes out of our door too."""

    def __init__(self, sink: _Sink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event: Event = {
                "event": record.getMessage(), "level": record.levelname.lower(), "logger": record.name,
                "at": datetime.fromtimestamp(record.created, UTC), "exc_info": record.exc_info,
            }  # fmt: skip
            cleaned = _withhold(None, "", _explain(None, "", event))
            self._sink.msg(**cleaned)
        except Exception:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """A line that cannot be written is no reason to fail, and no reason to print where a line belongs."""


def _listen_to_others(bridge: _Bridge) -> dict[str, int]:
    """Hears the root logger; returns the levels of the noisy ones as they were."""
    before = {name: logging.getLogger(name).level for name in NOISY}
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger().addHandler(bridge)
    return before


def _stop_listening(bridge: _Bridge, before: Mapping[str, int]) -> None:
    logging.getLogger().removeHandler(bridge)
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)
