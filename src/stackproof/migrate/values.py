"""An earlier release's values as values of this chart, and what has no new home.

Chart 0.1.0 turned each `openWebui.config.someKey` into the variable SOME_KEY. Which value of this
chart sets a variable is not written down anywhere: it is found by rendering, with one value changed
at a time. What no value sets goes into `openWebui.extraEnv`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import yaml

from stackproof.errors import StackproofError
from stackproof.flux.tree import build_tenant
from stackproof.helm import renderer
from stackproof.helm.externals import as_text, merged, read_values
from stackproof.helm.manifests import Release, containers
from stackproof.helm.renderer import HelmError, Render
from stackproof.repo.checkout import Checkout
from stackproof.repo.tenants import load_registry
from stackproof.values.combinations import Keys, Space, nested, scenarios, value_at

_CONFIG: Final = ("openWebui", "config")
_ADMIN: Final = ("openWebui", "admin")
#: Keys of chart 0.1.0 that became something else than the variable of their name.
_MOVED: Final[Mapping[Keys, Keys]] = {
    (*_CONFIG, "adminEmail"): (*_ADMIN, "email"),
    (*_CONFIG, "adminName"): (*_ADMIN, "name"),
    (*_CONFIG, "databaseName"): ("postgres", "database"),
    (*_CONFIG, "databaseUser"): ("postgres", "user"),
    ("weaviate", "config", "clusterHostname"): ("weaviate", "clusterHostname"),
}
#: Of these variables the chart has a map, `openWebui.config.userPermissions`.
_PERMISSION: Final = "USER_PERMISSIONS_"
#: Why some have none.
_GONE: Final[Mapping[Keys, str]] = {
    ("nameOverride",): "fullnameOverride says the whole name",
    (*_CONFIG, "databaseHost"): "the chart names its own database",
    (*_CONFIG, "databasePort"): "the chart names its own database",
    (*_CONFIG, "databaseType"): "DATABASE_URL says it",
    (*_CONFIG, "weaviateHttpHost"): "the chart names its own Weaviate",
    (*_CONFIG, "weaviateGrpcHost"): "the chart names its own Weaviate",
    ("secrets",): "comes from the secret store, and belongs into no file",
    ("migration",): "was for the move from LibreChat",
}
#: Of chart 0.1.0, where an earlier release's values do not say.
_EARLIER: Final[Mapping[str, Any]] = {
    "weaviate": {
        "clusterHostname": "node1",
        "image": {
            "repository": "semitechnologies/weaviate",
            "tag": "1.28.4",
            "pullPolicy": "IfNotPresent",
        },
    }
}


@dataclass(frozen=True)
class Converted:
    """Values of this chart.

    Args:
        values: What to give it.
        homeless: What of the earlier ones is in none of them, by path, and why.
    """

    values: Mapping[str, Any]
    homeless: Mapping[str, str] = field(default_factory=dict)

    def as_yaml(self) -> str:
        """Return a values file, with what has no new home as comments before it."""
        told = [f"# {path}: {why}\n" for path, why in self.homeless.items()]
        head = ["# What has no new home, and why:\n", *told] if told else []
        return "".join(head) + yaml.safe_dump(
            self.values, sort_keys=False, allow_unicode=True, width=100
        )


def converted(
    checkout: Checkout, old: Path, *, release: str, namespace: str, tenant: str
) -> Converted:
    """Return an earlier release's values as values of charts/open-webui-stack.

    Args:
        checkout: Whose chart.
        old: The earlier values, best with the chart's own (`helm get values --all`).
        release: The release's name, from which chart 0.1.0 made all other names.
        namespace: Where it is.
        tenant: Whose it is; its entry in the registry says the prefix of its secrets.

    Raises:
        StackproofError: The file cannot be read, there is no such tenant, or the result does not
            render.
    """
    given = read_values(old)
    prefix = load_registry(checkout).get(tenant).secret_prefix
    # A release that can be reached must name its administrator, which chart 0.1.0 did not.
    email = value_at(_deployed(checkout, tenant), (*_ADMIN, "email"))
    chart = _Chart(checkout.charts / "open-webui-stack", release, namespace)
    identity = ("openWebui", "config", "telemetry", "otel", "tenantId")
    has_telemetry = isinstance(value_at(given, (*_CONFIG, "telemetry")), Mapping)
    start = merged(
        nested(identity, value_at(given, identity) or tenant),
        nested(("externalSecrets",), _store(checkout, prefix)),
        nested((*_ADMIN, "email"), email) if email else {},
        # Chart 0.1.0's values have none.
        {} if has_telemetry else _first_names(given, release),
    )
    return _Conversion(chart, given, start).run()


def _deployed(checkout: Checkout, tenant: str) -> Mapping[str, Any]:
    """Return the values that the Flux tree itself gives a tenant's release, where it is in it."""
    if not (checkout.flux / "tenants" / tenant).is_dir():
        return {}
    for release in build_tenant(checkout, tenant).releases.values():
        if release.chart == checkout.charts / "open-webui-stack":
            values: Mapping[str, Any] = release.manifest["spec"].get("values") or {}
            return values
    return {}


def _store(checkout: Checkout, prefix: str) -> dict[str, Any]:
    cluster = read_values(checkout.flux / "clusters" / "production" / "cluster.yaml")
    project = value_at(cluster, ("data", "GCP_PROJECT"))
    return {"enabled": True, "gcpProject": project, "keyPrefix": prefix}


def _first_names(given: Mapping[str, Any], release: str) -> dict[str, Any]:
    """Return the values by which the names of chart 0.1.0 stay, and with them the data."""
    chart = given.get("nameOverride") or "open-webui-stack"
    name = release if chart in release else f"{release}-{chart}"
    prefix = str(given.get("fullnameOverride") or name[:63].rstrip("-"))
    return {
        "fullnameOverride": prefix,
        "global": {"claimTemplateLabels": False},
        "openWebui": {
            "nameOverride": f"{prefix}-open-webui",
            "persistence": {"claimName": f"{prefix}-open-webui-pvc"},
        },
        **_EARLIER,
    }


@dataclass
class _Conversion:
    """One conversion, as far as it has come."""

    chart: _Chart
    given: Mapping[str, Any]
    values: dict[str, Any]
    homeless: dict[str, str] = field(default_factory=dict)
    wanted: dict[str, tuple[Keys, str]] = field(default_factory=dict)
    """Variables that the earlier release set: the key that did, and what to."""

    def run(self) -> Converted:
        waiting = list(_leaves(self.given))
        while waiting:  # again, as long as one finds its place: some need another beside them
            left = [(path, value) for path, value in waiting if not self._place(path, value)]
            if len(left) == len(waiting):
                break
            waiting = left
        for path, value in waiting:
            self.homeless[".".join(path)] = self.chart.refusal(self.values, path, value)
        self._further_variables()
        return Converted(self.values, self.homeless)

    def _place(self, path: Keys, value: Any) -> bool:
        """Put a value where it belongs; tell whether there was a place, or can be none."""
        for start, why in _GONE.items():
            if path[: len(start)] == start:
                if value not in ("", None, [], {}):
                    self.homeless[".".join(path)] = why
                return True
        if path == ("ingress", "hosts"):
            return self._set(("ingress", "host"), str(value[0]["host"]) if value else "")
        if path == ("ingress", "tls"):
            return self._set(("ingress", "tlsSecret"), value[0]["secretName"] if value else "")
        if path in _MOVED:
            return value in ("", None) or self._set(_MOVED[path], value)
        variable = _variable(path)
        if variable is None:
            return self._set(path, value)
        permission = variable.removeprefix(_PERMISSION)
        if permission != variable and as_text(value) in {"true", "false"}:
            return self._set((*_CONFIG, "userPermissions", permission), as_text(value) == "true")
        self.wanted[variable] = (path, as_text(value))
        home = self.chart.homes.get(variable)
        if home is None:
            return True  # extraEnv, once all else is in place
        return self._set(home, self.chart.typed(home, value))

    def _set(self, path: Keys, value: Any) -> bool:
        if not self.chart.accepts(self.values, path, value):
            return False
        if value != value_at(self.chart.defaults, path):
            self.values = merged(self.values, nested(path, value))
        return True

    def _further_variables(self) -> None:
        """Put the variables that no value sets into extraEnv, and tell of those that differ."""
        own = self.chart.environment(self.values)
        extra = {}
        for name, (path, value) in self.wanted.items():
            key = ".".join(path)
            if key in self.homeless:
                continue
            if name in own:
                if own[name] != value:
                    self.homeless[key] = f"{name} was {value!r}, this chart makes it {own[name]!r}"
            elif name in self.chart.ever:
                self.homeless[key] = f"this chart sets {name} with a component that is off"
            else:
                extra[name] = value
        if extra:
            self.values = merged(self.values, {"openWebui": {"extraEnv": extra}})
        now = self.chart.environment(self.values)
        for name, value in extra.items():
            if now.get(name) != value:
                raise StackproofError(f"{name} does not reach the application", where="extraEnv")


def _leaves(values: Mapping[str, Any], path: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """Yield the values that are set, an image as one: its tag means nothing elsewhere."""
    for key, value in values.items():
        place = (*path, key)
        if isinstance(value, Mapping) and value and key != "image":
            yield from _leaves(value, place)
        elif value is not None:
            yield place, value


def _variable(path: Keys) -> str | None:
    """Return the variable that chart 0.1.0 made of a key: someKey is SOME_KEY."""
    if path[:2] != _CONFIG or len(path) != 3:
        return None
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", path[2]).upper()


@dataclass(frozen=True)
class _Chart:
    """The chart, asked by rendering."""

    folder: Path
    release: str
    namespace: str

    @cached_property
    def _space(self) -> Space:
        return Space(self.folder)

    @property
    def defaults(self) -> Mapping[str, Any]:
        return self._space.defaults

    @cached_property
    def _schemas(self) -> Mapping[Keys, Mapping[str, Any]]:
        return {leaf.path: leaf.schema for leaf in self._space.leaves}

    def accepts(self, values: Mapping[str, Any], path: Keys, value: Any) -> bool:
        """Tell whether the chart's schema takes a value beside those that are set."""
        return self._space.is_valid(merged(values, nested(path, value)))

    def refusal(self, values: Mapping[str, Any], path: Keys, value: Any) -> str:
        """Return why the schema does not take a value."""
        home = self.homes.get(_variable(path) or "", path)
        if not any(known[: len(home)] == home for known in self._schemas):
            return "this chart has no such value"
        try:
            self.environment(merged(values, nested(home, self.typed(home, value))))
        except HelmError as error:
            reasons = [f"{one.path}: {one.reason}" for one in error.refused]
            why = "; ".join(reasons) or error.message.splitlines()[-1]
            return f"{as_text(value)} is refused: {why}"
        return "is set already"

    def typed(self, path: Keys, value: Any) -> Any:
        """Return a variable's text as the value at a place has it: "true" is true."""
        if isinstance(value, (Mapping, list)):
            return value
        kind = self._schemas.get(path, {}).get("type")
        kinds = [kind] if isinstance(kind, str) else kind or ["string"]
        text = as_text(value)
        if "boolean" in kinds and text.lower() in {"true", "false"}:
            return text.lower() == "true"
        if {"integer", "number"} & set(kinds) and re.fullmatch(r"-?\d+(\.\d+)?", text):
            return float(text) if "." in text else int(text)
        return text if "string" in kinds else value

    @cached_property
    def homes(self) -> Mapping[str, Keys]:
        """The value that sets each variable of the application, by what changes when it does."""
        space = Space.of(self.folder)
        base = {"secrets": {}, **space.base_values}
        places = [
            (leaf.path, setting)
            for leaf in space.leaves
            if leaf.path[0] == "openWebui" and leaf.path[1] != "extraEnv"
            for setting in space.examples(leaf)
        ]
        asked = [merged(base, nested(path, setting)) for path, setting in places]
        first, *others = self._environments([base, *asked])
        found: dict[str, Keys] = {}
        for (path, setting), now in zip(places, others, strict=True):
            for name, value in (now or {}).items():
                if first is not None and first.get(name) != value == as_text(setting):
                    found.setdefault(name, path)
        return found

    @cached_property
    def ever(self) -> frozenset[str]:
        """Every variable that the chart itself sets with some values."""
        files = [read_values(file) for file in scenarios(self.folder)]
        plain = [merged(one, {"openWebui": {"extraEnv": None}}) for one in files]
        return frozenset(name for found in self._environments(plain) for name in found or ())

    def environment(self, values: Mapping[str, Any]) -> dict[str, str]:
        """Return the variables of the application, but for those from secrets."""
        return _environment(renderer.renderer().render(self._asked(values)))

    def _environments(self, each: Sequence[Mapping[str, Any]]) -> list[dict[str, str] | None]:
        outcomes = renderer.render_many(map(self._asked, each))
        return [_environment(one) if isinstance(one, Release) else None for one in outcomes]

    def _asked(self, values: Mapping[str, Any]) -> Render:
        return Render(
            chart=self.folder, values=[values], release=self.release, namespace=self.namespace
        )


def _environment(release: Release) -> dict[str, str]:
    workload = release.of_component("Deployment", "open-webui")
    given = release.env_values(containers(workload)[-1])
    return {name: value for name, value in given.items() if value is not None}
