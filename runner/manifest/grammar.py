"""Every key a manifest may hold, what it is for, and what may stand there: the reader, the hints and the JSON Schema
speak from this table (design.md section 9)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

VERSION = 1

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
NAME: Schema = {"type": "string", "pattern": r"^[^\W_][\w.\-]*$", "maxLength": 100}
CREDITS: Schema = {"type": "number", "minimum": 0}
SCALAR: Schema = {"type": ["string", "number", "boolean"]}
CELL: Schema = {"type": ["string", "number", "boolean", "null"]}
VARIABLE: Schema = {"type": "string", "pattern": r"\$\{"}
WHOLE: Schema = {"type": "integer"}
SECONDS: Schema = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0, "description": "seconds"},
        {"type": "string", "pattern": r"^(\d+(\.\d+)?[smhd])+$", "examples": ["90s", "6h", "1h30m"]},
    ]
}
WINDOW: Schema = {"type": "string", "pattern": r"^\s*\d+\s*/\s*\S", "examples": ["60/minute", "5/s", "100/10s"]}


def either(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def many(schema: Schema, least: int = 1) -> Schema:
    return {"type": "array", "items": schema, "minItems": least}


def mapping(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


REFERENCE: Schema = either(
    TEXT,
    {
        "type": "object",
        "properties": {"source": TEXT, "review": {"type": "boolean"}},
        "required": ["source"],
        "additionalProperties": False,
    },
)


@dataclass(frozen=True, slots=True)
class Key:
    """One key: its name, one sentence for a person, and the JSON Schema of what it holds."""

    name: str
    about: str
    schema: Schema


FIELDS = (
    Key("provider", "The provider, or the name of an entry of providers.", TEXT),
    Key("model", "The model, as the provider spells it (see: runner providers).", TEXT),
    Key("mode", "How the model is used; without it, it follows from the references.", TEXT),
    Key("prompt", "What is to be seen. ${name} puts in a variable.", TEXT),
    Key("negative_prompt", "What is not to be seen, where a model takes it.", TEXT),
    Key("duration", "Seconds of video.", either({"type": "number"}, TEXT)),
    Key("resolution", "720p, 1080p, 1K, 2K, 4K …", TEXT),
    Key("aspect_ratio", '"16:9", "9:16", "1:1" …', TEXT),
    Key("size", "The size of an image; the same field as resolution for image models.", TEXT),
    Key("count", "Images in one task, where a model makes several; see also takes.", either(WHOLE, VARIABLE)),
    Key("seed", "The seed of the render's randomness.", either(WHOLE, VARIABLE)),
    Key("audio", "Whether a sound track is made.", either({"type": "boolean"}, VARIABLE)),
    Key("quality", "The quality, as the model grades it.", SCALAR),
    Key("format", "png, jpeg, webp …", TEXT),
)

REFERENCES = (
    Key("images", "Reference images: paths, URLs, or {source, review}.", either(many(REFERENCE, 0), REFERENCE)),
    Key("videos", "Reference videos.", either(many(REFERENCE, 0), REFERENCE)),
    Key("audios", "Reference sounds.", either(many(REFERENCE, 0), REFERENCE)),
    Key("first_frame", "The image a video starts from.", REFERENCE),
    Key("last_frame", "The image a video ends with.", REFERENCE),
)
LISTS = ("images", "videos", "audios")


def section(keys: tuple[Key, ...], required: tuple[str, ...] = ()) -> Schema:
    """The schema of a mapping with exactly these keys."""
    properties = {key.name: {"description": key.about, **key.schema} for key in keys}
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        **({"required": list(required)} if required else {}),
    }


JOB = (
    *FIELDS,
    Key("references", "Input images, videos and sounds.", section(REFERENCES)),
    Key("params", "The provider's own names, merged over the request last.", {"type": "object"}),
    Key("rows", "One render for each row: a .csv, .jsonl or .txt file, or a list of mappings.",
        either(TEXT, many(mapping(CELL)))),
    Key("matrix", "Axes that multiply. An axis called like a field sets that field.", mapping(many(SCALAR))),
    Key("include", "Further combinations, or more variables for some, as in GitHub Actions.", many(mapping(SCALAR), 0)),
    Key("exclude", "Combinations to leave out.", many(mapping(SCALAR), 0)),
    Key("takes", "How often each is rendered.", {"type": "integer", "minimum": 1}),
    Key("needs", "The job whose output this one needs (not in this version).", TEXT),
    Key("priority", "Higher goes first; 0 where nothing is said.", WHOLE),
)  # fmt: skip

PROVIDER = (
    Key("uses", "The provider this account belongs to, where the entry has a name of its own.", TEXT),
    Key("concurrency", "Tasks in flight at most.", {"type": "integer", "minimum": 1}),
    Key("rate_limit", "Requests in a window at most: 60/minute, or several such.", either(WINDOW, many(WINDOW))),
    Key("poll_interval", "Least time between two polls of a task (default 5 s).", SECONDS),
    Key("timeout", "The age at which a task is reported and polled hourly (default 6 h).", SECONDS),
    Key("account_exclusive", "Whether nobody else spends from this account, so that its balance is evidence.",
        {"type": "boolean"}),
)  # fmt: skip

OUTPUTS = (
    Key("dir", "The folder, below the manifest's. Default: renders/${batch}.", TEXT),
    Key("name", "The files' names. Default: ${job}/${slug}-${key}.${ext}.", TEXT),
)

JOBS: Schema = {**mapping(section(JOB)), "propertyNames": NAME, "minProperties": 1}

TOP = (
    Key("version", "The version of this format.", {"const": VERSION}),
    Key("batch", "The batch's name: its identity, whatever the file is called.", NAME),
    Key("budget", "Credits this batch may spend, by provider entry.", mapping(CREDITS)),
    Key("providers", "Limits of accounts. Keys and addresses come from the environment.", mapping(section(PROVIDER))),
    Key("defaults", "Fields for all jobs that do not say otherwise.", section(FIELDS)),
    Key("jobs", "What is to be rendered, by name.", JOBS),
    Key("outputs", "Where the files go.", section(OUTPUTS)),
)
REQUIRED = ("version", "batch", "jobs")

FIELD_NAMES = tuple(key.name for key in FIELDS)
ROLES = tuple(key.name for key in REFERENCES)
BUILT_IN = ("batch", "job", "take", "model", "provider", "ext", "slug", "key")
# What cannot be an axis: the names of what multiplies or orders jobs, and the variables that are always there.
NOT_AXES = (set(BUILT_IN) | {key.name for key in JOB}) - set(FIELD_NAMES)


def schema() -> dict[str, Any]:
    """The JSON Schema of a manifest, for editors: `# yaml-language-server: $schema=FILE` as a manifest's first line."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "runner manifest",
        "description": "A batch of image and video renders (version 1).",
        **section(TOP, REQUIRED),
    }
