"""Files below a folder: no link is followed, nothing is overwritten, nobody else may read."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import files
from runner.files import Folder, InTheWay, fitting


@pytest.fixture(params=["by descriptor", "by path"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param == "by path":
        monkeypatch.setattr(files, "RELATIVE", False)
    return tmp_path / "out"


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    old = os.umask(request.param)
    yield
    os.umask(old)


def put(folder: Folder, name: str, content: bytes) -> None:
    with os.fdopen(folder.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
        file.write(content)


@pytest.mark.usefixtures("umask")
def test_T7_what_is_made_is_for_its_owner_alone(root: Path) -> None:
    folder = Folder.below(root / "deep", ["a", "b"])
    put(folder, "part", b"x")
    folder.write("note", b"y")
    folder.publish("part", "final")
    folder.close()
    for path in (root, root / "deep", root / "deep/a", root / "deep/a/b"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for name in ("part", "note", "final"):
        assert stat.S_IMODE((root / "deep/a/b" / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "/etc", "a\0b"])
def test_a_part_must_be_a_name(root: Path, bad: str) -> None:
    with pytest.raises(InTheWay):
        Folder.below(root, ["fine", bad])
    assert not (root.parent / "b").exists()


@pytest.mark.parametrize("what", ["link to a folder", "dangling link", "file", "pipe"])
def test_what_stands_where_a_folder_should_be_is_refused(root: Path, what: str, tmp_path: Path) -> None:
    root.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    match what:
        case "link to a folder":
            (root / "a").symlink_to(elsewhere)
        case "dangling link":
            (root / "a").symlink_to(tmp_path / "nowhere")
        case "file":
            (root / "a").write_text("mine")
        case "pipe":
            os.mkfifo(root / "a")
    with pytest.raises(InTheWay):
        Folder.below(root, ["a", "b"])
    assert list(elsewhere.iterdir()) == []


def test_the_root_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.mkdir()
    root.symlink_to(big)
    folder = Folder.below(root, ["a"])
    folder.write("note", b"x")
    folder.close()
    assert (big / "a/note").read_bytes() == b"x"


@pytest.mark.parametrize("what", ["link to a file", "dangling link", "folder", "pipe"])
def test_what_is_no_plain_file_is_not_opened(root: Path, what: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder = Folder.below(root, [])
    match what:
        case "link to a file":
            (root / "part").symlink_to(victim)
        case "dangling link":
            (root / "part").symlink_to(tmp_path / "nowhere")
        case "folder":
            (root / "part").mkdir()
        case "pipe":
            os.mkfifo(root / "part")
    with pytest.raises((InTheWay, FileExistsError)):
        folder.open("part", os.O_RDWR | os.O_CREAT)
    assert folder.read("part", 100) is None
    folder.close()
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "nowhere").exists()


def test_T12_publishing_never_overwrites(root: Path, tmp_path: Path) -> None:
    folder = Folder.below(root, [])
    put(folder, "part", b"new")
    (root / "file").write_bytes(b"old")
    (root / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(FileExistsError):
            folder.publish("part", name)
    folder.publish("part", "free")
    folder.close()
    assert (root / "file").read_bytes() == b"old"
    assert (root / "free").read_bytes() == b"new"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("code", sorted(files.NO_LINKS))
def test_without_hard_links_it_is_renamed_and_still_overwrites_nothing(
    root: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", no_links)
    folder = Folder.below(root, [])
    put(folder, "part", b"new")
    (root / "file").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        folder.publish("part", "file")
    folder.publish("part", "free")
    folder.close()
    assert {path.name: path.read_bytes() for path in root.iterdir()} == {"file": b"old", "free": b"new"}


def test_a_small_file_is_replaced_whole_or_not_at_all(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder.below(root, [])
    folder.write("note", b"first")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "flush", full)
        with pytest.raises(OSError, match="No space"):
            folder.write("note", b"second")
    assert [path.name for path in root.iterdir()] == ["note"]
    assert folder.read("note", 100) == b"first"
    folder.write("note", b"third")
    assert folder.read("note", 100) == b"third"
    assert folder.read("note", 4) is None
    assert folder.read("nothing", 4) is None
    folder.remove_written("note")
    folder.close()
    assert list(root.iterdir()) == []


def test_T13_a_folder_swapped_for_a_link_all_the_time_leads_nowhere(tmp_path: Path) -> None:
    """The race of reliability.md T13: whatever the swapper does, nothing is written where its link leads."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    real, lure = root / "real", root / "lure"
    real.mkdir(parents=True)
    outside.mkdir()
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            with suppress(OSError):  # The other side may just have made a folder of that name.
                lure.symlink_to(outside)
                lure.unlink()
            with suppress(OSError):
                real.rename(lure)
            with suppress(OSError):
                lure.rename(real)

    swapper = threading.Thread(target=swap)
    swapper.start()
    wrote = refused = 0
    try:
        for _ in range(1500):
            try:
                folder = Folder.below(root, ["lure"])
            except (InTheWay, FileNotFoundError):
                refused += 1
                continue
            with suppress(FileNotFoundError):  # An empty folder that was just replaced is gone.
                folder.write("note", b"x", durable=False)
                wrote += 1
            folder.close()
    finally:
        stop.set()
        swapper.join()
    assert list(outside.iterdir()) == []
    assert wrote
    assert refused


@given(st.text(min_size=1, max_size=300), st.sampled_from([".mp4", "-2.jpg", ""]), st.integers(40, 255))
def test_a_name_fits_and_stays_apart_from_others(stem: str, tail: str, most: int) -> None:
    stem = stem.encode(errors="ignore").decode()
    name = fitting(stem, tail, most)
    assert len(name.encode()) <= most
    assert name.endswith(tail)
    if len((stem + tail).encode()) <= most:
        assert name == stem + tail
    else:
        assert fitting(stem + "x", tail, most) != name


def test_one_process_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "part").touch()
    first, second = (os.open(tmp_path / "part", os.O_RDWR) for _ in range(2))
    assert files.lock(first)
    assert not files.lock(second)
    os.close(first)
    assert files.lock(second)
    os.close(second)
