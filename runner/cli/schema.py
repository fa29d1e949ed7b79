"""`runner schema`: what a manifest or a file of providers may hold, for editors that complete and check it."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from runner.cli.app import EVERYDAY, Common

Of = Annotated[
    Literal["manifest", "providers"],
    Parameter(help="Of what: a manifest, or a file of providers (--providers).", metavar="OF"),
]


def schema(of: Of = "manifest", /, *, common: Common = EVERYDAY) -> int:
    """Print the JSON Schema of a manifest, or of a file of providers.

    Save it, and name it in the file's first line: # yaml-language-server: $schema=FILE
    """
    from runner.cli.output import emit_json

    if of == "providers":
        from runner.providers.declared.shape import schema as made
    else:
        from runner.manifest import schema as made
    emit_json(made())
    return 0
