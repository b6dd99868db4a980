"""A conversation with the real application in the cluster, and who sees its telemetry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
import requests

from stackproof.flux.deployment import Deployment
from stackproof.kube.probes import component, probe_pod, running
from stackproof.model import Access, Backend, Signal
from stackproof.otlp import synthetic
from stackproof.repo.checkout import Checkout
from stackproof.repo.tenants import load_registry
from stackproof.stack.forward import Forward
from stackproof.stack.kind import KindStack
from stackproof.toolchain.images import How
from stackproof.waiting import until

REGISTRY = load_registry(Checkout.find())
ME, *OTHERS = REGISTRY.names
SPACE = REGISTRY.get(ME).namespace
RELEASE = Deployment.load(Checkout.find()).tenant(ME)
#: The application gives its metrics away once a minute, and its first start takes minutes.
ARRIVES_S = 180.0
_MODEL = {"stackproof.probe": "model"}


@contextmanager
def provider(kind: KindStack) -> Iterator[str]:
    """Run a model provider that only the tenant's application may reach; give its URL."""
    image = kind.choices["standin"].reference
    pod = probe_pod(image, SPACE, labels=_MODEL, verb="model")
    application = {"matchLabels": {"app.kubernetes.io/component": "open-webui"}}
    port = [{"port": 8080}]
    leave = {"to": [{"podSelector": {"matchLabels": _MODEL}}], "ports": port}
    enter = {"from": [{"podSelector": application}], "ports": port}
    policies = [
        _policy("leave", application, egress=[leave]),
        _policy("enter", {"matchLabels": _MODEL}, ingress=[enter]),
    ]
    kind.kube.apply_all(policies)
    try:
        with running(kind.kube, pod) as name:
            address = kind.kube.get("v1", "Pod", name, SPACE)["status"]["podIP"]
            yield f"http://{address}:8080"
    finally:
        for policy in policies:
            kind.kube.delete(policy)


def _policy(name: str, of: dict[str, Any], **rules: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"probe-model-{name}", "namespace": SPACE},
        "spec": {"podSelector": of, "policyTypes": [k.capitalize() for k in rules], **rules},
    }


class Browser(requests.Session):
    """A session with one site, which raises HTTPError where it refuses."""

    def __init__(self, origin: str) -> None:
        super().__init__()
        self._origin = origin

    def request(self, method: str, url: str, **more: Any) -> requests.Response:  # type: ignore[override]
        """Ask for a path."""
        answer = super().request(method, f"{self._origin}{url}", timeout=60, **more)
        answer.raise_for_status()
        return answer


@contextmanager
def signed_in(kind: KindStack) -> Iterator[Browser]:
    """Sign in as the tenant's administrator, as the pod's environment names it."""
    pod = component(kind.kube, SPACE, "open-webui")["metadata"]["name"]
    email, password = (
        kind.kube.execute(pod, SPACE, "open-webui", ["sh", "-c", f'echo "${name}"']).strip()
        for name in ("WEBUI_ADMIN_EMAIL", "WEBUI_ADMIN_PASSWORD")
    )
    forward = Forward(kind.kube, SPACE, 8080, lambda: str(pod))
    with closing(forward), Browser(f"http://127.0.0.1:{forward.local_port}") as browser:
        account = {"email": email, "password": password}
        token = browser.post("/api/v1/auths/signin", json=account).json()["token"]
        browser.headers["Authorization"] = f"Bearer {token}"
        yield browser


@contextmanager
def connected(browser: Browser, url: str) -> Iterator[None]:
    """Let the application use this provider, as an administrator does in its settings."""
    before = browser.get("/openai/config").json()
    wanted = {**before, "ENABLE_OPENAI_API": True, "OPENAI_API_CONFIGS": {}}
    wanted |= {"OPENAI_API_BASE_URLS": [url], "OPENAI_API_KEYS": ["none"]}
    browser.post("/openai/config/update", json=wanted)
    try:
        yield
    finally:
        browser.post("/openai/config/update", json=before)


def _ask(access: Access, backend: Backend, path: str, **params: str) -> Any:
    answer = requests.get(
        f"{access.urls[backend]}{path}",
        params=params,
        auth=access.auth,
        headers=dict(access.headers),
        timeout=30,
    )
    answer.raise_for_status()
    return answer.json()


def _shown(access: Access, signal: Signal, token: str, pod: str) -> list[Any]:
    """Return what a reader sees of the conversation: traces, lines, or the pod's series of it."""
    if signal is Signal.TRACES:
        query = f'{{ span.http.url =~ ".*{token}.*" }}'
        return _ask(access, Backend.TEMPO, "/api/search", q=query)["traces"] or []
    if signal is Signal.LOGS:
        query = f'{{service_name=~".+"}} |= "{token}"'
        found = _ask(access, Backend.LOKI, "/loki/api/v1/query_range", query=query)
        return [line for stream in found["data"]["result"] for line in stream["values"]]
    query = f'http_server_requests_total{{http_route="/api/chat/completions", instance="{pod}"}}'
    return list(_ask(access, Backend.MIMIR, "/api/v1/query", query=query)["data"]["result"])


def test_a_conversation_is_seen_by_its_own_tenant_alone(kind: KindStack) -> None:
    """The real application on the real PostgreSQL: signed in, asked, answered, and told of."""
    if kind.choices["open-webui"].how is How.STAND_IN:
        pytest.skip("the application is a stand-in: no image of it can be had")
    token = synthetic.new_run()
    pod = component(kind.kube, SPACE, "open-webui")["metadata"]["name"]
    with provider(kind) as url, signed_in(kind) as browser, connected(browser, f"{url}/{token}/v1"):
        models = browser.get("/api/models?refresh=true").json()["data"]
        assert "echo" in {model["id"] for model in models}
        question = {"role": "user", "content": "Is it sunny?"}
        asked = {"model": "echo", "messages": [question], "stream": False}
        path = f"/api/chat/completions?conversation={token}"
        answer = browser.post(path, json=asked).json()
        assert answer["choices"][0]["message"]["content"] == "You said: Is it sunny?"
    for signal in Signal:
        own = until(
            lambda: _shown(kind.reader(ME), signal, token, pod),  # noqa: B023
            within_s=ARRIVES_S,
            every_s=1,
        )
        assert own, f"{ME} does not see the {signal} of its own conversation"
        for other in OTHERS:
            assert _shown(kind.reader(other), signal, token, pod) == [], f"{other}: {signal}"
