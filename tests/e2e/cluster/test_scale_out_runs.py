"""The distributed backends behind the same gateway: the same proof, the same attacks, and a loss.

They are installed by their official charts, three ingesters each, with a store of objects in the
cluster. The charts come as in tests/e2e/local/test_scale_out.py.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from tests.e2e.cluster.objects import namespace
from tests.e2e.cluster.scaled_out import ScaledOut, scaled_out
from tests.e2e.counted import all_there

from stackproof.attacks import ATTACKS, Attack, AttackedStack
from stackproof.attacks.base import run
from stackproof.backends import Client
from stackproof.isolation import prove
from stackproof.isolation.delivery import sending
from stackproof.isolation.verdict import Verdict
from stackproof.kube.client import Kube, Object
from stackproof.kube.probes import beside, component, dial, probe_pod, running
from stackproof.model import STACK_TENANT, Backend, EntryPoint, Signal
from stackproof.repo.checkout import Checkout
from stackproof.repo.tenants import OBSERVABILITY_NAMESPACE, load_registry
from stackproof.stack.cluster import ClusterStack
from stackproof.stack.kind import KindStack

pytestmark = [pytest.mark.needs_restart, pytest.mark.timeout(3600)]

REGISTRY = load_registry(Checkout.find())
TENANTS = REGISTRY.names
SPACE = REGISTRY.get(TENANTS[0]).namespace
#: The rings notice within a minute that somebody is gone or there again.
PATIENCE_S = 300.0
_IDLE_S = 30.0
_COMPONENT = "app.kubernetes.io/component"
#: The ingesters that are killed, and the port and path by which one is told to write to the store.
INGESTERS: Mapping[Backend, tuple[str, int, str]] = {
    Backend.MIMIR: ("mimir-ingester-0", 8080, "/ingester/flush"),
    Backend.LOKI: ("loki-ingester-1", 3100, "/flush"),
    Backend.TEMPO: ("tempo-ingester-2", 3200, "/flush"),
}
#: Of these the port that is forwarded to the gateway gives way first: it hands on no answer that
#: comes before the whole body, and has a stream of the API server for each connection.
NOT_FORWARDED = {"thousand-tails", "oversize-body"}
#: Where the gateway is let in.
ENTRIES = {
    "mimir-gateway.backends.svc:80",
    "loki-gateway.backends.svc:80",
    "tempo-query-frontend.backends.svc:3200",
    "tempo-distributor.backends.svc:4318",
}


@pytest.fixture(scope="module")
def scaled(kind: KindStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScaledOut]:
    single = f"{_COMPONENT} in (mimir,loki,tempo)"
    _isolated(kind, "single processes", OBSERVABILITY_NAMESPACE, single)
    with scaled_out(kind, tmp_path_factory.mktemp("scale-out")) as there:
        yield there


def _isolated(stack: ClusterStack, name: str, namespace: str, labels: str = "") -> None:
    """Prove the isolation, and print what it took (docs/scale.md)."""
    before = _used(stack.kube, namespace, labels)
    found = prove(stack, deadline_s=PATIENCE_S)
    after = _used(stack.kube, namespace, labels)
    print(
        f"\n{name}: {found.verdict} after {found.duration_s:.1f} s, {after.pods} pods, "
        f"{after.memory_gb:.2f} GB, {after.processor_s - before.processor_s:.1f} s of processor"
    )
    time.sleep(_IDLE_S)
    idle = _used(stack.kube, namespace, labels).processor_s - after.processor_s
    print(f"{name}, idle: {idle / _IDLE_S:.2f} processors")
    assert found.verdict is Verdict.ISOLATED, "\n".join(map(str, found.violations))


@dataclass(frozen=True)
class Used:
    """What pods have used since they are there, and hold now."""

    pods: int
    processor_s: float
    memory_gb: float


def _used(kube: Kube, namespace: str, labels: str) -> Used:
    """Ask the kubelets."""
    names = {str(pod["metadata"]["name"]) for pod in kube.pods(namespace, labels)}
    found = [
        pod
        for node in kube.listed("v1", "Node")
        for pod in kube.request(
            "GET", f"/api/v1/nodes/{node['metadata']['name']}/proxy/stats/summary"
        )["pods"]
        if pod["podRef"]["namespace"] == namespace and pod["podRef"]["name"] in names
    ]
    return Used(
        len(found),
        sum(pod.get("cpu", {}).get("usageCoreNanoSeconds", 0) for pod in found) / 1e9,
        sum(pod.get("memory", {}).get("workingSetBytes", 0) for pod in found) / 1e9,
    )


# --- isolation ---


def test_it_is_isolated(scaled: ScaledOut) -> None:
    _isolated(scaled, "distributed", scaled.space)


def test_everybody_is_in_the_store_and_nobody_else(scaled: ScaledOut, client: Client) -> None:
    """What is flushed lies in each bucket under its tenant's name."""
    with sending(scaled, client, TENANTS, entry_point=EntryPoint.GATEWAY) as sources:
        time.sleep(5)
    all_there(scaled, client, sources, within_s=PATIENCE_S)
    for backend, (name, port, path) in INGESTERS.items():
        for pod in _ingesters(scaled, name):
            proxied = f"/api/v1/namespaces/{scaled.space}/pods/{pod}:{port}/proxy{path}"
            scaled.kube.text("POST", proxied)
        own = set() if backend is Backend.TEMPO else {STACK_TENANT}
        known = {*TENANTS, *own, "index", "loki_cluster_seed.json", "tempo_cluster_seed.json"}
        found = _stored(scaled, client, backend)
        print(backend, found)
        assert set(found) <= known


def _stored(scaled: ScaledOut, client: Client, backend: Backend) -> dict[str, int]:
    """Wait until a backend has stored something of each tenant; return how much."""
    found: dict[str, int] = {}

    def all_stored() -> bool:
        found.clear()
        found.update(scaled.stored(client, backend.value))
        return set(TENANTS) <= set(found)

    scaled.kube.until(
        all_stored,
        within_s=PATIENCE_S,
        what=f"{backend} has stored what each tenant sent",
        seen=lambda: str(found),
    )
    return found


@pytest.fixture(scope="module")
def places(
    kind: KindStack,
    scaled: ScaledOut,  # noqa: ARG001  # its policies
) -> Iterator[dict[str, tuple[str, str, str]]]:
    """From where it is tried: pod, namespace and container."""
    kube, image = kind.kube, kind.choices["standin"].reference
    pods = {
        "application": (SPACE, "open-webui"),
        "alloy": (SPACE, "alloy"),
        "grafana": (OBSERVABILITY_NAMESPACE, "grafana"),
        "monitor": (OBSERVABILITY_NAMESPACE, "monitor"),
        "gateway": (OBSERVABILITY_NAMESPACE, "gateway"),
    }
    found = {name: beside(kube, component(kube, *where), image) for name, where in pods.items()}
    # A pod may call itself the gateway: the namespace counts too.
    labels = {"app.kubernetes.io/name": "lgtm", "app.kubernetes.io/component": "gateway"}
    with (
        namespace(kube, f"elsewhere-{secrets.token_hex(3)}") as elsewhere,
        running(kube, probe_pod(image, elsewhere, labels=labels)) as stranger,
    ):
        found["stranger"] = (stranger, elsewhere, "probe")
        yield found


def test_only_the_gateway_reaches_them(
    places: dict[str, tuple[str, str, str]], scaled: ScaledOut
) -> None:
    services = scaled.kube.listed("v1", "Service", scaled.space)
    every = {
        f"{each['metadata']['name']}.{scaled.space}.svc:{port['port']}"
        for each in services
        for port in each["spec"]["ports"]
    }
    assert every > ENTRIES
    gateway = dial(scaled.kube, *places["gateway"], sorted(ENTRIES))
    assert set(gateway.values()) == {"open"}, gateway
    for name, place in places.items():
        wanted = ENTRIES if name == "gateway" else set()
        said = dial(scaled.kube, *place, sorted(every))
        reached = {_entry(address) for address, text in said.items() if text == "open"}
        assert reached == wanted, name


def _entry(address: str) -> str:
    """Return the Service that leads to the same port of the same pods, of those that do."""
    also = {"mimir-gateway.backends.svc:8080": "mimir-gateway.backends.svc:80"}
    return also.get(address, address.replace("-discovery.", "."))


# --- loss ---


def test_an_ingester_of_each_dies_with_its_disk_and_nothing_is_lost(
    scaled: ScaledOut, client: Client
) -> None:
    """Through the tenants' Alloys, and past them: what is acknowledged is in two ingesters.

    A deleted pod is told to end before it is killed, and Loki writes out what it has then: with one
    copy of each line nothing was lost either. That there are three copies is a check of the values
    (`what-is-scaled-out-survives-an-ingester`).
    """
    kube = scaled.kube
    pods = [kube.get("v1", "Pod", name, scaled.space) for name, _, _ in INGESTERS.values()]
    with ExitStack() as all_sending:
        sources = [
            all_sending.enter_context(
                sending(scaled, client, TENANTS, entry_point=entry_point, pause_s=0.5)
            )
            for entry_point in (EntryPoint.ALLOY_GRPC, EntryPoint.GATEWAY)
        ]
        time.sleep(5)
        for pod in pods:
            kube.delete(_claim(kube, pod))
            kube.delete(pod, grace_s=0)
        kube.until(
            lambda: all(_is_another(kube, pod) for pod in pods),
            within_s=PATIENCE_S,
            what="each that was killed is there again",
        )
        kube.rolled_out([scaled.space], within_s=PATIENCE_S * 3)
        time.sleep(5)
    for each in sources:
        all_there(scaled, client, each, within_s=PATIENCE_S)
        sent = {tenant: len(one.taken[Signal.LOGS]) for tenant, one in each.items()}
        print("acknowledged:", sent, "refused:", {t: dict(s.refused) for t, s in each.items()})


def _claim(kube: Kube, pod: Object) -> Object:
    """Return the claim of a pod's disk: a claim that is deleted goes with the pod."""
    (name,) = (
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    )
    return kube.get("v1", "PersistentVolumeClaim", name, pod["metadata"]["namespace"])


def _is_another(kube: Kube, pod: Object) -> bool:
    metadata = pod["metadata"]
    found = kube.find("v1", "Pod", metadata["name"], metadata["namespace"])
    return found is not None and found["metadata"]["uid"] != metadata["uid"]


def _ingesters(scaled: ScaledOut, one: str) -> list[str]:
    of = one.rpartition("-")[0]
    names = [str(pod["metadata"]["name"]) for pod in scaled.kube.pods(scaled.space)]
    return [name for name in names if name.rpartition("-")[0] == of]


# --- attacks ---


@pytest.fixture(scope="module")
def attacked(scaled: ScaledOut, client: Client) -> AttackedStack:
    return AttackedStack(scaled, client)


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(each, id=each.name)
        for each in ATTACKS
        if each.entry_point is not EntryPoint.BACKEND
        # Who hands on the metrics of thirty processes hands on those of none.
        and not each.measures
        and each.name not in NOT_FORWARDED
    ],
)
def test_attack(attack: Attack, attacked: AttackedStack) -> None:
    outcome = run(attack.against(attacked.stack.versions), attacked)
    assert outcome.ok, f"{attack.does}: must be {attack.expect}; {outcome.record()}"
