"""`./scripts/torture`: kills a runner again and again while its providers misbehave, and judges what is left.

Exit codes: 0 nothing was found · 1 something was (the line that replays it is printed; with --mutant that is as it
should be) · 2 usage · 130 interrupted.
"""

from __future__ import annotations

import argparse
import math
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from torture.catalogue import numbered
from torture.judge import Finding
from torture.manifests import PROVIDERS
from torture.model import model as stories
from torture.mutants.catching import catch, untried
from torture.mutants.listed import MUTANTS
from torture.parts import Part, Setting, chosen, is_fault, play, play_all
from torture.programme import every_part, quick_parts, usual_parts
from torture.report import as_json, figures, table
from torture.scenarios.syscalls import FULL_DISK, NO_STRACE
from torture.tally import Tally, total

INTERRUPTED = 130
PARTS_AT_ONCE = (os.cpu_count() or 2) + 1  # a part waits as much as it works


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    asked = parser.parse_args(arguments)
    setting = _setting(asked)
    if asked.list:
        return _list(every_part())
    if asked.mutant:
        return _try_mutant(asked.mutant, setting.seed, parser)
    if asked.model:
        return _tell_stories(asked.model, setting.seed)
    if asked.only:
        return _play_one(asked, setting)
    parts = _parts(asked, parser)
    try:
        return _torture(asked, parts, setting)
    except KeyboardInterrupt:
        print(f"interrupted; with --folder it goes on where it stopped, seed {setting.seed}", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/torture", description=__doc__.split("\n")[0])
    add = parser.add_argument
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="a few kills of each kind: at most 6 minutes")
    size.add_argument("--full", action="store_true", help="everything: at most 100 minutes")
    add("--seed", type=_word, help="of everything that is drawn (default: drawn)")
    add("--fault", action="append", default=[], metavar="F65", help="only the parts that fire it; may be repeated")
    add("--part", action="append", default=[], metavar="NAME", help="only this one, or all that begin so (see --list)")
    add("--list", action="store_true", help="names the parts, and the faults each is there for")
    add("--mutant", metavar="M7", help="a runner that is broken on purpose: the judge must find it guilty (exit 1)")
    add("--model", type=_count, metavar="STEPS", help="instead: so many steps of stories in virtual time")
    add("--provider", choices=PROVIDERS, action="append", help="only this one; may be repeated (default: all)")
    add("--speed", type=_factor, metavar="N", help="how much faster than real time (default: what each part takes)")
    add("--at-once", type=_count, default=PARTS_AT_ONCE, metavar="N", help=f"parts side by side ({PARTS_AT_ONCE})")
    add(
        "--folder", type=_folder, help="where all is kept; once more with the same one: goes on with the parts it lacks"
    )
    add("--json", action="store_true", help="the report as JSON, on stdout")
    add("--keep", action="store_true", help="keep the folder even if nothing was found")
    add("--only", help=argparse.SUPPRESS)
    return parser


def _setting(asked: argparse.Namespace) -> Setting:
    """A folder that knows its seed is gone on with."""
    known = asked.folder / "seed" if asked.folder else None
    kept = known.read_text() if known and known.exists() else None
    providers = tuple(sorted(set(asked.provider or PROVIDERS)))
    return Setting(asked.seed or kept or secrets.token_hex(4), providers, asked.speed)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _factor(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError("must be above 0")
    return number


def _word(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def _folder(text: str) -> Path:
    folder = Path(text)
    if any(path.exists() and not path.is_dir() for path in (folder, *folder.parents)):
        raise argparse.ArgumentTypeError(f"{text} is no folder")
    return folder


def _try_mutant(number: str, seed: str, parser: argparse.ArgumentParser) -> int:
    """1: it was found guilty, as it must be. 0: it got away."""
    if number not in MUTANTS or untried(number):
        parser.error(untried(number) if number in MUTANTS else f"no such mutant: there are {', '.join(MUTANTS)}")
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        caught = catch(number, Path(folder), seed)
    print(caught.story)
    print(f"{number} {f'is caught by the rule {caught.by!r}' if caught.caught else 'GOT AWAY'}")
    return 1 if caught.caught else 0


def _tell_stories(steps: int, seed: str) -> int:
    try:
        print(as_json(stories(steps, seed)))
    except AssertionError as broken:
        print(broken)
        return 1
    return 0


def _list(parts: Sequence[Part]) -> int:
    for part in parts:
        print(f"{part.name:28} {' '.join(part.fires)}")
    return 0


def _play_one(asked: argparse.Namespace, setting: Setting) -> int:
    """A part in this very process: how `play_all` plays each."""
    [part] = [each for each in (*every_part(), *quick_parts()) if each.name == asked.only][:1]
    return 0 if play(part, asked.folder, setting).clean else 1


def _parts(asked: argparse.Namespace, parser: argparse.ArgumentParser) -> list[Part]:
    unknown = [number for number in asked.fault if not is_fault(number)]
    if unknown:
        parser.error(f"no such fault: {unknown[0]}")
    if asked.fault or asked.part or asked.full:
        parts = list(chosen(every_part(), asked.part, asked.fault))
        parts = parts[:1] + [part for part in parts[1:] if not (asked.fault and part.name.startswith("k4"))]
    else:
        parts = quick_parts() if asked.quick else usual_parts()
    if not parts:
        parser.error("no part is called so, or fires that (see --list)")
    return parts


def _torture(asked: argparse.Namespace, parts: Sequence[Part], setting: Setting) -> int:
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="torture-"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "seed").write_text(setting.seed)
    began = time.monotonic()
    _say(f"{len(parts)} parts, {asked.at_once} at once, seed {setting.seed}, in {folder}")
    tallies = play_all(parts, folder, setting, asked.at_once, _say)
    whole = total(tallies.values())
    if asked.full and not (asked.fault or asked.part):
        missed(whole)
    told = figures(whole, commit=_commit(), seconds=time.monotonic() - began)
    (folder / "report.json").write_text(as_json(told))
    print(as_json(told) if asked.json else table(told))
    for name, each in tallies.items():
        if not each.clean:
            print(f"again: {replay(setting, name)}", file=sys.stderr)
    if told["clean"] and not asked.keep and not asked.folder:
        shutil.rmtree(folder)
    else:
        _say(f"what is left of it: {folder}")
    return 0 if told["clean"] else 1


def missed(whole: Tally) -> None:
    """A full torture has met every fault of the catalogue (but for those that this machine cannot play), or it is not
    clean."""
    played = () if NO_STRACE not in whole.done else FULL_DISK
    for number in numbered(whole.fired).unfired:
        if number not in played:
            whole.find(Finding("unfired", number))


def replay(setting: Setting, part: str) -> str:
    """The command line that does the same once more (as far as the machine's own timing lets it)."""
    return " ".join(["./scripts/torture", *setting.words(), "--part", part])


def _commit() -> str:
    asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "unknown"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
