"""Local files that go out: what they are, whether they may leave, and who takes them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import samples
from hypothesis import given
from hypothesis import strategies as st
from picky import CLIP, PICKY, PICTURE, PROUD, SOUND, with_picky
from store.kit import HandClock, fill, order, work_of

from runner import files
from runner.errors import InputError
from runner.jobs import OutputRow
from runner.lifecycle.fetching import facts
from runner.media import UNKNOWN, Measures
from runner.providers import registry
from runner.providers.compose import compose
from runner.providers.description import Demands, Fault, Provider, Reference
from runner.references import LocalFile, check_local, content_of, inspect, local, locate, placeholder, root_of
from runner.store import open_store

HEADS = {
    "image/png": b"\x89PNG\r\n\x1a\n" + b"\x00" * 30,
    "image/jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + b"\x00" * 30,
    "image/webp": b"RIFF\x24\x00\x00\x00WEBPVP8 " + b"\x00" * 30,
    "image/gif": b"GIF89a" + b"\x00" * 30,
    "image/bmp": b"BM" + b"\x00" * 12 + b"\x28" + b"\x00" * 60,
    "video/mp4": b"\x00\x00\x00\x18ftypisom" + b"\x00" * 30,
    "video/quicktime": b"\x00\x00\x00\x14ftypqt  " + b"\x00" * 30,
    "video/webm": b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm" + b"\x00" * 30,
    "audio/mpeg": b"ID3\x04\x00\x00\x00\x00\x00\x00" + b"\x00" * 30,
    "audio/wav": b"RIFF\x24\x00\x00\x00WAVEfmt " + b"\x00" * 30,
}
HAPPYHORSE = registry()["happyhorse"]


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        inspect(path)
    (problem,) = caught.value.problems
    assert problem.message == caught.value.message
    return problem.code


@pytest.mark.parametrize("media_type", HEADS)
def test_the_first_bytes_tell_the_type_and_the_name_does_not(tmp_path: Path, media_type: str) -> None:
    path = tmp_path / "a.txt"
    content = HEADS[media_type] + os.urandom(3 * local.CHUNK)
    path.write_bytes(content)
    found = inspect(path)
    assert (found.path, found.media_type, found.size) == (path, media_type, len(content))
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert content_of(found) == content


def test_a_file_shorter_than_what_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(HEADS["image/png"])
    assert inspect(path).sha256 == hashlib.sha256(HEADS["image/png"]).hexdigest()


@pytest.mark.parametrize(
    "content",
    [
        b"#!/bin/sh\n",
        b"BM",
        b"BMW is a maker of cars and motorcycles",
        b"<svg/>",
        b"RIFF\x00\x00\x00\x00AVI ",
        b"\x00" * 64,
    ],
)
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
    assert refusal(locate("dangling", tmp_path)) == "B52"


def test_b53_a_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "B53"


@pytest.mark.timeout(5)
def test_T10_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert refusal(tmp_path / "a.png") == "B02"


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/full", "/dev/null", "/dev/random"])
def test_T10_a_device(device: str) -> None:
    assert refusal(Path(device)) == "B02"


def test_T10_a_socket(tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "a.png"))
        assert refusal(tmp_path / "a.png") == "B02"


@pytest.mark.timeout(5)
def test_T10_a_file_swapped_for_a_pipe_after_the_first_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(HEADS["image/png"])

    def swap() -> None:
        path.unlink()
        os.mkfifo(path)

    before_opening(monkeypatch, swap)
    assert refusal(path) == "B02"


def before_opening(monkeypatch: pytest.MonkeyPatch, do: Callable[[], None]) -> None:
    """Something happens after a file was found and before it is opened, once."""
    really, left = local.open_without_links, [do]

    def opened(path: Path) -> int:
        if left:
            left.pop()()
        return really(path)

    monkeypatch.setattr(local, "open_without_links", opened)


def test_b03_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(HEADS["image/png"])

    def denied(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.os, "open", denied)  # root may read everything, so the refusal is played
    assert refusal(path) == "B03"


def test_b03_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(HEADS["image/png"])

    def broken(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files.os, "read", broken)
    assert refusal(path) == "B03"


def grown(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def cut(path: Path) -> None:
    os.truncate(path, 20)


def rewritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(30)
        file.write(b"other")


@pytest.mark.parametrize("change", [grown, cut, rewritten])
def test_b03_a_file_that_changes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(HEADS["image/png"])
    os.utime(path, (1, 1))
    really = local._digest

    def digest(source: files.Descriptor) -> tuple[str, int]:
        found = really(source)
        change(path)
        return found

    monkeypatch.setattr(local, "_digest", digest)
    assert refusal(path) == "B03"
    monkeypatch.undo()
    assert inspect(path).size == path.stat().st_size


def test_a_file_that_never_stops_growing_is_read_to_where_it_ended() -> None:
    class Growing(files.Descriptor):
        def read(self, offset: int, length: int) -> bytes:
            return bytes(length)

    _, size = local._digest(Growing(-1, 3 * local.CHUNK))
    assert size == 4 * local.CHUNK, "just beyond, which tells that it changed"


def test_b55_what_no_provider_takes_is_not_even_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(HEADS["image/png"])
    os.truncate(path, local.LARGEST + 1)

    def read(*_: object) -> bytes:
        raise AssertionError("it was read")

    monkeypatch.setattr(files.os, "read", read)
    assert refusal(path) == "B55"


def test_a_file_is_hashed_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(HEADS["image/png"])
    opened: list[Path] = []
    really = local.open_without_links

    def counted(path: Path) -> int:
        opened.append(path)
        return really(path)

    monkeypatch.setattr(local, "open_without_links", counted)
    first = inspect(path)
    assert inspect(path) is first
    assert len(opened) == 1
    path.write_bytes(HEADS["image/png"] + b"more")
    assert inspect(path).sha256 != first.sha256
    assert len(opened) == 2


def test_another_file_of_the_same_size_and_time_is_another_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(HEADS["image/png"] + b"one")
    os.utime(path, ns=(10**18, 10**18))
    first = inspect(path)
    (tmp_path / "b.png").write_bytes(HEADS["image/png"] + b"two")
    os.utime(tmp_path / "b.png", ns=(10**18, 10**18))
    (tmp_path / "b.png").replace(path)
    assert inspect(path).sha256 != first.sha256


def test_measures_come_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(samples.png())
    assert inspect(path).measures == Measures(4, 4)


# --- what may leave the machine (T10)


def test_paths_are_relative_to_the_manifest(tmp_path: Path) -> None:
    assert locate("in/a.png", tmp_path) == (tmp_path / "in/a.png").resolve()
    assert locate("in/../a.png", tmp_path) == (tmp_path / "a.png").resolve()
    assert locate(str(tmp_path / "a.png"), tmp_path) == (tmp_path / "a.png").resolve()


def not_allowed(written: str, folder: Path, *roots: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        locate(written, folder, roots or None)
    assert caught.value.problems[0].code == "B59"
    return caught.value


@pytest.mark.parametrize(
    "written", ["/etc/passwd", "../a.png", "link/a.png", "in/../../a.png", "~root/../../../etc/x", "/dev/zero", "/"]
)
def test_T10_nothing_outside_the_folder_leaves(tmp_path: Path, written: str) -> None:
    folder = tmp_path / "manifest"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    not_allowed(written, folder)


def test_T10_the_keys_of_the_house_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~` is no home here, and the home itself is outside."""
    home, folder = tmp_path / "home", tmp_path / "manifest"
    (home / ".ssh").mkdir(parents=True)
    folder.mkdir()
    (home / ".ssh" / "id_ed25519").write_text("-----BEGIN OPENSSH PRIVATE KEY-----")
    monkeypatch.setenv("HOME", str(home))
    not_allowed(str(home / ".ssh/id_ed25519"), folder)
    assert refusal(locate("~/.ssh/id_ed25519", folder)) == "B52"
    (folder / "~").symlink_to(home)
    not_allowed("~/.ssh/id_ed25519", folder)
    assert refusal(locate("../home/.ssh/id_ed25519", folder, [home])) == "B56", "even where its folder is allowed"


@pytest.mark.parametrize("target", ["/etc/passwd", "/dev/zero", "../elsewhere/a.png"])
def test_T10_a_symlink_is_judged_by_where_it_leads(tmp_path: Path, target: str) -> None:
    folder = tmp_path / "manifest"
    folder.mkdir()
    (folder / "a.png").symlink_to(target)
    resolved = os.path.realpath(folder / target)
    assert f'"a.png" leads out of the manifest\'s folder, to "{resolved}"' in not_allowed("a.png", folder).message


def test_a_symlink_within_the_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "stills").mkdir()
    (tmp_path / "stills" / "a.png").write_bytes(HEADS["image/png"])
    (tmp_path / "hero.png").symlink_to("stills/a.png")
    assert inspect(locate("hero.png", tmp_path)).path == tmp_path / "stills" / "a.png"


def test_T10_a_hard_link_is_the_file_itself(tmp_path: Path) -> None:
    """It cannot be told from any other file, so its content decides: nothing but a picture, a video or a sound ever
    leaves, and the plan lists it."""
    secret, folder = tmp_path / "shadow", tmp_path / "manifest"
    folder.mkdir()
    secret.write_text("root:$6$salt$hash:19000:0:99999:7:::\n")
    os.link(secret, folder / "a.png")
    assert refusal(locate("a.png", folder)) == "B56"


def test_other_roots_are_the_persons_to_allow(tmp_path: Path) -> None:
    folder, shared = tmp_path / "manifest", tmp_path / "shared"
    shared.mkdir()
    roots = (folder, root_of(shared))
    assert locate("../shared/a.png", folder, roots) == shared / "a.png"
    assert locate(f"{shared}/../shared/in/../a.png", folder, roots) == shared / "a.png"
    assert locate("a.png", folder, roots) == folder / "a.png"
    not_allowed("../shared-not/a.png", folder, *roots)
    not_allowed("../shared/../a.png", folder, *roots)


def test_a_root_behind_a_link_is_what_it_leads_to_for_good(tmp_path: Path) -> None:
    for name in ("shared", "elsewhere"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(HEADS["image/png"])
    link = tmp_path / "link"
    link.symlink_to("shared")
    root = root_of(link)
    assert locate(str(link / "a.png"), tmp_path / "manifest", [root]) == tmp_path / "shared" / "a.png"
    link.unlink()
    link.symlink_to("elsewhere")
    not_allowed(str(link / "a.png"), tmp_path / "manifest", root)


@pytest.mark.parametrize("name", ["nothing", "a.png", "loop"])
def test_a_root_must_be_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match=f"--allow-files .*{name}: not a folder"):
        root_of(tmp_path / name)


def test_b52_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(InputError) as caught:
        inspect(locate("a", tmp_path))
    assert caught.value.problems[0].code in ("B52", "B03")


@pytest.mark.parametrize("written", ["a\0b.png", "\ud800.png", "x" * 5000, "a/" * 3000 + "b.png"])
def test_b52_names_that_no_system_knows(tmp_path: Path, written: str) -> None:
    with pytest.raises(InputError) as caught:
        inspect(locate(written, tmp_path))
    assert caught.value.problems[0].code in ("B52", "B03")


PARTS = st.sampled_from(["in", "..", ".", "a.png", "link", "up", "home", "manifest", "shared", "", "~"])


@given(st.lists(PARTS, max_size=7), st.booleans())
def test_T10_no_path_leads_out(tmp_path_factory: pytest.TempPathFactory, parts: list[str], absolute: bool) -> None:
    top = tmp_path_factory.getbasetemp() / "out"
    folder, shared = top / "manifest", top / "shared"
    if not top.exists():
        for made in (folder / "in", shared, top / "home"):
            made.mkdir(parents=True)
        (folder / "link").symlink_to(shared)
        (folder / "in" / "up").symlink_to(top)
        (shared / "home").symlink_to(top / "home")
    written = "/".join([*([str(top)] if absolute else []), *parts])
    allowed = [folder.resolve(), shared.resolve()]
    real = Path(os.path.realpath(folder / written))
    if any(real.is_relative_to(root) for root in allowed):
        assert locate(written, folder, allowed) == real
    else:
        not_allowed(written, folder, *allowed)


# --- swaps between the look and the opening


def swapped_folder(tmp_path: Path) -> tuple[Path, Path]:
    """`in/a.png`, and a folder elsewhere that holds the same."""
    for name in ("in", "elsewhere"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(HEADS["image/png"])
    return tmp_path / "in", tmp_path / "elsewhere"


def link_instead(path: Path, target: Path) -> None:
    path.rename(path.with_name("away"))
    path.symlink_to(target)


@pytest.mark.parametrize("part", ["in", "in/a.png"])
def test_T10_a_link_put_there_after_the_look_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    swapped_folder(tmp_path)
    path = locate("in/a.png", tmp_path)
    found = inspect(path)
    before_opening(monkeypatch, lambda: link_instead(tmp_path / part, tmp_path / part.replace("in", "elsewhere")))
    with pytest.raises(InputError) as caught:
        content_of(found)
    assert caught.value.problems[0].code == "B59"
    assert refusal(path) == "B59", "and when it is looked at again"


def test_T10_a_folder_that_became_a_link_to_the_very_file_is_refused(tmp_path: Path) -> None:
    """Moved out of what is allowed: the same file by every mark it has, but somewhere else."""
    inside = tmp_path / "manifest" / "in"
    inside.mkdir(parents=True)
    (inside / "a.png").write_bytes(HEADS["image/png"])
    path = locate("in/a.png", tmp_path / "manifest")
    found = inspect(path)
    inside.rename(tmp_path / "moved")
    inside.symlink_to(tmp_path / "moved")
    assert refusal(path) == "B59"
    with pytest.raises(InputError):
        content_of(found)


def test_what_leaves_is_what_was_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(HEADS["image/png"] + b"one")
    os.utime(path, ns=(10**18, 10**18))
    found = inspect(path)
    for content in (b"two", b"longer", b""):
        path.write_bytes(HEADS["image/png"] + content)
        os.utime(path, ns=(10**18, 10**18))
        with pytest.raises(InputError) as caught:
            content_of(found)
        assert caught.value.problems[0].code == "B03"
    path.unlink()
    with pytest.raises(InputError):
        content_of(found)


def test_opening_without_links_where_names_cannot_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    inside, elsewhere = swapped_folder(tmp_path)
    monkeypatch.setattr(files, "RELATIVE", False)
    os.close(files.open_without_links(inside / "a.png"))
    link_instead(inside, elsewhere)
    with pytest.raises(files.InTheWay):
        files.open_without_links(inside / "a.png")


# --- who takes it


def a_file(media_type: str, size: int = 1000, measures: Measures = UNKNOWN) -> LocalFile:
    return LocalFile(Path("hero"), "ab" * 32, media_type, size, measures)


def check(file: LocalFile, role: str, provider: Provider, demands: Demands | None = None) -> list[Fault]:
    return check_local(file, Reference(role, "", path="in/hero.png"), provider, "muse", demands, with_picky())


@pytest.mark.parametrize("media_type", ["image/png", "image/jpeg", "image/webp"])
@pytest.mark.parametrize("role", ["images", "first_frame"])
def test_what_happyhorse_hosts(media_type: str, role: str) -> None:
    assert check(a_file(media_type), role, HAPPYHORSE) == []


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
    [fault] = check(a_file(media_type, size), role, HAPPYHORSE)
    assert (fault.code, fault.field) == (code, f"references.{role}")
    assert "in/hero.png" in fault.message


def test_ten_megabytes_are_enough() -> None:
    assert check(a_file("image/png", 10_000_000), "images", HAPPYHORSE) == []


@pytest.mark.parametrize(
    ("file", "role", "hosts"),
    [
        (a_file("image/png"), "images", "happyhorse, picky"),
        (a_file("image/webp"), "images", "happyhorse"),
        (a_file("image/png", 20_000), "images", "happyhorse"),
        (a_file("image/png"), "first_frame", "happyhorse"),
        (a_file("video/mp4"), "videos", "picky"),
        (a_file("image/png"), "last_frame", None),
        (a_file("audio/wav"), "audios", None),
    ],
)
def test_a_provider_that_hosts_nothing_says_what_would_work(file: LocalFile, role: str, hosts: str | None) -> None:
    [fault] = check(file, role, PROUD)
    assert fault.code == "B56"
    assert "proud hosts none" in fault.message
    web = "put it on the web and write its https URL"
    assert fault.hint == (f"{web}, or choose a provider that hosts it: {hosts}" if hosts else web)


@given(st.integers(1, 2000), st.integers(1, 2000))
def test_b57_pixels_are_held_against_the_models_demands(width: int, height: int) -> None:
    short, long = min(width, height), max(width, height)
    faults = check(a_file("image/png", measures=Measures(width, height)), "images", PICKY, PICTURE)
    assert len(faults) == (short < 300) + (long * 10 > short * 25)
    for fault in faults:
        assert fault.code == "B57"
        assert f"{width}×{height} pixels" in fault.message
        assert "picky muse" in fault.message


@given(st.decimals(0, 1000, places=3))
def test_b57_seconds_are_held_against_the_models_demands(seconds: Decimal) -> None:
    for role, media_type, demands in (("videos", "video/mp4", CLIP), ("audios", "audio/wav", SOUND)):
        assert demands.max_seconds is not None
        faults = check(a_file(media_type, measures=Measures(seconds=seconds)), role, PICKY, demands)
        told = [fault for fault in faults if fault.code == "B57"]
        assert len(told) == (seconds > demands.max_seconds)


@pytest.mark.parametrize(
    ("role", "media_type", "demands"), [("images", "image/png", PICTURE), ("videos", "video/mp4", CLIP)]
)
def test_what_is_not_known_is_not_held_against_a_file(role: str, media_type: str, demands: Demands) -> None:
    assert check(a_file(media_type), role, PICKY, demands) == []


def test_the_models_demands_come_first_and_the_hosts_limits_only_where_they_are_met() -> None:
    huge = a_file("image/png", 20_001, Measures(100, 100))
    assert [fault.code for fault in check(huge, "images", PICKY, PICTURE)] == ["B55", "B57"]
    assert [fault.code for fault in check(huge, "images", PROUD, PICTURE)] == ["B55", "B57", "B56"]
    assert [fault.message for fault in check(a_file("image/png", 15_001), "images", PICKY, PICTURE)] == [
        '"in/hero.png" has 15,001 bytes; picky takes at most 15,000'
    ]


def test_b56_a_type_that_the_model_does_not_take() -> None:
    [fault] = check(a_file("image/webp"), "images", PICKY, PICTURE)
    assert (fault.code, fault.hint) == ("B56", "convert it")
    assert "picky muse takes image/jpeg, image/png, image/bmp" in fault.message


def test_a_placeholder_is_nobodys_and_the_same_for_the_same_content() -> None:
    url = placeholder("ab" * 32, "image/jpeg")
    assert (urlsplit(url).hostname or "").endswith(".invalid")
    assert url.endswith(".jpg")
    assert url == placeholder("ab" * 32, "image/jpeg") != placeholder("cd" * 32, "image/jpeg")
    assert compose(HAPPYHORSE, "nano-banana-2", {"prompt": "x"}, [Reference("images", url)]).faults == ()


async def test_T6_what_lies_beside_an_output_signs_nothing(tmp_path: Path) -> None:
    signed = "https://bucket.example/hero.png?X-Amz-Date=20261120T120000Z&X-Amz-Expires=60000&X-Amz-Signature=s1gn"
    urls = [signed, "https://cdn.example/hero.png?v=2"]
    spec = {"fields": {}, "references": [{"role": "images", "url": url} for url in urls], "params": {}}
    async with open_store(str(tmp_path / "queue.db"), HandClock(), own=True) as store:
        await fill(store, [replace(order(1), spec=json.dumps(spec))])
        told = facts(await work_of(store, 1), OutputRow(0, None))
    assert [each["source"] for each in told["references"]] == ["https://bucket.example/hero.png", urls[1]]
