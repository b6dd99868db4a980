"""What must hold between the parts of one render of charts/open-webui-stack, whatever its values.

These are of the chart itself, where `settings` are of the values that this repository deploys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from stackproof.checks import Checks
from stackproof.checks.settings import alloy_settings
from stackproof.manifests import Manifest, Release, containers

APPLICATION: Checks[Release] = Checks()

_COMPONENT = "app.kubernetes.io/component"
_SIGNALS = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "traces",
    "OTEL_METRICS_EXPORTER_OTLP_ENDPOINT": "metrics",
    "OTEL_LOGS_EXPORTER_OTLP_ENDPOINT": "logs",
}
_URLS = ("OPENAI_API_BASE_URL", "RAG_OPENAI_API_BASE_URL", "REDIS_URL")
_PORTS = {"http": 80, "https": 443, "redis": 6379, "rediss": 6379}
_CLUSTER = re.compile(r"[a-z]+://[^/:]+\.[^/:]+\.svc\b")


def _application(release: Release) -> Manifest | None:
    found = (m for m in release.of_kind("Deployment") if m.labels.get(_COMPONENT) == "open-webui")
    return next(found, None)


def _environment(release: Release, workload: Manifest) -> dict[str, str | None]:
    (container,) = containers(workload)
    return {name: one.value for name, one in release.env(container).items()}


@APPLICATION.register
def each_signal_goes_to_its_own_path(release: Release) -> Iterator[str]:
    """Over HTTP the application uses an endpoint as it is: each signal needs its own path."""
    application = _application(release)
    given = _environment(release, application) if application else {}
    if given.get("OTEL_OTLP_SPAN_EXPORTER") != "http":
        return
    for variable, signal in _SIGNALS.items():
        if not (given.get(variable) or "").endswith(f"/v1/{signal}"):
            yield f"{variable} is {given.get(variable)}, its path must be /v1/{signal}"


@APPLICATION.register
def replicas_share_what_they_must(release: Release) -> Iterator[str]:
    """Replicas talk through Redis, and one Job migrates the database for all of them."""
    application = _application(release)
    if application is None:
        return
    given = _environment(release, application)
    if (given.get("WEBSOCKET_MANAGER") == "redis") != ("REDIS_URL" in given):
        yield "WEBSOCKET_MANAGER must be redis exactly where there is a REDIS_URL"
    jobs = release.of_kind("Job")
    if (application["spec"]["replicas"] > 1) != bool(jobs):
        yield "several replicas need a Job that migrates the database, one replica needs none"
    for job in jobs:
        if _environment(release, job).get("ENABLE_DB_MIGRATIONS") != "true":
            yield f"{job.ref} does not migrate (ENABLE_DB_MIGRATIONS)"
        if given.get("ENABLE_DB_MIGRATIONS") != "false":
            yield "the replicas migrate as well (ENABLE_DB_MIGRATIONS)"


@APPLICATION.register
def services_that_ask_for_a_key_get_one(release: Release) -> Iterator[str]:
    """Each external service of the application has its URL and its key, or neither."""
    application = _application(release)
    given = _environment(release, application) if application else {}
    for url in sorted(name for name in given if re.fullmatch(r"EXTERNAL_\w+_URL", name)):
        key = url.replace("_URL", "_API_KEY")
        if "RERANKER" not in url and key not in given:
            yield f"{url} is set, and {key} is not"
    if given.get("RAG_RERANKING_ENGINE") == "external" and not given.get("RAG_RERANKING_MODEL"):
        yield "the reranker is not told which model to use (RAG_RERANKING_MODEL)"


@APPLICATION.register
def providers_outside_can_be_reached(release: Release) -> Iterator[str]:
    """Where policies close the application off, its providers elsewhere stay reachable."""
    application = _application(release)
    policy = release.find("NetworkPolicy", application.name) if application else None
    if application is None or policy is None:
        return
    given = _environment(release, application)
    blocks = [r for r in policy["spec"].get("egress") or () if _to_addresses(r)]
    open_ports = {port["port"] for rule in blocks for port in rule["ports"]}
    for name in _URLS:
        url = given.get(name)
        if url and not _CLUSTER.match(url) and _port(url) not in open_ports:
            yield f"{name} is {url}, and no policy lets the application reach port {_port(url)}"
        if url and (cluster := re.match(r"[a-z]+://[^/:]+\.([^/:.]+)\.svc", url)):
            spaces = {space for rule in policy["spec"]["egress"] for space in _namespaces(rule)}
            if cluster[1] not in spaces | {release.namespace}:
                yield f"{name} is {url}, and no policy lets the application reach {cluster[1]}"


def _to_addresses(rule: Mapping[str, Any]) -> bool:
    return any("ipBlock" in peer for peer in rule.get("to") or ())


def _namespaces(rule: Mapping[str, Any]) -> Iterator[str]:
    for peer in rule.get("to") or ():
        labels = (peer.get("namespaceSelector") or {}).get("matchLabels") or {}
        yield labels.get("kubernetes.io/metadata.name", "")


def _port(url: str) -> int | None:
    scheme, _, rest = url.partition("://")
    port = rest.split("/")[0].rpartition(":")[2]
    return int(port) if port.isdigit() else _PORTS.get(scheme)


#: Without a gateway each signal goes to its own backend: attribute, variable, path behind it.
_DIRECT = {
    "otelcol.exporter.otlphttp.default.metrics_endpoint": ("MIMIR_URL", "/otlp/v1/metrics"),
    "otelcol.exporter.otlphttp.default.logs_endpoint": ("LOKI_URL", "/otlp/v1/logs"),
    "otelcol.exporter.otlphttp.default.traces_endpoint": ("TEMPO_URL", "/v1/traces"),
    "loki.write.default.endpoint.url": ("LOKI_URL", "/loki/api/v1/push"),
}


@APPLICATION.register
def without_a_gateway_each_signal_finds_its_backend(release: Release) -> Iterator[str]:
    """An Alloy without credentials sends each signal to its own backend, not to a gateway."""
    for file in release.config_files():
        if not file.key.endswith(".alloy") or "GATEWAY_URL" in file.text:
            continue
        found = alloy_settings(file.text)
        for path, (variable, behind) in _DIRECT.items():
            wanted = f'sys.env("{variable}") + "{behind}"'
            here = path.startswith("loki.") == (file.key == "pod-logs.alloy")
            if here and found.get(path) != wanted:
                yield f"{file.key}: {path} is {found.get(path)}, must be {wanted}"
