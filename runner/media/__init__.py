"""What a file is by its first bytes, whether it is there to its end, and how large or long it is. Nothing is decoded.

`sniff` names the type, `flaw` tells a whole file from one cut short, `measure` reads sizes and lengths from headers.
Every step is bounded, whatever a file says of itself (reliability.md T21).
"""

from runner.media.kinds import (
    ALL,
    HEAD,
    INPUTS,
    Kind,
    Media,
    known_extension,
    same_extension,
    sniff,
    sniff_input,
)
from runner.media.measures import UNKNOWN, Measures, measure
from runner.media.reader import STEPS, WINDOW, Source
from runner.media.whole import flaw

__all__ = [
    "ALL",
    "HEAD",
    "INPUTS",
    "STEPS",
    "UNKNOWN",
    "WINDOW",
    "Kind",
    "Measures",
    "Media",
    "Source",
    "flaw",
    "known_extension",
    "measure",
    "same_extension",
    "sniff",
    "sniff_input",
]
