"""The official distributed charts in place of the monolithic backends (observability/scale-out).

The tenants' limits as their values are the very overrides that `charts/lgtm` renders for the
monolithic backends, so a tenant's limits have one home: its entry in the registry. Where the charts
are installed has one home as well: the commands in the folder's README.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from stackproof.errors import StackproofError
from stackproof.flux.deployment import Deployment
from stackproof.helm import endpoints
from stackproof.repo.checkout import Checkout

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


_FOLDER = "scale-out"
#: The releases of a `helm upgrade --install RELEASE … -n NAMESPACE`, which may go over lines.
_INSTALL = re.compile(r"helm upgrade --install (\S+)(?:[^\n]|\\\n)*? -n (\S+)")


def installed(checkout: Checkout) -> dict[str, str]:
    """Return the namespace of each release that the README installs, by the release's name.

    Raises:
        StackproofError: The README installs nothing.
    """
    readme = checkout.observability / _FOLDER / "README.md"
    found = dict(_INSTALL.findall(readme.read_text(encoding="utf-8")))
    if not found:
        raise StackproofError(
            "installs no release", where=checkout.show(readme), todo="helm upgrade --install …"
        )
    return found


def astray(checkout: Checkout) -> Iterator[str]:
    """Yield each address of a Service in the values, or in the README, where nothing listens.

    The charts call what they make RELEASE or RELEASE-COMPONENT.
    """
    releases = installed(checkout)
    folder = checkout.observability / _FOLDER
    for file in sorted([*folder.glob("*.yaml"), folder / "README.md"]):
        for one in sorted(endpoints.in_text(file.read_text(encoding="utf-8")), key=str):
            service = one.service("", releases.values())
            if service is None or not service[0]:  # outside the cluster
                continue
            namespace, name = service
            owner = next((r for r in releases if name == r or name.startswith(f"{r}-")), None)
            where = f"{checkout.show(file)}: {one.host}"
            if owner is None:
                yield f"{where}: the README installs no release that makes a Service {name}"
            elif namespace != releases[owner]:
                yield f"{where}: the README installs {owner} into {releases[owner]}"
