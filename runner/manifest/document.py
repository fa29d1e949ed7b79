"""A manifest's text as plain values: YAML 1.2 core, one document, no tags, no merge keys, no surprises.

The C parser's events are built up here rather than by its loader, because every limit is counted on the way (a
432-byte alias bomb loads in milliseconds and unfolds to millions of values: reliability.md section 2, T14), because an
unquoted scalar keeps its text, and because it takes a third of the time. Everything wrong is reported with its place;
what breaks the parser or a limit ends the reading.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, NoReturn

import yaml

from runner.errors import Problem
from runner.manifest.findings import KEPT
from runner.manifest.places import Source
from runner.manifest.scalars import Bare, may_be_bare, read_scalar
from runner.manifest.syntax import syntax_problem
from runner.problems import CONTROL, nearest, quoted, refused

MAX_BYTES = 5 * 1024 * 1024
MAX_DEPTH = 32
MAX_ALIASES = 1_000
MAX_VALUES = 1_000_000  # aliases counted as what they unfold to; a text of MAX_BYTES that holds more is no manifest
MAX_SIGNS = 100  # forbidden ones that are told of: to find the place of one takes a walk through the whole text

_LINE_SEPARATOR = re.compile("[\u2028\u2029]")

# A value is text, a Bare, a list of values, or a dict from text to values.
Value = Any


@dataclass(frozen=True, slots=True)
class Document:
    value: Value
    source: Source


@dataclass(frozen=True, slots=True)
class Words:
    """How a message speaks of the file: what it is, and what to do instead of long lists, shared parts, includes."""

    noun: str = "a manifest"
    long: str = "write long lists as rows: FILE.csv"
    shared: str = "write what all jobs share under defaults:"
    include: str = "keep rows in a table: rows: FILE.csv"


MANIFEST = Words()


@dataclass(slots=True)
class _Anchor:
    """A named value: how many values it unfolds to, and how many levels deep it is (None while it is still open)."""

    value: Value
    values: int
    depth: int | None


def read_document(text: str, file: str, words: Words = MANIFEST) -> Document:
    """The one document of the text of a manifest, or of what `words` speak of. `value` is None where there is nothing
    but comments.

    Raises InputError with every problem found (B08–B18, B26, B30).
    """
    source = Source(text, file)
    builder = _Builder(source, words)
    try:
        value = builder.read()
    except _Stop:
        value = None
    except yaml.YAMLError as error:
        builder.problems.append(source.quote(syntax_problem(error, source)))
        value = None
    if builder.problems:
        raise refused(file, builder.problems, cut=len(builder.problems) >= KEPT)
    return Document(value, source)


class _Stop(Exception):
    """A limit was crossed, or so much is wrong that nobody reads on; the problem is noted."""


class _Builder:
    def __init__(self, source: Source, words: Words) -> None:
        self.source = source
        self.words = words
        self.problems: list[Problem] = []
        self._next: Callable[[], Any] = iter(()).__next__
        self._anchors: dict[str, _Anchor] = {}
        self._values = 0
        self._aliases = 0
        self._deepest = 0

    def read(self) -> Value:
        self._refuse_signs()
        loader = yaml.CSafeLoader(self.source.text)
        try:
            self._next = loader.get_event
            return self._document()
        finally:
            loader.dispose()

    def _document(self) -> Value:
        self._next()  # the stream's start
        start = self._next()
        if isinstance(start, yaml.StreamEndEvent):
            return None
        self._refuse_directives(start)
        value = self._value(self._next(), 1)
        self._next()  # the document's end
        second = self._next()
        if not isinstance(second, yaml.StreamEndEvent):
            hint = f"{self.words.noun} is one document: split the file"
            self._problem("B11", "a second document starts here", hint, second)
        return value

    def _value(self, event: Any, depth: int) -> Value:
        kind = type(event)
        if kind is yaml.AliasEvent:
            return self._alias(event, depth)
        self._count(event)
        if event.tag is not None:
            self._refuse_tag(event)
        if kind is yaml.ScalarEvent:
            value = self._scalar(event)
            if event.anchor is not None:
                self._anchors[event.anchor] = _Anchor(value, 1, 0)
            return value
        return self._collection(event, depth)

    def _scalar(self, event: Any) -> Bare | str:
        text: str = event.value
        if not event.style:
            return read_scalar(text) if may_be_bare(text) else text
        if event.style == '"' and not text.isprintable() and (sign := CONTROL.search(text)):
            self._problem("B26", f"{_named(sign[0])} is not allowed in text", "remove the escape", event)
        return text

    def _collection(self, event: Any, depth: int) -> Value:
        if depth > MAX_DEPTH:
            self._stop("B18", f"nested more than {MAX_DEPTH} levels deep", "flatten it", event)
        outer, self._deepest = self._deepest, depth
        first = self._values
        anchor = _Anchor(None, 0, None)
        if event.anchor is not None:
            self._anchors[event.anchor] = anchor
        value: Value = self._list(depth) if type(event) is yaml.SequenceStartEvent else self._mapping(depth)
        anchor.value, anchor.values, anchor.depth = value, self._values - first + 1, self._deepest - depth + 1
        self._deepest = max(outer, self._deepest)
        return value

    def _list(self, depth: int) -> list[Value]:
        values: list[Value] = []
        while type(event := self._next()) is not yaml.SequenceEndEvent:
            values.append(self._value(event, depth + 1))
        return values

    def _mapping(self, depth: int) -> dict[str, Value]:
        values: dict[str, Value] = {}
        seen: dict[str, Any] = {}
        while type(event := self._next()) is not yaml.MappingEndEvent:
            key = self._key(event, depth)
            value = self._value(self._next(), depth + 1)
            if key in seen:
                self._twice(key, seen[key], event)
            else:
                values[key], seen[key] = value, event.start_mark
        return values

    def _key(self, event: Any, depth: int) -> str:
        """The text of a key. One that is no text is refused, and read as some text so that the rest is checked too."""
        key = self._value(event, depth + 1)
        if isinstance(key, str):
            if key == "<<" and not event.style:
                self._problem("B17", "merge keys (<<) are not read", self.words.shared, event)
            return key
        if isinstance(key, Bare):
            hint = f'write "{key.text}" if it is meant as text'
            self._problem("B30", f"a key must be text, {quoted(key.text)} is read as {key.kind}", hint, event)
            return key.text
        self._problem("B30", "a key must be text, not a list or a mapping", "write a plain word as the key", event)
        return f"?{event.start_mark.index}"

    def _alias(self, event: Any, depth: int) -> Value:
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            self._stop("B14", f"more than {MAX_ALIASES:,} aliases", self.words.long, event)
        anchor = self._anchors.get(event.anchor)
        if anchor is None:
            near = nearest(event.anchor, self._anchors)
            hint = f'did you mean "*{near}"?' if near else f'quote text that starts with a star: "*{event.anchor}"'
            self._problem("B16", f"*{event.anchor} names no anchor", hint, event)
            return ""
        if anchor.depth is None:
            self._stop("B14", f"*{event.anchor} stands inside what it names: it never ends", "remove the alias", event)
        return self._unfold(anchor, depth, event)

    def _unfold(self, anchor: _Anchor, depth: int, event: Any) -> Value:
        self._values += anchor.values - 1
        self._count(event)
        deepest = depth + (anchor.depth or 0) - 1
        if deepest > MAX_DEPTH:
            self._stop("B18", f"nested more than {MAX_DEPTH} levels deep once *{event.anchor} is unfolded", "", event)
        self._deepest = max(self._deepest, deepest)
        return anchor.value

    def _count(self, event: Any) -> None:
        self._values += 1
        if self._values > MAX_VALUES:
            counts = f"more than {MAX_VALUES:,} values with {self._aliases:,} aliases unfolded"
            self._stop("B14", counts, self.words.long, event)

    def _refuse_signs(self) -> None:
        """Control characters; and line separators, which YAML 1.2 reads as text and the parser as line breaks."""
        signs = chain(CONTROL.finditer(self.source.text), _LINE_SEPARATOR.finditer(self.source.text))
        for sign in islice(signs, MAX_SIGNS):
            message = f"{_named(sign[0])} is not allowed in {self.words.noun}"
            self._note(Problem("B26", message, "remove it", self.source.at(sign.start())))
        if self.problems:
            raise _Stop

    def _refuse_directives(self, start: Any) -> None:
        if start.tags:
            self._problem("B13", f"%TAG: {self.words.noun} has no tags", "remove the line", start)
        if start.version not in (None, (1, 2)):
            version = ".".join(str(part) for part in start.version)
            self._problem("B13", f"%YAML {version}: {self.words.noun} is read as YAML 1.2", "remove the line", start)

    def _refuse_tag(self, event: Any) -> None:
        tag = event.tag.replace("tag:yaml.org,2002:", "!!")
        message = f"the tag {quoted(tag)} is refused: {self.words.noun} holds data only"
        self._problem("B13", message, self._instead(tag), event)

    def _instead(self, tag: str) -> str:
        if tag.startswith("!!python"):
            return "write the value itself"
        return self.words.include if "include" in tag else "quote what is meant as text; write the rest plainly"

    def _twice(self, key: str, first: Any, event: Any) -> None:
        where = f"{first.line + 1}:{first.column + 1}"
        self._problem("B10", f"{quoted(key)} stands here twice (first at {where})", "keep one of the two", event)

    def _problem(self, code: str, message: str, hint: str, event: Any) -> None:
        self._note(Problem(code, message, hint, self.source.extent(event.start_mark, event.end_mark)))

    def _stop(self, code: str, message: str, hint: str, event: Any) -> NoReturn:
        self._problem(code, message, hint, event)
        raise _Stop

    def _note(self, problem: Problem) -> None:
        self.problems.append(self.source.quote(problem))
        if len(self.problems) >= KEPT:
            raise _Stop


def _named(sign: str) -> str:
    return f"U+{ord(sign):04X}"
