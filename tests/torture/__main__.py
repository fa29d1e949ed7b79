"""`./scripts/torture`: kills a runner again and again while its providers misbehave, and judges what is left.

Exit codes: 0 nothing was found · 1 something was (the line that replays it is printed) · 2 usage.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from torture.figures import as_json, figures, table
from torture.manifests import PROVIDERS
from torture.random_kills import Plan, random_kills
from torture.sweep import chain, each, points, sweep

QUICK_KILLS, KILLS, JOBS = 40, 200, 24


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = _parser().parse_args(arguments)
    seed = chosen.seed or secrets.token_hex(4)
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    clean = _sweep(chosen, seed, folder) if chosen.sweep else _random(chosen, seed, folder)
    if clean and not chosen.keep:
        shutil.rmtree(folder)
        return 0
    print(f"what is left of it: {folder}")
    if not clean:
        print(f"again: {replay(chosen, seed)}")
    return 0 if clean else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/torture", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--quick", action="store_true", help=f"{QUICK_KILLS} kills instead of {KILLS}; with --sweep, fewer points")
    add("--seed", help="of everything that is drawn (default: drawn)")
    add("--kills", type=_count, help=f"how many (default: {KILLS})")
    add("--jobs", type=_count, default=JOBS, help=f"at the start, and again whenever all are over (default: {JOBS})")
    add("--provider", choices=PROVIDERS, action="append", help="only this one; may be repeated (default: all)")
    add("--speed", type=float, default=30.0, metavar="N", help="how much faster than real time (default: 30)")
    add("--faults", metavar="SPEC", help='as of the sandbox; "" for none (default: a bit of everything)')
    add("--sweep", action="store_true", help="instead: kill at every named fail point, n = 1, 2, 3, …")
    add("--point", choices=points(), action="append", help="with --sweep: only this one; may be repeated")
    add("--json", action="store_true", help="the report as JSON, on stdout")
    add("--keep", action="store_true", help="keep the folder even if nothing was found")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _random(chosen: argparse.Namespace, seed: str, folder: Path) -> bool:
    kills = chosen.kills or (QUICK_KILLS if chosen.quick else KILLS)
    plan = Plan(seed, kills, chosen.jobs, _providers(chosen), chosen.speed)
    if chosen.faults is not None:
        plan = Plan(seed, kills, chosen.jobs, _providers(chosen), chosen.speed, faults=chosen.faults)
    _say(f"{kills} kills, seed {seed}, in {folder}")
    outcome = random_kills(folder, plan, _say)
    told = figures(outcome)
    (folder / "report.json").write_text(as_json(told))
    print(as_json(told) if chosen.json else table(told))
    return outcome.clean


def _sweep(chosen: argparse.Namespace, seed: str, folder: Path) -> bool:
    """Every fail point with every n that a run reaches; --quick: each in one chain of crashes."""
    clean = True
    for name in chosen.point or points():
        cases = [chain(seed, name, _providers(chosen))] if chosen.quick else each(seed, name, _providers(chosen))
        died = 0
        for case in cases:
            result = sweep(folder / case.seed, case)
            died += result.died
            clean = clean and result.clean
            if not result.clean:
                print(result.story())
            if result.died < len(case.wishes):
                break
        print(f"{name}: {died} kills, {'clean' if clean else 'NOT CLEAN'}", flush=True)
    return clean


def _providers(chosen: argparse.Namespace) -> tuple[str, ...]:
    return tuple(sorted(set(chosen.provider or PROVIDERS)))


def replay(chosen: argparse.Namespace, seed: str) -> str:
    """The command line that does the same once more (as far as the machine's own timing lets it)."""
    words = ["./scripts/torture", f"--seed {seed}", f"--jobs {chosen.jobs}", f"--speed {chosen.speed:g}"]
    words += [f"--kills {chosen.kills}"] if chosen.kills else []
    words += [f"--{name}" for name in ("quick", "sweep") if getattr(chosen, name)]
    words += [f"--provider {name}" for name in chosen.provider or ()]
    words += [f"--point {name}" for name in chosen.point or ()]
    words += [f"--faults '{chosen.faults}'"] if chosen.faults is not None else []
    return " ".join(words)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
