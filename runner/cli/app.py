"""The command line itself: which commands there are, and the options that all of them share.

Commands are imported when they are called: `runner --help` must not pay for a database.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import App, Group, Parameter

from runner import __version__
from runner.errors import InputError

OPTIONS = Group("Options", sort_key=1)
COMMON = Group("Options of every command", sort_key=2)

Json = Annotated[bool, Parameter(name="--json", help="Print JSON instead of text.")]
AllowFiles = Annotated[
    list[Path] | None,
    Parameter(name="--allow-files", metavar="DIR",
              help="Local files in this folder may be uploaded, too, not only those in the manifest's own."),
]  # fmt: skip
Job = Annotated[str, Parameter(name="JOB", help="An id, a key, or the unique beginning of a key (see: runner jobs).")]


@Parameter(name="*", group=COMMON)
@dataclass(frozen=True, slots=True)
class Common:
    """What every command may be told. `db` is a path or a postgresql:// URL; `verbosity` is -1 to 2."""

    db: Annotated[
        str, Parameter(name="--db", env_var="RUNNER_DB", help="The queue: a file, or a postgresql:// URL.",
                       metavar="PATH_OR_URL", show_default=True),
    ] = "runner.db"  # fmt: skip
    verbose: Annotated[
        int, Parameter(name=("--verbose", "-v"), count=True, help="Say more; -vv says everything.", metavar="")
    ] = 0
    quiet: Annotated[bool, Parameter(name=("--quiet", "-q"), help="Say nothing but errors.")] = False
    no_progress: Annotated[bool, Parameter(name="--no-progress", help="Show no progress display.")] = False
    providers: Annotated[
        str, Parameter(name="--providers", env_var="RUNNER_PROVIDERS", metavar="FILE",
                       help="A YAML file that describes further providers (see: runner providers --example)."),
    ] = ""  # fmt: skip
    log_file: Annotated[
        Path | None, Parameter(name="--log-file", help="Append the whole log to this file, as lines of JSON.")
    ] = None

    def __post_init__(self) -> None:
        if not self.db.strip():
            raise InputError("--db (or RUNNER_DB) is empty", "name a file, or a postgresql:// URL")
        if self.quiet and self.verbose:
            raise InputError("-q and -v contradict each other", "leave one of them out")

    @property
    def verbosity(self) -> int:
        return -1 if self.quiet else min(self.verbose, 2)


EVERYDAY = Common()

app = App(
    name="runner",
    version=__version__,
    help="Sends a manifest of image and video jobs to paid providers: never pays twice, never loses what was paid for.",
    help_epilogue="Begin with: runner plan jobs.yaml. More about a command: runner COMMAND --help",
    help_format="plaintext",
    default_parameter=Parameter(negative=(), show_default=False),
    group_parameters=OPTIONS,
    result_action="return_value",
    print_error=False,
    exit_on_error=False,
    backend="asyncio",
)

COMMANDS = {
    "Order": {
        "plan": "Show what a manifest would do and cost. Writes nothing, sends nothing.",
        "run": "Submit, follow and download until nothing is left to do. Run again to resume.",
        "rehearse": "Run a manifest against pretend providers: no key, no credit.",
    },
    "Look": {
        "status": "Show how far every batch is, what it has cost, and what needs you.",
        "jobs": "List jobs.",
        "show": "Show everything about one job.",
        "credits": "Show what each account was charged and refunded.",
    },
    "Decide": {
        "retry": "Queue failed jobs again, or fetch files again that could not be had.",
        "cancel": "Cancel jobs that were not sent yet.",
        "resolve": "Decide about a held job: adopt its task, submit it again, or give it up.",
    },
    "Help": {
        "providers": "Show providers, models, fields, limits, prices, and what is guaranteed.",
        "schema": "Print the JSON Schema of a manifest, or of a file of providers, for editors.",
        "doctor": "Check keys, accounts, clock, disk and queue, and say what to do.",
        "backup": "Copy the queue to a file, also while it is worked on.",
        "sandbox": "Serve the pretend providers, to try things out.",
    },
}


def _register() -> None:
    for order, (group, commands) in enumerate(COMMANDS.items()):
        shown = Group(group, sort_key=order)
        for place, (name, about) in enumerate(commands.items()):
            app.command(f"runner.cli.{name}:{name}", name=name, help=about, group=shown, sort_key=place)


_register()
