"""One command, from its words to its exit code. Whatever ends it, a person sees one clear line and never a traceback.

    a RunnerError             its message and hint, and its own exit code
    words not understood      2
    a system error            7: disk, permissions, a database that does not answer
    anything else             3: a bug; the traceback goes to the log file, and to the terminal at -vv
    Ctrl-C                    130

Where several things went wrong at once, the gravest one decides.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cyclopts import CycloptsError, UnknownCommandError, UnusedCliTokensError

from runner.cli.app import Common, app
from runner.errors import InputError, InternalError, LocalError, RunnerError
from runner.problems import quoted

INTERRUPTED = 130
OURS = Path(__file__).parent.parent


def call(argv: Sequence[str] | None = None) -> int:
    _prepare_process()
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _parse_and_run(words)
    except KeyboardInterrupt:
        return _interrupted()
    except RunnerError as error:
        return _end(error, as_data=False)
    except Exception as error:  # while the command was being imported, or its words read
        return _end_before_it_began(_translated(error), words)
    finally:
        _say_the_rest()


def _say_the_rest() -> None:
    """A last message that still cannot be written must not change the exit code, as Python would have it."""
    from runner.log import let_go

    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        let_go(sys.stderr)


def _prepare_process() -> None:
    """No memory dumps (they would hold keys), no log of TLS keys (a library opens one as it is imported), and no closed
    standard stream: the next file opened would take its number, and a stray message would be written into it."""
    os.environ.pop("SSLKEYLOGFILE", None)
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115  # as long as the process lives
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def _parse_and_run(words: list[str]) -> int:
    try:
        command, bound, _ = app.parse_args(words)
    except CycloptsError as error:
        raise _not_understood(error) from None
    bound.apply_defaults()
    common = next((value for value in bound.arguments.values() if isinstance(value, Common)), None)
    if common is None:  # help and version
        return _show(command, bound)
    from runner import log

    with log.opened(common.verbosity, common.log_file):
        try:
            with _declared(common):
                return _run(command, bound)
        except KeyboardInterrupt:
            return _interrupted()
        except BaseExceptionGroup as group:
            if any(isinstance(leaf, KeyboardInterrupt) for leaf in _leaves(group)):
                return _interrupted()
            return _end(_translated(group), as_data=bool(bound.arguments.get("json")))
        except Exception as error:
            return _end(_translated(error), as_data=bool(bound.arguments.get("json")))


@contextmanager
def _declared(common: Common) -> Iterator[None]:
    """The providers that the person describes are known before any command looks for one, and only to this command.
    Raises InputError for a file with something wrong in it: nothing is opened, written or sent then, whatever the
    command."""
    if not common.providers:
        yield
        return
    from runner.providers import declare, registry
    from runner.providers.declared.reader import read_providers

    declare(read_providers(Path(common.providers), list(registry())))
    try:
        yield
    finally:
        declare()


def _show(command: Callable[..., Any], bound: inspect.BoundArguments) -> int:
    try:
        command(*bound.args, **bound.kwargs)
    except SystemExit:  # how rich reacts to a closed pipe
        return 0
    return 0


def _run(command: Callable[..., Any], bound: inspect.BoundArguments) -> int:
    result = command(*bound.args, **bound.kwargs)
    if inspect.isawaitable(result):
        import anyio

        result = anyio.run(_awaited, result, backend="asyncio")
    return int(result or 0)


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


def _not_understood(error: CycloptsError) -> InputError:
    path = " ".join(["runner", *(error.command_chain or ())])
    first = next(iter(error.unused_tokens or ()), "")
    if isinstance(error, UnusedCliTokensError):
        return InputError(f"one word too many: {quoted(first)}", f"see: {path} --help")
    if isinstance(error, UnknownCommandError) and first.startswith("-"):
        return InputError(f"{quoted(first)} stands before any command", "options come after it: runner COMMAND --help")
    return InputError(" ".join(str(error).split()), f"see: {path} --help")


def _interrupted() -> int:
    from runner.cli.output import say

    say("interrupted")
    return INTERRUPTED


def _end(error: RunnerError, *, as_data: bool) -> int:
    """Says why the command ended; returns its exit code."""
    from runner.cli.output import complain

    if error.exit_code == InternalError.exit_code:
        _log_bug(error)
    complain(error, as_data=as_data)
    return error.exit_code


def _end_before_it_began(error: RunnerError, words: Sequence[str]) -> int:
    """The same for trouble before anybody knew where the log goes: a bug's traceback must be in it all the same. Should
    the log itself be of no use, the trouble comes first."""
    from runner import log

    verbosity, file = _where_to_log(words)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(RunnerError):
            stack.enter_context(log.opened(verbosity, file))
        return _end(error, as_data=False)


def _where_to_log(words: Sequence[str]) -> tuple[int, Path | None]:
    """-v and --log-file as they stand in the words, read without what has just failed."""
    import argparse

    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    reader.add_argument("-v", "--verbose", action="count", default=0)
    reader.add_argument("--log-file", type=Path)
    try:
        found, _ = reader.parse_known_args(words)
    except argparse.ArgumentError:  # --log-file without a file
        return 0, None
    return found.verbose, found.log_file


def _log_bug(error: RunnerError) -> None:
    import structlog

    if structlog.is_configured():
        structlog.get_logger("runner").debug("internal error", exc_info=error.__cause__ or error)


def _translated(error: BaseException) -> RunnerError:
    """Any trouble in our words. What a stranger's exception says is not repeated: it may hold a key or a prompt."""
    match error:
        case RunnerError():
            return error
        case BaseExceptionGroup():
            return _gravest(error)
        case ModuleNotFoundError(name="asyncpg"):
            return InputError("the driver for PostgreSQL is not installed", "pip install 'runner[postgres]'")
        case OSError():
            where = f" ({error.filename})" if isinstance(error.filename, str | os.PathLike) else ""
            return LocalError(f"this machine is in the way: {error.strerror or type(error).__name__}{where}")
    if type(error).__module__.partition(".")[0] == "asyncpg":
        first, *_rows = str(error).splitlines() or [type(error).__name__]  # what follows may repeat a row
        return LocalError(f"the database refuses: {first}", "check the URL given with --db or RUNNER_DB")
    return _bug(error)


def _bug(error: BaseException) -> InternalError:
    hint = "this is a bug; -vv or --log-file FILE shows where it comes from. Running again resumes"
    bug = InternalError(f"internal error: {type(error).__name__} {_place(error)}", hint)
    bug.__cause__ = error
    return bug


def _place(error: BaseException) -> str:
    """The last line of ours that was reached."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(OURS)] or list(frames)
    return f"in {Path(ours[-1].filename).name}, line {ours[-1].lineno}" if ours else "somewhere"


def _gravest(group: BaseExceptionGroup[BaseException]) -> RunnerError:
    from runner.engine.ending import PRECEDENCE

    found = [_translated(leaf) for leaf in _leaves(group)]
    return min(found, key=lambda one: PRECEDENCE.index(one.exit_code))


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for inner in group.exceptions:
        if isinstance(inner, BaseExceptionGroup):
            yield from _leaves(inner)
        else:
            yield inner
