"""Flux applies the repository's own tree: a commit, a broken one, what somebody changed by hand.

It takes over the releases that Helm installed, as it does where somebody turns to GitOps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from stackproof.backends import Client
from stackproof.flux import tenant as folders
from stackproof.flux.objects import FLUX_NAMESPACE
from stackproof.helm import chartversion
from stackproof.isolation import prove
from stackproof.isolation.verdict import Verdict
from stackproof.kube.diagnostics import condition
from stackproof.otlp import senders
from stackproof.repo.checkout import Checkout
from stackproof.repo.tenants import OBSERVABILITY_NAMESPACE, load_registry
from stackproof.stack.gitops import CLUSTER as TEST_CLUSTER
from stackproof.stack.gitops import HELM, KUSTOMIZE, Flux
from stackproof.stack.install import CONTROLLERS
from stackproof.stack.kind import KindStack
from stackproof.toolchain import programs
from stackproof.twins import CLUSTER

pytestmark = pytest.mark.needs_restart

REGISTRY = load_registry(Checkout.find())
TENANTS = REGISTRY.names
ONE = REGISTRY.get(TENANTS[0])
LAST = REGISTRY.get(TENANTS[-1])
EXTERNAL = "external-secrets.io/v1"
LOKI_VALUES = "observability/loki-values.yaml"
SOON_S = 120.0


@pytest.fixture(scope="module")
def flux(kind: KindStack) -> Iterator[Flux]:
    """Flux, with the whole tree applied."""
    missing = set(CONTROLLERS) - set(programs.names(kind.deployment.checkout))
    if missing:
        pytest.skip(f"not pinned in tools/, so not to be had: {', '.join(sorted(missing))}")
    with kind.by_flux() as flux:
        yield flux


def _loki(kind: KindStack) -> str:
    config = kind.kube.get("v1", "ConfigMap", "loki", OBSERVABILITY_NAMESPACE)
    return str(config["data"]["loki.yaml"])


def test_every_step_and_every_release_is_ready(flux: Flux, kind: KindStack) -> None:
    steps = {each["metadata"]["name"] for each in kind.kube.listed(KUSTOMIZE, "Kustomization")}
    assert steps == {
        "flux-system",
        "infrastructure",
        "secret-store",
        "observability",
        "tenants",
        *(f"tenant-{name}" for name in TENANTS),
    }
    releases = {
        (each["metadata"]["namespace"], each["metadata"]["name"])
        for each in kind.kube.listed(HELM, "HelmRelease")
    }
    assert releases == {
        (OBSERVABILITY_NAMESPACE, "lgtm"),
        *((tenant.namespace, "open-webui") for tenant in REGISTRY),
    }
    assert list(flux.waiting()) == []
    kind.kube.rolled_out(kind.installer.namespaces, within_s=SOON_S)


def test_what_flux_installed_is_isolated(flux: Flux, kind: KindStack) -> None:
    flux.ready()
    kind.close()
    kind.find()
    # A Tempo with one processor, and all that the tests before have left in it, takes its time.
    found = prove(kind, deadline_s=SOON_S)
    assert found.verdict is Verdict.ISOLATED, "\n".join(map(str, found.violations))


def _pods(kind: KindStack, component: str) -> set[str]:
    found = kind.kube.pods(OBSERVABILITY_NAMESPACE, f"app.kubernetes.io/component={component}")
    return {pod["metadata"]["uid"] for pod in found}


def test_a_commit_is_deployed(flux: Flux, kind: KindStack) -> None:
    assert "max_query_series: 500" in _loki(kind)
    before = {name: _pods(kind, name) for name in ("loki", "mimir", "tempo", "gateway")}
    flux.repository.edit(LOKI_VALUES, "maxQuerySeries: 500", "maxQuerySeries: 501")
    flux.fetched(flux.push("Loki may return one series more"))
    kind.kube.until(
        lambda: "max_query_series: 501" in _loki(kind), within_s=SOON_S, what="it is deployed"
    )
    flux.ready()
    kind.kube.rolled_out([OBSERVABILITY_NAMESPACE], within_s=SOON_S)
    # It replaces what it changes, and nothing else.
    assert [name for name in before if _pods(kind, name) != before[name]] == ["loki"]


def _revisions(kind: KindStack) -> dict[str, object]:
    """The newest revision of Helm's of each release, by namespace and name."""
    return {
        f"{each['metadata']['namespace']}/{each['metadata']['name']}": each["status"]["history"][0][
            "version"
        ]
        for each in kind.kube.listed(HELM, "HelmRelease")
    }


def test_a_commit_of_documentation_upgrades_nobody(flux: Flux, kind: KindStack) -> None:
    """Its control is `test_a_commit_is_deployed`: a commit of values is."""
    flux.ready()
    before = _revisions(kind)
    readme = flux.repository.path / "charts/open-webui-stack/README.md"
    readme.write_text(readme.read_text() + "\nOne line more.\n")
    flux.applied(flux.push("Documentation"))
    assert _revisions(kind) == before


def test_a_broken_commit_is_refused_and_the_old_release_goes_on(
    flux: Flux, kind: KindStack
) -> None:
    kube = kind.kube
    kube.rolled_out([OBSERVABILITY_NAMESPACE], within_s=SOON_S)
    pods = {p["metadata"]["uid"] for p in kube.pods(OBSERVABILITY_NAMESPACE)}
    flux.repository.edit(LOKI_VALUES, "maxQuerySeries: 501", "maxQuerySeries: many")
    flux.fetched(flux.push("A value that the chart's schema refuses"))

    def said() -> str:
        return condition(kube.get(HELM, "HelmRelease", "lgtm", OBSERVABILITY_NAMESPACE))

    try:
        kube.until(
            lambda: said().startswith("False") and "maxQuerySeries" in said(),
            within_s=SOON_S,
            what="the release is refused, for the stated reason",
            seen=said,
        )
        assert "max_query_series: 501" in _loki(kind)
        assert {p["metadata"]["uid"] for p in kube.pods(OBSERVABILITY_NAMESPACE)} == pods
        assert kube.waiting([OBSERVABILITY_NAMESPACE]) == []
    finally:
        flux.repository.edit(LOKI_VALUES, "maxQuerySeries: many", "maxQuerySeries: 500")
        flux.applied(flux.push("As it was"))
    assert "max_query_series: 500" in _loki(kind)


def test_one_tenants_bad_password_undoes_no_upgrade(flux: Flux, kind: KindStack) -> None:
    """Its ExternalSecret is never ready, and Helm waits for all that a release holds."""
    kube, store = kind.kube, kind.installer.store
    flux.ready()
    key = f"{ONE.secret_prefix}-gateway-password"
    name, old, too_long = f"gateway-user-{ONE.name}", store[key], "x" * 73
    steps = f"flux/clusters/{TEST_CLUSTER}/infrastructure.yaml"
    release = "flux/observability/helmrelease.yaml"
    patient, soon = "timeout: 10m", "timeout: 1m"

    def said() -> str:
        return condition(kube.get(EXTERNAL, "ExternalSecret", name, OBSERVABILITY_NAMESPACE))

    flux.repository.edit(steps, old, too_long)
    flux.applied(flux.push("The store of the test cluster has a password that cannot be hashed"))
    store.rotate(key, too_long)
    try:
        kube.until(lambda: said().startswith("False"), within_s=SOON_S, what="it is bad", seen=said)
        flux.repository.edit(LOKI_VALUES, "maxQuerySeries: 500", "maxQuerySeries: 502")
        flux.repository.edit(release, patient, soon)
        flux.applied(flux.push("Loki may return two series more"))
        lgtm = kube.get(HELM, "HelmRelease", "lgtm", OBSERVABILITY_NAMESPACE)
        assert lgtm["status"]["history"][0]["status"] == "deployed"
        assert "max_query_series: 502" in _loki(kind)
        assert said().startswith("False"), "it was bad all the while"
    finally:
        flux.repository.edit(steps, too_long, old)
        flux.repository.edit(LOKI_VALUES, "maxQuerySeries: 502", "maxQuerySeries: 500")
        flux.repository.edit(release, soon, patient)
        flux.applied(flux.push("As it was"))
        store.rotate(key, old)


def test_a_tenant_that_is_removed_is_gone_but_for_its_data(
    flux: Flux, kind: KindStack, client: Client
) -> None:
    """As flux/README.md says, table by table; and it comes back to its data."""
    kube, space = kind.kube, LAST.namespace
    flux.ready()
    password = kind.installer.store[f"{LAST.secret_prefix}-gateway-password"]

    def claims() -> set[str]:
        found = kube.listed("v1", "PersistentVolumeClaim", space)
        return {each["metadata"]["uid"] for each in found}

    def status() -> int:
        url = f"{kind.gateway_url}/prometheus/api/v1/query?query=1"
        auth = senders.basic_auth((LAST.name, password))
        return int(client.pool.request("GET", url, headers=auth).status)

    def left() -> list[str]:
        kinds = [
            (HELM, "HelmRelease"),
            (EXTERNAL, "ExternalSecret"),
            ("networking.k8s.io/v1", "Ingress"),
            ("apps/v1", "StatefulSet"),
            ("apps/v1", "Deployment"),
            ("v1", "Service"),
            ("v1", "Pod"),
        ]
        return [
            f"{kind_name}/{each['metadata']['name']}"
            for version, kind_name in kinds
            for each in kube.listed(version, kind_name, space)
        ]

    data = claims()
    assert data, "it has data"
    assert left(), "it runs"
    assert status() == 200
    pushed = Checkout(flux.repository.path)
    load_registry(pushed).remove(LAST.name)
    folders.remove(pushed, LAST.name)
    try:
        flux.applied(flux.push(f"{LAST.name} is a tenant no more"))
        kube.until(
            lambda: not left(),
            within_s=SOON_S,
            what="nothing of it runs",
            seen=lambda: "\n".join(left()),
        )
        kube.until(lambda: status() == 401, within_s=SOON_S, what="its password opens nothing")
        assert claims() == data
    finally:
        flux.follow(kind.installer, f"{LAST.name} is back")
    kube.rolled_out([space, OBSERVABILITY_NAMESPACE], within_s=SOON_S * 2)
    assert claims() == data
    kube.until(lambda: status() == 200, within_s=SOON_S, what="its password is in force again")


def test_what_somebody_changed_by_hand_is_put_back(flux: Flux, kind: KindStack) -> None:
    kube = kind.kube
    gateway = kube.get("apps/v1", "Deployment", "gateway", OBSERVABILITY_NAMESPACE)
    policy = kube.get(
        "networking.k8s.io/v1", "NetworkPolicy", "default-deny", OBSERVABILITY_NAMESPACE
    )
    space = kube.get("v1", "Namespace", ONE.namespace)
    external = kube.listed("external-secrets.io/v1", "ExternalSecret", ONE.namespace)[0]
    kube.patch(gateway, {"spec": {"replicas": 1}})
    kube.delete(policy)
    kube.patch(external, {"spec": {"refreshInterval": "9h"}})
    # Last: with another label no ExternalSecret of this namespace may be changed any more.
    kube.patch(space, {"metadata": {"labels": {"secret-prefix": "somebody-else"}}})
    flux.reconcile(HELM, "HelmRelease", "lgtm", OBSERVABILITY_NAMESPACE)
    flux.reconcile(HELM, "HelmRelease", "open-webui", ONE.namespace)
    flux.reconcile(KUSTOMIZE, "Kustomization", f"tenant-{ONE.name}", FLUX_NAMESPACE)

    def different() -> list[str]:
        found = []
        now = kube.get("apps/v1", "Deployment", "gateway", OBSERVABILITY_NAMESPACE)
        if now["spec"]["replicas"] != gateway["spec"]["replicas"]:
            found.append("replicas of the gateway")
        if not kube.find(
            "networking.k8s.io/v1", "NetworkPolicy", "default-deny", OBSERVABILITY_NAMESPACE
        ):
            found.append("the network policy")
        labels = kube.get("v1", "Namespace", ONE.namespace)["metadata"]["labels"]
        if labels["secret-prefix"] != ONE.secret_prefix:
            found.append("the namespace's label")
        again = kube.get(
            "external-secrets.io/v1", "ExternalSecret", external["metadata"]["name"], ONE.namespace
        )
        if again["spec"]["refreshInterval"] != "15m":
            found.append("the ExternalSecret")
        return found

    kube.until(
        lambda: not different(),
        within_s=SOON_S,
        what="everything is as in Git",
        seen=lambda: ", ".join(different()),
    )


def test_a_tenants_release_may_not_leave_its_namespace(flux: Flux, kind: KindStack) -> None:
    """The ServiceAccount `flux` of a tenant installs nothing elsewhere."""
    template = "charts/open-webui-stack/templates/intruder.yaml"
    chart = flux.repository.path / "charts" / "open-webui-stack"
    intruder = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "intruder", "namespace": OBSERVABILITY_NAMESPACE},
    }
    kube = kind.kube

    def said() -> str:
        """The release stays at "Progressing" while it is tried again: its events tell why."""
        events = kube.listed("v1", "Event", ONE.namespace)
        failed = [each["message"] for each in events if each["reason"] == "UpgradeFailed"]
        now = condition(kube.get(HELM, "HelmRelease", "open-webui", ONE.namespace))
        return "\n".join((now, *failed))

    flux.repository.write(template, [intruder])
    chartversion.write(chart)
    flux.fetched(flux.push("A tenant's chart renders something for the backends' namespace"))
    try:
        kube.until(
            lambda: re.search(r"intruder.*forbidden.*system:serviceaccount", said(), re.DOTALL),
            within_s=SOON_S,
            what="the release is refused, as somebody without the right",
            seen=said,
        )
        assert kube.find("v1", "ConfigMap", "intruder", OBSERVABILITY_NAMESPACE) is None
    finally:
        (flux.repository.path / template).unlink()
        chartversion.write(chart)
        flux.applied(flux.push("Without it"))


# --- faults of the tree ---


@pytest.mark.parametrize(
    ("name", "file", "fault"),
    [
        (
            "release-without-a-namespace",
            "flux/base/open-webui/helmrelease.yaml",
            ("  namespace: ${NAMESPACE}\n", "  namespace: nobodys\n"),
        ),
        (
            "object-before-its-kind",
            "flux/secret-store/cluster-secret-store.yaml",
            ("kind: ClusterSecretStore\n", "kind: LaterSecretStore\n"),
        ),
    ],
)
def test_a_fault_of_the_tree_is_noticed(
    name: str, file: str, fault: tuple[str, str], flux: Flux, kind: KindStack
) -> None:
    """Faults 18 and 20 of docs/faults.md: the step says so, and what was applied before goes on."""
    reason = next(twin.reason for twin in CLUSTER if twin.name == name)
    kube = kind.kube

    def said() -> str:
        steps = kube.listed(KUSTOMIZE, "Kustomization")
        return "\n".join(condition(each) for each in steps)

    kube.rolled_out([OBSERVABILITY_NAMESPACE], within_s=SOON_S)
    flux.repository.edit(file, *fault)
    flux.fetched(flux.push(f"The fault {name}"))
    try:
        kube.until(lambda: re.search(reason, said()), within_s=SOON_S, what="it is said", seen=said)
        assert kube.waiting([OBSERVABILITY_NAMESPACE]) == []
    finally:
        flux.repository.edit(file, *reversed(fault))
        flux.applied(flux.push("Without it"))
