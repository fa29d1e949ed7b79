"""Output paths: whatever a table or a prompt holds, they stay below the folder and can be written everywhere (T11)."""

from __future__ import annotations

import unicodedata
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from manifests import SEEDANCE, codes_of, manifest_of, orders_of

from runner.errors import InputError, Place
from runner.expand import orders, survey
from runner.expand.clashes import Clashes
from runner.expand.outputs import LONGEST_PART, Namer, clean, folded, slug
from runner.manifest.findings import Findings
from runner.manifest.model import Outputs
from runner.manifest.templates import read_template
from runner.problems import UNPRINTABLE
from runner.providers import registry

KEY = "0123456789abcdef" * 4
RESERVED = ["CON", "prn", "Aux", "NUL", "COM1", "lpt9", "com¹", "CONIN$"]
EVIL = [
    *RESERVED, *(f"{name}.txt" for name in RESERVED), *(f"{name}.tar.gz" for name in RESERVED),
    "..", ".", "...", "", " ", "  . ", "../../.ssh/id_rsa", "..\\..\\windows", "/etc/passwd", "~root", "C:\\x", "C:x",
    "\\\\server\\share", "a/b", "a\\b", "a:b", "a|b", "a?b", "a*b", 'a"b', "<script>", "name.", "name ", "name. . .",
    " lead", ".hidden", "-rf", "new\nline", "tab\there", "nul\x00byte", "\x1b[31mred", "bell\x07", "\x7f", "\x85next",
    "\u202egnp.exe", "\u2066x\u2069", "\ufeffbom", "\u200flrm", "half\ud800", "e\u0301", "\u00e9", "ﬁ", "ẞ", "ı", "K",
    "x" * 300, "日" * 100, "👩‍👩‍👧‍👦" * 20, "é" * 120, "a" * 199, "a" * 200, "a" * 201, "%2e%2e%2f",
    "$HOME", "`id`", "$(id)",
]  # fmt: skip
AFTER = (" ", "\xa0", " .x", ":x", "\0")
EVIL += [f"{before}{name}{after}" for name in RESERVED for before in ("", " ", "../") for after in AFTER]
EVIL += [f"{sign}{name}{sign}" for sign in "/\\.\x1b\u202e\u2028" for name in ("a", "..", "CON", "é" * 99)]


def part_of(value: str, name: str = "${v}.${ext}") -> str:
    namer = Namer.of(Outputs("renders", read_template(name)))
    path = namer.path({"v": value, "ext": "mp4", "key": KEY})
    folder, _, part = path.partition("/")
    assert folder == "renders"
    return part


def assert_safe(part: str) -> None:
    assert part not in ("", ".", "..")
    assert not set(part) & set('/\\:*?"<>|\n\r\t')
    assert not UNPRINTABLE.search(part)
    assert len(part.encode()) <= LONGEST_PART
    assert not part.startswith((".", " "))
    assert not part.endswith((".", " "))
    assert part.split(".")[0].rstrip().upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT9", "COM¹", "CONIN$"}
    assert unicodedata.is_normalized("NFC", part)


def test_evil_values_make_safe_names_T11() -> None:
    assert len(set(EVIL)) >= 200
    for value in EVIL:
        assert_safe(part_of(value))
        assert_safe(part_of(value, "${v}"))
        assert part_of(value).endswith(".mp4")


@given(st.text(st.characters(exclude_categories=[]), max_size=300))
def test_any_value_makes_a_safe_name_T11(value: str) -> None:
    assert_safe(part_of(value))
    assert_safe(part_of(f"CON{value}"))
    assert_safe(clean(value, KEY[:10]))


@given(st.text(max_size=300))
def test_cleaning_twice_changes_nothing(value: str) -> None:
    once = clean(value, KEY[:10])
    assert clean(once, KEY[:10]) == once


def test_long_names_stay_apart() -> None:
    namer = Namer.of(Outputs("renders", read_template("${v}.${ext}")))
    values = [{"v": "x" * 300 + str(n), "ext": "mp4", "key": f"{n:064x}"[::-1]} for n in range(10)]
    assert len({namer.path(v) for v in values}) == 10


def test_values_add_no_folders_but_templates_do() -> None:
    namer = Namer.of(Outputs(read_template("renders/${batch}/"), read_template("./${job}//${v}-${key}.${ext}")))
    values = {"batch": "b", "job": "still", "v": "../x/y", "key": KEY, "ext": "png"}
    assert namer.path(values) == "renders/b/still/_..-x-y-0123456789.png"


@pytest.mark.parametrize(
    ("name", "path"),
    [("${job}", "renders/still.mp4"), ("${job}.mp4", "renders/still.mp4"), ("${job}.mov", "renders/still.mov.mp4")],
)
def test_the_expected_extension_is_always_there(name: str, path: str) -> None:
    namer = Namer.of(Outputs("renders", read_template(name)))
    assert namer.path({"job": "still", "ext": "mp4", "key": KEY}) == path


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("A neon alley, in the RAIN -- film noir!", "a-neon-alley-in-the-rain"),
        ("  ...  ", "untitled"),
        ("../../etc/passwd", "etc-passwd"),
        ("日本の路地", "日本の路地"),
        ("supercalifragilisticexpialidocious words follow here", "supercalifragilisticexpialidocious-words"),
        ("x" * 100, "x" * 40),
        ("snake_case and CamelCase", "snake-case-and-camelcase"),
    ],
)
def test_slugs(prompt: str, words: str) -> None:
    assert slug(prompt) == words


@given(st.text(max_size=500))
@example("COM1")  # a slug is a word: what it makes of a file's name is for the name to see
def test_slugs_are_safe(prompt: str) -> None:
    assert len(slug(prompt)) <= 40
    assert not set(slug(prompt)) & set("./\\ ")
    assert_safe(part_of(slug(prompt)))


@pytest.mark.parametrize(("one", "two"), [("A/b.MP4", "a/B.mp4"), ("caf\u00e9", "CAFE\u0301"), ("straße", "STRASSE")])
def test_paths_that_some_file_system_takes_for_one(one: str, two: str) -> None:
    assert folded(one) == folded(two)


def refusal_codes(folder: Path, jobs: dict[str, object], name: str) -> list[str]:
    manifest = manifest_of(folder, jobs, outputs={"name": name})
    with pytest.raises(InputError) as refused:
        survey(manifest, registry())
    return codes_of(refused.value)


@pytest.mark.parametrize("rows", [["A", "a"], ["caf\u00e9", "cafe\u0301"], ["x:y", "x|y"]])
def test_B72_T12_two_jobs_never_share_a_path(rows: list[str], tmp_path: Path) -> None:
    job = {**SEEDANCE, "prompt": "scene ${n} of ${shot}", "rows": [{"shot": s, "n": i} for i, s in enumerate(rows)]}
    assert refusal_codes(tmp_path, {"a": job}, "${shot}.${ext}") == ["B72"]
    assert len(orders_of(tmp_path, {"a": job})) == 2


def test_T12_of_ten_thousand_names_that_some_file_system_takes_for_one_all_are_found(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, {"a": {**SEEDANCE, "prompt": "a neon alley"}})
    [order] = orders(manifest, registry(), survey(manifest, registry()))
    names = ["caf\u00e9/clip.mp4", "CAFE\u0301/clip.mp4", "Caf\u00c9/CLIP.mp4", "cafe\u0301/Clip.MP4"]
    places = [Place("takes.csv", n + 2, 1) for n in range(10_000)]
    many = [
        replace(order, key=f"{n:064x}"[::-1], output=names[n % 4], where=place) for n, place in enumerate(places)
    ]  # fmt: skip
    with closing(Clashes()) as clashes:
        for one in many:
            clashes.add(one)
        with pytest.raises(InputError) as refused:
            clashes.note(many, Findings(manifest.source))
    assert set(codes_of(refused.value)) == {"B72"}
    assert len(codes_of(refused.value)) == 1_000, "then it is enough"


def test_B75_paths_have_an_end(tmp_path: Path) -> None:
    job = {**SEEDANCE, "prompt": "a neon alley", "rows": [{"v": "x" * 190}]}
    assert refusal_codes(tmp_path, {"a": job}, "/".join(["${v}"] * 8).lstrip("/")) == ["B75"]
