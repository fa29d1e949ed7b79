"""What the YAML parser complains about, in words that help."""

from __future__ import annotations

import yaml

from runner.errors import Place, Problem
from runner.manifest.places import Source

# What the parser says → what to do. The first part that occurs in its words counts.
_HINTS = (
    ("mapping values are not allowed", 'quote text that contains ": ", and check the indentation'),
    ("cannot start any token", "quote text that starts with @, ` or %"),
    ("unexpected end of stream", "close the quote"),
    ("expected ',' or '}'", "close the brace, or quote text that contains { or }"),
    ("expected ',' or ']'", "close the bracket, or quote text that contains [ or ]"),
    ("could not find expected ':'", 'a key needs ": " after it; quote text of several lines, or write it under |'),
    ("did not find expected key", "check the indentation and the quotes"),
    ("did not find expected '-' indicator", "check the indentation of the list"),
    ("unknown escape character", "double the backslash, or use single quotes: 'a\\b'"),
)


def syntax_problem(error: yaml.YAMLError, source: Source) -> Problem:
    """The parser's error as a problem with its place: B08 for a tab, B26 for half a character, else B09."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return Problem("B09", f"this is not YAML: {error}", place=Place(source.file, 1, 1))
    words = error.problem or "cannot be read"
    if tab := _indenting_tab(error, source):
        return Problem("B08", "a tab is used as indentation", "use spaces", tab)
    if "Unicode character escape" in words:
        return Problem("B26", "this escape is no character", "write the character itself", _place(error, source))
    return Problem("B09", f"this is not YAML: {words}", _hint(words), _place(error, source))


def _indenting_tab(error: yaml.MarkedYAMLError, source: Source) -> Place | None:
    mark = error.problem_mark
    if mark is None:
        return None
    line = source.line(mark.line + 1)
    blank = line[: len(line) - len(line.lstrip(" \t"))]
    if "\t" not in blank or mark.column > len(blank):
        return None
    column = blank.index("\t") + 1
    return Place(source.file, mark.line + 1, column, column + 1)


def _place(error: yaml.MarkedYAMLError, source: Source) -> Place:
    """Where it went wrong; for a quote or a bracket that never ends, where it begins."""
    mark = error.problem_mark
    if error.context_mark is not None and mark is not None and not source.line(mark.line + 1).strip():
        mark = error.context_mark
    return source.extent(mark, mark)


def _hint(words: str) -> str:
    return next((hint for part, hint in _HINTS if part in words), "check the indentation and the quotes")
