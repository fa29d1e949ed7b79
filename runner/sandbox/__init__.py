"""Pretend providers over real loopback HTTP: they cost nothing, go wrong on request, and keep the books.

Written from the providers' documents and importing nothing else of this project, so that they can be the judge of it.

    async with serve(Options(seed="7", speed=60)) as sandbox:
        sandbox.base_urls["happyhorse"], sandbox.keys["happyhorse"], sandbox.ledger()

    options     how it is set up                     server      puts it together
    providers/  one dialect each                     dialect     what a dialect is made of
    api         the way of a request                 mediahost   results and uploads, a second origin
    books       accounts, tasks, the ledger          pen         the one writer, its schema
    faults      what can go wrong, and who is struck mishaps     … acted out on the connection
    journal     what was seen of the clients         reports     what a judge is told
    assets      files under review, and then in use  callbacks   what clients are told of an end
    renders     the bytes of results                 control     the door for tests, /_sandbox
    measuring   what a server sees of a file it has only the address of
"""

from __future__ import annotations

from .journal import fingerprint
from .options import BadOptions, Options
from .pen import StateUnusable
from .server import Sandbox, serve

__all__ = ["BadOptions", "Options", "Sandbox", "StateUnusable", "fingerprint", "serve"]
