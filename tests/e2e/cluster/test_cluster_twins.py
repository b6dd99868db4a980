"""Faults that only a cluster shows, put back one at a time: each is noticed for the stated reason.

Those of GitOps are in test_gitops.py, where Flux runs.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import urllib3
import yaml
from tests.copies import DEPLOYED, copied
from tests.e2e.cluster.objects import restart

from stackproof.backends import Client
from stackproof.errors import StackproofError
from stackproof.flux.deployment import TENANT_RELEASE
from stackproof.isolation.delivery import lines, lines_received
from stackproof.kube.client import Kube
from stackproof.kube.probes import component, dial, probe_pod, running, saying
from stackproof.otlp import senders, synthetic
from stackproof.repo.checkout import Checkout
from stackproof.repo.tenants import OBSERVABILITY_NAMESPACE, load_registry
from stackproof.stack.install import Installer
from stackproof.stack.kind import KindStack
from stackproof.twins import CLUSTER

pytestmark = pytest.mark.needs_restart

REGISTRY = load_registry(Checkout.find())
VICTIM = REGISTRY.get(REGISTRY.names[1])
REASONS = {twin.name: twin.reason for twin in CLUSTER}
SOON_S = 60.0
ROLLED_S = 180.0
SAID = 100


def _open_backend(kind: KindStack, _: Client, __: Path) -> Iterator[str]:
    kube, image = kind.kube, kind.choices["standin"].reference
    address = f"mimir.{OBSERVABILITY_NAMESPACE}.svc:9009"
    outsider = probe_pod(image, "default")
    with running(kube, outsider) as pod:
        assert dial(kube, pod, "default", "probe", [address])[address].startswith("closed")
        for name in ("default-deny", "mimir"):
            policy = kube.get(
                "networking.k8s.io/v1", "NetworkPolicy", name, OBSERVABILITY_NAMESPACE
            )
            kube.delete(policy)
        kube.until(
            lambda: dial(kube, pod, "default", "probe", [address])[address] == "open",
            within_s=SOON_S,
            what="the backend is open",
        )
        yield "mimir answers from namespace default"


def _missing_key(kind: KindStack, _: Client, __: Path) -> Iterator[str]:
    kube, name = kind.kube, "open-webui-provider-secrets"
    reason = REASONS["pod-waits-for-a-key"]
    external = kube.get("external-secrets.io/v1", "ExternalSecret", name, VICTIM.namespace)
    kept = [e for e in external["spec"]["data"] if e["secretKey"] != "openai-api-key"]
    assert len(kept) < len(external["spec"]["data"])
    kube.patch(external, {"spec": {"data": kept}})
    kube.until(
        lambda: "openai-api-key" not in kube.secret(name, VICTIM.namespace),
        within_s=SOON_S,
        what="the key is gone from the Secret",
    )
    restart(kube, kube.get("apps/v1", "Deployment", "open-webui", VICTIM.namespace))

    def told() -> str:
        return "\n".join(kube.waiting([VICTIM.namespace]))

    try:
        yield kube.until(
            lambda: said if re.search(reason, said := told()) else "",
            within_s=SOON_S,
            what="the pod says what it waits for",
            seen=told,
        )
    finally:
        # Helm compares manifests: a custom resource that was changed by hand stays changed.
        kube.patch(external, {"spec": {"data": external["spec"]["data"]}})


def _old_password(kind: KindStack, client: Client, __: Path) -> Iterator[str]:
    kube, key = kind.kube, f"{VICTIM.secret_prefix}-gateway-password"
    new = secrets.token_hex(16)
    url = f"{kind.gateway_url}/prometheus/api/v1/query?query=1"
    auth = senders.basic_auth((VICTIM.name, new))

    def taken() -> bool:
        # Where it reloads its users it drops connections that are idle.
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            answer = client.pool.request("GET", url, headers=auth, retries=False)
            return bool(answer.status == 200)
        return False

    emission = synthetic.new_emission(VICTIM.name, synthetic.new_run())

    def refused() -> str:
        with senders.GrpcSender(kind.otlp_grpc(VICTIM.name)) as exporter:
            for signal in emission.tokens:
                exporter.send(signal, synthetic.make(emission, signal))
        pod = component(kube, VICTIM.namespace, "alloy")["metadata"]["name"]
        log = kube.logs(pod, VICTIM.namespace, "alloy", lines=200)
        return next((f"{pod}: {line}" for line in log.splitlines() if "401" in line), "")

    with _frozen_password(kube):
        kind.installer.store.rotate(key, new)
        kube.until(taken, within_s=150, what="the gateway takes the new password")
        said = kube.until(refused, within_s=SOON_S, what="Alloy is refused")
        yield f"still sends the old password: {said}"
    # Its other pods would learn the new one later, and until then refuse what comes next.
    restart(kube, kube.get("apps/v1", "Deployment", "gateway", OBSERVABILITY_NAMESPACE))


@contextlib.contextmanager
def _frozen_password(kube: Kube) -> Iterator[None]:
    """Let Alloy read a copy of its Secret, which does not change: nor does a `subPath`."""
    alloy = kube.get("apps/v1", "Deployment", "open-webui-alloy", VICTIM.namespace)
    volumes = alloy["spec"]["template"]["spec"]["volumes"]
    (secret,) = (each["secret"] for each in volumes if each["name"] == "secrets")
    frozen = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "frozen", "namespace": VICTIM.namespace},
        "stringData": kube.secret(secret["secretName"], VICTIM.namespace),
    }
    secret["secretName"] = "frozen"
    kube.apply(frozen)
    try:
        kube.patch(alloy, {"spec": {"template": {"spec": {"volumes": volumes}}}})
        kube.rolled_out([VICTIM.namespace], within_s=ROLLED_S)
        yield
    finally:
        kube.delete(frozen)


def _two_owners(kind: KindStack, _: Client, tmp_path: Path) -> Iterator[str]:
    root = tmp_path / "twin"
    made = copied(kind.deployment.checkout, root, DEPLOYED)
    store = {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ClusterSecretStore",
        "metadata": {"name": "everybodys"},
        "spec": {"provider": {"fake": {"data": [{"key": "a", "value": "b"}]}}},
    }
    template = root / "charts" / "open-webui-stack" / "templates" / "store.yaml"
    template.write_text(yaml.safe_dump(store))
    deployment = replace(kind.installer.deployment, checkout=made)
    twin = Installer(kind.kube, kind.cluster.kubeconfig_path, deployment, {})
    first, second = REGISTRY.names[:2]
    twin.upgrade(TENANT_RELEASE, first)
    try:
        twin.upgrade(TENANT_RELEASE, second)
    except StackproofError as error:
        yield str(error)
    finally:
        kind.installer.upgrade(TENANT_RELEASE, first)


def _twice(kind: KindStack, client: Client, __: Path) -> Iterator[str]:
    kube = kind.kube
    alloy = kube.get("apps/v1", "Deployment", "open-webui-alloy", VICTIM.namespace)
    # On one node two of them stand for one on each of two nodes.
    kube.patch(alloy, {"spec": {"replicas": 2}})
    kube.rolled_out([VICTIM.namespace], within_s=ROLLED_S)
    text = f"once-{secrets.token_hex(8)}"
    access, before = kind.reader(VICTIM.name), lines_received(kind, client, VICTIM.name)
    image = kind.choices["standin"].reference
    with running(kube, saying(image, VICTIM.namespace, text, SAID)):
        kube.until(
            lambda: len(lines(client, access, text)) == SAID,
            within_s=SOON_S,
            what="the lines are there",
        )
        received = kube.until(
            lambda: (n := lines_received(kind, client, VICTIM.name) - before) >= 2 * SAID and n,
            within_s=SOON_S,
            what="the lines were sent twice",
            seen=lambda: str(lines_received(kind, client, VICTIM.name) - before),
        )
    yield f"{SAID} lines were sent {received:.0f} times"


#: What puts a fault in, and yields what is then noticed.
FAULTS: dict[str, Callable[[KindStack, Client, Path], Iterator[str]]] = {
    "backend-open-to-the-cluster": _open_backend,
    "pod-waits-for-a-key": _missing_key,
    "pod-keeps-the-old-password": _old_password,
    "second-tenant-does-not-install": _two_owners,
    "lines-once-for-each-node": _twice,
}


@pytest.mark.parametrize("name", FAULTS)
def test_it_is_noticed(name: str, kind: KindStack, client: Client, tmp_path: Path) -> None:
    try:
        noticed = list(FAULTS[name](kind, client, tmp_path))
    finally:
        kind.installer.helm()
        alloy = kind.kube.get("apps/v1", "Deployment", "open-webui-alloy", VICTIM.namespace)
        restart(kind.kube, alloy)
        kind.installer.synced()
        kind.kube.rolled_out(kind.installer.namespaces, within_s=ROLLED_S)
        kind.find()
    assert any(re.search(REASONS[name], text) for text in noticed), noticed
