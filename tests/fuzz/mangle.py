"""Input number n of a seed: a manifest and its files, one of them mangled, the same each time. Pure."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml
from yamlcore import CCoreLoader

from fuzz.seeds import FILES, FILMED, LOCAL, MEDIA, PIECES, RICH, TABLES, manifests

LONGEST = 200_000  # characters: what is larger only takes longer
TOKEN = re.compile(r"\w+|\s+|.", re.DOTALL)


@dataclass(frozen=True)
class Input:
    """A manifest, and the files beside it that are not as they were."""

    manifest: bytes
    files: dict[str, bytes]


def made(seed: str, number: int) -> Input:
    chance = random.Random(f"{seed} {number}")
    target = chance.choices(("manifest", "table", "media"), (8, 3, 1))[0]
    if target == "manifest":
        return Input(_bytes(_mangled_text(chance), chance), {})
    name = chance.choice(sorted(TABLES if target == "table" else MEDIA))
    whole = FILES[name]
    spoilt = _mangled_bytes(whole, chance) if target == "media" else _bytes(_table(whole.decode(), chance), chance)
    return Input((RICH if target == "table" else FILMED).encode(), {name: spoilt})


@cache
def _seeds() -> list[str]:
    return manifests()


@cache
def _tree(text: str) -> Any:
    """What a seed says. One with aliases may say too much to be written down, or say itself."""
    if "*" in text:
        return None
    try:
        return yaml.load(text, CCoreLoader)  # noqa: S506  # a loader of plain data
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        return None


def _mangled_text(chance: random.Random) -> str:
    text = chance.choice((RICH, LOCAL, chance.choice(_seeds())))
    for _ in range(chance.choice((1, 1, 1, 2, 3, 5))):
        text = chance.choice(WAYS)(text, chance)[:LONGEST]
    return text


def _table(text: str, chance: random.Random) -> str:
    for _ in range(chance.choice((1, 1, 2, 4))):
        text = chance.choice((_edited, _shuffled, _repeated, _lines_moved))(text, chance)[:LONGEST]
    return text


def _edited(text: str, chance: random.Random) -> str:
    """A slip of the hand: some characters taken out, a piece put in."""
    at = chance.randrange(len(text) + 1)
    return text[:at] + _piece(chance) + text[at + chance.choice((0, 0, 1, 2, chance.randrange(30))) :]


def _piece(chance: random.Random) -> str:
    if chance.random() < 0.8:
        return chance.choice(PIECES)
    return "".join(chr(chance.choice((chance.randrange(128), chance.randrange(0x11_0000)))) for _ in range(3))


def _shuffled(text: str, chance: random.Random) -> str:
    """Words that changed places, or went, or stand twice."""
    tokens = TOKEN.findall(text) or [""]
    one, other = chance.randrange(len(tokens)), chance.randrange(len(tokens))
    match chance.randrange(4):
        case 0:
            tokens[one], tokens[other] = tokens[other], tokens[one]
        case 1:
            tokens[one] = tokens[other]
        case 2:
            tokens[one] = ""
        case _:
            tokens.insert(one, tokens[other])
    return "".join(tokens)


def _repeated(text: str, chance: random.Random) -> str:
    """Something again and again: deep, wide, or long."""
    at, times = chance.randrange(len(text) + 1), chance.choice((2, 10, 33, 300, 3_000, 30_000))
    piece = chance.choice((_piece(chance), text[at : at + chance.randrange(1, 40)]))
    return text[:at] + piece * min(times, LONGEST // max(1, len(piece))) + text[at:]


def _lines_moved(text: str, chance: random.Random) -> str:
    """Lines that moved, or came from another manifest, or are indented otherwise."""
    lines = text.splitlines(keepends=True) or [""]
    at = chance.randrange(len(lines))
    match chance.randrange(3):
        case 0:
            lines.insert(chance.randrange(len(lines)), lines.pop(at))
        case 1:
            lines[at:at] = _stretch(chance.choice(_seeds()).splitlines(keepends=True), chance)
        case _:
            lines[at] = " " * chance.randrange(6) + lines[at].lstrip(" ")
    return "".join(lines)


def _stretch(lines: list[str], chance: random.Random) -> list[str]:
    at = chance.randrange(len(lines) + 1)
    return lines[at : at + chance.randrange(1, 6)]


def _regrown(text: str, chance: random.Random) -> str:
    """What the manifest says, with one of its values another one: still YAML, mostly."""
    tree = _tree(text) if text in _seeds() else None
    if not isinstance(tree, dict):
        return _edited(text, chance)
    return json.dumps(_changed(tree, chance), default=str, ensure_ascii=chance.random() < 0.5)


def _changed(value: Any, chance: random.Random, depth: int = 0) -> Any:
    if depth > 20 or chance.random() < 0.2 or not value or not isinstance(value, dict | list):
        return _another(value, chance)
    if isinstance(value, list):
        at = chance.randrange(len(value))
        return [_changed(item, chance, depth + 1) if n == at else item for n, item in enumerate(value)]
    chosen = chance.choice([*value])
    name = _piece(chance) if chance.random() < 0.1 else str(chosen)
    return {name if key == chosen else str(key): _changed(item, chance, depth + 1) if key == chosen else item
            for key, item in value.items()}  # fmt: skip


def _another(value: Any, chance: random.Random) -> Any:
    odd: Sequence[Any] = (
        None, True, 0, -1, 1, 4, 10**30, 0.5, -1e300, "", " ", [], {}, [value], {"x": value}, [value, value],
        str(value), _piece(chance), f"{value}{_piece(chance)}", "x" * chance.choice((3, 250, 6_000, 25_000)),
        [[[[value]]]], {"source": value}, {_piece(chance): value}, list(range(chance.choice((3, 60, 1_500)))),
    )  # fmt: skip
    return chance.choice(odd)


def _bytes(text: str, chance: random.Random) -> bytes:
    encoding = chance.choices(("utf-8", "utf-8-sig", "utf-16", "latin-1"), (60, 3, 1, 1))[0]
    content = text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")
    if chance.random() < 0.1:
        content = content.replace(b"\n", chance.choice((b"\r\n", b"\r", b"\n\r")))
    return _mangled_bytes(content, chance) if chance.random() < 0.05 else content


def _mangled_bytes(content: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(len(content) + 1)
        match chance.randrange(4):
            case 0:
                content = content[:at]
            case 1:
                content = content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :]
            case 2:
                content = content[:at] + chance.randbytes(chance.choice((1, 4, 8))) + content[at:]
            case _:
                content = content[:at] + content[at + chance.randrange(1, 9) :]
    return content


WAYS: tuple[Callable[[str, random.Random], str], ...] = (
    _edited, _edited, _shuffled, _repeated, _lines_moved, _regrown, _regrown, _regrown,
)  # fmt: skip
