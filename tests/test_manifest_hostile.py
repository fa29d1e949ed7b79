"""A manifest can be someone else's, and a key can be pasted where it does not belong."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from manifests import SEEDANCE, codes_of, manifest_of, write, yaml_of
from test_manifest import MINIMAL, problems_of

from runner.errors import InputError
from runner.expand import survey
from runner.manifest import read_manifest
from runner.problems import as_json, render
from runner.providers import registry

HOSTILE = {
    "address": {"providers": {"happyhorse": {"base_url": "https://evil.example"}}},
    "headers": {"providers": {"happyhorse": {"headers": {"X-Evil": "1"}}}},
    "name of a key": {"providers": {"happyhorse": {"key_env": "HOME"}}},
    "key": {"providers": {"happyhorse": {"api_key": "hunter2"}}},
    "proxy": {"providers": {"happyhorse": {"proxy": "http://evil.example"}}},
    "command": {"hooks": {"done": "rm -rf ~"}},
    "callback": {"callback_url": "https://evil.example"},
    "absolute output": {"outputs": {"dir": "/etc"}},
    "output above": {"outputs": {"name": "../../.ssh/authorized_keys"}},
    "home": {"outputs": {"dir": "~/.ssh"}},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_strangers_manifest_cannot_set_T26(what: str, tmp_path: Path) -> None:
    error = problems_of(write(tmp_path, yaml_of({"a": {**SEEDANCE, "prompt": "a neon alley"}}, **HOSTILE[what])))
    assert set(codes_of(error)) <= {"B31", "B32", "B75"}
    assert "hunter2" not in render(error.problems)


@pytest.mark.parametrize(
    "job",
    [{"url": "https://evil.example"}, {"headers": {}}, {"command": "id"}, {"params": {"callBackUrl": "https://evil.example"}}],
)  # fmt: skip
def test_a_strangers_job_cannot_set_T26(job: dict[str, object], tmp_path: Path) -> None:
    path = write(tmp_path, yaml_of({"a": {**SEEDANCE, "prompt": "a neon alley", **job}}))
    with pytest.raises(InputError) as refused:
        survey(read_manifest(path), registry())
    assert codes_of(refused.value) == ["B32"]


@pytest.mark.parametrize(
    "secret",
    [
        "sk-sd_0123456789abcdef",
        "sk_live_51Habcdefghij",
        "sk-proj-abcdefgh12345678",
        "ghp_" + "a1" * 18,
        "xoxb-1234567890-abc",
        "AKIAIOSFODNN7EXAMPLE",
        "AIza" + "Sy0" * 11 + "ab",
        "Bearer abcdef0123456789",
        "eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.c2lnbmF0dXJl",
    ],
)
def test_B31_what_looks_like_a_key_is_never_repeated_T1(secret: str, tmp_path: Path) -> None:
    for text in (MINIMAL.replace("a neon", f"a {secret} neon"), MINIMAL + f"    aspect_ratio: {secret}\n"):
        error = problems_of(write(tmp_path, text))
        told = error.message + render(error.problems) + str(as_json(error.problems)) + repr(error.problems)
        assert "B31" in codes_of(error)
        assert secret not in told
        assert secret[-12:] not in told


def test_B31_prose_and_signed_urls_are_no_keys(tmp_path: Path) -> None:
    signed = (
        "https://example.com/a.png?X-Amz-Credential=AKIAIOSFODNN7EXAMPLE&token=eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl"
    )
    prompt = "the bearer of bad news, sk-like shapes, a task-force, ghp and AKIA letters"
    job = {**SEEDANCE, "prompt": prompt, "references": {"images": [signed]}}
    assert survey(manifest_of(tmp_path, {"a": job}), registry()).jobs == 1


def test_a_key_in_a_comment_is_not_a_value(tmp_path: Path) -> None:
    assert read_manifest(write(tmp_path, MINIMAL + "# never write sk-sd_0123456789abcdef here\n")).jobs


def test_T14_a_long_line_with_many_mistakes_is_looked_at_once(tmp_path: Path) -> None:
    """Each of them used to cost a walk through all of it."""
    wrong = ", ".join(f"x{n}: 1" for n in range(900))
    text = MINIMAL + f"    params: {{{wrong}, y: {'z' * 1_000_000}}}\n"
    began = time.process_time()
    with pytest.raises(InputError) as refused:
        survey(read_manifest(write(tmp_path, text)), registry())
    assert len(refused.value.problems) > 900
    signs = "\x01" * 5_000
    with pytest.raises(InputError) as refused:
        read_manifest(write(tmp_path, f"a: {'x' * 1_000_000}{signs}\n"))
    assert set(codes_of(refused.value)) == {"B26"}
    assert time.process_time() - began < 5


MANY = 20_000
JOB = {**SEEDANCE, "prompt": "a neon alley in ${s}"}
AXIS = {"s": [f"v{n}" for n in range(MANY)]}
CROWDS = {
    "what is left out": ({**JOB, "matrix": AXIS, "exclude": [{"s": f"v{n}"} for n in range(MANY - 1)]}, "B14"),
    "what is left out and not there": (
        {**JOB, "matrix": AXIS, "exclude": [{"s": f"w{n}"} for n in range(MANY)]},
        "B32",
    ),
    "what is added": ({**JOB, "matrix": AXIS, "include": [{"s": f"v{n}", "x": "y"} for n in range(MANY)]}, "B14"),
    "columns": ({**JOB, "rows": "wide.csv"}, "B68"),
}


@pytest.mark.parametrize("crowd", CROWDS)
def test_T14_no_crowd_is_compared_with_another(crowd: str, tmp_path: Path) -> None:
    """Each took hours: what is refused is refused while somebody waits for it."""
    job, code = CROWDS[crowd]
    (tmp_path / "wide.csv").write_text(",".join(["s", *(f"c{n}" for n in range(MANY))]) + "\n")
    path = write(tmp_path, yaml_of({"a": job}))
    began = time.process_time()
    with pytest.raises(InputError) as refused:
        survey(read_manifest(path), registry())
    assert time.process_time() - began < 20
    assert set(codes_of(refused.value)) == {code}


def test_T14_many_anchors_are_not_compared_with_many_aliases(tmp_path: Path) -> None:
    anchors = ", ".join(f"&a{n} x" for n in range(100_000))
    path = tmp_path / "anchors.yaml"
    path.write_text(f"x: [{anchors}]\ny: [{', '.join(f'*z{n} ' for n in range(100))}]\n")
    began = time.process_time()
    error = problems_of(path)
    assert time.process_time() - began < 5
    assert set(codes_of(error)) == {"B16"}


def test_no_name_is_too_long_to_be_told(tmp_path: Path) -> None:
    error = problems_of(write(tmp_path, f"y: *{'x-amz-' * 40_000}\n"))
    assert max(len(each.message) + len(each.hint) for each in error.problems) < 5_000
