"""The two passes over a manifest: `survey` checks and counts everything, `orders` hands the jobs out as a stream.

Both go through every cell of every job in the same order and keep none of them. What the second pass sees is compared
with what the first one saw, so that a table or a file that changed in between is refused, not half believed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from runner.errors import InputError, Problem
from runner.expand.accounts import Accounts
from runner.expand.inputs import Inputs
from runner.expand.matrix import Matrix
from runner.expand.order import Order
from runner.expand.outputs import LONGEST_PATH, Namer, folded
from runner.expand.recipes import Recipe
from runner.expand.tables import Rows, rows_of
from runner.expand.twins import Twins
from runner.expand.variables import check_variables
from runner.ledger import ZERO
from runner.manifest import JobEntry, Manifest, TableFile
from runner.manifest.findings import Findings
from runner.manifest.places import Spot
from runner.problems import listed, quoted
from runner.providers.description import Provider
from runner.references import LocalFile

MOST_JOBS = 1_000_000
WORD = (1 << 64) - 1

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
    not hold, by (job, field). `files` will leave this machine. `tables` gives the sha256 (hex) of every table by its
    name as written. `warnings` are no reason to refuse. `digest` is the sha256 over all jobs in order, variables and
    outputs too.
    """

    jobs: int = 0
    accounts: dict[str, AccountTotals] = field(default_factory=dict)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    files: tuple[LocalFile, ...] = ()
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


def survey(manifest: Manifest, registry: Registry) -> Survey:
    """Goes through every cell once and counts.

    Raises InputError with every problem and its place: unknown variables, fields a model does not take, references,
    tables, equal jobs (B71), equal output paths (B72), and more than 1,000,000 jobs (B14).
    """
    found = Findings(manifest.source)
    walk = _Walk(manifest, registry, found)
    walk.accounts.check(found)
    result, keys, paths = Survey(), Twins(), Twins()
    digest = hashlib.sha256()
    for order in walk.orders():
        result.add(order)
        keys.add(int(order.key[:16], 16))
        paths.add(hash(folded(order.output)) & WORD)
        digest.update(_trace(order))
        if len(order.output) > LONGEST_PATH // 4 and len(order.output.encode()) > LONGEST_PATH:
            _note_long_path(order, found)
        if result.jobs > MOST_JOBS:
            break
    if result.jobs > MOST_JOBS:
        found.add("B14", f"more than {MOST_JOBS:,} jobs", "split the manifest into several batches", ("jobs",))
    if not found:
        _note_twins(_Walk(manifest, registry, Findings(manifest.source)), keys.found(), paths.found(), found)
    found.check()
    result.files = tuple(walk.inputs.files[path] for path in sorted(walk.inputs.files))
    result.tables, result.warnings = walk.tables, tuple(walk.accounts.warnings())
    result.digest = digest.hexdigest()
    return result


def orders(manifest: Manifest, registry: Registry, surveyed: Survey) -> Iterator[Order]:
    """The jobs, one after the other, in the order of the manifest.

    Raises InputError when what it reads is not what the survey read (a table or a referenced file changed): at the
    latest instead of the last order, so that whoever takes all of them or none is safe.
    """
    found = Findings(manifest.source)
    walk = _Walk(manifest, registry, found)
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

    def __init__(self, manifest: Manifest, registry: Registry, found: Findings) -> None:
        self.manifest, self.found = manifest, found
        self.accounts = Accounts(manifest, registry)
        self.inputs = Inputs(manifest.folder)
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
        count = Matrix(job.matrix, job.include).at_most * job.takes
        if count > MOST_JOBS:
            message = f"{count:,} combinations and takes are more than the {MOST_JOBS:,} jobs a manifest may have"
            self.found.add("B14", message, "shorten the axes", Spot(("jobs", job.name), on_key=True))
        return count <= MOST_JOBS

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


def _note_long_path(order: Order, found: Findings) -> None:
    message = f"job {quoted(order.job)} would write a path of {len(order.output.encode()):,} bytes"
    found.add("B75", message, f"at most {LONGEST_PATH:,} are portable: use fewer folders", ("outputs", "name"))


def _note_twins(walk: _Walk, keys: set[int], paths: set[int], found: Findings) -> None:
    """A third pass, only where two digests were equal: names both places of what is truly equal."""
    if not keys and not paths:
        return
    seen: dict[str, Order] = {}
    for order in walk.orders():
        path = folded(order.output)
        if int(order.key[:16], 16) in keys and (first := seen.setdefault(order.key, order)) is not order:
            _note_equal(order, first, found)
        elif hash(path) & WORD in paths and (first := seen.setdefault(path, order)) is not order:
            _note_same_path(order, first, found)


def _note_same_path(order: Order, first: Order, found: Findings) -> None:
    differ = _differ(order, first) or (["take"] if order.take != first.take else ["key"])
    message = f"{quoted(order.output, 120)} would be written by two jobs (first at {_at(first)})"
    _note_at(order, "B72", message, f"add ${{{differ[0]}}} or ${{key}} to outputs.name", found)


def _differ(order: Order, first: Order) -> list[str]:
    """The columns and axes that tell two orders apart."""
    return [name for name, text in order.variables.items() if first.variables.get(name) != text]


def _note_equal(order: Order, first: Order, found: Findings) -> None:
    differ = _differ(order, first)
    unused = f"nothing in the request uses {listed(differ)}; " if differ else ""
    message = f"this job asks for the same as job {quoted(first.job)} (first at {_at(first)})"
    _note_at(order, "B71", message, f"{unused}to render the same twice write takes: 2", found)


def _note_at(order: Order, code: str, message: str, hint: str, found: Findings) -> None:
    if isinstance(order.where, Spot):
        found.add(code, message, hint, order.where)
    else:
        found.add_at(code, message, hint, order.where, None)


def _at(order: Order) -> str:
    place = order.place
    return f"{place.file}:{place.line}:{place.column}"
