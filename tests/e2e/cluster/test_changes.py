"""Changes of a running deployment: an upgrade, each switch off and on, a gateway that rolls."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.copies import DEPLOYED, copied
from tests.e2e.cluster.objects import restart
from tests.e2e.counted import all_there

from stackproof.backends import Client
from stackproof.flux.deployment import LGTM_RELEASE, TENANT_RELEASE
from stackproof.isolation import prove
from stackproof.isolation.delivery import sending
from stackproof.isolation.verdict import Verdict
from stackproof.kube.probes import beside, component, dial
from stackproof.repo.checkout import Checkout
from stackproof.repo.tenants import OBSERVABILITY_NAMESPACE, load_registry
from stackproof.stack.install import STORE, Installer
from stackproof.stack.kind import KindStack

pytestmark = pytest.mark.needs_restart

REGISTRY = load_registry(Checkout.find())
TENANTS = REGISTRY.names
ONE = REGISTRY.get(TENANTS[1])
SOON_S = 60.0
ROLLED_S = 180.0


def test_the_gateway_rolls_without_losing_telemetry(kind: KindStack, client: Client) -> None:
    kube = kind.kube
    gateway = kube.get("apps/v1", "Deployment", "gateway", OBSERVABILITY_NAMESPACE)
    with sending(kind, client, TENANTS) as sources:
        time.sleep(1)
        restart(kube, gateway)
        kube.rolled_out([OBSERVABILITY_NAMESPACE], within_s=ROLLED_S)
        time.sleep(1)
    all_there(kind, client, sources, within_s=SOON_S)
    # The old pods stopped reading and nobody was refused.
    assert {tenant: dict(source.refused) for tenant, source in sources.items()} == {
        tenant: {} for tenant in TENANTS
    }


# --- upgrade ---


@pytest.fixture
def newer(kind: KindStack, tmp_path: Path) -> Installer:
    """The next version of both charts, with a changed setting in each backend and each Alloy."""
    root = tmp_path / "newer"
    made = copied(kind.deployment.checkout, root, DEPLOYED)
    for chart in ("lgtm", "open-webui-stack"):
        file = root / "charts" / chart / "Chart.yaml"
        text = file.read_text()
        (line,) = [each for each in text.splitlines() if each.startswith("version:")]
        file.write_text(text.replace(line, "version: 9.0.0"))
    changed: dict[str, Any] = {"defaults": {"retention": "743h"}}
    deployment = replace(kind.deployment, checkout=made).with_values(lgtm=[changed])
    return Installer(kind.kube, kind.cluster.kubeconfig_path, deployment, kind.choices)


def test_an_upgrade_keeps_the_data_and_the_volumes(
    newer: Installer, kind: KindStack, client: Client
) -> None:
    kube = kind.kube
    claims = _claims(kind)
    with sending(kind, client, TENANTS) as sources:
        time.sleep(2)
    all_there(kind, client, sources, within_s=SOON_S)
    config = _checksum(kind, "mimir")
    try:
        newer.helm()
        kube.rolled_out(newer.namespaces, within_s=ROLLED_S)
        assert _checksum(kind, "mimir") != config, "the control: Mimir was given something new"
        assert _claims(kind) == claims
        kind.find()
        all_there(kind, client, sources, within_s=SOON_S)
    finally:
        kind.installer.helm()
        kube.rolled_out(newer.namespaces, within_s=ROLLED_S)
        kind.find()
    all_there(kind, client, sources, within_s=SOON_S)


def _claims(kind: KindStack) -> dict[str, str]:
    """Return the volume of each claim that has one: the dumps' waits for the first dump."""
    found = kind.kube.listed("v1", "PersistentVolumeClaim")
    return {
        f"{c['metadata']['namespace']}/{c['metadata']['name']}": c["spec"]["volumeName"]
        for c in found
        if "volumeName" in c["spec"]
    }


def _checksum(kind: KindStack, name: str) -> str:
    workload = kind.kube.get("apps/v1", "StatefulSet", name, OBSERVABILITY_NAMESPACE)
    return str(workload["spec"]["template"]["metadata"]["annotations"]["checksum/config"])


# --- every switch, off and on again ---


@pytest.fixture
def switched(kind: KindStack) -> Iterator[Callable[..., None]]:
    """Upgrade one release with further values; afterwards it is as it was."""
    touched: set[tuple[str, str | None]] = set()

    def upgrade(release: str, tenant: str | None, **values: Any) -> None:
        touched.add((release, tenant))
        own = kind.installer.deployment
        deployment = own.with_values(**{"lgtm" if tenant is None else "tenant": [values]})
        changed = Installer(kind.kube, kind.cluster.kubeconfig_path, deployment, {})
        changed.upgrade(release, tenant)
        kind.kube.rolled_out(kind.installer.namespaces, within_s=ROLLED_S)

    yield upgrade
    for release, tenant in touched:
        kind.installer.upgrade(release, tenant)
    kind.installer.synced()
    kind.kube.rolled_out(kind.installer.namespaces, within_s=ROLLED_S)
    kind.find()


def _isolated(kind: KindStack) -> None:
    kind.close()
    kind.find()
    found = prove(kind)
    assert found.verdict is Verdict.ISOLATED, "\n".join(map(str, found.violations))


def test_telemetry_off_and_on(switched: Callable[..., None], kind: KindStack) -> None:
    application = component(kind.kube, ONE.namespace, "open-webui")["metadata"]["name"]
    otel = {"openWebui": {"config": {"telemetry": {"otel": {"enabled": False}}}}}
    switched(TENANT_RELEASE, ONE.name, **otel)
    assert kind.kube.pods(ONE.namespace, "app.kubernetes.io/component=alloy") == []
    assert component(kind.kube, ONE.namespace, "open-webui")["metadata"]["name"] != application
    kind.installer.upgrade(TENANT_RELEASE, ONE.name)
    kind.installer.synced()
    kind.kube.rolled_out(kind.installer.namespaces, within_s=ROLLED_S)
    _isolated(kind)


def test_grafana_off_and_on_keeps_its_volume(
    switched: Callable[..., None], kind: KindStack
) -> None:
    before = _claims(kind)
    switched(LGTM_RELEASE, None, grafana={"enabled": False})
    assert kind.kube.pods(OBSERVABILITY_NAMESPACE, "app.kubernetes.io/component=grafana") == []
    assert _claims(kind) == before
    kind.installer.upgrade(LGTM_RELEASE)
    kind.installer.synced()
    kind.kube.rolled_out([OBSERVABILITY_NAMESPACE], within_s=ROLLED_S)
    assert kind.kube.pods(OBSERVABILITY_NAMESPACE, "app.kubernetes.io/component=grafana")
    assert _claims(kind) == before


def test_network_policies_off_and_on(switched: Callable[..., None], kind: KindStack) -> None:
    kube, image = kind.kube, kind.choices["standin"].reference
    postgres = f"open-webui-postgres.{ONE.namespace}.svc:5432"

    def becomes(said: str) -> None:
        # A pod that may not reach it while there are policies.
        place = beside(kube, component(kube, ONE.namespace, "searxng"), image)
        kube.until(
            lambda: dial(kube, *place, [postgres])[postgres].startswith(said),
            within_s=SOON_S,
            what=f"{postgres} is {said}",
        )

    becomes("closed")
    switched(TENANT_RELEASE, ONE.name, networkPolicy={"enabled": False})
    becomes("open")
    kind.installer.upgrade(TENANT_RELEASE, ONE.name)
    becomes("closed")


def test_external_secrets_off_and_on(switched: Callable[..., None], kind: KindStack) -> None:
    """As flux/README.md says: what the operator made is copied first, under another name."""
    kube = kind.kube
    groups = ("", "-provider", "-searxng", "-alloy")
    data: dict[str, str] = {}
    for group in groups:
        data |= kube.secret(f"open-webui{group}-secrets", ONE.namespace)
    metadata = {"name": "copied", "namespace": ONE.namespace}
    copied = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}
    kube.apply(copied)
    try:
        off = {"externalSecrets": {"enabled": False}, "secrets": {"existingSecret": "copied"}}
        switched(TENANT_RELEASE, ONE.name, **off)
        assert kube.listed("external-secrets.io/v1", "ExternalSecret", ONE.namespace) == []
        kind.find()
        kind.installer.upgrade(TENANT_RELEASE, ONE.name)
        kind.installer.synced()
        kube.rolled_out(kind.installer.namespaces, within_s=ROLLED_S)
    finally:
        kube.delete(copied)
    _isolated(kind)


def test_the_gateway_off_and_on(switched: Callable[..., None], kind: KindStack) -> None:
    """Without it each Alloy names its tenant itself, and the backends believe it."""
    off = {"enabled": False}
    switched(LGTM_RELEASE, None, gateway=off)
    for tenant in TENANTS:
        switched(TENANT_RELEASE, tenant, alloy={"gateway": off})
    kind.close()
    kind.find()
    assert kind.gateway_url is None
    _isolated(kind)
    kind.installer.helm()
    kind.installer.synced()
    kind.kube.rolled_out(kind.installer.namespaces, within_s=ROLLED_S)
    _isolated(kind)


def test_helm_takes_away_what_flux_has_deployed(
    switched: Callable[..., None], kind: KindStack
) -> None:
    """The one leaves nothing behind that the other has to live with, and brings nothing old."""
    store, key = kind.installer.store, f"{ONE.secret_prefix}-openai-api-key"
    assert kind.gitops.repository.path.is_dir(), "written before the rotation"
    store.rotate(key, secrets.token_hex(16))
    with kind.by_flux() as flux:
        flux.ready()
        found = kind.kube.get("external-secrets.io/v1", "ClusterSecretStore", STORE)
        data = found["spec"]["provider"]["fake"]["data"]
        assert {each["key"]: each["value"] for each in data} == store.known
    off = {"enabled": False}
    # Its Alloy waits for ever for a Secret that is no longer made, if it still mounts it.
    switched(TENANT_RELEASE, ONE.name, alloy={"gateway": off})
