"""A file on its way in: its `.part`, the note that lets a later process go on with it, and its publication.

Nothing here waits for the network, and everything blocks: one thread of its own does it all, in order. A kill between
any two steps leaves what the next `open` understands:

    part, with or without a note     go on where it ends if the note names a strong validator, else from its beginning;
                                     from its beginning, too, if the machine was started anew since
    part as long as the note says    nothing is left to fetch: check and publish
    part that has a second name      it was published: find out where
    a file and its sidecar           it was published; the sidecar names the task, the output and the digest
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from functools import cache, cached_property
from hashlib import file_digest
from pathlib import Path
from typing import Any

from runner import media
from runner.downloads import sidecars
from runner.downloads.answers import Body, Whole
from runner.downloads.checksums import Sums
from runner.downloads.outcomes import FreshUrl, Later, Obstacle, Published, Refused, Wanted
from runner.failpoints import reached
from runner.files import Descriptor, Folder, InTheWay, check_name, fitting, flush, lock

NAME_LIMITS = (240, 140, 60)  # bytes; file systems take 255, some layered ones 143
NAMES = 99
PIECE = 1 << 20


class Part:
    """The part of one wanted output. `size` is how many bytes of the file are here, `known` what the whole will be."""

    def __init__(self, want: Wanted) -> None:
        self._want = want
        self._name = want.part_name
        self._note = f"{want.part_name}.json"
        self._folder: Folder | None = None
        self._descriptor = -1
        self._sums: Sums | None = None
        self.size = 0
        self.known: Whole | None = None

    # --- opening

    def open(self) -> Published | Later | None:
        """Finds what is here already. Published where that is the whole output, Later where somebody else is at it."""
        check_name(self._want.name)
        folders = [fitting(name, "", NAME_LIMITS[0]) for name in self._want.folders]
        self._folder = Folder.below(self._want.root, folders)
        if found := self._standing():
            self.discard()
            return found
        self._descriptor = self._folder.open(self._name, os.O_RDWR | os.O_CREAT)
        if not lock(self._descriptor) or not self._still_named():
            self._release()  # It is not ours: not even to clear away.
            return Later("somebody else is fetching this output")
        self.known = self._read_note()
        self.size = os.fstat(self._descriptor).st_size
        if os.fstat(self._descriptor).st_nlink > 1:
            self._leave_linked()
        if not self.complete and not self._resumable:
            self.forget()
        reached("part-opened")
        return None

    def _still_named(self) -> bool:
        """False where the process that had the file locked has just published it."""
        state = self._at.state(self._name)
        return state is not None and os.path.samestat(state, os.fstat(self._descriptor))

    def _leave_linked(self) -> None:
        """A part with a second name is never written to: that name may be its published one, or a backup's."""
        if self.complete or self._published_as():
            self.known = Whole("", self.size)
            return
        self._at.remove(self._name)
        os.close(self._descriptor)
        self._descriptor = self._at.open(self._name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        lock(self._descriptor)
        self.size = 0

    def _published_as(self) -> bool:
        state = os.fstat(self._descriptor)
        stands = (self._at.state(name) for kind in self._types() for name in self._names(kind.extension))
        return any(found is not None and os.path.samestat(found, state) for found in stands)

    @property
    def _at(self) -> Folder:
        assert self._folder is not None
        return self._folder

    @property
    def complete(self) -> bool:
        return self.known is not None and 0 < self.size == self.known.total

    @property
    def _resumable(self) -> bool:
        known = self.known
        return bool(known and known.validator and known.total and 0 < self.size < known.total)

    @property
    def question(self) -> dict[str, str]:
        """The headers that ask for what is missing."""
        if self.known is None or not self._resumable:
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": self.known.validator}

    def _read_note(self) -> Whole | None:
        raw = self._at.read(self._note, 1 << 16) if self._want.resume else None
        try:
            noted: Any = json.loads(raw) if raw else None
            known = Whole.read(noted)
        except (ValueError, RecursionError):
            return None
        return known if noted.get("boot") == boot() else None

    # --- receiving

    def forget(self) -> None:
        """Back to nothing: what is here belongs to no answer."""
        os.ftruncate(self._descriptor, 0)
        self._at.remove_written(self._note)
        self.size, self.known = 0, None

    def begin(self, body: Body) -> None:
        """Ready for a body: what comes before it is kept and hashed again, everything else is cut off."""
        if body.offset == 0 and self.size:
            self.forget()
        if body.whole != self.known and body.whole.total is not None:
            # Lost with the power, it costs a download from the beginning and nothing else.
            self._at.write(self._note, json.dumps({**asdict(body.whole), "boot": boot()}).encode(), durable=False)
        self.known = body.whole
        self._sums = self._hashed()

    def _hashed(self) -> Sums:
        sums = Sums(self.known.digests if self.known else {})
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        while piece := os.read(self._descriptor, PIECE):
            sums.update(piece)
        return sums

    def write(self, pieces: list[bytes]) -> None:
        """Takes the next bytes of the file. OSError where the disk is full: what went in is counted."""
        assert self._sums is not None
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[self._wrote(view, self._sums) :]
        reached("first-chunk")

    def _wrote(self, view: memoryview, sums: Sums) -> int:
        count = os.write(self._descriptor, view)
        sums.update(view[:count])
        self.size += count
        return count

    # --- publishing

    def finish(self) -> Published | FreshUrl | Refused:
        """Checks what is here to its last byte and publishes it. What is not whole is thrown away."""
        sums = self._sums or self._hashed()
        kind, why = self._checked(sums)
        if kind is None:
            self.discard()
            return FreshUrl(why)
        reached("before-fsync")
        flush(self._descriptor)
        reached("after-fsync")
        name, adopted = self._publish(kind.extension, sums.sha256)
        if not name:
            return Refused(Obstacle.TAKEN, f"{NAMES} other files stand in its place: {self._want.path}")
        reached("after-link")
        found = Published(self._at.path / name, self.size, sums.sha256, kind.media_type, kind.extension, adopted)
        self._write_sidecar(found)
        reached("after-sidecar")
        self.discard()
        return found

    def _checked(self, sums: Sums) -> tuple[media.Media | None, str]:
        if algorithm := sums.wrong():
            return None, f"the {algorithm} that the server names is not that of what it sent"
        source = Descriptor(self._descriptor, self.size)
        kind = media.sniff(source.read(0, media.HEAD))
        if kind is None:
            return None, "what came is no image, video or sound" if self.size else "what came is empty"
        if kind.kind not in self._want.kinds:
            return None, f"what came is {kind.media_type}"
        if flaw := media.flaw(kind, source):
            return None, f"the {kind.extension} file is not whole: {flaw}"
        return kind, ""

    def _publish(self, extension: str, digest: str) -> tuple[str, bool]:
        """The name it now stands under, and whether it already did; no name where others stand under all of them."""
        for name in self._names(extension):
            try:
                self._at.publish(self._name, name)
            except FileExistsError:
                if self._holds(name, self.size, digest):
                    return name, True
                continue
            self._sure(name)
            return name, False
        return "", False

    def _sure(self, name: str) -> None:
        """What was published is the very file that was checked, not one swapped in its place."""
        state = self._at.state(name)
        if state is None or not os.path.samestat(state, os.fstat(self._descriptor)):
            self._at.remove(name)
            raise InTheWay(errno.EINVAL, "another file was put in its place while it was published", name)

    def _holds(self, name: str, size: int, digest: str) -> bool:
        """Whether the plain file under this name has just this content."""
        with suppress(InTheWay, FileNotFoundError):
            descriptor = self._at.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            with os.fdopen(descriptor, "rb") as file:
                return os.fstat(descriptor).st_size == size and file_digest(file, "sha256").hexdigest() == digest
        return False

    def _names(self, extension: str) -> Iterator[str]:
        """The names it may have, best first: as wanted, then `-2`, `-3` …, cut short where the system takes no more."""
        stem, last = _split(self._want.name)
        tail = f".{last}" if media.same_extension(last, extension) else f".{extension}"
        for copy in range(1, NAMES + 1):
            yield fitting(stem, tail if copy == 1 else f"-{copy}{tail}", self._limit)

    @cached_property
    def _limit(self) -> int:
        """How long a name may be here; a sidecar's is five bytes longer."""
        for limit in NAME_LIMITS:
            try:
                self._at.state(fitting(self._want.name, f"-{NAMES}.webm", limit) + ".json")
                return limit
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
        return NAME_LIMITS[-1]

    # --- finding and clearing away

    def _types(self) -> list[media.Media]:
        return [kind for kind in media.ALL if kind.kind in self._want.kinds]

    def _standing(self) -> Published | None:
        """This very output, published by an earlier process that could not tell anybody: its sidecar proves it."""
        if self._want.facts is None:
            return None
        for kind in self._types():
            for name in self._names(kind.extension):
                state = self._at.state(name)
                if state is None:
                    break
                said = sidecars.read(self._at, name)
                digest = str(said.get("sha256"))
                ours = (said.get("task_id"), said.get("output")) == (self._want.task_id, self._want.index)
                if ours and self._holds(name, state.st_size, digest):
                    path = self._at.path / name
                    return Published(path, state.st_size, digest, kind.media_type, kind.extension, adopted=True)
        return None

    def _write_sidecar(self, found: Published) -> None:
        if self._want.facts is not None:
            facts = {
                **self._want.facts,
                "task_id": self._want.task_id,
                "output": self._want.index,
                "bytes": found.bytes,
                "sha256": found.sha256,
                "media_type": found.media_type,
            }
            sidecars.write(self._at, found.path.name, facts)

    def discard(self) -> None:
        """Throws away what is here; the only thing left to do then is `close`."""
        self._release()
        self._at.remove(self._name)
        reached("after-unlink")
        self._at.remove_written(self._note)
        self._at.sync()

    def close(self) -> None:
        """Lets go of everything; what is here stays. Safe at any time."""
        if self._descriptor >= 0 and not self.size:
            with suppress(OSError):  # An empty part that cannot be cleared away harms nobody.
                self.discard()
        self._release()
        if self._folder is not None:
            self._folder.close()

    def _release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@cache
def boot() -> str:
    """Which start of this machine the process belongs to, where that can be told (Linux). A part is not synced on the
    way: after a loss of power it may have its length, and zeros in place of bytes, which few containers would show."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _split(name: str) -> tuple[str, str]:
    """Stem and extension, where it has one of ours; a point elsewhere belongs to the stem."""
    stem, _, last = name.rpartition(".")
    return (stem, last) if stem and media.known_extension(last) else (name, "")
