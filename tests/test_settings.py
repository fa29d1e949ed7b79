"""Keys and addresses: where they come from, that they go nowhere else, and that they never show."""

from __future__ import annotations

import base64
import json
import logging
import os
import pickle
import time
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import InputError
from runner.settings import GONE, Credentials, Redactor, Secret, Settings, Wanted, fingerprint, variable

CANARY = "sk-sd_Canary0123456789abcdef"
OTHER = "sk_live_Other9876543210zyxwvu"
SEEGEN = Wanted("seegen", "seegen", "https://seegen.ai")
SECOND = Wanted("seegen-b", "seegen", "https://seegen.ai")


def found(
    wanted: Wanted = SEEGEN, environment: dict[str, str] | None = None, file: dict[str, str] | None = None
) -> Credentials:
    return Settings(environment or {}, file or {}).one(wanted)


def refused(
    wanted: Wanted = SEEGEN, environment: dict[str, str] | None = None, file: dict[str, str] | None = None
) -> InputError:
    with pytest.raises(InputError) as caught:
        found(wanted, environment, file)
    assert caught.value.problems
    for problem in caught.value.problems:
        assert CANARY not in problem.message + problem.hint
    return caught.value


# --- where they come from


def test_a_key_from_the_environment() -> None:
    credentials = found(environment={"SEEGEN_API_KEY": CANARY})
    assert credentials == Credentials("seegen", "seegen", Secret(CANARY), "https://seegen.ai", loopback=False)


def test_the_environment_wins_over_the_file() -> None:
    assert found(environment={"SEEGEN_API_KEY": CANARY}, file={"SEEGEN_API_KEY": OTHER}).key == Secret(CANARY)
    assert found(environment={"SEEGEN_API_KEY": "  "}, file={"SEEGEN_API_KEY": OTHER}).key == Secret(OTHER)


def test_white_space_around_a_key_is_not_part_of_it() -> None:
    assert found(environment={"SEEGEN_API_KEY": f" {CANARY}\n"}).key == Secret(CANARY)


def test_a_missing_key_names_its_variable() -> None:
    error = refused()
    assert "SEEGEN_API_KEY" in error.message
    assert ".env" in error.hint
    assert error.exit_code == 2


@pytest.mark.parametrize(("name", "expected"), [("seegen-b", "SEEGEN_B_API_KEY"), ("my.horse", "MY_HORSE_API_KEY")])
def test_variables(name: str, expected: str) -> None:
    assert variable(name, "API_KEY") == expected


def test_a_second_account_has_its_own_key_and_shares_the_address() -> None:
    environment = {"SEEGEN_API_KEY": OTHER, "SEEGEN_B_API_KEY": CANARY, "SEEGEN_BASE_URL": "https://mirror.example"}
    second = found(SECOND, environment)
    assert second == Credentials("seegen-b", "seegen", Secret(CANARY), "https://mirror.example", loopback=False)
    environment["SEEGEN_B_BASE_URL"] = "https://b.example"
    assert found(SECOND, environment).base_url == "https://b.example"
    assert found(SEEGEN, environment).base_url == "https://mirror.example"


def test_a_second_account_never_borrows_the_first_ones_key() -> None:
    assert "SEEGEN_B_API_KEY" in refused(SECOND, {"SEEGEN_API_KEY": CANARY}).message


# --- a downloaded folder must not lead a key elsewhere


@pytest.mark.parametrize("name", ["SEEGEN_BASE_URL", "SEEGEN_B_BASE_URL"])
def test_an_address_of_the_file_goes_only_with_a_key_of_the_file(name: str) -> None:
    evil = {name: "https://evil.example"}
    outside = found(SECOND, {"SEEGEN_B_API_KEY": CANARY}, evil)
    assert outside.base_url == "https://seegen.ai"
    assert name in outside.notes[0]
    assert found(SECOND, {}, {**evil, "SEEGEN_B_API_KEY": CANARY}).base_url == "https://evil.example"


def test_a_key_in_both_places_is_the_environments() -> None:
    file = {"SEEGEN_API_KEY": CANARY, "SEEGEN_BASE_URL": "https://evil.example"}
    assert found(SEEGEN, {"SEEGEN_API_KEY": CANARY}, file).base_url == "https://seegen.ai"


def test_an_address_of_the_environment_goes_with_any_key() -> None:
    credentials = found(SEEGEN, {"SEEGEN_BASE_URL": "https://mine.example"}, {"SEEGEN_API_KEY": CANARY})
    assert credentials.base_url == "https://mine.example"
    assert credentials.notes == ()


def test_a_bad_address_of_the_file_is_ignored_with_it() -> None:
    assert found(SEEGEN, {"SEEGEN_API_KEY": CANARY}, {"SEEGEN_BASE_URL": "nonsense"}).base_url == "https://seegen.ai"


# --- addresses


@pytest.mark.parametrize(
    ("written", "base", "loopback"),
    [
        ("https://seegen.ai/", "https://seegen.ai", False),
        ("https://seegen.ai/api/v1", "https://seegen.ai", False),
        ("https://seegen.ai/api/v1/", "https://seegen.ai", False),
        ("https://gate.example/seegen/", "https://gate.example/seegen", False),
        ("https://gate.example/seegen/api/v1", "https://gate.example/seegen", False),
        ("https://gate.example:8443", "https://gate.example:8443", False),
        ("http://127.0.0.1:8765", "http://127.0.0.1:8765", True),
        ("http://localhost:8765/api/v1", "http://localhost:8765", True),
        ("http://[::1]:8765", "http://[::1]:8765", True),
        ("http://127.9.9.9", "http://127.9.9.9", True),
        ("https://127.0.0.1:8443", "https://127.0.0.1:8443", True),
    ],
)
def test_addresses(written: str, base: str, loopback: bool) -> None:
    credentials = found(environment={"SEEGEN_API_KEY": CANARY, "SEEGEN_BASE_URL": written})
    assert (credentials.base_url, credentials.loopback) == (base, loopback)


@pytest.mark.parametrize(
    "written",
    [
        "http://seegen.ai",
        "http://10.0.0.1",
        "http://0.0.0.0:80",
        "http://2130706433",
        "http://localhost.evil.example",
        "ftp://seegen.ai",
        "seegen.ai",
        "https://",
        "https:///api/v1",
        "https://a b.example",
        "https://[::1",
        "https://seegen.ai:99999",
        f"https://{CANARY}@seegen.ai",
        f"https://me:{CANARY}@seegen.ai",
        f"https://seegen.ai?key={CANARY}",
        "https://seegen.ai#x",
        "https://sëegen.ai",
    ],
)
def test_bad_addresses(written: str) -> None:
    error = refused(environment={"SEEGEN_API_KEY": OTHER, "SEEGEN_BASE_URL": written})
    assert "SEEGEN_BASE_URL" in error.message


# --- malformed keys never show (T2)

MALFORMED = [
    "short",
    "x" * 513,
    f"{CANARY}\n{CANARY}",
    f"“{CANARY}”",
    f"{CANARY} # mine",
    f"{CANARY}\x00",
    f"{CANARY}é",
    f"{CANARY}\udcff",
]


@pytest.mark.parametrize("value", MALFORMED)
def test_T2_a_malformed_key_is_refused_without_showing_it(value: str) -> None:
    error = refused(environment={"SEEGEN_API_KEY": value})
    told = "".join(traceback.format_exception(error)) + repr(error) + repr(error.problems)
    assert "SEEGEN_API_KEY" in error.message
    assert CANARY not in told
    assert value.strip() not in told
    assert error.__cause__ is None
    assert error.__context__ is None


def test_every_problem_of_every_account_is_told_at_once() -> None:
    settings = Settings({"SEEGEN_BASE_URL": "http://seegen.ai", "SEEGEN_B_API_KEY": "x"}, {})
    with pytest.raises(InputError) as caught:
        settings.credentials([SEEGEN, SECOND])
    assert len(caught.value.problems) == 4
    assert "(and 3 more)" in caught.value.message


def test_all_accounts_by_name() -> None:
    settings = Settings({"SEEGEN_API_KEY": CANARY, "SEEGEN_B_API_KEY": OTHER}, {})
    both = settings.credentials([SEEGEN, SECOND])
    assert {name: c.key.reveal() for name, c in both.items()} == {"seegen": CANARY, "seegen-b": OTHER}


# --- the file


def test_the_file_is_read_and_never_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL_SECRET", OTHER)
    lines = [
        "\ufeff# mine",
        f"export SEEGEN_API_KEY='{CANARY}'",
        'SEEGEN_BASE_URL="http://127.0.0.1:1/"',
        "EMPTY=",
        "HAPPYHORSE_API_KEY=${SHELL_SECRET}",
    ]
    (tmp_path / ".env").write_text("\r\n".join(lines), encoding="utf-8")
    before = dict(os.environ)
    settings = Settings.read(tmp_path, {})
    assert settings.one(SEEGEN).key.reveal() == CANARY
    assert settings.one(SEEGEN).base_url == "http://127.0.0.1:1"
    assert settings.file["HAPPYHORSE_API_KEY"] == "${SHELL_SECRET}", "nothing is filled in from the environment"
    assert dict(os.environ) == before


def test_no_file_is_no_error(tmp_path: Path) -> None:
    assert Settings.read(tmp_path, {"A": "b"}) == Settings({"A": "b"}, {})
    (tmp_path / ".env").mkdir()
    assert Settings.read(tmp_path, {}).file == {}


@pytest.mark.timeout(5)
def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".env")
    assert Settings.read(tmp_path, {}).file == {}


@pytest.mark.parametrize("content", [f"SEEGEN_API_KEY={CANARY}\xff".encode("latin-1"), b"A=" + b"x" * (1 << 20)])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(InputError) as caught:
        Settings.read(tmp_path, {})
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_a_line_that_cannot_be_read_is_passed_over_in_silence_about_its_content(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".env").write_text(f"this is '{CANARY}\nSEEGEN_API_KEY={OTHER}\n", encoding="utf-8")
    with caplog.at_level(logging.DEBUG):
        settings = Settings.read(tmp_path, {})
    assert settings.one(SEEGEN).key == Secret(OTHER)
    assert CANARY not in caplog.text


# --- secrets


def test_T1_a_secret_shows_nowhere() -> None:
    secret = Secret(CANARY)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>40}", "%s" % secret, repr([secret])]  # noqa: UP031
    shown += [repr(found(environment={"SEEGEN_API_KEY": CANARY})), repr(Settings({"SEEGEN_API_KEY": CANARY}, {}))]
    assert not any(CANARY in text for text in shown)
    assert secret.reveal() == CANARY
    assert not hasattr(secret, "__dict__")


@pytest.mark.parametrize("write", [pickle.dumps, json.dumps])
def test_T1_a_secret_is_never_written(write: Any) -> None:
    with pytest.raises(TypeError):
        write(Secret(CANARY))


def test_secrets_compare_by_value() -> None:
    assert Secret(CANARY) == Secret(CANARY) != Secret(OTHER)
    assert Secret(CANARY) != CANARY
    assert len({Secret(CANARY), Secret(CANARY), Secret(OTHER)}) == 2


def test_a_fingerprint_tells_keys_apart_and_not_what_they_are() -> None:
    one = fingerprint(Secret(CANARY), b"salt")
    assert one == fingerprint(Secret(CANARY), b"salt")
    assert one != fingerprint(Secret(OTHER), b"salt")
    assert one != fingerprint(Secret(CANARY), b"other salt")
    assert len(one) == 32
    assert int(one, 16)


# --- the second net

REDACTOR = Redactor([Secret(CANARY), Secret(OTHER), Secret("short-key")])
FORMS = [
    CANARY,
    quote(CANARY, safe=""),
    json.dumps(CANARY),
    base64.b64encode(CANARY.encode()).decode(),
    base64.urlsafe_b64encode(b"x" + CANARY.encode() + b"yz").decode(),
    base64.b64encode(b"xy" + CANARY.encode()).decode(),
    CANARY[:14],
    CANARY[-13:],
    f"{CANARY[:12]}…",
]


def leaks(text: str, secret: str = CANARY) -> bool:
    """Whether any twelve characters of a secret stand in a text, as they are or in base64."""
    encoded = base64.b64encode(secret.encode()).decode()[:-4]
    return any(form[at : at + 12] in text for form in (secret, encoded) for at in range(len(form) - 11))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("around", ["{}", "before {} after", '{{"key": "{}"}}', "https://h.example/{}/x", "a{}b"])
def test_a_known_secret_is_taken_out_in_every_form(form: str, around: str) -> None:
    cleaned = REDACTOR.clean(around.format(form))
    assert GONE in cleaned
    assert not leaks(cleaned)


def test_what_stands_around_a_secret_stays() -> None:
    assert REDACTOR.clean(f"key {CANARY}, then {OTHER}!") == f"key {GONE}, then {GONE}!"
    assert REDACTOR.clean("it was short-key") == f"it was {GONE}"


@given(
    st.text(max_size=60), st.text(max_size=60), st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12)
)
def test_no_secret_survives_whatever_it_is(before: str, after: str, key: str) -> None:
    cleaned = Redactor([Secret(key)]).clean(f"{before}{key}{after}")
    assert key not in cleaned.replace(GONE, "\x00")


@given(st.integers(0, len(CANARY) - 12), st.integers(12, len(CANARY)), st.text(max_size=20))
def test_no_part_of_a_secret_survives(start: int, length: int, around: str) -> None:
    assert not leaks(REDACTOR.clean(f"{around}{CANARY[start : start + length]}{around}"))


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Authorization: Bearer abc.def", f"Authorization: Bearer {GONE}"),
        ("{'authorization': 'token123'}", f"{{'authorization': '{GONE}'}}"),
        ("got sk-abcdefgh1234 back", f"got {GONE} back"),
        ("got sk_live_abcdefgh back", f"got {GONE} back"),
        ("got sh-abcdefgh1234 back", f"got {GONE} back"),
        ("GET https://cdn.example/v.mp4?Expires=1&Signature=abc ok", f"GET https://cdn.example/v.mp4?{GONE} ok"),
        ("'https://b.example/k?X-Amz-Signature=ab'", f"'https://b.example/k?{GONE}'"),
        ("https://blob.example/c/v.mp4?sv=1&sig=a%2Bb", f"https://blob.example/c/v.mp4?{GONE}"),
        ("x-amz-security-token=FwoGZXIvYXdz end", f"x-amz-security-token={GONE} end"),
        ("&Signature=abc&x=1", f"&Signature={GONE}&x=1"),
        ("/v.mp4?sig=abc", f"/v.mp4?sig={GONE}"),
        ('"api_key": "abc"', f'"api_key": "{GONE}"'),
    ],
)
def test_patterns(text: str, cleaned: str) -> None:
    assert Redactor().clean(text) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "job 12 of batch neon-alley is running at seedance2ai",
        "key=3f2a91bc state=running attempts=1",
        "GET https://happy-horse.ai/api/v1/videos?page=2&limit=50 200",
        "GET https://seegen.ai/api/v1/jobs/queryTask?taskId=task_abc123",
        "a task-sk8board, a disk-usage, design notes",
        "the signature dish, signed by the chef",
    ],
)
def test_ordinary_lines_stay_as_they_are(text: str) -> None:
    assert REDACTOR.clean(text) == text


def test_data_of_any_depth() -> None:
    data = {
        "url": f"https://x.example/{CANARY}",
        CANARY: [1, 2.5, None, True, (CANARY, {"deep": CANARY.encode()})],
        "secret": Secret(CANARY),
        "path": Path("/tmp") / CANARY,
        "error": ValueError(CANARY),
    }
    scrubbed = REDACTOR.scrub(data)
    assert not leaks(json.dumps(scrubbed))
    assert scrubbed[GONE][:4] == [1, 2.5, None, True]


def test_a_secret_learned_later_is_known() -> None:
    redactor = Redactor()
    redactor.learn(Secret("abcdefghijklmnop"))
    assert redactor.clean("<abcdefghijklmnop>") == f"<{GONE}>"


@pytest.mark.parametrize(
    "beginning",
    [
        "http://",
        "https://a",
        "x-amz-",
        "x-amz-a",
        "authorization",
        "signature ",
        "://a",
        "Bearer ",
        "sk-",
        "-eyJaaaaaaaa.",
    ],
)
def test_a_text_of_nothing_but_beginnings_is_read_once(beginning: str) -> None:
    """A stranger's file may be quoted in a message: from each beginning to the end of the text would take minutes."""
    redactor = Redactor([Secret("canary-0123456789")])
    began = time.process_time()
    redactor.clean(beginning * 30_000)
    assert time.process_time() - began < 2


@pytest.mark.parametrize("address", ["https://a.example/b", "https://a.example/b#c", "https://a.example/b?page=2"])
def test_addresses_that_hold_nothing_are_shown_whole(address: str) -> None:
    assert (
        Redactor().clean(f"see {address} or https://a.example/b?sig=x")
        == f"see {address} or https://a.example/b?[redacted]"
    )
