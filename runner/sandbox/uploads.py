"""Files that clients host with a provider: kept in the state, served from the media origin."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from .pen import Pen

MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "png", "image/png"),
    (b"\xff\xd8\xff", "jpg", "image/jpeg"),
)


@dataclass(frozen=True, slots=True)
class Uploaded:
    media_type: str
    content: bytes


def picture_type(content: bytes) -> tuple[str, str] | None:
    """Extension and media type of a PNG, JPEG or WebP, by its first bytes; None for anything else."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp", "image/webp"
    found = [(extension, media_type) for magic, extension, media_type in MAGIC if content.startswith(magic)]
    return found[0] if found else None


@dataclass(frozen=True, slots=True)
class Uploads:
    pen: Pen

    def add(self, provider: str, account: str, extension: str, media_type: str, content: bytes, now: float) -> str:
        """The path under which the file is served. Each upload is an object of its own, also with equal content."""
        count = self.pen.read("SELECT count(*) AS n FROM uploads")[0]["n"]
        digest = hashlib.sha256(f"{provider}:{account}:{count}".encode() + content).hexdigest()[:32]
        name = f"{provider}/{digest}.{extension}"
        sql = "INSERT INTO uploads (name, provider, account, media_type, content, at) VALUES (?, ?, ?, ?, ?, ?)"
        self.pen.write(sql, (name, provider, account, media_type, content, now))
        return f"/uploads/{name}"

    def find(self, name: str) -> Uploaded | None:
        rows = self.pen.read("SELECT media_type, content FROM uploads WHERE name = ?", (name,))
        return Uploaded(rows[0]["media_type"], bytes(rows[0]["content"])) if rows else None

    def all(self) -> list[dict[str, object]]:
        sql = "SELECT name, provider, account, media_type, length(content) AS bytes, at FROM uploads ORDER BY at, name"
        return [dict(row) for row in self.pen.read(sql)]
