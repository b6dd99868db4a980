"""What a chart finds in its cluster without making it, and what it is held against.

A chart may refer to what others make: a ClusterSecretStore, a Secret made by hand, another
release's Service. Which, is stated once per chart, in CHART/ci/stackproof/externals.yaml:

    - {kind: Secret, name: "${gateway.adminSecret}", keys: [password]} # keys left out: any
    - {kind: ClusterSecretStore, name: "${externalSecrets.store.name}"}
    - {kind: Service, url: "${openWebui.config.redisUrl}"}             # the Service that it names

`${PATH}` is a value of the chart, its own default or what a render is given. Where it is empty
there is nothing; a list is one entry for each element. An entry with `unless: PATH` counts only
while that value is false or empty. A chart that may make cluster-scoped objects says so with
`{kind: Namespace, name: …, made: true}`; `${release.namespace}` is where it is installed. What a
release makes itself is never an external.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

from stackproof import helmyaml
from stackproof.errors import StackproofError
from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Versions

from . import endpoints, references, renderer
from .manifests import Release, at, target_secret
from .references import Externals

FILE = Path("ci", "stackproof", "externals.yaml")
_VALUE = re.compile(r"\$\{([\w.-]+)\}")


@dataclass(frozen=True)
class Rendered:
    """A release and the objects around it: what an invariant looks at."""

    release: Release
    externals: Externals = field(default_factory=Externals)
    kubernetes: tuple[str, ...] = ()
    """The versions whose schemas its objects must satisfy."""
    schemas: Path | None = None
    """Folder of the schemas of custom kinds."""
    cluster_scoped: frozenset[tuple[str, str]] = frozenset()
    """Kind and name of the cluster-scoped objects that the chart may make."""

    @cached_property
    def cluster(self) -> references.Cluster:
        """The release and what is around it, indexed."""
        return references.Cluster([self.release], self.externals)

    @cached_property
    def dangling(self) -> tuple[references.BrokenReference, ...]:
        """References of the release that lead nowhere."""
        return tuple(references.problems(self.cluster))


@dataclass(frozen=True)
class ExternalObjects:
    """What holds for every render of a chart."""

    chart: Path
    kubernetes: tuple[str, ...]
    schemas: Path
    entries: tuple[Mapping[str, Any], ...]
    defaults: Mapping[str, Any]

    @classmethod
    def load(cls, chart: Path, checkout: Checkout | None = None) -> ExternalObjects:
        """Read a chart's own file, if it has one, and the versions to check against.

        Raises:
            StackproofError: The file is not what the module says.
        """
        checkout = checkout or Checkout.own()
        kubernetes = Versions.load(checkout).kubernetes
        return cls(
            chart,
            (kubernetes.oldest, kubernetes.newest),
            checkout.root / "schemas",
            _entries(chart / FILE),
            read_values(chart / "values.yaml"),
        )

    def around(self, release: Release, values: Sequence[renderer.Values] = ()) -> Rendered:
        """Return a release of the chart with what is around it when it is given these values."""
        effective = merged(self.defaults, *(as_mapping(part) for part in values))
        effective["release"] = {"namespace": release.namespace}
        externals, made = _resolved(self.entries, effective, release)
        return Rendered(release, externals, self.kubernetes, self.schemas, made)


def _entries(file: Path) -> tuple[Mapping[str, Any], ...]:
    if not file.exists():
        return ()
    found = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader) or []
    if not isinstance(found, list) or not all(_is_entry(entry) for entry in found):
        raise StackproofError(
            "must be a list of {kind, name or url}", where=str(file), todo=f"See {__name__}."
        )
    return tuple(found)


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and "kind" in entry and bool({"name", "url"} & entry.keys())


def _resolved(
    entries: Sequence[Mapping[str, Any]], values: Mapping[str, Any], release: Release
) -> tuple[Externals, frozenset[tuple[str, str]]]:
    own = _own(release)
    keys: dict[tuple[str, str], frozenset[str] | None] = {}
    services: dict[tuple[str, str], frozenset[int]] = {}
    objects: set[tuple[str, str]] = set()
    made: set[tuple[str, str]] = set()
    for entry in entries:
        if "unless" in entry and at(values, entry["unless"]):
            continue
        for text in _texts(entry.get("name") or entry["url"], values):
            if "url" in entry:
                for service, port in _services(text, release.namespace):
                    services[service] = services.get(service, frozenset()) | {port}
            elif entry.get("made"):
                made.add((entry["kind"], text))
            elif (entry["kind"], text) in own:
                continue
            elif entry["kind"] in {"Secret", "ConfigMap"}:
                known = frozenset(entry["keys"]) if "keys" in entry else None
                keys[release.namespace, text] = known
            else:
                objects.add((entry["kind"], text))
    return Externals(keys, services, frozenset(objects)), frozenset(made)


def _own(release: Release) -> set[tuple[str, str]]:
    """Return kind and name of what a release makes, the Secrets of its ExternalSecrets too."""
    made = {(m.kind, m.name) for m in release}
    return made | {("Secret", target_secret(m)) for m in release.of_kind("ExternalSecret")}


def _services(url: str, namespace: str) -> Iterator[tuple[tuple[str, str], int]]:
    for endpoint in endpoints.in_value(url):
        service = endpoint.service(namespace, ())
        if service and endpoint.port:
            yield service, endpoint.port


def _texts(pattern: str, values: Mapping[str, Any]) -> list[str]:
    """Return what an entry's text stands for: nothing, one text, or one for each element."""
    reference = _VALUE.fullmatch(pattern)
    if not reference:
        return [_VALUE.sub(lambda one: str(at(values, one[1]) or ""), pattern)]
    found = at(values, reference[1])
    several = found if isinstance(found, list) else [found]
    named = (one.get("name") if isinstance(one, Mapping) else one for one in several)
    return [str(one) for one in named if one not in (None, "")]


def merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return values laid over each other as Helm does: maps merge, null removes, others replace."""
    result: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            if value is None:
                result.pop(key, None)
            # dict and not Mapping, whose check costs more than all the rest; this runs very often.
            elif isinstance(value, dict) and isinstance(below := result.get(key), dict):
                result[key] = merged(below, value)
            else:
                result[key] = value
    return result


def as_mapping(values: renderer.Values) -> Mapping[str, Any]:
    """Return values as data, whether they are a file or data already."""
    return read_values(values) if isinstance(values, Path) else values


def read_values(file: Path) -> Mapping[str, Any]:
    """Return a values file as data; it is parsed again only after it has changed.

    Raises:
        StackproofError: The file cannot be read, or holds something else than a map.
    """
    with helmyaml.reading(str(file)):
        stat = file.stat()
    return _parsed(file, stat.st_mtime_ns, stat.st_size)


@cache
def _parsed(file: Path, _changed: int, _size: int) -> Mapping[str, Any]:
    with helmyaml.reading(str(file)):
        found = helmyaml.load(file.read_text(encoding="utf-8")) or {}
    if not isinstance(found, dict):
        raise StackproofError("must hold a map", where=str(file))
    plain: Mapping[str, Any] = _with_string_keys(found)
    return plain


def _with_string_keys(value: Any) -> Any:
    """Return data whose keys are strings, as Helm's: `on:` is the key "true" there."""
    if isinstance(value, dict):
        return {as_text(key): _with_string_keys(below) for key, below in value.items()}
    return [_with_string_keys(one) for one in value] if isinstance(value, list) else value


def as_text(value: object) -> str:
    """Return a scalar as Helm writes it: `true`."""
    return str(value).lower() if isinstance(value, bool) else str(value)
