"""Keys and addresses of providers: from the environment, and from a `.env` in the working folder (design.md section 9).

`<NAME>_API_KEY` and `<NAME>_BASE_URL`, where NAME is the account's name in capitals with `-` written `_`. A second
account has a key of its own and, unless it names one, the base URL of its provider. The file is only read, never
exported; and a base URL found in it is used only with a key found in it too, so that a downloaded folder cannot lead
a key of yours elsewhere. No error ever shows a key; `Redactor` is the second net, for everything that is logged.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import StringIO
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import SplitResult, quote, unquote, unquote_plus, urlsplit

from runner.errors import InputError, Problem
from runner.problems import SECRET, USER_INFO

KEY = re.compile(r"[!-~]{8,512}")
PREFIX = "/api/v1"  # of every documented path
DOTENV_CAP = 1 << 20  # bytes
FINGERPRINT_LENGTH = 32  # hexadecimal digits: 128 bits
GONE = "[redacted]"
WINDOW = 12  # characters of a secret that already tell too much
UNMISTAKABLE = 16  # characters that are in a text for no other reason
PLAIN_QUERY = re.compile(r"(?:(?:page|limit|taskId|assetId)=[\w.:-]*&?)+")
# Addresses without a query are matched too, and left alone: a text full of them must not be read to its end from each.
QUERY = re.compile(r"(?P<address>\bhttps?://[^\s?#\"'<>]+)(?:\?(?P<query>[^\s\"'<>]*))?")
PATTERNS = (
    re.compile(r"(?P<kept>\b[Bb]earer\s+)[^\s\"',;]+"),
    re.compile(r"(?P<kept>(?i:authorization)[\"']?\s*[:=]\s*[\"']?)(?![Bb]earer\b)[^\s\"',;]+"),
    re.compile(r"(?P<kept>)(?<![A-Za-z0-9])(?:sk|sh)[-_][A-Za-z0-9_-]{8,}"),
    re.compile(
        r"(?P<kept>(?<![A-Za-z0-9])(?:(?i:x-(?:amz|goog|oss)-[a-z-]{1,64}+|(?:ossaccess|awsaccess)keyid|signature|sig|"
        r"api_?key|access_?token|password|secret))[\"']?\s*[=:]\s*[\"']?)[^\s&\"',;]+"
    ),
)


class Secret:
    """A key that shows itself only when asked to."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> str:
        raise TypeError("a secret is never written anywhere")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one account needs to speak to its provider. `base_url` is scheme, host and optional prefix, without a final
    slash and without the documented `/api/v1`. `loopback`: it stands on this machine. `notes` are for the person."""

    account: str
    provider: str
    key: Secret
    base_url: str
    loopback: bool
    notes: tuple[str, ...] = ()


class Wanted(NamedTuple):
    """An account whose credentials are asked for: its name, its provider's name and documented base URL."""

    account: str
    provider: str
    base_url: str


class _Found(NamedTuple):
    value: str
    name: str
    in_file: bool


@dataclass(frozen=True, slots=True, repr=False)
class Settings:
    """The variables that may hold keys and addresses: those of the process, and those of the `.env` file. `exposed`:
    others on this machine may read that file."""

    environment: Mapping[str, str]
    file: Mapping[str, str]
    exposed: bool = False

    @classmethod
    def read(cls, folder: Path, environment: Mapping[str, str] = os.environ) -> Settings:
        """Raises `InputError` for a `.env` that cannot be read."""
        path = folder / ".env"
        return cls(environment, found := _read_dotenv(path), bool(found) and _others_may_read(path))

    def credentials(self, wanted: Iterable[Wanted]) -> dict[str, Credentials]:
        """By account. Raises one `InputError` with a problem for each account that lacks something."""
        found: dict[str, Credentials] = {}
        problems: list[Problem] = []
        for one in wanted:
            try:
                found[one.account] = self.one(one)
            except InputError as error:
                problems += error.problems
        if problems:
            raise _refused(problems)
        return found

    def one(self, wanted: Wanted) -> Credentials:
        """The credentials of one account. Raises `InputError` with every problem they have."""
        key, key_problem = self._key(wanted.account)
        base, base_problem, notes = self._base(wanted, key)
        problems = [problem for problem in (key_problem, base_problem) if problem is not None]
        if problems or key is None:
            raise _refused(problems)
        if key.in_file and self.exposed:
            notes = (*notes, "others on this machine can read .env, and the keys in it: chmod 600 .env")
        return Credentials(wanted.account, wanted.provider, Secret(key.value), base, _is_loopback(base), notes)

    def has_key(self, account: str) -> bool:
        """Whether its variable is set at all, to whatever."""
        return self._find(variable(account, "API_KEY")) is not None

    def _key(self, account: str) -> tuple[_Found | None, Problem | None]:
        name = variable(account, "API_KEY")
        found = self._find(name)
        if found is None:
            hint = f"set {name}, in the environment or in a file .env in the folder you run from"
            return None, Problem("", f"no key for {account}: {name} is not set", hint)
        if not KEY.fullmatch(found.value):
            place = ".env" if found.in_file else "the environment"
            message = f"{name} in {place} is no key: {_malformed(found.value)}"
            return None, Problem("", message, "copy it again from the provider's page of API keys, without quotes")
        return found, None

    def _base(self, wanted: Wanted, key: _Found | None) -> tuple[str, Problem | None, tuple[str, ...]]:
        notes: tuple[str, ...] = ()
        for name in dict.fromkeys((variable(wanted.account, "BASE_URL"), variable(wanted.provider, "BASE_URL"))):
            found = self._find(name)
            if found is None:
                continue
            if found.in_file and (key is None or not key.in_file):
                why = "the key does not come from the same file. Put both into the same place"
                notes = (*notes, f"{name} in .env is not used: {why}")
                continue
            wrong = flaw(found.value)
            problem = Problem("", f"{name} is {wrong}", "write https://host, with a path before /api/v1 if any")
            return ("", problem, notes) if wrong else (_trimmed(found.value), None, notes)
        return _trimmed(wanted.base_url), None, notes

    def _find(self, name: str) -> _Found | None:
        """The environment first; set to nothing counts as not set."""
        for variables, in_file in ((self.environment, False), (self.file, True)):
            value = (variables.get(name) or "").strip()
            if value:
                return _Found(value, name, in_file)
        return None


def variable(name: str, what: str) -> str:
    """The variable of an account or provider: `seegen-b`, `API_KEY` → `SEEGEN_B_API_KEY`."""
    return f"{re.sub('[^A-Z0-9]', '_', name.upper())}_{what}"


def fingerprint(key: Secret, salt: bytes) -> str:
    """Tells two keys of one queue apart without telling either: HMAC-SHA256 under the queue's salt, 32 hex digits."""
    return hmac.new(salt, key.reveal().encode(), hashlib.sha256).hexdigest()[:FINGERPRINT_LENGTH]


def _refused(problems: list[Problem]) -> InputError:
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if problems[1:] else ""
    return InputError(first.message + more, first.hint, tuple(problems))


def _malformed(value: str) -> str:
    if not 8 <= len(value) <= 512:
        return f"it has {len(value)} characters, keys have 8 to 512"
    if any(character.isspace() for character in value):
        return "it holds a space or a line break"
    return "it holds a character that no key has (a curly quote, perhaps)"


def _read_dotenv(path: Path) -> dict[str, str]:
    try:
        if not path.is_file():
            return {}
        with path.open("rb") as file:
            raw = file.read(DOTENV_CAP + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f".env cannot be read: {error.strerror}", "mend its permissions, or take it away") from None
    except UnicodeDecodeError:
        raise InputError(".env is not UTF-8 text", "save it as UTF-8") from None
    if len(raw) > DOTENV_CAP:
        raise InputError(".env is larger than 1 MiB", "is it the right file?")
    from dotenv import dotenv_values  # here: it costs a start-up what only a folder with a .env needs

    return {name: value for name, value in dotenv_values(stream=StringIO(text), interpolate=False).items() if value}


def _others_may_read(path: Path) -> bool:
    return os.name == "posix" and bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))


def flaw(url: str) -> str | None:
    """What is wrong with a base URL, in words that follow its name; None where nothing is."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        return "not a URL"
    if not re.fullmatch(r"[!-~]+", url) or parts.scheme not in ("http", "https") or not host:
        return "not a URL of the form https://host"
    if parts.username is not None or parts.password is not None:
        return "a URL with a user name or password in it, which is refused"
    if parts.query or parts.fragment or "?" in url or "#" in url:
        return "a URL with a query or fragment, which is refused"
    if parts.scheme == "http" and not _is_loopback(url):
        return "an http: URL, which is allowed on this machine (127.0.0.1, localhost) only"
    return None


def _trimmed(url: str) -> str:
    parts: SplitResult = urlsplit(url)
    path = parts.path.rstrip("/").removesuffix(PREFIX).rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class Redactor:
    """Takes secrets out of text, by value and by pattern.

    By value: every stretch of twelve characters of a known secret, also in base64, in a URL or in JSON (a shorter
    secret: the whole of it). By pattern: bearer tokens, what looks like a key, signatures, the user name and password
    of every URL, and its query, but one that only pages or names a task.
    """

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        self._whole: frozenset[str] = frozenset()
        self._windows: set[str] = set()
        self._hints: set[str] = set()  # every window holds one of them: looking for these first is ten times faster
        self._known: re.Pattern[str] | None = None
        for secret in secrets:
            self.learn(secret)

    def learn(self, secret: Secret) -> None:
        """From now on this one is known too."""
        forms = forms_of(secret)
        self._whole |= {form for form in forms if len(form) >= UNMISTAKABLE}
        for form in forms:
            width = min(WINDOW, len(form))
            self._windows |= {form[at : at + width] for at in range(len(form) - width + 1)}
            half = WINDOW // 2 if width == WINDOW else width
            self._hints |= {form[at : at + half] for at in range(0, len(form) - half + 1, half)}
        self._known = None

    def holds(self, text: str) -> bool:
        """Whether a whole secret stands in this text. Short ones ("happyhorse") may stand there by chance."""
        return holds(text, self._whole)

    def clean(self, text: str) -> str:
        """The text without secrets; what was taken out is named."""
        if any(hint in text for hint in self._hints):
            text = _cut(text, [found.span(1) for found in self._windows_in_order().finditer(text)])
        text = USER_INFO.sub(GONE, QUERY.sub(_without_query, text))
        for pattern in PATTERNS:
            text = pattern.sub(rf"\g<kept>{GONE}", text)
        return SECRET.sub(GONE, text)

    def _windows_in_order(self) -> re.Pattern[str]:
        """Made when it is first needed, which is hardly ever: it takes a fifth of a second for five keys."""
        if self._known is None:
            longest_first = sorted(self._windows, key=lambda window: (-len(window), window))
            self._known = re.compile("(?=(" + "|".join(map(re.escape, longest_first)) + "))")
        return self._known

    def scrub(self, value: Any) -> Any:
        """The same for data of any depth: texts are cleaned, in keys too; a `Secret` never becomes text."""
        if isinstance(value, str):
            return self.clean(value)
        if isinstance(value, bytes):
            return self.clean(value.decode("utf-8", "replace"))
        if isinstance(value, Mapping):
            return {self.scrub(name): self.scrub(item) for name, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.scrub(item) for item in value]
        return value if value is None or isinstance(value, bool | int | float) else self.clean(str(value))


def holds(text: str, forms: Iterable[str]) -> bool:
    """Whether one of these forms of a secret stands in the text, or in what it says once URL escapes are undone (twice:
    what was escaped before may have been put into a query)."""
    said = {text}
    for _ in range(2):
        said |= {undo(each) for each in said for undo in (unquote, unquote_plus)}
    return any(form in each for each in said for form in forms)


def forms_of(secret: Secret) -> frozenset[str]:
    """The secret as it may stand in a text: as it is, in a URL, in JSON, and within base64 at each of three offsets."""
    value = secret.reveal()
    raw = value.encode()
    forms = {value, quote(value, safe=""), json.dumps(value)[1:-1]}
    for offset in range(3):
        whole = base64.b64encode(b"\0" * offset + raw).decode().rstrip("=")
        inner = whole[-(-offset * 8 // 6) : (offset + len(raw)) * 8 // 6]  # only what the secret alone decides
        forms |= {inner, inner.replace("+", "-").replace("/", "_")}
    return frozenset(form for form in forms if len(form) >= 8)


def _cut(text: str, spans: list[tuple[int, int]]) -> str:
    """The text with these overlapping stretches taken out; `spans` are in the order of their beginnings."""
    pieces: list[str] = []
    kept_to = 0
    for start, end in spans:
        if start > kept_to or not pieces:
            pieces += [text[kept_to:start], GONE]
        kept_to = max(kept_to, end)
    return "".join([*pieces, text[kept_to:]])


def _without_query(found: re.Match[str]) -> str:
    if found["query"] is None or PLAIN_QUERY.fullmatch(found["query"]):
        return found[0]
    return f"{found['address']}?{GONE}"
