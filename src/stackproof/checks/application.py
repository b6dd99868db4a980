"""What must hold between the parts of one render of charts/open-webui-stack, whatever its values.

These are of the chart itself, where `settings` are of the values that this repository deploys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from stackproof.helm.endpoints import Endpoint
from stackproof.helm.manifests import COMPONENT, EnvVar, Manifest, Release, at, containers, pod_spec
from stackproof.helm.references import Cluster, PodTemplate
from stackproof.repo.versions import version_key
from stackproof.toolchain.openwebui import READY_SINCE

from . import Rules, alloy
from .network import Peer, Policies
from .pods import owned, patient

APPLICATION: Rules[Release] = Rules()

#: Where each signal is sent to.
ENDPOINTS = {
    "traces": "OTEL_EXPORTER_OTLP_ENDPOINT",
    "metrics": "OTEL_METRICS_EXPORTER_OTLP_ENDPOINT",
    "logs": "OTEL_LOGS_EXPORTER_OTLP_ENDPOINT",
}
#: Where browsers find it: it calls neither.
_OWN_ADDRESSES = {"WEBUI_URL", "CORS_ALLOW_ORIGIN"}
_PORTS = {"http": 80, "https": 443, "redis": 6379, "rediss": 6379}
_URL = re.compile(r"(?P<scheme>https?|rediss?)://(?P<host>[\w.-]+)(:(?P<port>\d+))?([/?#].*)?")
#: An address of the internet, as good as any.
_INTERNET = Peer(address="8.8.8.8")


def _application(release: Release) -> Manifest | None:
    return release.find_component("Deployment", "open-webui")


def _environment(release: Release, workload: Manifest | None) -> dict[str, str | None]:
    """Return what the one container of a workload is given, nothing where there is none."""
    if workload is None:
        return {}
    (container,) = containers(workload)
    return release.env_values(container)


def _environments(release: Release) -> dict[str, dict[str, EnvVar]]:
    """Return the environment of each container, by its name."""
    every = (container for workload in release.workloads() for container in containers(workload))
    return {container["name"]: release.env(container) for container in every}


@APPLICATION.register
def each_signal_goes_to_its_own_path(release: Release) -> Iterator[str]:
    """Over HTTP the application uses an endpoint as it is: each signal needs its own path."""
    given = _environment(release, _application(release))
    if given.get("OTEL_OTLP_SPAN_EXPORTER") != "http":
        return
    for signal, variable in ENDPOINTS.items():
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
    several = application["spec"]["replicas"] > 1
    if several and at(application, "spec.strategy.type") != "RollingUpdate":
        yield "several replicas stop all at once for a new version (strategy)"
    jobs = release.of_kind("Job")
    if several != bool(jobs):
        yield "several replicas need a Job that migrates the database, one replica needs none"
    for job in jobs:
        if _environment(release, job).get("ENABLE_DB_MIGRATIONS") != "true":
            yield f"{job.ref} does not migrate (ENABLE_DB_MIGRATIONS)"
        if given.get("ENABLE_DB_MIGRATIONS") != "false":
            yield "the replicas migrate as well (ENABLE_DB_MIGRATIONS)"


@APPLICATION.register
def services_that_ask_for_a_key_get_one(release: Release) -> Iterator[str]:
    """Each external service of the application has its URL and its key, or neither."""
    given = _environment(release, _application(release))
    for url in sorted(name for name in given if re.fullmatch(r"EXTERNAL_\w+_URL", name)):
        key = url.replace("_URL", "_API_KEY")
        if "RERANKER" not in url and key not in given:
            yield f"{url} is set, and {key} is not"
    if given.get("RAG_RERANKING_ENGINE") == "external" and not given.get("RAG_RERANKING_MODEL"):
        yield "the reranker is not told which model to use (RAG_RERANKING_MODEL)"


@APPLICATION.register
def providers_outside_can_be_reached(release: Release) -> Iterator[str]:
    """Where policies close the application off, whatever its variables name stays reachable."""
    application = _application(release)
    if application is None:
        return
    pod, policies = PodTemplate.of(application), Policies(Cluster([release]))
    given = _environment(release, application)
    loads_pages = given.get("WEB_SEARCH_ENGINE") and not given.get("WEB_LOADER_ENGINE")
    if loads_pages and not policies.let_out(pod, _INTERNET, 443):
        yield "the application reads what a search finds, and no policy lets it reach port 443"
    if given.get("RAG_EMBEDDING_ENGINE") == "" and not policies.let_out(pod, _INTERNET, 443):
        yield "the application downloads its model, and no policy lets it reach port 443"
    for name in sorted(given.keys() - _OWN_ADDRESSES):
        for url in (given[name] or "").split(";"):
            if found := _URL.fullmatch(url):
                peer = _peer(release, found["host"])
                port = int(found["port"] or _PORTS[found["scheme"]])
                if peer and not policies.let_out(pod, peer, port):
                    yield f"{name} is {url}, and no policy lets the application reach port {port}"


def _peer(release: Release, host: str) -> Peer | None:
    """Return what a policy sees of a host, None for a Service of the release's own."""
    if re.fullmatch(r"[\d.]+", host):
        return Peer(address=host)
    service = Endpoint(host, None).service(release.namespace, ())
    if service is None:
        return _INTERNET
    return None if release.find("Service", service[1]) else Peer(namespace=service[0])


#: What is not the internet: private networks, and where nodes and their metadata are.
PRIVATE = {
    "0.0.0.0/0": {
        *("10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")
    },
    "::/0": {"fc00::/7", "fe80::/10"},
}
#: The Kubernetes API: its Service's port, and its own, which a policy sees on some networks.
_API = {443, 6443}


@APPLICATION.register
def the_internet_is_not_the_cluster(release: Release) -> Iterator[str]:
    """Who may call the internet may not call private addresses; who needs the API may call it."""
    with_token = {m.name for m in release.workloads() if pod_spec(m).get(_TOKEN) is True}
    for policy in release.of_kind("NetworkPolicy"):
        rules = policy["spec"].get("egress") or ()
        component = str(policy.labels.get(COMPONENT))
        world = {port for rule in rules if _to_world(rule) for port in _ports(rule)}
        if not all(rule.get("to") for rule in rules):
            yield f"{policy.ref} lets out to everybody"
        if None in world:
            yield f"{policy.ref} lets out to the internet on every port"
        elif component in _SEARCHING and world != _SEARCHING[component]:
            yield f"{policy.ref} lets out to the internet on ports {sorted(world)}"
        to_api = [rule for rule in rules if _ports(rule) == _API]
        called = [peer for rule in to_api for peer in rule.get("to") or ()]
        if policy.name in with_token and not any("ipBlock" in peer for peer in called):
            yield f"{policy.ref} does not let out to the Kubernetes API, on ports {sorted(_API)}"
        for rule in rules:
            for peer in rule.get("to") or () if rule not in to_api else ():
                block = peer.get("ipBlock") or {}
                private = PRIVATE.get(block.get("cidr", ""), set())
                if lacking := private - set(block.get("except") or ()):
                    yield f"{policy.ref} lets out to {sorted(lacking)}, which is not the internet"


#: Ports of the internet that a component needs: search engines, pages, models; stores need none.
_SEARCHING: Mapping[str, set[int]] = {
    "searxng": {443},
    "crawl4ai": {80, 443},
    "reranker": {443},
    "gateway": set(),
    "postgres": set(),
    "weaviate": set(),
}


def _to_world(rule: Mapping[str, Any]) -> bool:
    peers = rule.get("to") or ()
    return any((peer.get("ipBlock") or {}).get("cidr") in PRIVATE for peer in peers)


def _ports(rule: Mapping[str, Any]) -> set[Any]:
    """Return the ports of a rule; None is every port."""
    return {port.get("port") for port in rule.get("ports") or [{}]}


_TOKEN = "automountServiceAccountToken"


@APPLICATION.register
def alloy_passes_everything_on_as_its_tenant(release: Release) -> Iterator[str]:
    """All signals pass the tenant's Alloy, are marked as the tenant's and reach their backend."""
    found = alloy.Alloy.of(release)
    if found is not None:
        yield from alloy.faults(found)
    for workload in release.workloads():
        if workload.labels.get(COMPONENT) == "alloy" and found is not None:
            reads_pods = "POD_NAMESPACE" in found.environment
            if reads_pods != bool(found.components("loki.source.kubernetes")):
                yield "pod logs are half switched on: the file and the rights belong together"
            if reads_pods and at(workload, "spec.strategy.type") != "Recreate":
                yield "two Alloys at once would collect each line twice (strategy)"


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: What each program reads: the application's own (open_webui/env.py and config.py, 0.12.4), what
#: its libraries read, and the variables of the other images (their documentation).
READ: Mapping[str, frozenset[str]] = {
    "open-webui": _names(
        """
        GLOBAL_LOG_LEVEL ENABLE_PERSISTENT_CONFIG WEBUI_URL CORS_ALLOW_ORIGIN ENABLE_SIGNUP
        ENABLE_ADMIN_CHAT_ACCESS BYPASS_MODEL_ACCESS_CONTROL ENABLE_CODE_EXECUTION
        ENABLE_CODE_INTERPRETER ENABLE_COMMUNITY_SHARING ENABLE_EVALUATION_ARENA_MODELS
        JWT_EXPIRES_IN WEBUI_NAME DEFAULT_LOCALE RAG_EMBEDDING_BATCH_SIZE RAG_TOP_K
        RAG_TOP_K_RERANKER RAG_RELEVANCE_THRESHOLD RAG_HYBRID_BM25_WEIGHT CHUNK_SIZE CHUNK_OVERLAP
        RAG_ALLOWED_FILE_EXTENSIONS QUERY_GENERATION_PROMPT_TEMPLATE SEARXNG_LANGUAGE
        USER_PERMISSIONS_CHAT_DELETE USER_PERMISSIONS_FEATURES_NOTES
        DEFAULT_USER_ROLE WEBUI_ADMIN_EMAIL WEBUI_ADMIN_NAME WEBUI_ADMIN_PASSWORD WEBUI_SECRET_KEY
        STATIC_DIR DATABASE_URL ENABLE_DB_MIGRATIONS ENABLE_OLLAMA_API ENABLE_OPENAI_API
        OPENAI_API_BASE_URL OPENAI_API_KEY RAG_EMBEDDING_ENGINE RAG_EMBEDDING_MODEL
        RAG_OPENAI_API_BASE_URL RAG_OPENAI_API_KEY VECTOR_DB WEAVIATE_HTTP_HOST WEAVIATE_HTTP_PORT
        WEAVIATE_GRPC_HOST WEAVIATE_GRPC_PORT ENABLE_RAG_HYBRID_SEARCH RAG_RERANKING_ENGINE
        RAG_RERANKING_MODEL RAG_EXTERNAL_RERANKER_URL ENABLE_WEB_SEARCH WEB_SEARCH_ENGINE
        SEARXNG_QUERY_URL CONTENT_EXTRACTION_ENGINE EXTERNAL_DOCUMENT_LOADER_URL
        EXTERNAL_DOCUMENT_LOADER_API_KEY WEB_LOADER_ENGINE EXTERNAL_WEB_LOADER_URL
        EXTERNAL_WEB_LOADER_API_KEY REDIS_URL WEBSOCKET_MANAGER ENABLE_OTEL ENABLE_OTEL_TRACES
        ENABLE_OTEL_METRICS ENABLE_OTEL_LOGS OTEL_OTLP_SPAN_EXPORTER OTEL_EXPORTER_OTLP_ENDPOINT
        OTEL_METRICS_EXPORTER_OTLP_ENDPOINT OTEL_LOGS_EXPORTER_OTLP_ENDPOINT
        OTEL_EXPORTER_OTLP_INSECURE OTEL_SERVICE_NAME OTEL_METRICS_EXPORT_INTERVAL_MILLIS
        OTEL_TRACES_SAMPLER OTEL_TRACES_SAMPLER_ARG OTEL_RESOURCE_ATTRIBUTES
        OTEL_BLRP_MAX_EXPORT_BATCH_SIZE OTEL_BSP_MAX_EXPORT_BATCH_SIZE
        OTEL_PYTHON_FASTAPI_EXCLUDED_URLS OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION PGPASSWORD HOME
        ANONYMIZED_TELEMETRY DO_NOT_TRACK SCARF_NO_ANALYTICS
        """
    ),
    "postgres": frozenset({"POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASSWORD", "PGDATA"}),
    "searxng": frozenset({"SEARXNG_SECRET"}),
    "weaviate": _names(
        """
        PERSISTENCE_DATA_PATH CLUSTER_HOSTNAME DEFAULT_VECTORIZER_MODULE DISABLE_TELEMETRY
        AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED LIMIT_RESOURCES
        """
    ),
    "gateway": _names(
        """
        GATEWAY_LOG_LEVEL GATEWAY_API_KEY GATEWAY_SEARXNG_URL GATEWAY_CRAWL4AI_URL CRAWL4AI_URL
        CRAWL4AI_API_TOKEN
        """
    ),
    "crawl4ai": frozenset({"CRAWL4AI_API_TOKEN"}),
    "reranker": frozenset({"RERANKER_MODEL"}),
}
#: What a program must know when all of these run, each by its component.
NEEDED = (
    ("open-webui", (), ("WEBUI_SECRET_KEY", "STATIC_DIR", "HOME", "DEFAULT_USER_ROLE")),
    ("open-webui", ("postgres",), ("DATABASE_URL", "PGPASSWORD")),
    ("open-webui", ("weaviate",), ("VECTOR_DB", "WEAVIATE_HTTP_HOST", "WEAVIATE_GRPC_HOST")),
    ("open-webui", ("searxng",), ("WEB_SEARCH_ENGINE", "SEARXNG_QUERY_URL")),
    ("open-webui", ("gateway",), ("CONTENT_EXTRACTION_ENGINE", "EXTERNAL_DOCUMENT_LOADER_URL")),
    ("open-webui", ("gateway", "crawl4ai"), ("WEB_LOADER_ENGINE", "EXTERNAL_WEB_LOADER_URL")),
    (
        "open-webui",
        ("reranker",),
        ("ENABLE_RAG_HYBRID_SEARCH", "RAG_RERANKING_ENGINE", "RAG_EXTERNAL_RERANKER_URL"),
    ),
    ("gateway", (), ("GATEWAY_API_KEY",)),
    ("gateway", ("searxng",), ("GATEWAY_SEARXNG_URL",)),
    ("gateway", ("crawl4ai",), ("GATEWAY_CRAWL4AI_URL", "CRAWL4AI_URL", "CRAWL4AI_API_TOKEN")),
    ("crawl4ai", (), ("CRAWL4AI_API_TOKEN",)),
    ("reranker", (), ("RERANKER_MODEL",)),
)


#: What the application calls the engines that this chart runs for it (config.py).
ENGINES = {
    "VECTOR_DB": "weaviate",
    "WEB_SEARCH_ENGINE": "searxng",
    "WEB_LOADER_ENGINE": "external",
    "CONTENT_EXTRACTION_ENGINE": "external",
    "RAG_RERANKING_ENGINE": "external",
}


@APPLICATION.register
def programs_get_variables_that_they_read(release: Release) -> Iterator[str]:
    """No variable is one that its program does not read, and each knows who runs beside it."""
    given = _environments(release)
    extra = frozenset({"ENABLE_CHANNELS", "OAUTH_CLIENT_SECRET"})  # of the scenarios
    for program, names in READ.items():
        for name in sorted(given.get(program, {}).keys() - names - extra):
            if not name.startswith("POD_"):  # for others above it
                yield f"{program} reads no {name}"
    for program, beside, needed in NEEDED:
        for name in needed if {program, *beside} <= given.keys() else ():
            if name not in given[program]:
                yield f"{program} is not told of {' and '.join(beside) or 'its own'} ({name})"
    for name, value in ENGINES.items():
        found = given.get("open-webui", {}).get(name)
        if found is not None and found.value != value:
            yield f"open-webui: {name} is {found.value}, what this chart runs is {value}"
    sampler = given.get("open-webui", {}).get("OTEL_TRACES_SAMPLER")
    if sampler and "ratio" in (sampler.value or ""):
        share = given["open-webui"].get("OTEL_TRACES_SAMPLER_ARG")
        if share is None or not share.value:
            yield "a sampler by ratio keeps everything without OTEL_TRACES_SAMPLER_ARG"


@APPLICATION.register
def the_database_is_the_one_that_runs(release: Release) -> Iterator[str]:
    """The application opens the database that PostgreSQL makes, as its user, with its password."""
    environments = _environments(release)
    if not {"postgres", "open-webui"} <= environments.keys():
        return
    made, opened = environments["postgres"], environments["open-webui"]
    user, name = made["POSTGRES_USER"].value, made["POSTGRES_DB"].value
    url = opened["DATABASE_URL"].value or ""
    if not re.fullmatch(rf"postgresql://{user}@[^/@]+:5432/{name}", url):
        yield f"DATABASE_URL is {url}, PostgreSQL makes {name} of {user}"
    if made["POSTGRES_PASSWORD"].key != opened["PGPASSWORD"].key:
        yield "PGPASSWORD and POSTGRES_PASSWORD are not the same key"
    for workload in release.workloads():
        for container in containers(workload):
            asked = " ".join(map(str, at(container, "readinessProbe.exec.command") or ()))
            wanted = f"--host=127.0.0.1 --username={user} --dbname={name}"
            if container["name"] == "postgres" and not asked.endswith(wanted):
                yield f"the probe asks {asked}, not for {wanted}"


#: Users that own the images' files (their Dockerfiles); the application's belong to the root group.
USERS: Mapping[str, tuple[int, int]] = {
    "alloy": (473, 473),
    "open-webui": (1000, 0),
    "migrate": (1000, 0),
    "postgres": (70, 70),
    "searxng": (977, 977),
    "crawl4ai": (999, 999),
}
#: What a program answers when it is ready, and when it lives.
PROBES = {
    "alloy": ("/-/ready", "/-/ready"),
    "open-webui": ("/ready", "/health"),
    "weaviate": ("/v1/.well-known/ready", "/v1/.well-known/live"),
    "searxng": ("/healthz", "/healthz"),
    "gateway": ("/health", "/health"),
    "crawl4ai": ("/health", "/health"),
    "reranker": ("/health", "/health"),
}
#: What an open-webui before 0.8.11 answers: it has no /ready (its main.py at v0.6.43).
_OLD_PROBES = ("/health/db", "/health")


def _is_old(image: str) -> bool:
    repository, _, tag = image.partition("@")[0].rpartition(":")
    return repository.endswith("open-webui/open-webui") and version_key(tag) < READY_SINCE


#: Ports that the programs listen on, whatever the chart says.
PORTS = {
    "open-webui": {8080},
    "postgres": {5432},
    "weaviate": {8080, 50051},
    "searxng": {8080},
    "gateway": {8000},
    "crawl4ai": {11235},
    "reranker": {8000},
}
#: Least time for a start [s]: migrating, recovering, loading a model (the fork gives 300 to the
#: first).
STARTS = {"open-webui": 300, "postgres": 300, "weaviate": 300, "crawl4ai": 300, "reranker": 300}


@APPLICATION.register
def pods_fit_their_programs(release: Release) -> Iterator[str]:
    """Each component is its image's user, and is asked for what its program answers, in time."""
    for workload in release.workloads():
        for container in containers(workload):
            name = container["name"]
            yield from owned(workload, USERS.get(name))
            ports = {port["containerPort"] for port in container.get("ports") or ()}
            if ports != PORTS.get(name, ports):
                yield f"container {name}: its program listens on {PORTS[name]}, not {ports}"
            if workload.kind not in {"Job", "CronJob"}:
                yield from patient(container, STARTS.get(name, 0))
                yield from _answered(container)


def _answered(container: Mapping[str, Any]) -> Iterator[str]:
    """Yield where probes ask for what the program does not answer, or not so soon."""
    name = container["name"]
    paths = _OLD_PROBES if _is_old(container["image"]) else PROBES.get(name)
    for i, probe in enumerate(("readinessProbe", "livenessProbe")):
        asked = at(container, f"{probe}.httpGet.path")
        if paths and (asked != paths[i] or at(container, f"{probe}.httpGet.port") != "http"):
            yield f"container {name}: {probe} asks for {asked}, must ask http for {paths[i]}"
        within = at(container, f"{probe}.timeoutSeconds") or 1
        if name != "alloy" and within < _BUSY_S:
            yield f"container {name}: {probe} gives up after {within} s, must be {_BUSY_S} or more"


#: A Python process under load, or a database that writes, answers later than in a second.
_BUSY_S = 5
