"""What only a cluster shows of the deployment as it is installed: pods, volumes, names, logs."""

from __future__ import annotations

import base64
import secrets
import tarfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from stackproof.backends import PROVABLE, Client, grafana
from stackproof.errors import StackproofError
from stackproof.flux import tree
from stackproof.helm.endpoints import Endpoint, in_text, in_value
from stackproof.helm.externals import merged
from stackproof.helm.manifests import COMPONENT, containers, thaw
from stackproof.isolation import Marks, Proof, prove, question
from stackproof.isolation.delivery import lines, lines_received
from stackproof.isolation.verdict import Verdict
from stackproof.kube import diagnostics
from stackproof.kube.client import MANAGER, ApiError, Kube, Object
from stackproof.kube.diagnostics import kinds
from stackproof.kube.probes import beside, component, dial, probe_pod, running, saying
from stackproof.model import STACK_TENANT, Backend
from stackproof.repo.checkout import Checkout
from stackproof.repo.tenants import OBSERVABILITY_NAMESPACE, load_registry
from stackproof.stack import discovery
from stackproof.stack.cluster import ClusterStack
from stackproof.stack.kind import KindStack
from stackproof.toolchain.cache import cache_root
from stackproof.toolchain.images import How

REGISTRY = load_registry(Checkout.find())
TENANTS = REGISTRY.names
NAMESPACES = [OBSERVABILITY_NAMESPACE, *(tenant.namespace for tenant in REGISTRY)]
SOON_S = 60.0
#: pytester gives each test another home.
CACHE = cache_root()
#: What each namespace enforces, as Flux makes it: soev's is `baseline` until it cannot go back.
_DECLARED = {
    one.name: one.labels["pod-security.kubernetes.io/enforce"]
    for step in tree.build(Checkout.find()).steps
    for one in step.objects
    if one.kind == "Namespace"
}


# --- pods ---


def _restarted(pod: Object, pods: Sequence[Object]) -> Iterator[str]:
    """Yield the containers that ended, but those that were there before what they ask for was.

    Kubernetes starts an application and its database at once, and the application ends where it
    cannot connect.
    """
    served = [each for each in pods if _of_stateful_set(each)]
    since = max((_ready_since(each) for each in served), default="")
    for status in pod["status"]["containerStatuses"]:
        if status["restartCount"]:
            ended = status["lastState"].get("terminated") or {}
            early = ended.get("startedAt", "") < since and not _of_stateful_set(pod)
            if not early:
                yield f"{pod['metadata']['name']}/{status['name']}: {ended}"


def _of_stateful_set(pod: Object) -> bool:
    return any(o["kind"] == "StatefulSet" for o in pod["metadata"].get("ownerReferences") or ())


def _ready_since(pod: Object) -> str:
    """Return since when a pod is, or is not, ready (RFC 3339)."""
    ready = next(each for each in pod["status"]["conditions"] if each["type"] == "Ready")
    return str(ready["lastTransitionTime"])


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_every_pod_is_ready_under_restricted_pod_security(
    namespace: str, cluster: ClusterStack
) -> None:
    kube = cluster.kube
    labels = kube.get("v1", "Namespace", namespace)["metadata"]["labels"]
    enforced = labels["pod-security.kubernetes.io/enforce"]
    assert enforced == _DECLARED[namespace]
    assert kube.waiting([namespace]) == []
    pods = kube.pods(namespace)
    assert pods
    for pod in pods:
        assert list(_restarted(pod, pods)) == []
        _is_restricted(kube, pod)
    # The control: what is not restricted is refused, and what asks for the host everywhere.
    careless = probe_pod("any", namespace)
    if enforced == "restricted":
        careless["spec"]["containers"][0].pop("securityContext")
    else:
        careless["spec"]["hostNetwork"] = True
    path = f"/api/v1/namespaces/{namespace}/pods"
    with pytest.raises(ApiError, match="violates PodSecurity"):
        kube.request("POST", path, careless, query={"dryRun": "All"})
    kube.request("POST", path, probe_pod("any", namespace), query={"dryRun": "All"})


def _is_restricted(kube: Kube, pod: Any) -> None:
    """Ask a namespace that enforces `restricted` whether it would take a pod."""
    left_out = {"nodeName", "serviceAccount", "serviceAccountName", "ephemeralContainers"}
    spec = {key: value for key, value in pod["spec"].items() if key not in left_out}
    metadata = {"name": f"tried-{secrets.token_hex(4)}", "namespace": OBSERVABILITY_NAMESPACE}
    tried = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    path = f"/api/v1/namespaces/{OBSERVABILITY_NAMESPACE}/pods"
    kube.request("POST", path, tried, query={"dryRun": "All"})


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_every_volume_is_bound(namespace: str, cluster: ClusterStack) -> None:
    """But for the dumps', which the class binds when the first of their pods is scheduled."""
    claims = cluster.kube.listed("v1", "PersistentVolumeClaim", namespace)
    phases = {c["metadata"]["name"]: c["status"]["phase"] for c in claims}
    mounted = {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in cluster.kube.pods(namespace)
        for volume in pod["spec"].get("volumes") or ()
        if "persistentVolumeClaim" in volume
    }
    assert mounted
    assert {name: phases[name] for name in mounted} == dict.fromkeys(mounted, "Bound")
    assert all(name.endswith("-backup") for name in phases.keys() - mounted)


def test_what_stands_in_for_an_image_is_told(kind: KindStack) -> None:
    """Programs that the proof rests on are the real ones, whatever else had no image."""
    real = {"mimir", "loki", "tempo", "alloy", "gateway", "external-secrets"}
    assert {name for name in real if kind.choices[name].how is How.STAND_IN} == set()
    print({name: f"{each.how}: {each.reference}" for name, each in kind.choices.items()})


def test_a_program_that_fails_in_a_container_is_no_answer(kind: KindStack) -> None:
    pod = component(kind.kube, OBSERVABILITY_NAMESPACE, "gateway")["metadata"]["name"]
    where = (pod, OBSERVABILITY_NAMESPACE, "gateway")
    assert "v2." in kind.kube.execute(*where, ["caddy", "version"])
    with pytest.raises(StackproofError, match="no-such-program"):
        kind.kube.execute(*where, ["no-such-program"], may_fail=True)
    with pytest.raises(StackproofError, match="exit code 1"):
        kind.kube.execute(*where, ["caddy", "no-such-command"])
    assert kind.kube.execute(*where, ["caddy", "no-such-command"], may_fail=True)


# --- data ---


def _shown(stack: ClusterStack, client: Client, proof: Proof, backend: Backend) -> dict[str, bool]:
    """Tell for each tenant whether it sees its own telemetry of the proof, through any read API."""
    marks = Marks(proof.emissions)
    found = {}
    for tenant in TENANTS:
        asked = question(proof.emissions[tenant])
        apis = [api for api in PROVABLE if api.backend is backend]
        bodies = [client.ask(api, stack.reader(tenant), asked).body for api in apis]
        owners = {owner for body in bodies for owner, _ in marks.find(body).values()}
        assert owners <= {tenant}, f"{tenant} sees {owners}"
        found[tenant] = owners == {tenant}
    return found


@pytest.fixture(scope="module")
def replaced(kind: KindStack, proof: Proof) -> dict[str, tuple[str, str]]:
    """Delete the pod of each backend; give the ids of the old and the new one."""
    kube = kind.kube
    assert proof.verdict is Verdict.ISOLATED, "\n".join(map(str, proof.violations))
    old = {b.value: component(kube, OBSERVABILITY_NAMESPACE, b.value) for b in Backend}
    for pod in old.values():
        kube.delete(pod)
    ids = {name: pod["metadata"]["uid"] for name, pod in old.items()}

    def all_new() -> dict[str, tuple[str, str]] | None:
        pods = {name: kube.pods(OBSERVABILITY_NAMESPACE, f"{COMPONENT}={name}") for name in old}
        new = {name: found[0]["metadata"]["uid"] for name, found in pods.items() if found}
        done = len(new) == len(ids) and not set(new.values()) & set(ids.values())
        return {name: (ids[name], new[name]) for name in ids} if done else None

    made = kube.until(all_new, within_s=SOON_S * 3, what="each backend has a new pod")
    kube.rolled_out([OBSERVABILITY_NAMESPACE], within_s=SOON_S * 3)
    return made


@pytest.mark.parametrize("backend", list(Backend))
def test_data_outlives_the_pod(
    backend: Backend,
    replaced: dict[str, tuple[str, str]],
    kind: KindStack,
    client: Client,
    proof: Proof,
) -> None:
    before, after = replaced[backend]
    assert before != after
    last: dict[str, bool] = {}

    def all_see() -> bool:
        last.update(_shown(kind, client, proof, backend))
        return all(last.values())

    kind.kube.until(
        all_see, within_s=SOON_S, what="each tenant sees its own", seen=lambda: str(last)
    )


# --- names ---


def _named(kind: KindStack) -> Iterator[tuple[str, Endpoint, str]]:
    """Yield what names a Service: where, the endpoint, and the namespace that it is in."""
    for release in kind.installer.deployment.releases():
        for file in release.config_files():
            for endpoint in in_text(file.text):
                yield f"{file.config_map.ref} {file.key}", endpoint, release.namespace
        for workload in release.workloads():
            for container in containers(workload):
                for name, variable in release.env(container).items():
                    for endpoint in in_value(variable.value or ""):
                        yield f"{workload.ref} {name}", endpoint, release.namespace


def test_every_service_that_a_configuration_names_is_known_to_dns(kind: KindStack) -> None:
    spaces = set(NAMESPACES)
    asked: dict[str, set[str]] = {}
    for where, endpoint, namespace in _named(kind):
        service = endpoint.service(namespace, spaces)
        if service and service[0] in spaces and endpoint.port:
            name = endpoint.host if "." in endpoint.host else f"{endpoint.host}.{namespace}.svc"
            asked.setdefault(f"{name}:{endpoint.port}", set()).add(where)
    assert len(asked) > 5
    image = kind.choices["standin"].reference
    inside = beside(kind.kube, component(kind.kube, OBSERVABILITY_NAMESPACE, "gateway"), image)
    wrong = f"nobody.{OBSERVABILITY_NAMESPACE}.svc:80"
    said = dial(kind.kube, *inside, [*asked, wrong])
    assert said.pop(wrong).startswith("unknown"), "the control: this name is wrong"
    unknown = {address: asked[address] for address, text in said.items() if "unknown" in text}
    assert unknown == {}


# --- pod logs ---


SAID = 100


def test_pod_logs_are_collected_once_for_their_own_tenant(kind: KindStack, client: Client) -> None:
    image = kind.choices["standin"].reference
    texts = {tenant: f"{tenant}-{secrets.token_hex(8)}" for tenant in TENANTS}
    before = {tenant: lines_received(kind, client, tenant) for tenant in TENANTS}
    for tenant, text in texts.items():
        namespace = REGISTRY.get(tenant).namespace
        with running(kind.kube, saying(image, namespace, text, SAID)):
            kind.kube.until(
                lambda: len(lines(client, kind.reader(tenant), text)) == SAID,  # noqa: B023
                within_s=SOON_S,
                what=f"{tenant} sees what its pod printed",
            )
    # What would be there twice, or with somebody else, has had as long as what is there.
    ends = time.monotonic() + 5
    while time.monotonic() < ends:
        for reader in TENANTS:
            for owner, text in texts.items():
                there = Counter(lines(client, kind.reader(reader), text).values())
                assert there == ({1: SAID} if reader == owner else {}), f"as {reader}"
        time.sleep(1)
    # Loki keeps one of two that are the same: nobody sent it a second.
    for tenant, count in before.items():
        assert SAID <= lines_received(kind, client, tenant) - count < 2 * SAID, tenant


def test_what_the_stacks_own_pods_print_is_no_tenants(kind: KindStack, client: Client) -> None:
    text = f"stack-{secrets.token_hex(8)}"
    views = {one.uid: one.access for one in grafana.sources(kind.data_sources())}
    own = views.pop(f"loki-{STACK_TENANT}")
    pod = saying(kind.choices["standin"].reference, OBSERVABILITY_NAMESPACE, text, SAID)
    with running(kind.kube, pod):
        kind.kube.until(
            lambda: len(lines(client, own, text)) == SAID,
            within_s=SOON_S,
            what="the stack's own data source shows what its pod printed",
        )
    readers = [kind.reader(tenant) for tenant in TENANTS]
    readers += [access for uid, access in views.items() if uid.startswith("loki")]
    assert {access.name: lines(client, access, text) for access in readers} == {
        access.name: {} for access in readers
    }


# --- as somebody's production ---


def _inventory(kube: Kube) -> dict[str, str]:
    """Return every object of the cluster: what it is, and its generation or content's version."""
    found = {}
    for namespaced in (True, False):
        for version, name in kinds(kube, namespaced=namespaced):
            for each in kube.listed(version, name):
                metadata = each["metadata"]
                key = f"{name}/{metadata.get('namespace', '')}/{metadata['name']}/{metadata['uid']}"
                found[key] = str(metadata.get("generation") or each.get("data"))
    return found


def test_a_proof_of_an_existing_cluster_leaves_nothing_behind(kind: KindStack) -> None:
    before = _inventory(kind.kube)
    assert any(key.startswith("Secret/") for key in before)
    with ClusterStack(Kube(kind.cluster.context, kind.cluster.kubeconfig_path)) as foreign:
        assert foreign.tenants == tuple(sorted(TENANTS))
        assert not foreign.disposable
        found = prove(foreign)
        ports = [forward.local_port for forward in foreign._forwards.values()]
    assert found.verdict is Verdict.ISOLATED, "\n".join(map(str, found.violations))
    assert ports
    after = _inventory(kind.kube)
    assert set(before.keys() ^ after.keys()) == set()
    assert {key for key in before if before[key] != after[key]} == set()


# --- evidence ---


def test_targets_init_finds_the_deployment(cluster: ClusterStack) -> None:
    objects, refused = discovery.from_cluster(cluster.kube)
    found = discovery.discover(objects, refused)
    assert not refused
    assert set(found.tenants) == set(cluster.tenants), found.tenants
    assert found.one_gateway and found.by_user
    assert {each.service for each in found.reads.values()} == {f"{cluster.namespace}/gateway"}


def test_evidence_says_much_and_no_secret(kind: KindStack, tmp_path: Path) -> None:
    namespaces = ["external-secrets", *kind.namespaces]
    path = diagnostics.of_cluster(
        kind.kube, namespaces, tmp_path / "evidence.tar.gz", users=[*TENANTS, "admin"]
    )
    with tarfile.open(path) as archive:
        files = {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}  # type: ignore[union-attr]
    text = b"\n".join(files.values())
    # It is worth something:
    for file in (
        "summary.txt",
        "events/observability.txt",
        "helm/observability.yaml",
        "configs/observability/mimir/mimir.yaml",
        "objects/observability/StatefulSet.yaml",
    ):
        assert files[file], file
    assert any(name.startswith("logs/observability/mimir-0") for name in files)
    # And no known value is in it, in whatever form.
    known = [kind.installer.store[f"{t.secret_prefix}-gateway-password"] for t in REGISTRY]
    known += list(
        kind.kube.secret("open-webui-secrets", REGISTRY.get(TENANTS[1]).namespace).values()
    )
    hashed = [
        kind.kube.secret(f"gateway-user-{name}", OBSERVABILITY_NAMESPACE)["user"].split()[1]
        for name in ("admin", *TENANTS)
    ]
    for value in [*known, *hashed]:
        assert len(value) > 8
        for form in (value, base64.b64encode(value.encode()).decode()):
            assert form.encode() not in text


# --- what cannot be changed ---

_IMMUTABLE = yaml.safe_load(
    (Checkout.find().root / "tests" / "immutable.yaml").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("server_side", [False, True], ids=["patch", "server-side"])
@pytest.mark.parametrize(
    "case",
    _IMMUTABLE,
    ids=lambda case: f"{case['object']['kind']}-{case['object']['metadata']['name']}",
)
def test_the_api_server_refuses_what_the_diff_says_it_does(
    case: Any, server_side: bool, kind: KindStack
) -> None:
    """And takes the rest: nothing is changed, all is tried in a dry run. Helm 4 applies."""
    kube, tried = kind.kube, _under_a_new_name(case["object"])
    kube.apply(tried)
    try:
        if tried["kind"] == "CustomResourceDefinition":
            kube.until(lambda: _is_established(kube, tried), within_s=SOON_S, what="it is served")
        for change in case["changes"]:
            refused = change.get("refused")
            if server_side:
                said = _applied(kube, thaw(merged(tried, change["patch"])))
                refused = change.get("refused_server_side", refused)
            else:
                said = _said_to(kube, tried, change["patch"])
            if "taken_since" in change:
                refused = ()  # the test cluster is as new (versions.yaml)
            assert bool(said) is bool(refused), f"{change}: {said or 'taken'}"
    finally:
        kube.delete(tried)


def _under_a_new_name(found: Any) -> Any:
    """Return an object whose name none has had: a claim goes some time after it is deleted."""
    name, token = found["metadata"]["name"], secrets.token_hex(3)
    if found["kind"] == "CustomResourceDefinition":  # the group is in its name, and in its spec
        return yaml.safe_load(yaml.safe_dump(thaw(found)).replace("stackproof.", f"s{token}."))
    return thaw(merged(found, {"metadata": {"name": f"{name}-{token}"}}))


def _is_established(kube: Kube, definition: Object) -> bool:
    found = kube.request("GET", kube.path_of(definition))
    conditions = found.get("status", {}).get("conditions") or ()  # null at first
    return ("Established", "True") in {(one["type"], one["status"]) for one in conditions}


def _said_to(
    kube: Kube, found: Any, patch: Any, content: str = "merge-patch+json", **more: str
) -> str:
    """Return why the API server would refuse a change, "" if it would not."""
    tried, content = {"dryRun": "All", **more}, f"application/{content}"
    try:
        kube.request("PATCH", kube.path_of(found), patch, query=tried, content=content)
    except ApiError as error:
        if error.status != 422:  # not valid
            raise
        return str(error)
    return ""


@pytest.mark.parametrize("null", [{}, {"rollingUpdate": None}], ids=["plain", "null"])
@pytest.mark.parametrize("said_before", [True, False], ids=["values", "defaults"])
def test_only_what_was_said_is_taken_away_by_server_side_apply(
    said_before: bool, null: dict[str, Any], kind: KindStack
) -> None:
    """Recreate beside a defaulted rollingUpdate is refused, whether there is a null or not."""
    kube = kind.kube
    found = next(c["object"] for c in _IMMUTABLE if c["object"]["kind"] == "Deployment")
    values = {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}} if said_before else {}
    name = {"name": f"strategy-{secrets.token_hex(3)}"}

    def rolling(**strategy: Any) -> dict[str, Any]:
        return {**found, "metadata": name, "spec": {**found["spec"], "strategy": strategy}}

    before = rolling(type="RollingUpdate", **values)
    kube.apply(before)
    try:
        said = _applied(kube, rolling(type="Recreate", **null))
        assert bool(said) is not said_before, said or "taken"
        patched = _said_to(kube, before, {"spec": {"strategy": {"type": "Recreate", **null}}})
        assert bool(patched) is not bool(null), patched or "taken"
    finally:
        kube.delete(before)


def _applied(kube: Kube, wanted: Any) -> str:
    """Return why the API server would refuse to apply an object, "" if it would not."""
    how = {"fieldManager": MANAGER, "force": "true"}
    return _said_to(kube, wanted, wanted, "apply-patch+yaml", **how)


# --- the plugin's evidence ---


def test_what_failed_leaves_its_evidence(
    kind: KindStack, checkout: Checkout, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kind.cluster.kubeconfig_path))
    monkeypatch.setenv("STACKPROOF_CACHE", str(CACHE))
    pytester.makepyfile("def test_it(stack):\n    assert not stack.tenants")
    done = pytester.runpytest_subprocess(
        *("-p", "no:pytest-kind", f"--stackproof-checkout={checkout.root}"),
        *("--stackproof-stack=cluster", f"--stackproof-context={kind.cluster.context}"),
        "--stackproof-evidence=kept",
    )
    done.assert_outcomes(failed=1)
    (path,) = (pytester.path / "kept").glob("*.tar.gz")
    done.stdout.fnmatch_lines([f"evidence: {path}"])
    with tarfile.open(path) as kept:
        names = "\n".join(kept.getnames())
    for namespace in NAMESPACES:
        assert namespace in names, names
