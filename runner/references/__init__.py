"""Inputs going out: what a local file is, whether it may leave this machine, and who takes it.

`locate` and `inspect` find and look at a file, `check_local` holds it against what a model demands and its provider
hosts, `content_of` reads it for good when it leaves. `expiry` tells until when a signed URL is good, `half_spent`
whether it is to be had anew.
"""

from runner.references.checks import check_local
from runner.references.local import LocalFile, Outgoing, content_of, inspect, locate, placeholder, root_of
from runner.references.signed import expiry, half_spent, without_signature

__all__ = [
    "LocalFile",
    "Outgoing",
    "check_local",
    "content_of",
    "expiry",
    "half_spent",
    "inspect",
    "locate",
    "placeholder",
    "root_of",
    "without_signature",
]
