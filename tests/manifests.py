"""Manifests for tests: written to a file from plain values, read, surveyed, expanded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.errors import InputError
from runner.expand import Order, orders, survey
from runner.manifest import Manifest, read_manifest
from runner.providers import registry

SEEDANCE = {"provider": "seedance2ai", "model": "seedance"}
HAPPYHORSE = {"provider": "happyhorse", "model": "seedance-1-5-pro"}


def write(folder: Path, text: str, name: str = "manifest.yaml", **files: str | bytes) -> Path:
    """A manifest's file and those beside it (`shots_csv="…"` becomes shots.csv)."""
    for other, content in files.items():
        path = folder / other.replace("_", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path = folder / name
    path.write_bytes(text.encode())
    return path


def yaml_of(jobs: Mapping[str, Any], **top: Any) -> str:
    """A manifest's text: JSON, which YAML 1.2 includes."""
    return json.dumps({"version": 1, "batch": "test", **top, "jobs": jobs}, ensure_ascii=False)


def manifest_of(folder: Path, jobs: Mapping[str, Any], **top: Any) -> Manifest:
    return read_manifest(write(folder, yaml_of(jobs, **top)))


def orders_of(folder: Path, jobs: Mapping[str, Any], **top: Any) -> list[Order]:
    manifest = manifest_of(folder, jobs, **top)
    return list(orders(manifest, registry(), survey(manifest, registry())))


def codes_of(error: InputError) -> list[str]:
    return [problem.code for problem in error.problems]
