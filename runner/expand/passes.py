"""The two passes over a manifest: `survey` checks and counts everything, `orders` hands the jobs out as a stream.

Both go through every cell of every job in the same order and keep none of them. What the second pass sees is compared
with what the first one saw, so that a table or a file that changed in between is refused, not half believed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from runner.errors import InputError, Problem
from runner.expand.accounts import Accounts
from runner.expand.clashes import Clashes
from runner.expand.inputs import Inputs
from runner.expand.matrix import Matrix
from runner.expand.order import Order
from runner.expand.outputs import LONGEST_PATH, Namer
from runner.expand.recipes import Recipe
from runner.expand.tables import Rows, rows_of
from runner.expand.variables import check_variables
from runner.ledger import ZERO
from runner.manifest import JobEntry, Manifest, TableFile
from runner.manifest.findings import Findings
from runner.manifest.places import Spot
from runner.problems import quoted
from runner.providers.description import Provider
from runner.references import Outgoing

MOST_JOBS = 1_000_000
MOST_STEPS = 10_000_000  # a few seconds

Registry = Mapping[str, Provider]


@dataclass(slots=True)
class AccountTotals:
    """What one account is asked for: jobs, credits of those with a price (a budget counts `high`), jobs without."""

    jobs: int = 0
    low: Decimal = ZERO
    high: Decimal = ZERO
    unpriced: int = 0

    def add(self, order: Order) -> None:
        self.jobs += 1
        if order.estimated is None:
            self.unpriced += 1
        else:
            self.low += order.estimated.low
            self.high += order.estimated.high


@dataclass(slots=True)
class Survey:
    """What a manifest comes to. Nothing in it grows with the number of jobs.

    `accounts` go by the entry's name: exactly those that jobs use. `dropped` counts the jobs in which a default does
    not hold, by (job, field). `roots` are the folders (absolute, without links) from which files may leave this
    machine, `files` those that its jobs send. `tables` gives the sha256 (hex) of every table by its name as written.
    `warnings` are no reason to refuse. `digest` is the sha256 over all jobs in order, variables and outputs too.
    """

    jobs: int = 0
    accounts: dict[str, AccountTotals] = field(default_factory=dict)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    roots: tuple[Path, ...] = ()
    files: tuple[Outgoing, ...] = ()
    tables: dict[str, str] = field(default_factory=dict)
    warnings: tuple[Problem, ...] = ()
    digest: str = ""

    def accounts_used(self) -> frozenset[str]:
        """The accounts whose keys are needed."""
        return frozenset(self.accounts)

    def add(self, order: Order) -> None:
        self.jobs += 1
        self.accounts.setdefault(order.account, AccountTotals()).add(order)
        if order.dropped:
            self.dropped.update((order.job, name) for name in order.dropped)


def survey(manifest: Manifest, registry: Registry, allowed: Sequence[Path] = ()) -> Survey:
    """Goes through every cell once and counts. Local files may lie in the manifest's folder and in those `allowed`.

    Raises InputError with every problem and its place: unknown variables, fields a model does not take, references,
    tables, equal jobs (B71), equal output paths (B72), and more than 1,000,000 jobs (B14).
    """
    found = Findings(manifest.source)
    roots = (manifest.folder.resolve(), *allowed)
    walk = _Walk(manifest, registry, roots, found)
    walk.accounts.check(found)
    with closing(Clashes()) as clashes:
        result = _counted(walk, clashes)
        if not found:
            clashes.note(_Walk(manifest, registry, roots, Findings(manifest.source)).orders(), found)
    found.check()
    result.roots, result.files = roots, walk.inputs.outgoing()
    result.tables, result.warnings = walk.tables, tuple(walk.accounts.warnings())
    return result


def _counted(walk: _Walk, clashes: Clashes) -> Survey:
    result = Survey()
    digest = hashlib.sha256()
    for order in walk.orders():
        result.add(order)
        clashes.add(order)
        digest.update(_trace(order))
        _check_length(order, walk.found)
        if result.jobs > MOST_JOBS:
            hint = "split the manifest into several batches"
            walk.found.add("B14", f"more than {MOST_JOBS:,} jobs", hint, ("jobs",))
            break
    result.digest = digest.hexdigest()
    return result


def orders(manifest: Manifest, registry: Registry, surveyed: Survey) -> Iterator[Order]:
    """The jobs, one after the other, in the order of the manifest.

    Raises InputError when what it reads is not what the survey read (a table or a referenced file changed): at the
    latest instead of the last order, so that whoever takes all of them or none is safe.
    """
    found = Findings(manifest.source)
    walk = _Walk(manifest, registry, surveyed.roots, found)
    digest = hashlib.sha256()
    held: Order | None = None
    for order in walk.orders():
        if held is not None:
            yield held
        held = order
        digest.update(_trace(order))
        if found:
            break
    if found or digest.hexdigest() != surveyed.digest or walk.tables != surveyed.tables:
        raise _changed(manifest, found)
    if held is not None:
        yield held


def _changed(manifest: Manifest, found: Findings) -> InputError:
    message = (
        f"{manifest.source.file}: a table or a referenced file changed while it was being read; nothing was written"
    )
    return InputError(message, "run the same command again", tuple(found.problems()))


def _trace(order: Order) -> bytes:
    """What tells one pass over the manifest from another."""
    return f"{order.key}{order.account}\0{order.output}\0{order.variables}\n".encode()


class _Walk:
    """One way through all cells. `tables` fills with the hash of each table once it was read to its end."""

    def __init__(self, manifest: Manifest, registry: Registry, roots: Sequence[Path], found: Findings) -> None:
        self.manifest, self.found = manifest, found
        self.accounts = Accounts(manifest, registry)
        self.inputs = Inputs(manifest.folder, roots, registry)
        self.tables: dict[str, str] = {}
        self._namer = Namer.of(manifest.outputs)

    def orders(self) -> Iterator[Order]:
        for job in self.manifest.jobs.values():
            rows = rows_of(self.manifest, job, self.found)
            if rows is None:
                continue
            if check_variables(self.manifest, job, rows.columns, self.found) and self._is_small(job):
                yield from self._of_job(job, rows)
            else:
                rows.close()

    def _of_job(self, job: JobEntry, rows: Rows) -> Iterator[Order]:
        recipe = Recipe(self.manifest, job, self.accounts, self.inputs, self._namer, self.found)
        before = self.found.count
        had_row = had_cell = False
        for row in rows:
            had_row = True
            for combination in recipe.matrix.combinations():
                had_cell = True
                yield from recipe.orders(row, combination)
        if not had_cell and self.found.count == before:
            self._note_empty(job, had_row)
        self._note_table(job, rows)

    def _is_small(self, job: JobEntry) -> bool:
        matrix = Matrix(job.matrix, job.include, job.exclude)
        count = matrix.at_most * job.takes
        here = Spot(("jobs", job.name), on_key=True)
        if count > MOST_JOBS:
            message = f"{count:,} combinations and takes are more than the {MOST_JOBS:,} jobs a manifest may have"
            self.found.add("B14", message, "shorten the axes", here)
        elif matrix.steps > MOST_STEPS:
            message = f"{matrix.steps:,} comparisons with include and exclude are more than {MOST_STEPS:,}"
            self.found.add("B14", message, "write what is to be rendered as rows: FILE.csv", here)
        return count <= MOST_JOBS and matrix.steps <= MOST_STEPS

    def _note_empty(self, job: JobEntry, had_row: bool) -> None:
        """Says which list was empty (B69)."""
        if isinstance(job.rows, TableFile) and not had_row:
            message, part = f"{quoted(job.rows.name)} has no rows", "rows"
        else:
            message, part = "exclude leaves no combination", "exclude"
        hint = "remove the job, or give it something to render"
        self.found.add("B69", f"{message}: job {quoted(job.name)} is empty", hint, ("jobs", job.name, part))

    def _note_table(self, job: JobEntry, rows: Rows) -> None:
        if not isinstance(job.rows, TableFile) or rows.sha256 is None:
            return
        if self.tables.setdefault(job.rows.name, rows.sha256) != rows.sha256:
            message = f"{quoted(job.rows.name)} changed while it was being read"
            self.found.add("B68", message, "run the same command again", ("jobs", job.name, "rows"))


def _check_length(order: Order, found: Findings) -> None:
    length = len(order.output) if order.output.isascii() else len(order.output.encode())
    if length <= LONGEST_PATH:
        return
    message = f"job {quoted(order.job)} would write a path of {length:,} bytes"
    found.add("B75", message, f"at most {LONGEST_PATH:,} are portable: use fewer folders", ("outputs", "name"))
