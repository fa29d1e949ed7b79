"""Files of providers with something wrong in them: one clear error each, with its place; hostile ones; the command."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from manifests import codes_of, yaml_of
from yamlcore import CCoreLoader

from runner.cli.calling import call
from runner.errors import InputError
from runner.manifest import read_manifest
from runner.manifest.places import Source
from runner.problems import as_json, render
from runner.providers import declare, registry
from runner.providers.declared.reader import EXAMPLE, read_providers
from runner.providers.description import Provider

FOLDER = Path(__file__).parent / "declared"
GOOD = (FOLDER / "good.yaml").read_text(encoding="utf-8")
CASES = yaml.load((FOLDER / "bad.yaml").read_text(encoding="utf-8"), CCoreLoader)  # noqa: S506
KEY = "idempotency: {header: X-Key, trusted_seconds: 600}"


@pytest.fixture(autouse=True)
def _nothing_declared() -> Iterator[None]:
    declare()
    yield
    declare()


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise AssertionError("a bad file opened a socket")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path) -> InputError:
    with pytest.raises(InputError) as refused:
        read_providers(path, list(registry()))
    return refused.value


def test_the_good_one_is_good(tmp_path: Path) -> None:
    [provider] = read_providers(written(tmp_path, GOOD), list(registry()))
    assert provider.name == "acme"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
@pytest.mark.usefixtures("_no_network")
def test_a_mistake_is_told_with_its_place(case: dict[str, str], tmp_path: Path) -> None:
    assert case["replace"] in GOOD, "the case speaks of what is not there"
    text = GOOD.replace(case["replace"], case["by"], 1)
    error = refusal(written(tmp_path, text))
    found = next((problem for problem in error.problems if problem.code == case["code"]), None)
    assert found is not None, render(error.problems)
    assert case["says"] in f"{found.message} {found.hint}"
    assert found.hint
    within = text.index(case["by"]) if case["at"] in case["by"] else 0
    wanted = Source(text, "").at(text.index(case["at"], within))
    assert found.place is not None
    assert (found.place.line, found.place.column) == (wanted.line, wanted.column), render(error.problems)


def test_no_models(tmp_path: Path) -> None:
    [problem] = refusal(written(tmp_path, GOOD[: GOOD.index("    models:")] + "    models: {}\n")).problems
    assert (problem.code, problem.message) == ("B40", "models is empty")


def test_every_mistake_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("60/minute", "often").replace("renders: image", "renders: x")
    text += (
        GOOD[GOOD.index("  acme:") :]
        .replace("  acme:", "  Other:")
        .replace("default: 720p", "default: 4K")
        .replace("default: 5", "default: 50")
    )
    told = {
        (problem.code, problem.place.line) for problem in refusal(written(tmp_path, text)).problems if problem.place
    }
    lines = text.split("\n")
    capital = lines.index("  Other:") + 1
    other = next(n for n, line in enumerate(lines, 1) if n > capital and "default: 4K" in line)
    assert {code for code, _ in told} == {"B82", "B40", "B73", "B42", "B41"}
    assert {("B73", capital), ("B42", other)} <= told


def test_a_conflict_needs_a_key(tmp_path: Path) -> None:
    text = GOOD.replace(KEY, "refunds_failures: true").replace("means: credits}", "means: conflict}", 1)
    [problem] = refusal(written(tmp_path, text)).problems
    assert (problem.code, problem.message) == ("B40", "a conflict is about an idempotency key, and there is none")


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "acme\n", "version: 1\n", "version: 1\nproviders: {}\n"])
def test_a_file_that_says_nothing(text: str, tmp_path: Path) -> None:
    assert {problem.code for problem in refusal(written(tmp_path, text)).problems} <= {"B12", "B32", "B40"}


@pytest.mark.parametrize("place", ["missing.yaml", ".", "pipe"])
def test_what_is_no_file(place: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    [problem] = refusal(tmp_path / place).problems
    assert problem.code in ("B01", "B02")


# --- hostile files


def bombs() -> dict[str, tuple[str, str]]:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    deep = "[" * 40 + "]" * 40
    return {
        "aliases": ("\n".join(lines) + "\n" + GOOD, "B14"),
        "aliases in constants": (GOOD.replace("{draft: false}", "&c {a: *c}"), "B14"),
        "depth": (GOOD.replace("{draft: false}", "{a: " + deep + "}"), "B18"),
        "size": (GOOD + "#" * (5 * 1024 * 1024), "B19"),
        "half a character": (GOOD.replace("Acme API 1", "\\ud800"), "B26"),
        "control characters": (GOOD.replace("Acme API 1", "\x1b]8;;"), "B26"),
        "merge keys": (GOOD.replace("{draft: false}", "{<<: {a: 1}}"), "B17"),
        "many mistakes": (GOOD + "".join(f"  x{n}: 1\n" for n in range(20_000)), "B40"),
    }


@pytest.mark.parametrize("what", bombs())
def test_a_hostile_file_is_refused(what: str, tmp_path: Path) -> None:
    text, code = bombs()[what]
    error = refusal(written(tmp_path, text))
    assert code in {problem.code for problem in error.problems}
    assert len(render(error.problems)) < 100_000


@pytest.mark.parametrize("number", ["9" * 5_000, "0x" + "f" * 60, "1" * 63, "1e999999999", "-.inf", "1_000"])
def test_huge_numbers_are_refused(number: str, tmp_path: Path) -> None:
    for old in ("max_bytes: 1000", "credits: 5", "high: 10", "trusted_seconds: 600"):
        text = GOOD.replace(old, f"{old.split(':')[0]}: {number}")
        codes = {problem.code for problem in refusal(written(tmp_path, text)).problems}
        assert codes <= {"B23", "B24", "B40", "B41"}


@pytest.mark.parametrize("secret", ["sk-sd_0123456789abcdef", "Bearer abcdef0123456789", "ghp_" + "a1" * 18])
def test_a_secret_is_pointed_at_and_never_repeated(secret: str, tmp_path: Path) -> None:
    for text in (GOOD.replace("Acme API 1", secret), GOOD.replace("{draft: false}", f'{{token: "{secret}"}}')):
        error = refusal(written(tmp_path, text))
        told = error.message + render(error.problems) + str(as_json(error.problems)) + repr(error.problems)
        assert "B31" in {problem.code for problem in error.problems}
        assert secret[-12:] not in told


PIECES = st.sampled_from(
    ["{", "}", "[", "]", ": ", "- ", "\n", "  ", "&a ", "*a", "!!", "null", "true", "-1", "1e9", "9" * 21, '"', "'",
     "x", "{task_id}", "..", "é", "\u202e", "\x00", "credits", "native", "when: {}"]
)  # fmt: skip


@given(st.integers(0, len(GOOD)), st.integers(0, 40), st.lists(PIECES, max_size=5).map("".join))
def test_a_mangled_file_is_refused_or_read(start: int, length: int, put: str) -> None:
    """Whatever a slip of the hand makes of a file: providers, or problems with places; nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), GOOD[:start] + put + GOOD[start + length :])
        outcome = read_or_refused(path)
    if isinstance(outcome, InputError):
        assert outcome.problems
        assert all(problem.code and problem.place for problem in outcome.problems)
        assert render(outcome.problems)
    else:
        assert all(provider.guarantee for provider in outcome)


def read_or_refused(path: Path) -> tuple[Provider, ...] | InputError:
    try:
        return read_providers(path, list(registry()))
    except InputError as error:
        return error


# --- by the command line


def snapshot(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "words",
    [["plan", "m.yaml"], ["run", "m.yaml", "--yes"], ["run"], ["rehearse", "m.yaml"], ["providers"], ["status"],
     ["jobs"], ["resolve", "1", "--abandon"]],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("by", ["option", "environment"])
def test_a_bad_file_ends_every_command_before_it_begins(
    words: list[str], by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, GOOD.replace("60/minute", "often"))
    (tmp_path / "m.yaml").write_text("version: 1\nbatch: b\njobs: {a: {provider: acme, model: one, prompt: a hat}}\n")
    before = snapshot(tmp_path)
    if by == "environment":
        monkeypatch.setenv("RUNNER_PROVIDERS", "mine.yaml")
    else:
        words = [*words, "--providers", "mine.yaml"]
    assert call(words) == 2
    said = capsys.readouterr()
    assert 'mine.yaml:7:13: B82 "often" is no rate limit' in said.err
    assert "nothing was written, nothing was sent" in said.err
    assert snapshot(tmp_path) == before


def test_the_problems_as_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, GOOD.replace("60/minute", "often"))
    assert call(["providers", "--json", "--providers", "mine.yaml"]) == 2
    [problem] = json.loads(capsys.readouterr().out)["problems"]
    assert (problem["code"], problem["file"], problem["line"], problem["col"]) == ("B82", "mine.yaml", 7, 13)


def test_T25_a_manifest_cannot_name_a_file_of_providers(tmp_path: Path) -> None:
    job: dict[str, Any] = {"a": {"provider": "acme", "model": "one", "prompt": "a hat"}}
    for top in (
        {"providers": "mine.yaml"},
        {"providers_file": "mine.yaml"},
        {"providers": {"acme": {"file": "mine.yaml"}}},
    ):
        (tmp_path / "m.yaml").write_text(yaml_of(job, **top))
        with pytest.raises(InputError) as refused:
            read_manifest(tmp_path / "m.yaml")
        assert set(codes_of(refused.value)) <= {"B32", "B40"}


def test_T25_a_run_says_whose_description_it_believes_before_anybody_pays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACME_API_KEY", "canary-0123456789")
    written(tmp_path, GOOD)
    (tmp_path / "m.yaml").write_text(yaml_of({"a": {"provider": "acme", "model": "one", "prompt": "a hat"}}))
    assert call(["run", "m.yaml", "--providers", "mine.yaml"]) == 2
    said = capsys.readouterr().err
    assert "acme is described in mine.yaml: its key goes to https://" in said
    assert "nobody to ask" in said
    assert "canary" not in said


def test_a_command_knows_only_what_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUNNER_PROVIDERS", "")
    written(tmp_path, GOOD)
    assert call(["providers", "acme", "--providers", "mine.yaml"]) == 0
    assert "described in" in capsys.readouterr().out
    assert call(["providers", "acme"]) == 2
    assert call(["providers", "--example"]) == 0
    assert capsys.readouterr().out == EXAMPLE.read_text()
