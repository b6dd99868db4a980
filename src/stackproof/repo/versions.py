"""The pins in versions.yaml: Kubernetes, container images, and charts from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import yaml

from stackproof.errors import StackproofError

from .checkout import Checkout

_TAG = re.compile(r"v?\d+(\.\d+)+([-.+][0-9A-Za-z]+)*")
_KUBERNETES = re.compile(r"1\.\d+\.\d+")
_KIND_NODE = re.compile(r"[\w./-]+:v1\.\d+\.\d+@sha256:[0-9a-f]{64}")
_REPOSITORY = re.compile(r"[a-z0-9]+([._/-][a-z0-9]+)*")
_CHART_REPOSITORY = re.compile(r"(https|oci)://[^\s/]+(/[^\s/]+)*")


def version_key(version: str) -> tuple[int, ...]:
    """Return the numbers that a version starts with, for comparing: `v2.10.8-rc1` -> (2, 10, 8)."""
    match = re.match(r"v?(\d+(?:\.\d+)*)", version)
    return tuple(int(number) for number in match[1].split(".")) if match else ()


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """The Kubernetes versions that the deployment supports.

    Args:
        oldest: Lowest version that rendered objects are validated for, `1.N.P`.
        newest: Highest one; also the version that charts are rendered for unless asked otherwise.
        kind_node: Node image of a cluster that kind makes, with its digest.
    """

    oldest: str
    newest: str
    kind_node: str


@dataclass(frozen=True, slots=True)
class Image:
    """A container image, pinned by version.

    Args:
        repository: Registry and name, as a chart's `image.repository`.
        tag: Version, as a chart's `image.tag`.
        at_least: Version that the tag must never be below, else None.
    """

    repository: str
    tag: str
    at_least: str | None = None

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag}"


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart from elsewhere, which Flux installs.

    Args:
        repository: URL of its repository, without a slash at the end.
        version: Its version.
    """

    repository: str
    version: str


@dataclass(frozen=True, slots=True)
class Versions:
    """Everything that versions.yaml pins; images by component, charts by their name."""

    kubernetes: Kubernetes
    images: Mapping[str, Image]
    charts: Mapping[str, Chart]

    @classmethod
    def load(cls, checkout: Checkout) -> Self:
        """Read versions.yaml.

        Raises:
            StackproofError: It is not there, is no YAML, or holds something else than pins.
        """
        where = checkout.show(checkout.versions_file)
        try:
            data = yaml.safe_load(checkout.versions_file.read_bytes())
        except OSError as error:
            raise StackproofError(f"cannot be read: {error.strerror}", where=where) from error
        except yaml.YAMLError as error:
            raise StackproofError(f"is no YAML: {error}", where=where) from error
        top = _Keys(data, where)
        kubernetes = _kubernetes(top.mapping("kubernetes"))
        components = top.mapping("images")
        images = {name: _image(components.mapping(name)) for name in components.data}
        given = top.mapping("charts") if "charts" in top.data else _Keys({}, where)
        charts = {name: _chart(given.mapping(name)) for name in given.data}
        top.refuse_others()
        return cls(kubernetes, MappingProxyType(images), MappingProxyType(charts))

    def image(self, component: str) -> Image:
        """Return the image of a component, e.g. `mimir`.

        Raises:
            StackproofError: versions.yaml pins none.
        """
        if component not in self.images:
            raise StackproofError(
                f"no image of {component!r} (there are: {', '.join(self.images)})",
                where="versions.yaml",
            )
        return self.images[component]


class _Keys:
    """A mapping of the file, which knows its place and which of its keys were read."""

    def __init__(self, data: Any, where: str, path: str = "") -> None:
        if not isinstance(data, dict):
            raise StackproofError(f"{path or 'the file'} must be a mapping", where=where)
        self.data: dict[str, Any] = data
        self.where = where
        self.path = path
        self._read: set[str] = set()

    def name(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def mapping(self, key: str) -> _Keys:
        self._read.add(key)
        return _Keys(self.data.get(key), self.where, self.name(key))

    def text(self, key: str, pattern: re.Pattern[str]) -> str:
        """Return the string at `key`, which must match `pattern` as a whole."""
        self._read.add(key)
        value = self.data.get(key)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            todo = "Put it in quotes." if isinstance(value, float) else None
            raise StackproofError(
                f"{self.name(key)}: {value!r} does not match {pattern.pattern}",
                where=self.where,
                todo=todo,
            )
        return value

    def refuse_others(self) -> None:
        """Raise where the mapping has a key that nobody asked for."""
        if others := [key for key in self.data if key not in self._read]:
            raise StackproofError(f"unknown key {self.name(str(others[0]))}", where=self.where)


def _kubernetes(keys: _Keys) -> Kubernetes:
    found = Kubernetes(
        oldest=keys.text("oldest", _KUBERNETES),
        newest=keys.text("newest", _KUBERNETES),
        kind_node=keys.text("kindNode", _KIND_NODE),
    )
    keys.refuse_others()
    if version_key(found.oldest) > version_key(found.newest):
        raise StackproofError(
            f"kubernetes.oldest ({found.oldest}) is above newest ({found.newest})",
            where=keys.where,
        )
    return found


def _image(keys: _Keys) -> Image:
    found = Image(
        repository=keys.text("repository", _REPOSITORY),
        tag=keys.text("tag", _TAG),
        at_least=keys.text("atLeast", _TAG) if "atLeast" in keys.data else None,
    )
    keys.refuse_others()
    if found.at_least and version_key(found.tag) < version_key(found.at_least):
        raise StackproofError(
            f"{keys.name('tag')}: {found.tag} is below {found.at_least}",
            where=keys.where,
            todo="The comment at `atLeast` says why it must not be.",
        )
    return found


def _chart(keys: _Keys) -> Chart:
    found = Chart(
        repository=keys.text("repository", _CHART_REPOSITORY), version=keys.text("version", _TAG)
    )
    keys.refuse_others()
    return found
