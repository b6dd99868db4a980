"""One release of charts/lgtm: what its configuration files say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stackproof.helm.manifests import Release, at, parsed

BACKENDS = ("mimir", "loki", "tempo")
UNLISTED = "an unlisted tenant"
#: Where the limits of an unlisted tenant stand.
_DEFAULTS = {"mimir": "limits", "loki": "limits_config", "tempo": "overrides.defaults"}


def config(release: Release, backend: str, file: str = "") -> Mapping[str, Any]:
    """Return a backend's configuration file as data; variables are left as they stand.

    Raises:
        StackproofError: The backend is not configured here.
    """
    data = parsed(release.get("ConfigMap", backend)["data"][file or f"{backend}.yaml"])
    return data if isinstance(data, Mapping) else {}


def overrides(release: Release, backend: str) -> Mapping[str, Any]:
    """Return the limits of each tenant that a backend lists."""
    return config(release, backend, "overrides.yaml").get("overrides") or {}


def default_limits(release: Release, backend: str) -> Mapping[str, Any]:
    """Return the limits of a tenant that a backend does not list."""
    return at(config(release, backend), _DEFAULTS[backend]) or {}


def limits(release: Release, backend: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the limits of each tenant, and of whoever is in no list."""
    return {UNLISTED: default_limits(release, backend), **overrides(release, backend)}


def data_sources(release: Release) -> tuple[Mapping[str, Any], ...]:
    """Return Grafana's provisioned data sources, unexpanded."""
    text = release.file("grafana-datasources", "datasources.yaml")
    return tuple(parsed(text or "{}").get("datasources") or ())
