"""`runner schema`: what a manifest may hold, for editors that complete and check it."""

from __future__ import annotations

from runner.cli.app import EVERYDAY, Common


def schema(*, common: Common = EVERYDAY) -> int:
    """Print the JSON Schema of a manifest.

    Save it, and name it in a manifest's first line: # yaml-language-server: $schema=FILE
    """
    from runner.cli.output import emit_json
    from runner.manifest import schema as made

    emit_json(made())
    return 0
