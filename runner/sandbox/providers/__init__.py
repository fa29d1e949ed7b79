"""The pretend providers, one file each. A file here that defines `PROVIDER` is served; nothing else lists them."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from ..dialect import Dialect


@cache
def known() -> dict[str, Dialect]:
    """Every dialect by name, in the order of their names."""
    names = sorted(module.name for module in iter_modules(__path__))
    found: list[Dialect] = [import_module(f"{__name__}.{name}").PROVIDER for name in names]
    return {dialect.name: dialect for dialect in found}
