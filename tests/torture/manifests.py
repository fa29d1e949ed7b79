"""What is asked for: manifests in which every job's prompt stands in the column `line` and nowhere twice, but for a
group of takes whose prompt is theirs together. So a task's prompt tells whose it is.
"""

from __future__ import annotations

import csv
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PROVIDERS = ("happyhorse", "seedance2ai", "seedhorse", "seedhorse-video", "seegen")
PAIR = ("happyhorse", "seedance2ai")  # opposites: one has a history and no keys, the other keys and no history
TAKES = 3


@dataclass(frozen=True)
class Limits:
    """Of one account: tasks at once, and requests within 60 scaled seconds."""

    concurrency: int
    per_minute: int

    def entry(self) -> str:
        return f"{{concurrency: {self.concurrency}, rate_limit: {self.per_minute}/minute}}"


@dataclass(frozen=True)
class Kind:
    """One entry of `jobs`, its rows apart. `share` of all jobs of the provider are of this kind."""

    name: str
    provider: str
    share: float
    lines: tuple[str, ...]
    takes: int = 1
    words: str = ""

    def entry(self) -> list[str]:
        takes = [f"takes: {self.takes}"] if self.takes > 1 else []
        own = [f"provider: {self.provider}", f"rows: {self.name}.csv", 'prompt: "${line}"']
        return [f"  {self.name}:", *(f"    {line}" for line in (*own, *self.lines, *takes))]


MOTION = "https://example.com/motion-7s.mp4"
LITE, FULL = "model: doubao-seedance-1-5-pro", "model: doubao-seedance-2-0"
KINDS = (
    Kind("hh-video", "happyhorse", 0.5, (LITE, "duration: 5")),
    Kind("hh-full", "happyhorse", 0.15, (FULL, "duration: 5")),
    Kind("hh-takes", "happyhorse", 0.05, (LITE, "duration: 4"), takes=TAKES),
    Kind("hh-upload", "happyhorse", 0.1, (LITE, 'references: {first_frame: "hero.png"}')),
    Kind("hh-image", "happyhorse", 0.1, ("model: nano-banana-2", "format: webp")),
    Kind("hh-moderated", "happyhorse", 0.05, (LITE, "duration: 5"), words=" sandbox:moderated"),
    Kind("sd-video", "seedance2ai", 0.5, ("model: seedance", "duration: 5")),
    Kind("sd-takes", "seedance2ai", 0.05, ("model: seedance", "duration: 4"), takes=TAKES),
    Kind("sd-image", "seedance2ai", 0.2, ("model: nano-banana-pro", "resolution: 2K", "format: jpeg")),
    Kind("sd-batch", "seedance2ai", 0.15,
         ("model: gpt-image-2", "resolution: 1K", 'aspect_ratio: "16:9"', "count: 3")),
    Kind("sd-moderated", "seedance2ai", 0.05, ("model: seedance",), words=" sandbox:moderated"),
    Kind("sh-video", "seedhorse", 0.5, ("model: Seedance 2.0", "duration: 5")),
    Kind("sh-takes", "seedhorse", 0.05, ("model: Seedance 2.0", "duration: 4"), takes=TAKES),
    Kind("sh-images", "seedhorse", 0.2, ("model: Imagen Nano Banana 2", "size: 1K", "count: 3")),
    Kind("sh-partial", "seedhorse", 0.1, ("model: Imagen Nano Banana 2", "count: 3"), words=" sandbox:partial"),
    Kind("sh-cancelled", "seedhorse", 0.05, ("model: Seedance 2.0",), words=" sandbox:cancelled"),
    Kind("sv-video", "seedhorse-video", 0.8, ("model: seedance-2.0", "duration: 5")),
    Kind("sv-moderated", "seedhorse-video", 0.1, ("model: seedance-2.0",), words=" sandbox:moderated"),
    Kind("sv-takes", "seedhorse-video", 0.1, ("model: HappyHorse 1.0", "duration: 4"), takes=TAKES),
    Kind("sg-video", "seegen", 0.4, ("model: sd2-fast", "duration: 5")),
    Kind("sg-image", "seegen", 0.2, ("model: gpt-image-2", "size: 1k")),
    Kind("sg-asset", "seegen", 0.2, ("model: sd2", f'references: {{videos: ["{MOTION}"]}}')),
    Kind("sg-moderated", "seegen", 0.05, ("model: happyhorse",), words=" sandbox:moderated"),
    Kind("sg-takes", "seegen", 0.05, ("model: happyhorse", "duration: 4"), takes=TAKES),
)  # fmt: skip


@dataclass
class Orders:
    """A batch that can grow: a manifest and its tables in `folder`, written anew by every `grow`.

    `counts` are rows by kind. A line names seed, kind and number; `hero.png` is the picture that is uploaded.
    """

    folder: Path
    batch: str
    limits: Mapping[str, Limits]
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def manifest(self) -> Path:
        return self.folder / "orders.yaml"

    @property
    def jobs(self) -> int:
        return sum(kind.takes * self.counts.get(kind.name, 0) for kind in KINDS)

    def wanted(self) -> Counter[tuple[str, str]]:
        """How many jobs the manifest asks for, by account and line."""
        rows = ((kind, line) for kind in self._kinds() for line in self.lines(kind))
        return Counter({(kind.provider, line): kind.takes for kind, line in rows})

    def grow(self, more: Mapping[str, int]) -> None:
        """Adds so many rows of each kind."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, count in more.items():
            self.counts[name] = self.counts.get(name, 0) + count
        (self.folder / "hero.png").write_bytes(picture(320, 320))
        for kind in self._kinds():
            with (self.folder / f"{kind.name}.csv").open("w", newline="") as table:
                csv.writer(table).writerows([["line"], *([line] for line in self.lines(kind))])
        self.manifest.write_text("\n".join(self._text()) + "\n")

    def lines(self, kind: Kind) -> Iterator[str]:
        for number in range(self.counts[kind.name]):
            yield f"{self.batch} {kind.name} number {number}: a neon alley in the rain{kind.words}"

    def _kinds(self) -> list[Kind]:
        return [kind for kind in KINDS if self.counts.get(kind.name)]

    def _text(self) -> Iterator[str]:
        yield from ("version: 1", f"batch: {self.batch}", "providers:")
        for provider in sorted({kind.provider for kind in self._kinds()}):
            yield f"  {provider}: {self.limits[provider].entry()}"
        yield "outputs:"
        yield from ("  dir: renders/${batch}", '  name: "${job}/${key}-t${take}.${ext}"', "jobs:")
        for kind in self._kinds():
            yield from kind.entry()


def shares(jobs: int, providers: Iterable[str]) -> dict[str, int]:
    """Rows by kind that make about `jobs` jobs, half of them at each provider, and at least one of each kind."""
    wanted = list(providers)
    each = jobs / len(wanted)
    return {kind.name: max(1, round(each * kind.share / kind.takes)) for kind in KINDS if kind.provider in wanted}


def few(providers: Iterable[str]) -> dict[str, int]:
    """A few jobs at each provider: a plain one, one that is not rendered, one that needs more or gives more."""
    kinds = {
        "happyhorse": ("hh-video", "hh-moderated", "hh-upload"),
        "seedance2ai": ("sd-video", "sd-moderated", "sd-batch"),
        "seedhorse": ("sh-video", "sh-cancelled", "sh-partial"),
        "seedhorse-video": ("sv-video", "sv-moderated", "sv-takes"),
        "seegen": ("sg-video", "sg-moderated", "sg-asset"),
    }
    return {name: 1 for provider in providers for name in kinds[provider]}


def picture(width: int, height: int) -> bytes:
    """A grey PNG."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + b"\x7f" * width for _ in range(height)))
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
