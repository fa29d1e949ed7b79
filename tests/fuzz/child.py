"""A process that judges inputs one after the other: `python -m fuzz.child SEED FIRST STOP FOLDER`.

The system ends it with SIGPROF when an input takes 2 s of CPU, and refuses it memory beyond 200 MiB; the number of
the input it is at stands in `FOLDER/at`. What must not be is written to stdout, a line of JSON each, the tally last.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from fuzz.judge import few_jobs, judged, prepare
from fuzz.mangle import made

SECONDS = 2.0  # of CPU
MEMORY = 200 << 20  # bytes of address space that may be written to; what is mapped from files does not count
FORBIDDEN = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "ctypes.")


def main(seed: str, first: int, stop: int, folder: Path) -> None:
    prepare(folder)
    few_jobs()
    judged(made("first", 0), folder)  # everything is imported now
    sys.addaudithook(_refuse)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    at = os.open(folder / "at", os.O_CREAT | os.O_WRONLY)
    counts: Counter[str] = Counter()
    for number in range(first, stop):
        os.pwrite(at, b"%20d" % number, 0)
        given = made(seed, number)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            counts["refused" if judged(given, folder) else "read"] += 1
        except Exception as error:  # whatever it is: that is what is looked for
            told = "".join(traceback.format_exception(error)[-6:])
            print(json.dumps({"number": number, "what": told}), flush=True)
        signal.setitimer(signal.ITIMER_PROF, 0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"read": counts["read"], "refused": counts["refused"], "peak_mib": round(peak)}), flush=True)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """No manifest makes the program look for an address, or start another one."""
    if event.startswith(FORBIDDEN):
        raise AssertionError(f"a manifest caused {event} {arguments!r:.200}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
