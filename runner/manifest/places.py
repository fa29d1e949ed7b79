"""Where things stand in a manifest: a second look at the file, taken only when something must be pointed at."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from typing import Any

import yaml

from runner.errors import Place, Problem

Step = str | int
Path = tuple[Step, ...]
_LINE_END = re.compile(r"\r\n|\r|\n")
Marks = tuple[Any, Any]  # where something starts and where it ends, as the parser says it (counted from 0)


@dataclass(frozen=True, slots=True)
class Spot:
    """Something in the manifest: the way to it from the top, whether its key is meant, or some words inside it."""

    path: Path
    on_key: bool = False
    words: str | None = None


@dataclass(slots=True)
class _Node:
    """One value: its extent, its key's extent, and what is in it."""

    marks: Marks
    key: Marks | None = None
    inside: dict[Step, _Node] = field(default_factory=dict)


class Source:
    """One text and its file's name: lines and places, as a person counts them (from 1; columns are characters)."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file

    @cached_property
    def lines(self) -> list[str]:
        return _LINE_END.split(self.text)

    @cached_property
    def _line_starts(self) -> list[int]:
        return [0, *(end.end() for end in _LINE_END.finditer(self.text))]

    @cached_property
    def _written(self) -> list[tuple[int, int]]:
        """Where keys and values begin and end, in order."""
        return sorted(_extents(self._top))

    @cached_property
    def _top(self) -> _Node:
        return _read(self.text)

    def line(self, number: int) -> str:
        return self.lines[number - 1] if 0 < number <= len(self.lines) else ""

    def quote(self, problem: Problem) -> Problem:
        """The problem with the line it points at."""
        return replace(problem, text=self.line(problem.place.line)) if problem.place else problem

    def extent(self, start: Any, end: Any) -> Place:
        """From a start to an end mark; what runs over several lines ends with its first."""
        line, column = start.line + 1, start.column + 1
        last = end.column + 1 if end.line == start.line else len(self.line(line)) + 1
        return Place(self.file, line, column, max(last, column + 1))

    def at(self, offset: int, length: int = 1) -> Place:
        """The place of a character, counted from the start of the text."""
        line = bisect_right(self._line_starts, offset)
        column = offset - self._line_starts[line - 1] + 1
        return Place(self.file, line, column, column + length)

    def place(self, spot: Spot) -> Place:
        """The place of a spot, or of the nearest thing around it that exists."""
        node = self._top
        for step in spot.path:
            inner = node.inside.get(step)
            if inner is None:
                return self.extent(*(node.key or (node.marks[0], node.marks[0])))
            node = inner
        if spot.on_key and node.key:
            return self.extent(*node.key)
        return self._words(node, spot.words) or self.extent(*node.marks)

    def holds(self, path: Path) -> bool:
        """Whether something was written at exactly this path."""
        node = self._top
        for step in path:
            if step not in node.inside:
                return False
            node = node.inside[step]
        return True

    def in_value(self, offset: int) -> bool:
        """Whether a character belongs to a key or a value, not to a comment or the space between."""
        before = bisect_right(self._written, offset, key=lambda extent: extent[0])
        return before > 0 and offset < self._written[before - 1][1]

    def _words(self, node: _Node, words: str | None) -> Place | None:
        at = self.text.find(words, node.marks[0].index, node.marks[1].index) if words else -1
        return self.at(at, len(words)) if words and at >= 0 else None


@dataclass(frozen=True, slots=True)
class _Mark:
    line: int = 0
    column: int = 0
    index: int = 0


def _extents(node: _Node) -> Iterator[tuple[int, int]]:
    """Of all keys and of the values that hold no others: none of them overlap."""
    for marks in (node.key, None if node.inside else node.marks):
        if marks is not None:
            yield marks[0].index, marks[1].index
    for inner in node.inside.values():
        yield from _extents(inner)


def _read(text: str) -> _Node:
    """The places of all values. Reading stops at what the parser cannot read; what came before is known."""
    top = _Node((_Mark(), _Mark()))
    loader = yaml.CSafeLoader(text)
    try:
        event: Any = loader.get_event()
        while not isinstance(event, yaml.NodeEvent | yaml.StreamEndEvent):
            event = loader.get_event()
        top.marks = (event.start_mark, event.end_mark)
        _fill(top, event, loader.get_event, {})
    except yaml.YAMLError:
        pass
    finally:
        loader.dispose()
    return top


def _fill(node: _Node, event: Any, next_event: Callable[[], Any], anchors: dict[str, _Node]) -> None:
    if isinstance(event, yaml.AliasEvent):
        aliased = anchors.get(event.anchor or "", node)
        node.marks, node.inside = aliased.marks, aliased.inside
        return
    if isinstance(event, yaml.NodeEvent) and event.anchor:
        anchors[event.anchor] = node
    if isinstance(event, yaml.SequenceStartEvent):
        _fill_sequence(node, next_event, anchors)
    elif isinstance(event, yaml.MappingStartEvent):
        _fill_mapping(node, next_event, anchors)


def _fill_sequence(node: _Node, next_event: Callable[[], Any], anchors: dict[str, _Node]) -> None:
    for step in count():
        event = next_event()
        if isinstance(event, yaml.SequenceEndEvent):
            node.marks = (node.marks[0], event.end_mark)
            return
        inner = node.inside[step] = _Node((event.start_mark, event.end_mark))
        _fill(inner, event, next_event, anchors)


def _fill_mapping(node: _Node, next_event: Callable[[], Any], anchors: dict[str, _Node]) -> None:
    while True:
        key = next_event()
        if isinstance(key, yaml.MappingEndEvent):
            node.marks = (node.marks[0], key.end_mark)
            return
        name = key.value if isinstance(key, yaml.ScalarEvent) else "?"
        _fill(_Node((key.start_mark, key.end_mark)), key, next_event, anchors)
        event = next_event()
        inner = _Node((event.start_mark, event.end_mark), (key.start_mark, key.end_mark))
        node.inside.setdefault(name, inner)
        _fill(inner, event, next_event, anchors)
