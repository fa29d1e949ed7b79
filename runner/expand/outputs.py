"""Output paths: templates over a closed set of variables, each component made safe for every file system.

What a variable brings can never add a folder, leave one or name a device: a path is cut at the `/` of its template
first, then each part is filled in and cleaned (reliability.md section 2, T11).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from runner.manifest import Outputs
from runner.manifest.templates import Template
from runner.problems import UNPRINTABLE

LONGEST_PART = 200  # bytes of UTF-8; file systems take 255, and `-2` or `.part` may follow
LONGEST_PATH = 1_000  # bytes
KEY_SHOWN = 10  # characters of the key in names
SLUG_WORDS = 6
SLUG_LENGTH = 40  # characters
NAMELESS = "untitled"

_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ ,()+=@-]*(?:\.[A-Za-z0-9_ ,()+=@-]+)*(?<! )")
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\n\r\t]')  # on Windows, and separators anywhere
_DEVICES = re.compile(r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9¹²³])\s*(?:\.|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Namer:
    """The output paths of one manifest: a component each, texts or templates."""

    parts: tuple[str | Template, ...]

    @classmethod
    def of(cls, outputs: Outputs) -> Namer:
        return cls((*_components(outputs.dir), *_components(outputs.name)))

    @property
    def names(self) -> frozenset[str]:
        """The variables that occur."""
        return frozenset(name for part in self.parts if isinstance(part, Template) for name in part.names)

    def path(self, values: Mapping[str, str]) -> str:
        """The path below the manifest's folder, with `/` between its components, ending in `.ext`.

        `values` holds the variables as text; its `key` is whole, and shows its first characters only.
        """
        values = {**values, "key": values["key"][:KEY_SHOWN]}
        filled = [part if isinstance(part, str) else part.fill(values) for part in self.parts]
        *folders, name = filled
        extension = f".{values['ext']}"
        bare = name.removesuffix(extension)
        unique = values["key"]
        return "/".join([*(clean(folder, unique) for folder in folders), clean(bare, unique, extension)])


def _components(text: str | Template) -> list[str | Template]:
    """The parts of a path between its `/`; empty and `.` parts mean nothing and are left out."""
    template = text if isinstance(text, Template) else Template(text, (text,), ())
    parts: list[tuple[list[str], list[str]]] = [([""], [])]
    for at, around in enumerate(template.around):
        if at:
            parts[-1][1].append(template.names[at - 1])
            parts[-1][0].append("")
        first, *rest = around.split("/")
        parts[-1][0][-1] += first
        parts += [([piece], []) for piece in rest]
    return [_component(around, names) for around, names in parts if names or around[0].strip(" ") not in ("", ".")]


def _component(around: list[str], names: list[str]) -> str | Template:
    return Template("", tuple(around), tuple(names)) if names else around[0]


def clean(part: str, unique: str, ending: str = "") -> str:
    """One component, safe everywhere: NFC, no control or direction marks, no device, no dot or space at its ends.

    It has at most LONGEST_PART bytes with `ending`; what had to be cut ends in `unique`, so that it stays itself.
    """
    limit = LONGEST_PART - 1 - len(ending.encode())
    if not (len(part) <= limit and _SAFE.fullmatch(part)):
        part = UNPRINTABLE.sub("", unicodedata.normalize("NFC", part))
        part = _FORBIDDEN.sub("-", part).strip(" ").rstrip(". ")
        part = _short(part or "_", limit, unique)
    return ("_" if part.startswith(".") or _DEVICES.match(part) else "") + part + ending


def _short(part: str, limit: int, unique: str) -> str:
    if len(part.encode()) <= limit:
        return part
    room = limit - len(unique) - 1
    return part.encode()[:room].decode("utf-8", "ignore").rstrip(". ") + "-" + unique


def folded(path: str) -> str:
    """What two paths have in common that some file system takes for one: no letter case, composed accents."""
    return (
        path.lower() if path.isascii() else unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
    )


def slug(prompt: str) -> str:
    """The prompt's first words as a safe name: small letters and digits of any script, hyphens between."""
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFC", prompt[:400]).lower())[:SLUG_WORDS]
    chosen = "-".join(words)
    while len(chosen) > SLUG_LENGTH and "-" in chosen:
        chosen = chosen.rpartition("-")[0]
    return chosen[:SLUG_LENGTH] or NAMELESS
