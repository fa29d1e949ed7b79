"""YAML → a checked model: errors with file:line:column and a hint (design.md section 9)."""

from __future__ import annotations

from runner.manifest.files import read_manifest
from runner.manifest.grammar import schema
from runner.manifest.model import InlineRows, JobEntry, Manifest, Outputs, ProviderEntry, ReferenceEntry, TableFile

__all__ = [
    "InlineRows", "JobEntry", "Manifest", "Outputs", "ProviderEntry", "ReferenceEntry", "TableFile", "read_manifest",
    "schema",
]  # fmt: skip
