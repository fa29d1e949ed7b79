"""This machine: room on its disks, whether a queue may lie where it lies, and the SQLite that it came with."""

from __future__ import annotations

from runner.health.checks import Check, ok, trouble, warning

LOCAL = 7  # exit code
LITTLE, TOO_LITTLE = 1 << 30, 64 << 20  # bytes
OTHERS = 0o077  # the bits of a mode that let anybody else in
Version = tuple[int, ...]
# The WAL-reset bug (sqlite.org/wal.html, "The WAL-reset bug"): the first version with it, those without it again.
BUG_FROM, BUG_TO = (3, 7, 0), (3, 51, 3)
BACKPORTS = ((3, 44, 6), (3, 50, 7))


def space(folder: str, free: int) -> Check:
    """`free` bytes for this user on the disk that holds `folder`."""
    found = f"{free / (1 << 30):.1f} GiB free" if free >= LITTLE else f"{free / (1 << 20):.0f} MiB free"
    advice = "make room: on a full disk files wait until there is some, and nothing new is ordered"
    if free < TOO_LITTLE:
        return trouble("space", folder, found, advice, LOCAL)
    return warning("space", folder, found, advice) if free < LITTLE else ok("space", folder, found)


def place(folder: str, file_system: str | None, *, network: bool, synced: str | None, memory: bool) -> Check:
    """Where the queue lies. `synced`: the service that copies this folder elsewhere, behind everybody's back."""
    kind = file_system or "of an unknown kind"
    if network:
        advice = "put the queue on a local disk with --db, or use PostgreSQL; runner run refuses to work there"
        return trouble("place", folder, f"a network file system ({kind}): its locks cannot be trusted", advice, LOCAL)
    if synced:
        advice = "move the queue out of it, or name another with --db: a copy taken in the middle of a write is damaged"
        return warning("place", folder, f"{synced} keeps this folder in step with other places", advice)
    if memory:
        advice = "put the queue on a disk with --db: paid tasks that are under way would be forgotten"
        return warning("place", folder, f"in memory only ({kind}): lost when this machine stops", advice)
    return ok("place", folder, f"a local file system ({kind})")


def writable(what: str, *, may_write: bool) -> Check:
    if may_write:
        return ok("writable", what, "it can be written to")
    return trouble("writable", what, "it cannot be written to", "mend its permissions, or name another place", LOCAL)


def modes(path: str, mode: int) -> Check:
    """`mode` as `stat` tells it. A queue holds prompts, and links to files that nobody else should have."""
    if not mode & OTHERS:
        return ok("mode", path, "for its owner only")
    return warning("mode", path, f"others on this machine may read or write it ({mode & 0o777:04o})",
                   f"chmod 600 {path}")  # fmt: skip


def has_wal_reset_bug(version: Version) -> bool:
    """3.7.0 to 3.51.2, but for the lines that had it mended: 3.44 from 3.44.6, 3.50 from 3.50.7."""
    mended = any(version[:2] == first[:2] and version >= first for first in BACKPORTS)
    return BUG_FROM <= version < BUG_TO and not mended


def sqlite(version: Version) -> Check:
    name = ".".join(map(str, version))
    if not has_wal_reset_bug(version):
        return ok("sqlite", name, "without the WAL-reset bug")
    found = "it may lose commits when two processes write and checkpoint at once (the WAL-reset bug); runner does not"
    advice = (
        "nothing as long as only runner writes this queue: its one owner alone checkpoints. Do not write to the file "
        "with other tools while runner run is at work; 3.51.3, 3.50.7 and 3.44.6 are mended"
    )
    return warning("sqlite", name, found, advice)


def durability(database: str, synchronous_commit: str, fsync: str) -> Check:
    """Of a PostgreSQL server, by its settings. Our sessions ask for durable commits themselves; `fsync` they cannot."""
    if fsync == "off":
        found = "fsync is off: what it has committed may be lost with the power, and with it an order that was paid"
        return warning("durability", database, found, "switch fsync on in the server's configuration")
    return ok("durability", database, f"commits are on its disk (fsync {fsync}; synchronous_commit "
              f"{synchronous_commit}, which runner never takes as off)")  # fmt: skip
