"""Keys do not belong into a manifest (B31): whatever looks like one is pointed at, never repeated."""

from __future__ import annotations

from runner.manifest.findings import Findings
from runner.manifest.places import Source
from runner.problems import SECRET

HINT = "keys come from the environment: <PROVIDER>_API_KEY; if this one is real, make a new one"


def check_secrets(source: Source, found: Findings) -> None:
    """Notes every value (not: comment) that looks like a key. The whole text is searched once; trees only on a hit."""
    for hit in SECRET.finditer(source.text):
        if source.in_value(hit.start()):
            found.add_at("B31", "this looks like a key", HINT, source.at(hit.start(), len(hit[0])), None)
