"""`python -m tests.bench.child MODULE FUNCTION JSON`: measures in a process of its own; the last line is its result."""

from __future__ import annotations

import importlib
import json
import sys

from tests.bench.measure import peak_mb, quiet


def main(module: str, function: str, arguments: str) -> None:
    quiet()
    found = getattr(importlib.import_module(f"tests.bench.{module}"), function)(**json.loads(arguments))
    print(json.dumps({**found, "peak_mb": peak_mb()}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
