"""Which account a job goes to, and which provider's dialect that speaks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from runner.errors import Problem
from runner.limits import Window
from runner.manifest import Manifest, ProviderEntry
from runner.manifest.findings import Findings
from runner.manifest.places import Spot
from runner.problems import quoted, suggestion
from runner.providers.description import Fault, Provider

DESCRIBED = "; one that a file of yours describes: --providers FILE"


class Accounts:
    """The accounts of one manifest, by name. An account that no entry describes is called after its provider."""

    def __init__(self, manifest: Manifest, registry: Mapping[str, Provider]) -> None:
        self._manifest, self._registry = manifest, registry
        self._names = tuple(dict.fromkeys((*manifest.providers, *registry)))
        self._known: dict[str, Provider | Fault] = {}

    def provider(self, name: str) -> Provider | Fault:
        """The provider of the account of that name, or what is wrong with the name (B33, B34)."""
        found = self._known.get(name)
        if found is None:
            found = self._look(name)
            if len(self._known) < len(self._names) + 1_000:  # names may come from a table
                self._known[name] = found
        return found

    def check(self, found: Findings) -> None:
        """Notes entries of `providers` and `budget` that belong to no provider."""
        for name, entry in self._manifest.providers.items():
            self._check_entry(name, entry, found)
        for name in self._manifest.budget:
            if name not in self._names:
                hint = suggestion(name, self._names, "providers")
                found.add("B34", f"no provider is called {quoted(name)}", hint, Spot(("budget", name), on_key=True))

    def warnings(self) -> Iterator[Problem]:
        """Limits that ask for more than the provider's document allows (B82)."""
        source = self._manifest.source
        for name, entry in self._manifest.providers.items():
            provider = self._registry.get(entry.uses)
            for window, documented in _faster(entry.rate_limit, provider.windows if provider else ()):
                message = f"{window} is more than {documented}, the limit that {entry.uses} documents"
                place = source.place(Spot(("providers", name, "rate_limit")))
                yield source.quote(Problem("B82", message, "the provider's own answers slow it down", place))

    def _look(self, name: str) -> Provider | Fault:
        if not name:
            return Fault("B33", "provider", "no provider is named", f"write provider: {', '.join(self._names)}")
        provider = self._registry.get(self._manifest.account(name).uses)
        if provider is not None:
            return provider
        if name in self._manifest.providers:
            message = f"the account {quoted(name)} uses no known provider"
            return Fault("B34", "provider", message, "mend its entry in providers")
        hint = suggestion(name, self._names, "providers") + DESCRIBED
        return Fault("B34", "provider", f"no provider is called {quoted(name)}", hint)

    def _check_entry(self, name: str, entry: ProviderEntry, found: Findings) -> None:
        known = tuple(self._registry)
        if entry.uses not in self._registry:
            hint = suggestion(entry.uses, known, "providers") + "; a second account: {uses: seegen}" + DESCRIBED
            spot = Spot(("providers", name, "uses")) if entry.uses != name else Spot(("providers", name), on_key=True)
            found.add("B34", f"no provider is called {quoted(entry.uses)}", hint, spot)
        elif name in self._registry and entry.uses != name:
            message = f"{name} is a provider itself, it cannot use {entry.uses}"
            found.add("B34", message, "choose another name for the account", ("providers", name, "uses"))


def _faster(asked: tuple[Window, ...], documented: tuple[Window, ...]) -> Iterator[tuple[Window, Window]]:
    """Windows that let more requests through in a documented window's time than that one does."""
    for limit in documented:
        worst = min(asked, key=lambda w: w.limit * max(1, limit.seconds // w.seconds), default=None)
        if worst is not None and worst.limit * max(1, limit.seconds // worst.seconds) > limit.limit:
            yield worst, limit
