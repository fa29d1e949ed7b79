"""What is told of a queue: JSON that scripts lean on, field by field (design.md section 10), and text for people."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from torture.commands import Ended

from cli.kit import TIME, golden, normal, parsed
from cli.museum import ALLEY, Museum

SHOWN = ("face", "hand", "film", "crowd", "triptych", "epic", "river", "fog")
# As ALLEY, but without a film that is paid for and without the epic that is not; with a job of a kind never made.
EDITED = ALLEY.replace("  epic: {model: doubao-seedance-2-0, prompt: an epic, duration: 15}\n", "").replace(
    'rows: [{shot: "01", seconds: 5, motion: "slow dolly, neon"}]',
    'rows: [{shot: "02", seconds: 6, motion: "fast pan"}]') + """\
  sign: {provider: seedance2ai, model: nano-banana-pro, prompt: a neon sign, resolution: 4K}
"""  # fmt: skip

FIELDS: Mapping[str, Any] = {
    "id": int, "batch": str, "job": str, "key": str, "provider": str, "account": str, "model": str, "state": str,
    "task_id": (str, None), "idempotency_key": (str, None), "attempts": int, "variables": dict, "outputs": list,
    "error": (dict, None), "credits": dict, "created_at": TIME, "updated_at": TIME,
}  # fmt: skip
OUTPUT = {"path": str, "bytes": int, "sha256": str, "media_type": str}
ERROR = {"kind": str, "code": str, "message": str}
JOB_CREDITS = {"estimated": (Decimal, None), "charged": (Decimal, None), "refunded": (Decimal, None)}
SPENT = {"charged": Decimal, "refunded": Decimal, "net": Decimal}
KINDS = {
    "invalid_request", "unauthorized", "insufficient_credits", "rate_limited", "unavailable", "moderated", "not_found",
    "task_failed", "timeout", "network", "bad_response", "download_failed", "unknown_submission", "budget", "cancelled",
}  # fmt: skip


@pytest.fixture(scope="module")
def told(museum: Museum) -> dict[str, Ended]:
    """Every reading command once, as data and as text."""
    (museum.place.folder / "edited").mkdir()
    edited = museum.place.write("edited/alley.yaml", EDITED)
    bad = museum.place.write("edited/bad.yaml", ALLEY.replace('"${seconds}"', '"${second}"').replace("5}", "50}", 1))
    ids = museum.ids
    commands: dict[str, list[str]] = {
        "jobs": ["jobs", "--json"],
        "jobs-text": ["jobs"],
        "jobs-failed": ["jobs", "--failed", "--json"],
        "jobs-chosen": ["jobs", "--state", "held", "--state", "queued", "--account", "happyhorse", "--json", "-vv"],
        "jobs-none": ["jobs", "--state", "waiting", "--json"],
        "status": ["status", "--json"],
        "status-text": ["status"],
        "credits": ["credits", "--json"],
        "credits-text": ["credits"],
        "plan": ["plan", str(edited), "--json"],
        "plan-text": ["plan", str(edited)],
        "show-text": ["show", str(ids["face"]), "-vv"],
        "providers": ["providers", "--json"],
        "provider": ["providers", "seedance2ai", "--json"],
        "schema": ["schema"],
        "bad-plan": ["plan", str(bad), "--json"],
        "bad-job": ["show", "beef", "--json"],
        "bad-batch": ["jobs", "--batch", "allay", "--json"],
        "bad-provider": ["providers", "seedance3ai", "--json"],
    }
    commands |= {f"show-{name}": ["show", str(ids[name]), "--json"] for name in SHOWN}
    return dict(zip(commands, museum.place.together(*commands.values()), strict=True))


def shaped(value: Mapping[str, Any], shape: Mapping[str, Any]) -> None:
    """These fields in this order and no other, each of its type: None stands for null, Decimal for its text."""
    assert list(value) == list(shape)
    for name, kinds in shape.items():
        allowed = kinds if isinstance(kinds, tuple) else (kinds,)
        assert any(_is(value[name], kind) for kind in allowed), f"{name}: {value[name]!r}"


def _is(value: Any, kind: Any) -> bool:
    if kind is None:
        return value is None
    if kind is TIME:
        return isinstance(value, str) and TIME.fullmatch(value) is not None
    if kind is Decimal:
        return isinstance(value, str) and "e" not in value.lower() and Decimal(value).is_finite()
    return type(value) is kind


# -- the JSON that scripts lean on ------------------------------------------------------------------------------------


def test_jobs_have_exactly_the_fields_of_the_design(told: dict[str, Ended]) -> None:
    assert told["jobs"].code == 0
    for job in parsed(told["jobs"]):
        shaped(job, FIELDS)
        shaped(job["credits"], JOB_CREDITS)
        assert all(type(value) is str for value in job["variables"].values())
        for output in job["outputs"]:
            shaped(output, OUTPUT)
        if job["error"] is not None:
            shaped(job["error"], ERROR)
            assert job["error"]["kind"] in KINDS


def test_every_output_is_the_file_that_stands_there(told: dict[str, Ended]) -> None:
    outputs = [output for job in parsed(told["jobs"]) for output in job["outputs"]]
    assert len(outputs) == 5
    for output in outputs:
        path = Path(output["path"])
        assert path.is_absolute()
        content = path.read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (output["bytes"], output["sha256"])


@pytest.mark.parametrize("name", ["jobs", "status", "credits", "plan", "jobs-failed", "jobs-chosen", "jobs-none"])
def test_as_data(name: str, told: dict[str, Ended], museum: Museum) -> None:
    assert told[name].code == 0, told[name].said()
    golden(name, normal(parsed(told[name]), museum.place.folder))


def test_the_sums_have_exactly_the_fields_of_the_design(told: dict[str, Ended]) -> None:
    for batch in parsed(told["status"])["batches"]:
        shaped(batch, {"batch": str, "states": dict, "total": int, "credits": dict})
        assert sum(batch["states"].values()) == batch["total"]
        for credits in batch["credits"].values():
            shaped(credits, {"estimated": (Decimal, None), **SPENT})
    for account in parsed(told["credits"])["accounts"]:
        shaped(account, {"provider": str, "account": str, **SPENT, "unsettled": Decimal})
        assert Decimal(account["charged"]) - Decimal(account["refunded"]) == Decimal(account["net"])


def test_the_plan_has_exactly_the_fields_of_the_design(told: dict[str, Ended]) -> None:
    plan = parsed(told["plan"])
    shaped(plan, {"batch": str, "jobs": list, "totals": dict, "files": list, "warnings": list})
    for job in plan["jobs"]:
        shaped(job, {"key": str, "job": str, "provider": str, "model": str, "estimated": (Decimal, None),
                     "status": str, "variables": dict, "output": str})  # fmt: skip
        assert all(type(value) is str for value in job["variables"].values())
    for total in plan["totals"].values():
        shaped(total, {"jobs": int, "estimated": Decimal, "unpriced": int})


@pytest.mark.parametrize("name", SHOWN)
def test_one_job_as_data(name: str, told: dict[str, Ended], museum: Museum) -> None:
    ended = told[f"show-{name}"]
    assert ended.code == 0, ended.said()
    [listed] = [job for job in parsed(told["jobs"]) if job["job"] == name]
    shown = parsed(ended)
    assert {field: shown[field] for field in listed} == listed, "it begins with what `runner jobs` tells"
    golden(f"show-{name}", normal(_steady(shown), museum.place.folder))


def _steady(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Without what depends on when exactly the provider was asked last: until when nothing is due, the word for a task
    still going, and questions after the cost of one that has ended."""
    steady = {**shown, "history": [line for line in shown["history"] if line["event"] != "settled"]}
    if shown["waiting_for"]:
        steady["waiting_for"] = shown["waiting_for"].partition(" (not before ")[0]
    if shown["state"] == "running":
        steady["waiting_for"] = steady["waiting_for"].replace(shown["status"] or "accepted", "<status>")
        steady["status"] = "<status>"
    return steady


def test_a_provider_as_data(told: dict[str, Ended]) -> None:
    """One provider to the letter, and the others alike: each has the same facts told of it."""
    golden("provider", parsed(told["provider"]))
    [model] = parsed(told["provider"])["providers"]
    for each in parsed(told["providers"])["providers"]:
        assert list(each) == list(model)
        for described in each["models"]:
            assert list(described) == list(model["models"][0])


def test_the_schema_is_a_json_schema(told: dict[str, Ended]) -> None:
    schema = parsed(told["schema"])
    assert "json-schema.org" in schema["$schema"]
    assert {"version", "batch", "jobs"} <= set(schema["properties"])


@pytest.mark.parametrize("name", ["bad-plan", "bad-job", "bad-batch"])
def test_an_error_as_data(name: str, told: dict[str, Ended], museum: Museum) -> None:
    """Every problem on stdout, with its place where it has one; one clear text on stderr."""
    ended = told[name]
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    for problem in parsed(ended)["problems"]:
        assert list(problem) == ["code", "file", "line", "col", "endcol", "msg", "help"]
    said = ended.err.splitlines()
    golden(name, normal({"stdout": parsed(ended), "stderr": said}, museum.place.folder))


def test_an_unknown_provider_is_told_and_the_nearest_named(told: dict[str, Ended]) -> None:
    [problem] = parsed(told["bad-provider"])["problems"]
    assert told["bad-provider"].code == 2
    assert problem["help"].startswith('did you mean "seedance2ai"? providers: ')


# -- results on stdout, everything else on stderr ---------------------------------------------------------------------


def test_results_go_to_stdout_and_nothing_else_does(told: dict[str, Ended]) -> None:
    for name in ("jobs", "jobs-text", "status", "status-text", "credits", "credits-text", "providers", "schema"):
        assert told[name].out != ""
        assert told[name].err == "", f"{name}: {told[name].err}"


def test_saying_more_says_it_on_stderr(told: dict[str, Ended]) -> None:
    """-vv beside --json, and beside text."""
    assert [job["job"] for job in parsed(told["jobs-chosen"])] == ["face", "epic"]
    assert "debug" not in told["show-text"].out


def test_the_plan_lists_the_jobs_on_stdout_and_its_summary_on_stderr(told: dict[str, Ended]) -> None:
    ended = told["plan-text"]
    assert [line.split()[0] for line in ended.out.splitlines()] == (
        ["kept", "new", "kept", "kept", "kept", "kept", "new", "gone", "gone"]
    )
    assert "batch alley: 2 new, 5 kept, 2 gone" in ended.err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("jobs-text", ["portraits/face", "unknown_submission: the connection failed", "two-doors", "(and 1 more)"]),
        ("status-text", ["2 held", "runner show JOB", "1 partial", "seedance2ai, after a lost answer: effectively"]),
        ("credits-text", ["unsettled", "happyhorse"]),
        ("show-text", ["a face in the rain", "costs at most  5 credits", "runner resolve 1 --adopt ID", "answer_lost"]),
    ],
)  # fmt: skip
def test_as_text(name: str, words: list[str], told: dict[str, Ended]) -> None:
    assert told[name].code == 0
    for word in words:
        assert word in told[name].out
    assert "\x1b" not in told[name].out, "colours are for terminals"
