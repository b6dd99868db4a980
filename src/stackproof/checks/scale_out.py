"""The official distributed charts in place of the monolithic backends (observability/scale-out).

Limits have one home, whoever enforces them: `charts/lgtm`, and a tenant's own its entry in the
registry. What the distributed charts take as values is what that chart renders for the monolithic
backends. Where the charts are installed has one home as well: the commands in the folder's README.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from stackproof.errors import StackproofError
from stackproof.flux.deployment import Deployment
from stackproof.helm import endpoints
from stackproof.helm.manifests import parts, thaw
from stackproof.repo.checkout import Checkout
from stackproof.values.combinations import value_at

from .lgtm import BACKENDS, config, overrides

#: Where each chart takes the content of its runtime configuration.
_PLACE: Mapping[str, tuple[str, ...]] = {
    "mimir": ("runtimeConfig", "overrides"),
    "loki": ("loki", "runtimeConfig", "overrides"),
    "tempo": ("per_tenant_overrides",),
}
#: What of a backend's configuration is the same however many processes there are.
SHARED: Mapping[str, Sequence[tuple[str, ...]]] = {
    "mimir": (
        ("limits",),
        ("distributor", "max_otlp_request_size"),
        ("distributor", "max_recv_msg_size"),
    ),
    "loki": (("limits_config",), ("distributor",)),
    "tempo": (
        ("distributor", "receivers", "otlp", "protocols", "http", "max_request_body_size"),
        ("query_frontend",),
        ("overrides", "defaults"),
        ("metrics_generator", "processor", "local_blocks"),
        ("server", "grpc_server_max_recv_msg_size"),
        ("server", "grpc_server_max_send_msg_size"),
    ),
}


def limit_values(deployment: Deployment, backend: str) -> dict[str, Any]:
    """Return values of a backend's distributed chart that hold all limits, and each tenant's.

    Raises:
        StackproofError: There is no such backend.
    """
    if backend not in _PLACE:
        raise StackproofError(f"no backend {backend!r} (there are: {', '.join(BACKENDS)})")
    release = deployment.lgtm()
    values: dict[str, Any] = {}
    _put(values, _PLACE[backend], thaw(overrides(release, backend)))
    for path in SHARED[backend]:
        shared = value_at(config(release, backend), path)
        _put(values, (backend, "structuredConfig", *path), thaw(shared))
    return values


def _put(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    *above, last = path
    for key in above:
        values = values.setdefault(key, {})
    values[last] = value


_FOLDER = "scale-out"
#: The arguments of a `helm upgrade --install`, which may go over lines.
_INSTALL = re.compile(r"helm upgrade --install ((?:[^\n\\]|\\\n)*)")


@dataclass(frozen=True, slots=True)
class Install:
    """One release that the README installs.

    Args:
        release: Its name, which is the backend's.
        source: Where the chart is, as `helm pull` and `helm upgrade` take it.
        version: The chart's.
        namespace: Where it is installed.
    """

    release: str
    source: tuple[str, ...]
    version: str
    namespace: str

    @property
    def chart(self) -> str:
        """The chart's name."""
        return self.source[0].rsplit("/", 1)[-1]


def installs(checkout: Checkout) -> dict[str, Install]:
    """Return what the README installs, by the release's name.

    Raises:
        StackproofError: The README installs nothing.
    """
    readme = checkout.observability / _FOLDER / "README.md"
    found = {}
    for command in _INSTALL.findall(readme.read_text(encoding="utf-8")):
        release, *words = command.replace("\\\n", " ").split()
        version, namespace = words.index("--version"), words.index("-n")
        found[release] = Install(
            release, tuple(words[:version]), words[version + 1], words[namespace + 1]
        )
    if not found:
        raise StackproofError(
            "installs no release", where=checkout.show(readme), todo="helm upgrade --install …"
        )
    return found


#: How many ingesters take each write. It is acknowledged once most of them have it: of three, two;
#: so one may be lost, with its disk, and writes go on. Source: Mimir's documentation, "Configure
#: Grafana Mimir's hash rings"; Loki and Tempo share the ring.
COPIES = 3
_INGESTERS = ("ingester", "replicas")


def too_few(checkout: Checkout) -> Iterator[str]:
    """Yield whose ingesters are so few, or hold so few copies, that one alone loses data."""
    for name in installs(checkout):
        file = checkout.observability / _FOLDER / f"{name}-values.yaml"
        values = yaml.load(file.read_bytes(), Loader=yaml.CSafeLoader)
        where = checkout.show(file)
        there = value_at(values, _INGESTERS)
        if not isinstance(there, int) or there < COPIES:
            key = ".".join(_INGESTERS)
            yield f"{where}: {key} is {there}: of fewer than {COPIES}, none may fail"
        for path, value in parts(values):
            if path.endswith(".replication_factor") and not (
                isinstance(value, int) and value >= COPIES
            ):
                yield f"{where}: {path} is {value}: of fewer than {COPIES} copies, none may be lost"


def astray(checkout: Checkout) -> Iterator[str]:
    """Yield each address of a Service in the values, or in the README, where nothing listens.

    The charts call what they make RELEASE or RELEASE-COMPONENT.
    """
    releases = {name: one.namespace for name, one in installs(checkout).items()}
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
