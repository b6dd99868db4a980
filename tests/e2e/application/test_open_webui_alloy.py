"""The tenant's Alloy, run from its rendered bytes: a client cannot claim to be somebody else."""

from __future__ import annotations

import base64
import gzip
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.ran import ran

from stackproof.helm import renderer
from stackproof.helm.manifests import Release, containers
from stackproof.model import Signal
from stackproof.otlp import senders, synthetic
from stackproof.repo.checkout import Checkout
from stackproof.stack.pod import Pod, ServicePort
from stackproof.stack.ports import PortLeases
from stackproof.stack.process import Process
from stackproof.toolchain import programs
from stackproof.waiting import until

PASSWORD = "p@:w/%"
MESSAGES: Mapping[str, Any] = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}
PARTS = {"traces": "resource_spans", "metrics": "resource_metrics", "logs": "resource_logs"}
GATEWAY = ServicePort("observability", "gateway", 8080)
BACKENDS = [
    ServicePort("observability", "mimir", 9009),
    ServicePort("observability", "loki", 3100),
    ServicePort("observability", "tempo", 4318),
]


@dataclass(frozen=True)
class Request:
    """An export as its receiver sees it."""

    path: str
    tenants: tuple[str, ...]
    """All values of X-Scope-OrgID."""
    user: str
    """USER:PASSWORD, or "" without a credential."""
    attributes: tuple[Mapping[str, str], ...]
    """Of each resource."""


class Receiver:
    """Takes every export and keeps what it says of itself."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        kept = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers["Content-Encoding"] == "gzip":
                    body = gzip.decompress(body)
                kept.append(_request(self.path, self.headers, body))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port

    @contextmanager
    def running(self) -> Iterator[Receiver]:
        thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()
            thread.join()


def _request(path: str, headers: Any, body: bytes) -> Request:
    signal = path.rsplit("/", 1)[-1]
    credential = (headers["Authorization"] or "").removeprefix("Basic ")
    resources = getattr(MESSAGES[signal].FromString(body), PARTS[signal])
    attributes = tuple(
        {pair.key: pair.value.string_value for pair in part.resource.attributes}
        for part in resources
    )
    tenants = tuple(headers.get_all("X-Scope-OrgID") or ())
    return Request(path, tenants, base64.b64decode(credential).decode(), attributes)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310 — loopback
            return bool(answer.status == 200)
    except OSError:
        return False


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def _render(checkout: Checkout, alloy: Mapping[str, Any]) -> Release:
    values = {
        "openWebui": {"config": {"telemetry": {"otel": {"tenantId": "enterprise-a"}}}},
        "alloy": alloy,
        "secrets": {"existingSecret": "mine"},
    }
    return renderer.render(
        checkout.charts / "open-webui-stack", [values], release="open-webui", namespace="tenant"
    )


@contextmanager
def _running(release: Release, receiver: Receiver, folder: Path) -> Iterator[Pod]:
    workload = release.get("Deployment", "open-webui-alloy")
    leases = PortLeases()
    pod = Pod("tenant.alloy", release, workload, containers(workload)[0], folder)
    pod.ports.update(
        {name: leases.lease() for name in ("HTTP_PORT", "OTLP_GRPC_PORT", "OTLP_HTTP_PORT")}
    )
    secrets = {"mine": {"gateway-password": PASSWORD}}
    pod.mount(secrets)
    env = pod.environment(dict.fromkeys([GATEWAY, *BACKENDS], receiver.port), secrets)
    argv = [str(programs.find("alloy")), *pod.arguments(env)]
    process = Process("alloy", argv, env, folder, folder / "alloy.log")
    try:
        process.start()
        assert until(lambda: _answers(pod.ready_url()) or process.ended(), within_s=30)
        assert process.ended() is None, process.tail()
        # It says that it is ready a moment before its receivers listen.
        ports = [pod.port("otlp-grpc"), pod.port("otlp-http")]
        assert until(lambda: all(map(_listens, ports)), within_s=10), process.tail()
        yield pod
    finally:
        process.kill()
        leases.release()


def _send_as_somebody_else(pod: Pod) -> None:
    """Send each signal by both protocols, with another tenant's header, credential and name."""
    run = synthetic.new_run()
    emission = synthetic.new_emission("soev", run)
    claim = senders.basic_auth(("soev", "x"))["Authorization"]
    metadata = [("x-scope-orgid", "soev"), ("authorization", claim)]
    headers = {"X-Scope-OrgID": "soev|enterprise-b"}
    grpc = senders.GrpcSender(f"127.0.0.1:{pod.port('otlp-grpc')}", metadata)
    http = senders.HttpSender(
        f"http://127.0.0.1:{pod.port('otlp-http')}", auth=("soev", "x"), headers=headers
    )
    for sender in (grpc, http):
        for signal in Signal:
            sender.send(signal, synthetic.make(emission, signal))
        sender.close()


def _delivered(receiver: Receiver) -> bool:
    """Tell whether both copies of each signal have come."""
    count = dict.fromkeys(Signal, 0)
    for request in receiver.requests:
        count[Signal(request.path.rsplit("/", 1)[-1])] += len(request.attributes)
    return min(count.values()) >= 2


@pytest.mark.parametrize(
    ("alloy", "paths", "user"),
    [
        ({}, {"/otlp/v1/traces", "/otlp/v1/metrics", "/otlp/v1/logs"}, f"enterprise-a:{PASSWORD}"),
        ({"gateway": {"enabled": False}}, {"/v1/traces", "/otlp/v1/metrics", "/otlp/v1/logs"}, ""),
    ],
    ids=["gateway", "direct"],
)
def test_whoever_sends_is_the_tenant(
    checkout: Checkout, tmp_path: Path, alloy: Mapping[str, Any], paths: set[str], user: str
) -> None:
    release = _render(checkout, alloy)
    with Receiver().running() as receiver, _running(release, receiver, tmp_path) as pod:
        _send_as_somebody_else(pod)
        assert until(lambda: _delivered(receiver), within_s=10), receiver.requests
    assert {request.path for request in receiver.requests} == paths
    assert {request.tenants for request in receiver.requests} == {("enterprise-a",)}
    assert {request.user for request in receiver.requests} == {user}
    claimed = {each["tenant.id"] for request in receiver.requests for each in request.attributes}
    assert claimed == {"enterprise-a"}


def test_its_http_port_shows_no_secret(checkout: Checkout, tmp_path: Path) -> None:
    with (
        Receiver().running() as receiver,
        _running(_render(checkout, {}), receiver, tmp_path) as pod,
    ):
        for path in ("debug/pprof/cmdline", "-/support"):
            with pytest.raises(urllib.error.HTTPError):
                urllib.request.urlopen(f"http://127.0.0.1:{pod.port('http')}/{path}")


@pytest.mark.parametrize("gateway", [True, False])
def test_alloy_accepts_its_files(checkout: Checkout, tmp_path: Path, gateway: bool) -> None:
    """Also that for the pods' logs, which needs a cluster to run, and in the standard layout."""
    settings = {"gateway": {"enabled": gateway}, "podLogs": {"enabled": True}}
    release = _render(checkout, settings)
    files = release.get("ConfigMap", "open-webui-alloy")["data"]
    (container,) = containers(release.get("Deployment", "open-webui-alloy"))
    (stability,) = (each for each in container["args"] if each.startswith("--stability.level="))
    alloy = str(programs.find("alloy"))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    checks = [
        ("validate", stability, str(tmp_path)),
        *(("fmt", "-t", str(tmp_path / n)) for n in files),
    ]
    for arguments in checks:
        done = ran([alloy, *arguments])
        assert done.returncode == 0, done.stderr
