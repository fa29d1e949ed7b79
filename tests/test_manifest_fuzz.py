"""Whatever a manifest holds, it is read or refused in words of the catalogue: no traceback, no long wait."""

from __future__ import annotations

import os
import re
import tempfile
import time
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import InputError
from runner.expand import orders, survey
from runner.manifest import read_manifest
from runner.problems import as_json, render
from runner.providers import registry

HERE = Path(__file__).parent
EXAMPLES = int(os.environ.get("RUNNER_FUZZ", "400"))
TABLES = {
    "t.csv": 'shot,scene,seconds\ns1,a neon alley,5\ns2,"a rooftop, at dawn",6\n',
    "t.jsonl": '{"scene": "a neon alley", "seconds": 5}\n{"scene": "a rooftop"}\n',
    "t.txt": "a neon alley\n\na rooftop\n",
}
RICH = """\
version: 1
batch: rich
budget: {happyhorse: 10.5}
providers:
  second: {uses: happyhorse, concurrency: 2, rate_limit: [60/minute], timeout: 1h}
defaults: &d {duration: 5, resolution: 720p}
jobs:
  a:
    provider: seedance2ai
    model: seedance
    rows: t.csv
    matrix: {style: [noir, "pop"], duration: [5, 6]}
    include: [{style: noir, seed: 4}]
    exclude: [{style: pop, duration: 6}]
    prompt: "${scene}, ${style}"
    references: {images: ["https://example.com/a.png", {source: "https://example.com/b.png", review: false}]}
    params: {channel: standard, fixed_lens: true}
    takes: 2
  b: {provider: second, model: nano-banana-2, rows: t.txt, prompt: "${prompt}", priority: 3}
  c: {provider: happyhorse, model: seedance-1-5-pro, rows: t.jsonl, prompt: "${scene} ${take}"}
outputs: {dir: "renders/${batch}", name: "${job}-${key}.${ext}"}
"""
SEEDS = [RICH, *((case / "manifest.yaml").read_bytes().decode("utf-8", "replace") for case in (HERE / "bad").iterdir())]
PIECES = [
    "${", "}", "$$", "${x}", "${key}", "*d", "&d", "<<: *d", "!!str", "!x", "---\n", "...\n", "%YAML 1.1\n", "\t",
    "\n", "  ", "- ", ": ", "? ", "[", "]", "{", "}", "'", '"', "|", ">", "#", ",", "~", "null", "true", "1e999999999",
    ".inf", "-0", "0x", "0o9", "9" * 80, "a.png", "t.csv", "..", "/", "\\", "C:", "https://", "http://[::1]/", "file:",
    "\u2028", "\ufeff", "\x00", "\x1b", "\u202e", "日本", "e\u0301", "rows", "matrix", "include", "exclude", "takes",
    "needs", "provider", "model", "prompt", "references", "params", "duration", "jobs", "defaults", "providers",
    "budget", "outputs", "version", "batch", "sk-sd_abcdefghij0123456789", "''", '""', "[]", "{}",
]  # fmt: skip

EDITS = st.lists(
    st.tuples(st.integers(0, 2_000), st.integers(0, 30), st.one_of(st.sampled_from(PIECES), st.text(max_size=4))),
    min_size=1,
    max_size=5,
)


def mutated(text: str, edits: list[tuple[int, int, str]]) -> str:
    for at, removed, piece in edits:
        at %= len(text) + 1
        text = text[:at] + piece + text[at + removed :]
    return text


def outcome(manifest: bytes, tables: dict[str, bytes]) -> InputError | int:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in tables.items():
            Path(folder, name).write_bytes(content)
        path = Path(folder, "manifest.yaml")
        path.write_bytes(manifest)
        try:
            read = read_manifest(path)
            return sum(1 for _ in orders(read, registry(), survey(read, registry())))
        except InputError as error:
            return error


def assert_in_order(manifest: bytes, tables: dict[str, bytes]) -> None:
    started = time.process_time()
    found = outcome(manifest, tables)
    assert time.process_time() - started < 2
    if isinstance(found, int):
        assert found > 0
        return
    assert found.problems
    assert render(found.problems)
    for problem in as_json(found.problems):
        assert re.fullmatch(r"B\d\d", problem["code"])
        assert problem["line"] >= 1 <= problem["col"]
        assert problem["msg"].strip()


BYTES = {name: content.encode() for name, content in TABLES.items()}


@settings(max_examples=EXAMPLES)
@given(st.sampled_from(SEEDS), EDITS)
def test_mutated_manifests_are_read_or_refused(seed: str, edits: list[tuple[int, int, str]]) -> None:
    assert_in_order(mutated(seed, edits).encode("utf-8", "surrogatepass"), BYTES)


@settings(max_examples=EXAMPLES // 2)
@given(st.sampled_from(sorted(TABLES)), EDITS)
def test_mutated_tables_are_read_or_refused(name: str, edits: list[tuple[int, int, str]]) -> None:
    changed = mutated(TABLES[name], edits).encode("utf-8", "surrogatepass")
    assert_in_order(RICH.encode(), BYTES | {name: changed})


@settings(max_examples=EXAMPLES // 4)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    assert_in_order(data, BYTES)
    assert_in_order(RICH.encode(), BYTES | {"t.csv": data})


def test_the_seed_itself_is_good() -> None:
    assert outcome(RICH.encode(), BYTES) == 2 * 3 * 2 + 2 + 2
