"""Who reaches whom in a cluster, tried from inside each pod's own network.

"Closed" is a claim of absence: each address that must be closed to one is open to another, by the
same means and in the same time.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import pytest
from tests.e2e.cluster.objects import namespace

from stackproof.flux.deployment import Deployment
from stackproof.kube.client import Kube
from stackproof.kube.probes import beside, component, dial, probe_pod, running
from stackproof.repo.checkout import Checkout
from stackproof.repo.tenants import OBSERVABILITY_NAMESPACE, load_registry
from stackproof.stack.kind import KindStack

REGISTRY = load_registry(Checkout.find())
ME, OTHER = REGISTRY.names[0], REGISTRY.names[1]
SPACES = {name: REGISTRY.get(name).namespace for name in (ME, OTHER)}
SETTLED_S = 60.0


DEPLOYMENT = Deployment.load(Checkout.find())


def _of_tenant(tenant: str, component: str, port: int) -> str:
    service = DEPLOYMENT.tenant(tenant).of_component("Service", component)
    return f"{service.name}.{SPACES[tenant]}.svc:{port}"


def _alloy(tenant: str, port: int) -> str:
    return _of_tenant(tenant, "alloy", port)


def _lgtm(service: str, port: int) -> str:
    return f"{service}.{OBSERVABILITY_NAMESPACE}.svc:{port}"


MIMIR, LOKI, TEMPO = _lgtm("mimir", 9009), _lgtm("loki", 3100), _lgtm("tempo", 3200)
TEMPO_OTLP, GATEWAY, GRAFANA = _lgtm("tempo", 4318), _lgtm("gateway", 8080), _lgtm("grafana", 80)
BACKENDS = {MIMIR, LOKI, TEMPO, TEMPO_OTLP}
POSTGRES = {name: _of_tenant(name, "postgres", 5432) for name in SPACES}
ALLOYS = {name: {_alloy(name, port) for port in (4317, 4318, 12345)} for name in SPACES}
APPLICATIONS = {_of_tenant(name, "open-webui", 8080) for name in SPACES}
#: Where cert-manager's pod answers the issuer, and the label that it has.
#: https://cert-manager.io/docs/configuration/acme/http01/
SOLVER = f"http01-solver.{SPACES[ME]}.svc:8089"
SOLVER_LABELS = {"acme.cert-manager.io/http01-solver": "true"}
TARGETS = sorted(
    {
        *BACKENDS,
        GATEWAY,
        GRAFANA,
        *POSTGRES.values(),
        *ALLOYS[ME],
        *ALLOYS[OTHER],
        *APPLICATIONS,
        SOLVER,
    }
)
#: The namespace of production's ingress controller.
ENTRANCE = "ingress-nginx"

#: What is open from where; everything else of TARGETS is closed.
OPEN: Mapping[str, set[str]] = {
    "application": {_alloy(ME, 4317), POSTGRES[ME]},
    "alloy": {GATEWAY},
    "stranger in the tenant's namespace": set(),
    "gateway": BACKENDS,
    "mimir": set(),
    "loki": set(),
    "tempo": {MIMIR},
    "grafana": {GATEWAY},
    "monitor": {GATEWAY, MIMIR, LOKI, TEMPO},
    "ingress controller": {*APPLICATIONS, SOLVER, GRAFANA},
    "another namespace": set(),
}
_PODS = {"application": "open-webui", "alloy": "alloy"}


@pytest.fixture(scope="module")
def places(kind: KindStack) -> Iterator[dict[str, tuple[str, str, str]]]:
    """From where it is tried: pod, namespace and container."""
    kube, image = kind.kube, kind.choices["standin"].reference
    backends = ("gateway", "mimir", "loki", "tempo", "grafana", "monitor")
    found = {
        **{n: beside(kube, component(kube, SPACES[ME], c), image) for n, c in _PODS.items()},
        **{n: beside(kube, component(kube, OBSERVABILITY_NAMESPACE, n), image) for n in backends},
    }
    with ExitStack() as made:
        elsewhere = f"elsewhere-{secrets.token_hex(3)}"
        strangers = {
            "stranger in the tenant's namespace": SPACES[ME],
            "ingress controller": made.enter_context(namespace(kube, ENTRANCE)),
            "another namespace": made.enter_context(namespace(kube, elsewhere)),
        }
        for name, space in strangers.items():
            pod = made.enter_context(running(kube, probe_pod(image, space)))
            found[name] = (pod, space, "probe")
        solver = probe_pod(image, SPACES[ME], labels=SOLVER_LABELS, verb="serve")
        made.enter_context(running(kube, solver))
        made.enter_context(_service(kube, SOLVER, SOLVER_LABELS))
        yield found


@contextmanager
def _service(kube: Kube, address: str, selector: Mapping[str, str]) -> Iterator[None]:
    """Give the pods with these labels an address."""
    host, _, port = address.partition(":")
    name, space, _ = host.split(".")
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": space},
        "spec": {"selector": dict(selector), "ports": [{"port": int(port)}]},
    }
    kube.apply(service)
    try:
        yield
    finally:
        kube.delete(service)


def _picture(rows: Mapping[str, Mapping[str, str]]) -> str:
    """Return the matrix: a row for each place, a column for each address, ● is open."""
    width = max(map(len, rows))
    lines = [f"{number:>2} {address}" for number, address in enumerate(TARGETS, 1)]
    head = " ".join(f"{number:>2}" for number in range(1, len(TARGETS) + 1))
    lines.append(f"{'':{width}} {head}")
    for place, said in rows.items():
        marks = " ".join(f"{'●' if said[a] == 'open' else '·':>2}" for a in TARGETS)
        lines.append(f"{place:{width}} {marks}")
    return "\n".join(lines)


@pytest.fixture(scope="module")
def matrix(kind: KindStack, places: dict[str, tuple[str, str, str]]) -> dict[str, dict[str, str]]:
    """What each place reaches, once it is what it should be or a minute has passed."""
    rows: dict[str, dict[str, str]] = {}

    def settled() -> bool:
        for name, place in places.items():
            if name not in rows or _open(rows[name]) != OPEN[name]:
                rows[name] = dial(kind.kube, *place, TARGETS)
        return all(_open(rows[name]) == OPEN[name] for name in places)

    try:
        kind.kube.until(settled, within_s=SETTLED_S, what="the network policies are in force")
    except Exception as error:  # noqa: BLE001  # each test says what of it is wrong
        print(error)
    print("\n" + _picture(rows))
    return rows


def _open(said: Mapping[str, str]) -> set[str]:
    return {address for address, text in said.items() if text == "open"}


@pytest.mark.parametrize("place", OPEN)
def test_it_reaches_what_it_needs_and_nothing_else(
    place: str, matrix: dict[str, dict[str, str]]
) -> None:
    said = matrix[place]
    assert _open(said) == OPEN[place], "\n".join(f"{a}: {text}" for a, text in said.items())
    assert not [text for text in said.values() if text.startswith("unknown")], said


def test_whatever_is_closed_is_open_to_somebody(matrix: dict[str, dict[str, str]]) -> None:
    """But Alloy's page, which nobody may open; the kubelet's probe of it is answered."""
    reached = set().union(*map(_open, matrix.values()))
    assert {GATEWAY, *BACKENDS, POSTGRES[ME], _alloy(ME, 4317)} <= reached
