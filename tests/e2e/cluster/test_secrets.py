"""External Secrets for real: synced, rotated and refused; who must notice does, and nobody else.

Reloader, which rolls pods when a Secret in their environment changes, is not installed here: no
image of it can be built. These tests restart what carries its annotation, as it would.
"""

from __future__ import annotations

import base64
import contextlib
import re
import secrets
from typing import Any

import bcrypt
import pytest
import urllib3
from tests.e2e.cluster.objects import namespace, restart
from tests.e2e.counted import all_there

from stackproof.backends import Client
from stackproof.errors import StackproofError
from stackproof.flux.deployment import Deployment
from stackproof.helm import renderer
from stackproof.helm.manifests import thaw
from stackproof.isolation.delivery import Source, arrived, sending
from stackproof.kube.client import ApiError
from stackproof.model import Signal
from stackproof.otlp import senders
from stackproof.repo.checkout import Checkout
from stackproof.repo.tenants import OBSERVABILITY_NAMESPACE, load_registry
from stackproof.stack.install import STORE
from stackproof.stack.kind import KindStack

pytestmark = pytest.mark.needs_restart

REGISTRY = load_registry(Checkout.find())
TENANTS = REGISTRY.names
VICTIM = REGISTRY.get(TENANTS[1])
EXTERNAL = "external-secrets.io/v1"
RELOAD = "secret.reloader.stakater.com/reload"
SOON_S = 60.0
#: A kubelet writes a changed Secret into a pod's volume within a minute and a half.
MOUNTED_S = 150.0


def test_every_secret_holds_what_the_store_says(kind: KindStack) -> None:
    found = kind.kube.listed(EXTERNAL, "ExternalSecret")
    assert len(found) >= 3 + 4 * len(TENANTS)
    for each in found:
        metadata, spec = each["metadata"], each["spec"]
        assert spec["refreshInterval"] == "15m"
        values = kind.kube.secret(spec["target"]["name"], metadata["namespace"])
        if "template" not in spec["target"]:
            store = kind.installer.store
            wanted = {e["secretKey"]: store[e["remoteRef"]["key"]] for e in spec["data"]}
            assert values == wanted, metadata["name"]
    for name in ("admin", *TENANTS):
        secret = kind.kube.secret(f"gateway-user-{name}", OBSERVABILITY_NAMESPACE)
        assert re.fullmatch(rf"{name} \$2a\$10\$[A-Za-z0-9./]{{53}}", secret["user"])


#: What people put into a store, and what Go, YAML and bcrypt might make of it.
_PASSWORDS = (
    *("x", "x" * 72, "x" * 73, "ü" * 36, "ü" * 37, "", " ", "\n", "a\n", " a b ", "{{ fail }}"),
    *("$2a$10$x", "}", '"', "'", "\\", "a\nimport /etc/passwd", "%00", "日本語", "#", "- a", "~"),
)


def test_the_operator_makes_of_a_password_what_this_suite_makes_of_it(kind: KindStack) -> None:
    """The template of a user, executed by the operator itself and by tools/render."""
    kube = kind.kube
    lgtm = Deployment.load(Checkout.find()).lgtm()
    asked = thaw(lgtm.get("ExternalSecret", f"gateway-user-{VICTIM.name}").content)
    templates = asked["spec"]["target"]["template"]["data"]
    made = [f"tried-{number}" for number, _ in enumerate(_PASSWORDS)]
    for name, password in zip(made, _PASSWORDS, strict=True):
        kind.installer.store.rotate(f"lgtm-{name}", password)
        spec = {**asked["spec"], "target": {**asked["spec"]["target"], "name": name}}
        spec["data"] = [{"secretKey": "password", "remoteRef": {"key": f"lgtm-{name}"}}]
        metadata = {"name": name, "namespace": OBSERVABILITY_NAMESPACE}
        kube.apply({**asked, "metadata": metadata, "spec": spec})
    try:
        for name, password in zip(made, _PASSWORDS, strict=True):
            _agree(kind, name, password, templates)
    finally:
        for name in made:
            kube.delete(kube.get(EXTERNAL, "ExternalSecret", name, OBSERVABILITY_NAMESPACE))


def _agree(kind: KindStack, name: str, password: str, templates: dict[str, str]) -> None:
    def said() -> str:
        status = kind.kube.get(EXTERNAL, "ExternalSecret", name, OBSERVABILITY_NAMESPACE)
        found = (status.get("status") or {}).get("conditions") or ()
        return "; ".join(f"{one['status']} {one.get('message')}" for one in found)

    kind.kube.until(said, within_s=SOON_S, what=f"{name} is tried", seen=said)
    secret = kind.kube.find("v1", "Secret", name, OBSERVABILITY_NAMESPACE)
    ours = None
    with contextlib.suppress(StackproofError):
        ours = renderer.renderer().secret(templates, {"password": password.encode()})
    assert (secret is None) == (ours is None), f"{password!r}: {said()}"
    assert said().startswith("False" if ours is None else "True"), said()
    if secret is None or ours is None:
        return
    user, hashed = base64.b64decode(secret["data"]["user"]).decode().split()
    mine, wanted = ours["user"].decode().split()
    assert user == mine
    text = password.strip().encode()
    assert bcrypt.checkpw(text, hashed.encode())
    assert bcrypt.checkpw(text, wanted.encode())


def test_a_password_that_cannot_be_hashed_harms_its_owner_only(
    kind: KindStack, client: Client
) -> None:
    """The reason is told where one looks; the old one holds, and another tenant's is rotated."""
    store, key = kind.installer.store, f"{VICTIM.secret_prefix}-gateway-password"
    other = REGISTRY.get(TENANTS[2])
    old, name = store[key], f"gateway-user-{VICTIM.name}"
    try:
        store.rotate(key, "x" * 73)

        def said() -> str:
            events = kind.kube.listed("v1", "Event", OBSERVABILITY_NAMESPACE)
            return "\n".join(e["message"] for e in events if e["involvedObject"]["name"] == name)

        kind.kube.until(
            lambda: "password length exceeds 72 bytes" in said(),
            within_s=SOON_S,
            what="the operator says why",
            seen=said,
        )
        new = secrets.token_hex(16)
        store.rotate(f"{other.secret_prefix}-gateway-password", new)
        kind.kube.until(
            lambda: _status(kind, client, new, other.name) == 200,
            within_s=MOUNTED_S,
            what="the other tenant's new password is in force",
        )
        assert _status(kind, client, old) == 200
    finally:
        store.rotate(key, old)


def _asking(key: str) -> dict[str, Any]:
    return {
        "apiVersion": EXTERNAL,
        "kind": "ExternalSecret",
        "metadata": {"name": "asks", "namespace": VICTIM.namespace},
        "spec": {
            "secretStoreRef": {"kind": "ClusterSecretStore", "name": STORE},
            "target": {"name": "asked"},
            "data": [{"secretKey": "value", "remoteRef": {"key": key}}],
        },
    }


def test_a_tenant_may_ask_only_for_its_own_keys(kind: KindStack) -> None:
    kube = kind.kube
    path = kube.path(EXTERNAL, "ExternalSecret", VICTIM.namespace)
    tried = {"dryRun": "All"}
    kube.request("POST", path, _asking(f"{VICTIM.secret_prefix}-gateway-password"), query=tried)
    for other in (TENANTS[0], TENANTS[2]):
        key = f"{REGISTRY.get(other).secret_prefix}-gateway-password"
        with pytest.raises(ApiError, match=r"tenant-secrets.*only keys that begin with"):
            kube.request("POST", path, _asking(key), query=tried)
    patterned = _asking("x")
    patterned["spec"] |= {"data": [], "dataFrom": [{"find": {"name": {"regexp": ".*"}}}]}
    with pytest.raises(ApiError, match=r"tenant-secrets.*dataFrom"):
        kube.request("POST", path, patterned, query=tried)


def test_the_store_serves_no_other_namespace(kind: KindStack) -> None:
    """Its conditions name who may use it; an ExternalSecret elsewhere is not synced."""
    kube = kind.kube
    asks = _asking(f"{VICTIM.secret_prefix}-gateway-password")
    with namespace(kube, f"elsewhere-{secrets.token_hex(3)}") as name:
        asks["metadata"]["namespace"] = name
        kube.apply(asks)

        def said() -> list[str]:
            # The operator says nothing of a store that it may not use to whoever asks.
            status = kube.get(EXTERNAL, "ExternalSecret", "asks", name).get("status") or {}
            failed = [c for c in status.get("conditions") or () if c["status"] == "False"]
            return [each["message"] for each in (*failed, *kube.listed("v1", "Event", name))]

        kube.until(
            lambda: any("denied" in text or "not allowed" in text for text in said()),
            within_s=SOON_S,
            what="it is refused",
            seen=lambda: "\n".join(said()),
        )
        assert kube.find("v1", "Secret", "asked", name) is None


def _pods_by_component(kind: KindStack) -> dict[str, str]:
    found = (pod["metadata"] for pod in kind.kube.pods(VICTIM.namespace))
    return {each["labels"]["app.kubernetes.io/component"]: each["uid"] for each in found}


def _as_reloader_would(kind: KindStack, secret: str) -> list[str]:
    """Restart what carries Reloader's annotation for a Secret; return the components."""
    rolled = []
    for kind_name in ("Deployment", "StatefulSet"):
        for workload in kind.kube.listed("apps/v1", kind_name, VICTIM.namespace):
            template = workload["spec"]["template"]["metadata"]
            if secret in (template.get("annotations") or {}).get(RELOAD, "").split(","):
                restart(kind.kube, workload)
                rolled.append(template["labels"]["app.kubernetes.io/component"])
    kind.kube.rolled_out([VICTIM.namespace], within_s=SOON_S * 3)
    return sorted(rolled)


@pytest.mark.parametrize(
    ("key", "secret", "rolls"),
    [
        ("webui-secret-key", "open-webui-secrets", []),
        ("postgres-password", "open-webui-secrets", []),
        ("openai-api-key", "open-webui-provider-secrets", ["open-webui"]),
        ("searxng-secret-key", "open-webui-searxng-secrets", ["searxng"]),
    ],
)
def test_a_rotated_value_rolls_what_may_roll_and_nothing_else(
    key: str, secret: str, rolls: list[str], kind: KindStack
) -> None:
    stored = f"{VICTIM.secret_prefix}-{key}"
    before, old = _pods_by_component(kind), kind.installer.store[stored]

    def rotate(value: str) -> None:
        kind.installer.store.rotate(stored, value)
        kind.kube.until(
            lambda: kind.kube.secret(secret, VICTIM.namespace)[key] == value,
            within_s=SOON_S,
            what=f"{key} is in the Secret",
        )

    rotate(secrets.token_hex(16))
    try:
        assert _as_reloader_would(kind, secret) == rolls
        after = _pods_by_component(kind)
        assert {name for name in before if before[name] != after[name]} == set(rolls)
    finally:
        # PostgreSQL keeps its first password: the application's next pod could not sign in.
        rotate(old)


def _status(kind: KindStack, client: Client, password: str, tenant: str = VICTIM.name) -> int:
    """Return what the gateway answers to a tenant with this password; 0 for nothing.

    Where it reloads its users it drops connections that are idle.
    """
    url = f"{kind.gateway_url}/prometheus/api/v1/query?query=1"
    auth = senders.basic_auth((tenant, password))
    with contextlib.suppress(urllib3.exceptions.HTTPError):
        return int(client.pool.request("GET", url, headers=auth, retries=False).status)
    return 0


def test_a_rotated_password_is_in_force_and_no_telemetry_is_lost(
    kind: KindStack, client: Client
) -> None:
    """The operator, the kubelets and the programs do it all: nobody restarts anything."""
    store, key = kind.installer.store, f"{VICTIM.secret_prefix}-gateway-password"
    old, new = store[key], secrets.token_hex(16)
    assert _status(kind, client, old) == 200
    assert _status(kind, client, new) == 401
    before = _pods(kind)
    with sending(kind, client, TENANTS, pause_s=0.5) as sources:
        store.rotate(key, new)
        kind.kube.until(
            lambda: _status(kind, client, new) == 200,
            within_s=MOUNTED_S,
            what="the gateway takes the new password, without a restart",
        )
        assert kind.kube.secret("open-webui-alloy-secrets", VICTIM.namespace) == {
            "gateway-password": new
        }
        kind.kube.until(
            lambda: _status(kind, client, old) == 401,
            within_s=MOUNTED_S,
            what="every gateway pod refuses the old password",
        )
        since = {signal: max(sources[VICTIM.name].taken[signal]) for signal in Signal}
        kind.kube.until(
            lambda: all(_newer(kind, client, sources, each, since[each]) for each in Signal),
            within_s=MOUNTED_S,
            what="the victim's Alloy sends with the new password",
        )
    all_there(kind, client, sources, within_s=SOON_S)
    assert _pods(kind) == before


def _newer(
    kind: KindStack, client: Client, sources: dict[str, Source], signal: Signal, since: int
) -> bool:
    source = sources[VICTIM.name]
    there = arrived(client, kind.reader(VICTIM.name), signal, source.run)
    return any(number > since for _, number in there)


def _pods(kind: KindStack) -> dict[str, int]:
    """Return the pods of the gateway and of the victim, and how often each was restarted."""
    found = [*kind.kube.pods(OBSERVABILITY_NAMESPACE), *kind.kube.pods(VICTIM.namespace)]
    return {
        pod["metadata"]["uid"]: sum(c["restartCount"] for c in pod["status"]["containerStatuses"])
        for pod in found
        if pod["metadata"]["labels"]["app.kubernetes.io/component"] in {"gateway", "alloy"}
    }
