"""Local files that go out: what they are, whether they may leave, and whether a provider would host them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from runner import references
from runner.errors import InputError
from runner.providers import registry
from runner.providers.compose import compose
from runner.providers.description import Reference
from runner.references import LocalFile, check_local, inspect, locate, placeholder

HEADS = {
    "image/png": b"\x89PNG\r\n\x1a\n" + b"\x00" * 30,
    "image/jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + b"\x00" * 30,
    "image/webp": b"RIFF\x24\x00\x00\x00WEBPVP8 " + b"\x00" * 30,
    "image/gif": b"GIF89a" + b"\x00" * 30,
    "image/bmp": b"BM" + b"\x00" * 60,
    "video/mp4": b"\x00\x00\x00\x18ftypisom" + b"\x00" * 30,
    "video/quicktime": b"\x00\x00\x00\x14ftypqt  " + b"\x00" * 30,
    "video/webm": b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm" + b"\x00" * 30,
    "audio/mpeg": b"ID3\x04\x00\x00\x00\x00\x00\x00" + b"\x00" * 30,
    "audio/wav": b"RIFF\x24\x00\x00\x00WAVEfmt " + b"\x00" * 30,
}
HAPPYHORSE, SEEDANCE2AI = registry()["happyhorse"], registry()["seedance2ai"]


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        inspect(path)
    (problem,) = caught.value.problems
    assert problem.message == caught.value.message
    return problem.code


@pytest.mark.parametrize("media_type", HEADS)
def test_the_first_bytes_tell_the_type_and_the_name_does_not(tmp_path: Path, media_type: str) -> None:
    path = tmp_path / "a.txt"
    content = HEADS[media_type] + os.urandom(3 * references.CHUNK)
    path.write_bytes(content)
    assert inspect(path) == LocalFile(path, hashlib.sha256(content).hexdigest(), media_type, len(content))


def test_a_file_shorter_than_what_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(HEADS["image/png"])
    assert inspect(path).sha256 == hashlib.sha256(HEADS["image/png"]).hexdigest()


@pytest.mark.parametrize("content", [b"#!/bin/sh\n", b"BM", b"<svg/>", b"RIFF\x00\x00\x00\x00AVI ", b"\x00" * 64])
def test_b56_what_is_no_media(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    assert refusal(path) == "B56"


def test_b54_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert refusal(tmp_path / "a.png") == "B54"


def test_b52_a_missing_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.png") == "B52"
    (tmp_path / "dangling").symlink_to(tmp_path / "a.png")
    assert refusal(tmp_path / "dangling") == "B52"


def test_b53_a_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "B53"


@pytest.mark.timeout(5)
def test_b02_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert refusal(tmp_path / "a.png") == "B02"


def test_b02_a_device() -> None:
    assert refusal(Path("/dev/zero")) == "B02"


@pytest.mark.timeout(5)
def test_b02_a_file_swapped_for_a_pipe_after_the_first_look(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    os.mkfifo(path)
    with pytest.raises(InputError) as caught:
        references._inspect(path, 1, 1)
    assert caught.value.problems[0].code == "B02"


def test_b03_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(HEADS["image/png"])

    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(references.os, "open", denied)  # root may read everything, so the refusal is played
    assert refusal(path) == "B03"


def test_a_file_is_hashed_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(HEADS["image/png"])
    opened: list[Path] = []
    really = references._opened

    def counted(path: Path) -> object:
        opened.append(path)
        return really(path)

    monkeypatch.setattr(references, "_opened", counted)
    first = inspect(path)
    assert inspect(path) is first
    assert len(opened) == 1
    path.write_bytes(HEADS["image/png"] + b"more")
    assert inspect(path).sha256 != first.sha256
    assert len(opened) == 2


# --- what may leave the machine (T10)


def test_paths_are_relative_to_the_manifest(tmp_path: Path) -> None:
    assert locate("in/a.png", tmp_path) == (tmp_path / "in/a.png").resolve()
    assert locate("in/../a.png", tmp_path) == (tmp_path / "a.png").resolve()
    assert locate(str(tmp_path / "a.png"), tmp_path) == (tmp_path / "a.png").resolve()


@pytest.mark.parametrize("written", ["/etc/passwd", "../a.png", "link/a.png", "in/../../a.png", "~root/../../../etc/x"])
def test_b59_nothing_outside_the_folder_leaves(tmp_path: Path, written: str) -> None:
    folder = tmp_path / "manifest"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(InputError) as caught:
        locate(written, folder)
    assert caught.value.problems[0].code == "B59"


def test_other_roots_are_the_persons_to_allow(tmp_path: Path) -> None:
    folder, shared = tmp_path / "manifest", tmp_path / "shared"
    assert locate("../shared/a.png", folder, [shared]) == (shared / "a.png").resolve()
    with pytest.raises(InputError):
        locate("../shared-not/a.png", folder, [shared])


def test_b52_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(InputError) as caught:
        inspect(locate("a", tmp_path))
    assert caught.value.problems[0].code in ("B52", "B03")


# --- what a provider would host


def local(media_type: str, size: int = 1000) -> LocalFile:
    return LocalFile(Path("hero"), "ab" * 32, media_type, size)


@pytest.mark.parametrize("media_type", ["image/png", "image/jpeg", "image/webp"])
@pytest.mark.parametrize("role", ["images", "first_frame"])
def test_what_happyhorse_hosts(media_type: str, role: str) -> None:
    assert check_local(local(media_type), Reference(role, "", path="hero.png"), HAPPYHORSE) is None


@pytest.mark.parametrize(
    ("media_type", "size", "role", "code"),
    [
        ("image/gif", 10, "images", "B56"),
        ("video/mp4", 10, "first_frame", "B56"),
        ("image/png", 10_000_001, "images", "B55"),
        ("video/mp4", 10, "videos", "B56"),
        ("image/png", 10, "videos", "B56"),
        ("image/png", 10, "last_frame", "B56"),
    ],
)
def test_what_happyhorse_does_not_host(media_type: str, size: int, role: str, code: str) -> None:
    fault = check_local(local(media_type, size), Reference(role, "", path="in/hero.png"), HAPPYHORSE)
    assert fault is not None
    assert (fault.code, fault.field) == (code, f"references.{role}")
    assert "in/hero.png" in fault.message


def test_ten_megabytes_are_enough() -> None:
    assert check_local(local("image/png", 10_000_000), Reference("images", "", path="a"), HAPPYHORSE) is None


def test_a_provider_that_hosts_nothing_says_what_would_work() -> None:
    fault = check_local(local("image/png"), Reference("images", "", path="hero.png"), SEEDANCE2AI)
    assert fault is not None
    assert fault.code == "B56"
    assert "https URL" in fault.hint


def test_a_placeholder_is_nobodys_and_the_same_for_the_same_content() -> None:
    url = placeholder("ab" * 32, "image/jpeg")
    assert (urlsplit(url).hostname or "").endswith(".invalid")
    assert url.endswith(".jpg")
    assert url == placeholder("ab" * 32, "image/jpeg") != placeholder("cd" * 32, "image/jpeg")
    assert compose(HAPPYHORSE, "nano-banana-2", {"prompt": "x"}, [Reference("images", url)]).faults == ()
