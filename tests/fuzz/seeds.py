"""Good and bad manifests to begin with, the files beside them, and what is put in."""

from __future__ import annotations

from pathlib import Path

import samples

BAD = Path(__file__).parent.parent / "bad"
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
LOCAL = """\
version: 1
batch: local
jobs:
  still: {provider: happyhorse, model: nano-banana-2, prompt: a cat, references: {images: [a.png, ./b.jpg]}}
  clip: {provider: happyhorse, model: doubao-seedance-2-0, prompt: a dog, duration: 5, references: {first_frame: a.png}}
  film:
    provider: seegen
    model: sd2
    prompt: a bird
    duration: 5
    references:
      images: ["https://bucket.example.com/a.png?X-Amz-Date=20260101T000000Z&X-Amz-Expires=3600&X-Amz-Signature=0"]
outputs: {dir: out, name: "${job}/${slug}-t${take}.${ext}"}
"""
# No provider hosts these two; that is told once they have been looked into.
FILMED = LOCAL.replace("outputs:", "      videos: [v.mp4]\n      audios: [s.wav]\noutputs:")
TABLES = {
    "t.csv": b'shot,scene,seconds\ns1,a neon alley,5\ns2,"a rooftop, at dawn",6\n',
    "t.jsonl": b'{"scene": "a neon alley", "seconds": 5}\n{"scene": "a rooftop"}\n',
    "t.txt": b"a neon alley\n\na rooftop\n",
}
MEDIA = {"a.png": samples.png(), "b.jpg": samples.jpeg(), "v.mp4": samples.mp4(), "s.wav": samples.wav()}
FILES = {**TABLES, **MEDIA}


def manifests() -> list[str]:
    bad = (path.read_bytes().decode("utf-8", "replace") for path in sorted(BAD.glob("*/manifest.yaml")))
    return [RICH, LOCAL, FILMED, *(text for text in bad if len(text) < 20_000)]


PIECES = [
    "${", "}", "$$", "${x}", "${key}", "${scene}", "*d", "&d", "<<: *d", "!!str", "!x", "---\n", "...\n",
    "%YAML 1.1\n", "\t", "\n", "\r", "  ", "- ", ": ", "? ", "[", "]", "{", "}", "'", '"', "|", ">", "|2-\n", "#", ",",
    ";", "~", "null", "true", "off", "1e999999999", ".inf", ".nan", "-0", "0x", "0o9", "9" * 80, "1_000", "1e3",
    "12:30:45", "2026-01-01", "a.png", "v.mp4", "t.csv", "t.jsonl", "t.txt", ".", "..", "/", "\\", "C:", "//", "~/",
    "https://", "http://[::1]/", "https://127.0.0.1/x", "file:", "data:,x", "asset://a", "\u2028", "\x85", "\ufeff",
    "\x00", "\x1b", "\u202e", "\ud800", "\U0001f600", "日本", "e\u0301", "ß", "İ", "rows", "matrix", "include",
    "exclude", "takes", "needs", "provider", "model", "prompt", "references", "params", "duration", "jobs", "defaults",
    "providers", "budget", "outputs", "version", "batch", "count", "seed", "size", "priority", "mode", "uses",
    "concurrency", "rate_limit", "1/s", "review", "source", "sk-sd_abcdefghij0123456789", "''", '""', "[]", "{}",
    "- {}", "CON", "x" * 300,
]  # fmt: skip
