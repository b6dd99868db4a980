"""The tenants' limits as values of the official distributed charts (observability/scale-out).

They are the very overrides that `charts/lgtm` renders for the monolithic backends, so a tenant's
limits have one home: its entry in the registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from stackproof.deployment import Deployment
from stackproof.errors import StackproofError

BACKENDS = ("mimir", "loki", "tempo")
#: Where each chart takes the content of its runtime configuration.
_PLACE: Mapping[str, tuple[str, ...]] = {
    "mimir": ("runtimeConfig", "overrides"),
    "loki": ("loki", "runtimeConfig", "overrides"),
    "tempo": ("per_tenant_overrides",),
}


def tenant_values(deployment: Deployment, backend: str) -> dict[str, Any]:
    """Return values of a backend's distributed chart that hold every tenant's limits.

    Raises:
        StackproofError: There is no such backend.
    """
    if backend not in _PLACE:
        raise StackproofError(f"no backend {backend!r} (there are: {', '.join(BACKENDS)})")
    text = deployment.lgtm().get("ConfigMap", backend)["data"]["overrides.yaml"]
    values: dict[str, Any] = yaml.load(text, Loader=yaml.CSafeLoader)["overrides"]
    for key in reversed(_PLACE[backend]):
        values = {key: values}
    return values
