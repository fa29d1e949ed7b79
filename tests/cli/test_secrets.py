"""Nothing that the program says holds a key, however malformed, or what somebody wrote, whatever goes wrong."""

from __future__ import annotations

import base64
import inspect
import json
import logging
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from manifests import SEEDANCE, write, yaml_of
from pydantic import BaseModel, ConfigDict
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from torture.canary import Canary
from wire import Asked, Line, served

from runner import log
from runner.cli.app import COMMANDS, app
from runner.cli.calling import call
from runner.client.fetching import Fetcher
from runner.clock import Clock
from runner.store import open_store

KEY = 'Qx7~kd"2/Vw9+mz\\4=Lr6(Tb8&nH1'
PROMPT = "a kumquat in zanzibar"
CANARY = Canary(KEY)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder, and a program that has learned no key yet."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.endswith(("_API_KEY", "_BASE_URL"))]:
        monkeypatch.delenv(name)
    log.redactor.cache_clear()
    yield tmp_path
    log.redactor.cache_clear()


def said(capfd: pytest.CaptureFixture[str], *logs: Path) -> str:
    """All that was said since, on stdout, on stderr, and in these files; taken away with them."""
    told = "".join(capfd.readouterr())
    for path in logs:
        told += path.read_text()
        path.unlink()
    return told


# --- T2: malformed keys

MALFORMED = {
    "a line break in it": f"{KEY[:15]}\n{KEY[15:]}",
    "a second line": f"{KEY}\r\n{KEY[::-1]}",
    "curly quotes around it": f"“{KEY}”",
    "a comment behind it": f"{KEY} # mine",
    "the header with it": f"Authorization: Bearer {KEY}",
    "a letter with an accent": f"{KEY}é",
    "what is no text": f"{KEY}\udcff",
    "too much of it": KEY * 20,
}
VERBOSITIES = ["-q", "", "-v", "-vv"]


@pytest.mark.parametrize("where", ["environment", "file"])
def test_T2_no_malformed_key_is_said_however_much_is_said(
    where: str, folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = str(write(folder, yaml_of({"a": {**SEEDANCE, "prompt": PROMPT}})))
    monkeypatch.setenv("SEEDANCE2AI_BASE_URL", "http://127.0.0.1:9")
    for key in MALFORMED.values():
        if where == "environment":
            monkeypatch.setenv("SEEDANCE2AI_API_KEY", key)
        else:
            quoted = key.replace("\\", "\\\\").replace('"', '\\"')
            quoted = quoted.replace("\udcff", "\0")  # which no environment could hold, as no file can hold the other
            (folder / ".env").write_text(f'SEEDANCE2AI_API_KEY="{quoted}"\n', encoding="utf-8")
        for verbosity in VERBOSITIES if where == "environment" else VERBOSITIES[-1:]:
            words = ["run", manifest, "--yes", "--no-wait", "--log-file", "all.log", verbosity]
            assert call([word for word in words if word]) == 2
            told = said(capfd, folder / "all.log")
            assert "SEEDANCE2AI_API_KEY" in told
            assert "is no key" in told
            assert CANARY.sings(told.encode()) is None, told
    assert not (folder / "runner.db").exists()


# --- T3: other people's loggers


async def test_T3_no_library_writes_an_address_or_a_cookie_even_when_all_is_logged(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def handler(_: Asked, line: Line) -> None:
        await line.answer(200, b"{}", set_cookie=f"session={quote(KEY)}")

    root = logging.getLogger()
    before = root.level
    async with served(handler) as wire:
        signed = wire.url(f"/file?Signature={quote(KEY)}")
        with log.opened(2, folder / "all.log"):
            root.setLevel(logging.DEBUG)
            try:
                async with Fetcher(allow_private=True) as fetcher, fetcher.stream(signed) as answer:
                    assert [piece async for piece in answer.chunks()] == [b"{}"]
                async with httpx.AsyncClient(trust_env=False) as client:
                    await client.get(signed)
                logging.getLogger("someone.else").warning("went to %s", signed)
            finally:
                root.setLevel(before)
        assert len(wire.asked) == 2
    told = said(capfd, folder / "all.log")
    assert "went to http://127.0.0.1" in told, "nothing was logged at all"
    assert CANARY.sings(told.encode()) is None, told


# --- T4: whatever is raised


class Form(BaseModel):
    model_config = ConfigDict(strict=True)
    count: int


class Wordless(Exception):
    def __str__(self) -> str:
        raise RuntimeError(KEY)


class FromADriver(Exception):
    """As PostgreSQL's driver puts it: the whole row, as a detail."""


FromADriver.__module__ = "asyncpg.exceptions"
ROW = f'null value violates a constraint\nDETAIL:  Failing row contains (7, {PROMPT}, {{"prompt": "{PROMPT}"}}).'


def caught(act: Callable[[], Any]) -> BaseException:
    try:
        act()
    except BaseException as error:
        return error
    raise AssertionError("it did not go wrong")


def chained(cause: BaseException | None, context: BaseException | None) -> BaseException:
    error = RuntimeError("on top of another")
    error.__cause__, error.__context__ = cause, context
    return error


def noted() -> BaseException:
    error = ValueError("with a note")
    error.add_note(f"the key was {KEY}")
    return error


TROUBLES: dict[str, Callable[[], BaseException]] = {
    "plain words": lambda: RuntimeError(f"while asking with {KEY}"),
    "an illegal header": lambda: httpx.LocalProtocolError(f"Illegal header value b'Bearer {KEY}\\n'"),
    "an address": lambda: ValueError(f"no answer from https://me:{quote(KEY)}@host/x?key={quote(KEY)}"),
    "a letter that cannot be sent": lambda: caught(lambda: f"{KEY}“".encode("ascii")),
    "bytes that are no text": lambda: caught(lambda: f"{KEY}“".encode().decode("ascii")),
    "headers as a missing key": lambda: KeyError({"Authorization": f"Bearer {KEY}"}),
    "an environment": lambda: RuntimeError({"environ": {"SEEDANCE2AI_API_KEY": KEY}}),
    "a file's name": lambda: OSError(5, "Input/output error", f"/keys/{KEY}"),
    "JSON": lambda: ValueError(json.dumps({"key": KEY})),
    "base64": lambda: ValueError(base64.b64encode(f"user:{KEY}".encode()).decode()),
    "bytes": lambda: ValueError(KEY.encode()),
    "a document": lambda: caught(lambda: json.loads(f'{{"key": "{quote(KEY)}" "prompt": "{PROMPT}"')),
    "a form": lambda: caught(lambda: Form.model_validate({"count": f"{KEY} {PROMPT}"})),
    "a statement": lambda: DBAPIError("INSERT INTO jobs …", {"prompt": PROMPT}, Exception(ROW), hide_parameters=True),
    "a driver": lambda: FromADriver(ROW),
    "a command": lambda: subprocess.CalledProcessError(1, ["curl", "-H", f"Authorization: Bearer {KEY}"]),
    "a group": lambda: ExceptionGroup("many", [ValueError(KEY), ExceptionGroup("inner", [OSError(KEY)])]),
    "a cause": lambda: chained(ValueError(KEY), None),
    "a context": lambda: chained(None, ValueError(KEY)),
    "a note": noted,
    "an end that is cut": lambda: RuntimeError("x" * 280 + KEY),
    "no words": Wordless,
    "an endless circle": lambda: caught(lambda: (lambda f: f(f))(lambda f: f(f))),
}


def blow_up(trouble: BaseException, _key: str, _prompt: str, *_: Any) -> Any:
    """With local variables that a more talkative traceback would show."""
    raise trouble


@pytest.mark.parametrize("verbosity", ["-q", "-vv"])
def test_T4_whatever_is_raised_it_says_neither_key_nor_prompt(
    verbosity: str, folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEDANCE2AI_API_KEY", KEY)
    assert len(TROUBLES) > 20
    for name, trouble in TROUBLES.items():
        monkeypatch.setattr("runner.store.read_store", partial(blow_up, trouble(), KEY, PROMPT))
        code = call(["status", verbosity, "--log-file", "all.log"])
        told = said(capfd, folder / "all.log")
        assert code in (3, 7), name
        assert "error: " in told, name
        assert "Traceback" not in told, name
        assert CANARY.sings(told.encode()) is None, f"{name}: {told}"
        assert PROMPT not in told, f"{name}: {told}"


async def test_T4_an_error_of_the_queue_names_no_values(folder: Path) -> None:
    ask_for = text("SELECT :prompt FROM no_such")
    async with open_store(str(folder / "queue.db"), Clock(), own=True) as store:
        for ask in (store.read, store.write):
            with pytest.raises(Exception, match="no_such") as raised:
                await ask(lambda connection: connection.execute(ask_for, {"prompt": PROMPT}))
            assert PROMPT not in str(raised.value) + repr(raised.value) + log.describe(raised.value)


def test_T4_no_memory_dump_is_written() -> None:
    import resource

    call(["--version"])
    assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)


# --- T1, T7, T25, T29: where keys come from, and what is told of it


def test_T29_no_command_takes_a_key() -> None:
    """What stands in a command line, everybody on the machine can read."""
    names = [name for commands in COMMANDS.values() for name in commands]
    assert "run" in names
    for name in names:
        options = inspect.signature(app[name].default_command).parameters
        assert options
        assert not [each for each in options if re.search("key$|token|secret|password|credential", each)], name


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o604])
def test_T7_keys_that_others_can_read_are_told_of_before_they_are_used(
    mode: int, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / ".env").write_text("SEEDANCE2AI_API_KEY=canary-0123456789\n")
    (folder / ".env").chmod(mode)
    assert call(["run", str(write(folder, yaml_of({"a": {**SEEDANCE, "prompt": PROMPT}})))]) == 2
    told = said(capfd)
    assert ("chmod 600 .env" in told) == (mode != 0o600)
    assert "nobody to ask" in told
    assert "canary-0123456789" not in told


def test_T1_an_address_that_is_not_used_is_told(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A downloaded folder leads no key elsewhere; and who meant it must know."""
    monkeypatch.setenv("SEEDANCE2AI_API_KEY", "canary-0123456789")
    (folder / ".env").write_text("SEEDANCE2AI_BASE_URL=https://evil.example\nRUNNER_PROVIDERS=evil.yaml\n")
    assert call(["run", str(write(folder, yaml_of({"a": {**SEEDANCE, "prompt": PROMPT}})))]) == 2
    told = said(capfd)
    assert "SEEDANCE2AI_BASE_URL in .env is not used" in told
    assert "evil.yaml" not in told


@pytest.mark.parametrize(
    "words",
    [
        ("--callback-url", f"ftp://me:{quote(KEY)}@host/x?k={quote(KEY)}"),
        ("--callback-url", f"https://me:{quote(KEY)}@host/x"),
        ("--db", f"postgresql+x://me:{quote(KEY, safe='')}@host/x"),
    ],
    ids=["ftp", "https", "database"],
)
def test_T29_a_password_in_an_address_is_not_repeated(
    words: tuple[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(["run", *words, "--yes", "--no-wait"]) != 0
    told = said(capfd)
    assert "error: " in told
    assert CANARY.sings(told.encode()) is None, told
