"""The providers: one file each, found by looking. A sixth one is a file dropped in here, or described in a YAML file.

`description` holds the words in which a provider describes itself, `compose` makes a request from them, `describe`
shows them to a person, `reading` has what every adapter needs to read an answer generously, `declared` makes providers
of descriptions in YAML.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType

from runner.errors import InternalError
from runner.providers.description import Provider

_declared: dict[str, Provider] = {}


def declare(providers: Iterable[Provider] = ()) -> None:
    """From now on this process knows these providers too, instead of those declared before; without any, the shipped
    ones alone. For the command line, before anything asks for `registry`."""
    _declared.clear()
    _declared.update({provider.name: provider for provider in providers})
    registry.cache_clear()


@cache
def registry() -> Mapping[str, Provider]:
    """Every provider there is, by name, in the order of their names: each module of this package with a `PROVIDER`, and
    those that were declared.

    A provider's module is named after it, with `-` written `_`. Raises `InternalError` for one that is not, and for a
    declared one that would replace it.
    """
    found = (_provider_of(info.name) for info in iter_modules(__path__))
    named = {provider.name: provider for provider in found if provider is not None}
    if clash := named.keys() & _declared.keys():
        raise InternalError(f"{', '.join(sorted(clash))}: a shipped provider is never replaced")
    return MappingProxyType(dict(sorted({**named, **_declared}.items())))


def _provider_of(module_name: str) -> Provider | None:
    provider = getattr(import_module(f"{__name__}.{module_name}"), "PROVIDER", None)
    if provider is None:
        return None
    if not isinstance(provider, Provider) or provider.name.replace("-", "_") != module_name:
        raise InternalError(f"providers/{module_name}.py must define PROVIDER, a Provider named like its file")
    return provider
