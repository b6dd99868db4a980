"""External Secrets for real: synced, rotated and refused; who must notice does, and nobody else.

Reloader, which rolls pods when their Secret changes, is not installed here: these tests restart
what carries its annotation for the Secret, as it would.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from typing import Any

import pytest
import urllib3

from stackproof import telemetry
from stackproof.backends import Client
from stackproof.checkout import Checkout
from stackproof.counted import arrived, sending
from stackproof.kube import ApiError
from stackproof.stack.base import Signal
from stackproof.stack.install import STORE
from stackproof.stack.kind import KindStack
from stackproof.tenants import OBSERVABILITY_NAMESPACE, load_registry

pytestmark = [pytest.mark.needs_cluster, pytest.mark.needs_restart]

REGISTRY = load_registry(Checkout.find())
TENANTS = REGISTRY.names
VICTIM = REGISTRY.get(TENANTS[1])
EXTERNAL = "external-secrets.io/v1"
RELOAD = "secret.reloader.stakater.com/reload"
SOON_S = 60.0
#: A kubelet writes a changed Secret into a pod's volume within a minute and a half.
MOUNTED_S = 150.0


def _externals(kind: KindStack) -> list[dict[str, Any]]:
    return kind.kube.listed(EXTERNAL, "ExternalSecret")


def test_every_secret_holds_what_the_store_says(kind: KindStack) -> None:
    found = _externals(kind)
    assert len(found) >= 3 + 4 * len(TENANTS)
    for each in found:
        metadata, spec = each["metadata"], each["spec"]
        assert spec["refreshInterval"] == "1h"
        values = kind.kube.secret(spec["target"]["name"], metadata["namespace"])
        if "template" not in spec["target"]:
            store = kind.installer.store
            wanted = {e["secretKey"]: store[e["remoteRef"]["key"]] for e in spec["data"]}
            assert values == wanted, metadata["name"]
    users = kind.kube.secret("gateway-users", OBSERVABILITY_NAMESPACE)["users"].splitlines()
    assert {"admin", *TENANTS} <= {line.split()[0] for line in users}
    assert all(line.split()[1].startswith("$2") for line in users)


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
    name = f"elsewhere-{secrets.token_hex(3)}"
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    asks = _asking(f"{VICTIM.secret_prefix}-gateway-password")
    asks["metadata"]["namespace"] = name
    try:
        kube.apply_all([space, asks])

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
    finally:
        kube.delete(space)


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
                mark = {"kubectl.kubernetes.io/restartedAt": str(time.time_ns())}
                change = {"template": {"metadata": {"annotations": mark}}}
                kind.kube.patch(workload, {"spec": change})
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
    before = _pods_by_component(kind)
    value = secrets.token_hex(16)
    kind.installer.store.rotate(f"{VICTIM.secret_prefix}-{key}", value)
    kind.kube.until(
        lambda: kind.kube.secret(secret, VICTIM.namespace)[key] == value,
        within_s=SOON_S,
        what=f"{key} is in the Secret",
    )
    assert _as_reloader_would(kind, secret) == rolls
    after = _pods_by_component(kind)
    assert {name for name in before if before[name] != after[name]} == set(rolls)


def _status(kind: KindStack, client: Client, password: str) -> int:
    """Return what the gateway answers to the tenant with this password; 0 for nothing.

    Where it reloads its users it drops connections that are idle.
    """
    url = f"{kind.gateway_url}/prometheus/api/v1/query?query=1"
    auth = telemetry.basic_auth((VICTIM.name, password))
    with contextlib.suppress(urllib3.exceptions.HTTPError):
        return int(client.pool.request("GET", url, headers=auth, retries=False).status)
    return 0


@pytest.fixture(scope="module")
def password_key() -> str:
    return f"{VICTIM.secret_prefix}-gateway-password"


def test_a_rotated_password_is_in_force_and_no_telemetry_is_lost(
    password_key: str, kind: KindStack, client: Client
) -> None:
    store = kind.installer.store
    old, new = store[password_key], secrets.token_hex(16)
    assert _status(kind, client, old) == 200
    assert _status(kind, client, new) == 401
    with sending(kind, client, TENANTS, pause_s=0.5) as sources:
        store.rotate(password_key, new)
        kind.kube.until(
            lambda: _status(kind, client, new) == 200,
            within_s=MOUNTED_S,
            what="the gateway takes the new password, without a restart",
        )
        assert _as_reloader_would(kind, "open-webui-alloy-secrets") == ["alloy"]
        assert kind.kube.secret("open-webui-alloy-secrets", VICTIM.namespace) == {
            "gateway-password": new
        }
        time.sleep(3)
    kind.kube.until(
        lambda: _status(kind, client, old) == 401,
        within_s=SOON_S,
        what="every gateway pod refuses the old password",
    )
    for tenant in TENANTS:
        # The victim's Alloy pod was replaced; its queue was on that pod's own disk.
        may_lack = tenant == VICTIM.name
        for signal in Signal:
            taken = set(sources[tenant].taken[signal])
            assert taken, sources[tenant].refused
            if may_lack:
                continue
            access, run = kind.reader(tenant), sources[tenant].run
            kind.kube.until(
                lambda: taken <= {n for _, n in arrived(client, access, signal, run)},  # noqa: B023
                within_s=SOON_S,
                what=f"{tenant}'s {signal} are all there",
            )
