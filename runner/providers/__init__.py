"""The providers: one file each, found by looking. A sixth one is a file dropped in here.

`description` holds the words in which a provider describes itself, `compose` makes a request from them, `describe`
shows them to a person, `reading` has what every adapter needs to read an answer generously.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType

from runner.errors import InternalError
from runner.providers.description import Provider


@cache
def registry() -> Mapping[str, Provider]:
    """Every provider there is, by name, in the order of their names: each module of this package with a `PROVIDER`.

    A provider's module is named after it, with `-` written `_`. Raises `InternalError` for one that is not.
    """
    found = (_provider_of(info.name) for info in iter_modules(__path__))
    named = {provider.name: provider for provider in found if provider is not None}
    return MappingProxyType(dict(sorted(named.items())))


def _provider_of(module_name: str) -> Provider | None:
    provider = getattr(import_module(f"{__name__}.{module_name}"), "PROVIDER", None)
    if provider is None:
        return None
    if not isinstance(provider, Provider) or provider.name.replace("-", "_") != module_name:
        raise InternalError(f"providers/{module_name}.py must define PROVIDER, a Provider named like its file")
    return provider
