"""Settings whose value matters, each with the reason why it is this one and no other.

No snapshot: what is not in a table here may change freely. The tables hold for the deployment of
this repository; what holds for any chart is in `invariants`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from stackproof.checks import Checks
from stackproof.checks.deployment import Scene
from stackproof.manifests import Manifest, Release, containers, pod_template
from stackproof.versions import Versions

SETTINGS: Checks[Scene] = Checks()

_COMPONENT = "app.kubernetes.io/component"
_ABSENT = "nothing"


@dataclass(frozen=True)
class Setting:
    """A value and its reason."""

    path: str
    value: object
    why: str


def at(data: Any, path: str) -> Any:
    """Return what stands at a dotted path of maps and lists, None where nothing does."""
    for key in path.split("."):
        if isinstance(data, Mapping):
            data = data.get(key)
        elif isinstance(data, list) and key.isdigit() and int(key) < len(data):
            data = data[int(key)]
        else:
            return None
    return data


def _differing(where: str, data: Any, settings: Sequence[Setting]) -> Iterator[str]:
    for one in settings:
        found = at(data, one.path)
        if found != one.value:
            shown = _ABSENT if found is None else found
            yield f"{where}: {one.path} is {shown}, must be {one.value}: {one.why}"


# --- Mimir, Loki, Tempo -------------------------------------------------------------------------

_ALONE = "one process keeps its ring in memory, and finds itself on the loopback interface"
_AT_ONCE = "a single replica waits for nobody"
_PORT = "the pod's port, which a laptop replaces"
_INSIDE = "only the process itself talks gRPC: nobody may from outside"


def _server() -> tuple[Setting, ...]:
    return (
        Setting("target", "all", "one process is the whole backend"),
        Setting("server.http_listen_address", "${LISTEN_ADDRESS}", _PORT),
        Setting("server.http_listen_port", "${HTTP_PORT}", _PORT),
        Setting("server.grpc_listen_address", "127.0.0.1", _INSIDE),
        Setting("server.grpc_listen_port", "${GRPC_PORT}", _PORT),
        Setting("memberlist.bind_addr", ["127.0.0.1"], "nobody to gossip with"),
        Setting("memberlist.bind_port", 0, "a fixed port could be taken"),
    )


def _ring(path: str) -> tuple[Setting, ...]:
    return (
        Setting(f"{path}.kvstore.store", "inmemory", _ALONE),
        Setting(f"{path}.instance_addr", "127.0.0.1", _ALONE),
    )


_MIMIR_RINGS = (
    "compactor.sharding_ring",
    "ruler.ring",
    "distributor.ring",
    "ingester.ring",
    "store_gateway.sharding_ring",
    "query_scheduler.ring",
    "overrides_exporter.ring",
)
_OVERRIDES = "limits of single tenants come from here, without a restart"
_ONE_COPY = "there is one ingester: a second copy has no place"
_EACH_TENANT = "memory of each tenant, however little it sends"
_QUIET = "a deployment of a customer reports nothing home"

BACKENDS: Mapping[str, tuple[Setting, ...]] = {
    "mimir": (
        *_server(),
        *(part for ring in _MIMIR_RINGS for part in _ring(ring)),
        Setting("usage_stats.enabled", False, _QUIET),
        Setting("server.log_level", "${LOG_LEVEL:warn}", "each request would be a line"),
        Setting("runtime_config.file", "${CONFIG_DIR}/overrides.yaml", _OVERRIDES),
        Setting("runtime_config.period", "${OVERRIDES_PERIOD:10s}", _OVERRIDES),
        Setting("activity_tracker.filepath", "${DATA_DIR}/metrics-activity.log", "read-only root"),
        Setting("blocks_storage.backend", "filesystem", "the volume is the store"),
        Setting("ruler_storage.backend", "filesystem", "the volume is the store"),
        Setting("blocks_storage.tsdb.stripe_size", 1024, _EACH_TENANT),
        Setting("ingester.ring.replication_factor", 1, _ONE_COPY),
        Setting("ingester.ring.min_ready_duration", "0s", _AT_ONCE),
        Setting("ingester.ring.final_sleep", "0s", _AT_ONCE),
        Setting("store_gateway.sharding_ring.replication_factor", 1, _ONE_COPY),
        Setting("store_gateway.sharding_ring.wait_stability_min_duration", "0s", _AT_ONCE),
        Setting("frontend.address", "127.0.0.1", _ALONE),
        Setting("frontend.scheduler_dns_lookup_period", "500ms", "ready as soon as it is found"),
        Setting("limits.otel_metric_suffixes_enabled", True, "names as dashboards have them"),
    ),
    "loki": (
        *_server(),
        Setting("analytics.reporting_enabled", False, _QUIET),
        Setting("server.log_level", "${LOG_LEVEL:-warn}", "each request would be a line"),
        Setting("runtime_config.file", "${CONFIG_DIR}/overrides.yaml", _OVERRIDES),
        Setting("runtime_config.period", "${OVERRIDES_PERIOD:-10s}", _OVERRIDES),
        Setting("common.instance_addr", "127.0.0.1", _ALONE),
        Setting("common.ring.kvstore.store", "inmemory", _ALONE),
        Setting("common.replication_factor", 1, _ONE_COPY),
        Setting("common.path_prefix", "${DATA_DIR}", "on the volume"),
        Setting("schema_config.configs.0.store", "tsdb", "OTLP needs tsdb and schema v13"),
        Setting("schema_config.configs.0.schema", "v13", "OTLP needs tsdb and schema v13"),
        Setting("schema_config.configs.0.object_store", "filesystem", "the volume is the store"),
        Setting("schema_config.configs.0.from", "2024-01-01", "a later date loses what is older"),
        Setting("schema_config.configs.0.index.period", "24h", "tsdb takes no other"),
        Setting("schema_config.configs.0.index.prefix", "index_", "a change loses what is older"),
        Setting("ingester.lifecycler.min_ready_duration", "0s", _AT_ONCE),
        Setting("ingester.lifecycler.final_sleep", "0s", _AT_ONCE),
        Setting("frontend.scheduler_dns_lookup_period", "500ms", "ready as soon as it is found"),
        Setting("query_scheduler.use_scheduler_ring", False, "there is no second scheduler"),
        Setting("limits_config.allow_structured_metadata", True, "it holds OTLP's trace_id"),
        Setting("limits_config.volume_enabled", True, "Grafana's log volume asks for it"),
    ),
    "tempo": (
        *_server(),
        *(part for ring in ("distributor.ring", "compactor.ring") for part in _ring(ring)),
        *_ring("metrics_generator.ring"),
        Setting("usage_report.reporting_enabled", False, _QUIET),
        Setting("server.log_level", "${LOG_LEVEL:-warn}", "each request would be a line"),
        Setting(
            "distributor.receivers.otlp.protocols.http.endpoint",
            "${LISTEN_ADDRESS}:${OTLP_HTTP_PORT}",
            "where the gateway sends traces",
        ),
        Setting("ingester.lifecycler.address", "127.0.0.1", _ALONE),
        Setting("ingester.lifecycler.ring.kvstore.store", "inmemory", _ALONE),
        Setting("ingester.lifecycler.ring.replication_factor", 1, _ONE_COPY),
        Setting("ingester.lifecycler.min_ready_duration", "0s", _AT_ONCE),
        Setting("ingester.lifecycler.final_sleep", "0s", _AT_ONCE),
        Setting("ingester.flush_check_period", "500ms", "a trace is searchable at once"),
        Setting("ingester.trace_idle_period", "500ms", "a trace is searchable at once"),
        Setting("compactor.ring.wait_stability_min_duration", "0s", _AT_ONCE),
        Setting("storage.trace.backend", "local", "the volume is the store"),
        Setting(
            "metrics_generator.registry.collection_interval",
            "${COLLECTION_INTERVAL:-15s}",
            "Grafana's default step",
        ),
        Setting(
            "metrics_generator.storage.remote_write.0.url", "${MIMIR_URL}/api/v1/push", "Mimir"
        ),
        Setting("metrics_generator.storage.remote_write.0.send_exemplars", True, "metric to trace"),
        Setting("metrics_generator.storage.wal.stripe_size", 512, _EACH_TENANT),
        Setting(
            "metrics_generator.storage.remote_write.0.queue_config",
            {"capacity": 2000, "max_samples_per_send": 500},
            _EACH_TENANT,
        ),
        Setting("overrides.per_tenant_override_config", "${CONFIG_DIR}/overrides.yaml", _OVERRIDES),
        Setting("overrides.per_tenant_override_period", "${OVERRIDES_PERIOD:-10s}", _OVERRIDES),
        Setting("query_frontend.search.max_result_limit", 10000, "a test finds all its traces"),
    ),
}


@SETTINGS.register
def backends_are_set_as_one_process_needs(scene: Scene) -> Iterator[str]:
    """Each backend runs as one process on its own volume, and nobody else reaches its inside."""
    for backend, settings in BACKENDS.items():
        yield from _differing(f"{backend}.yaml", scene.config(backend), settings)


#: Where each limit of a tenant stands: backend, path in its limits, and its place in the registry.
LIMITS = (
    ("mimir", "max_global_series_per_user", "metrics.activeSeries"),
    ("mimir", "ingestion_rate", "metrics.samplesPerSecond"),
    ("mimir", "ingestion_burst_size", "metrics.samplesBurst"),
    ("loki", "ingestion_rate_mb", "logs.megabytesPerSecond"),
    ("loki", "ingestion_burst_size_mb", "logs.megabytesBurst"),
    ("loki", "max_global_streams_per_user", "logs.streams"),
    ("tempo", "ingestion.rate_limit_bytes", "traces.bytesPerSecond"),
    ("tempo", "ingestion.burst_size_bytes", "traces.burstBytes"),
    ("tempo", "ingestion.max_traces_per_user", "traces.liveTraces"),
)
_DEFAULT_LIMITS = {"mimir": "limits", "loki": "limits_config", "tempo": "overrides.defaults"}


@SETTINGS.register
def limits_are_those_of_the_registry(scene: Scene) -> Iterator[str]:
    """Each tenant has the limits that its entry names, and the defaults where it names none."""
    for backend, path, place in LIMITS:
        default = at(scene.config(backend), f"{_DEFAULT_LIMITS[backend]}.{path}")
        if default is None:
            yield f"{backend}.yaml: {path} is not limited for a tenant that nobody lists"
        for tenant in scene.deployment.registry:
            wanted = at(tenant.limits, place)
            found = at(scene.overrides(backend).get(tenant.name), path)
            if found != (default if wanted is None else wanted):
                yield f"{backend}: {tenant.name}'s {path} is {found}, not its {place}"
    for tenant in scene.deployment.registry:
        strategy = at(scene.overrides("tempo").get(tenant.name), "ingestion.rate_strategy")
        if strategy != "local":
            yield f"tempo: {tenant.name}'s ingestion.rate_strategy needs a ring with others"


# --- The gateway --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Route:
    """A route of the Caddyfile."""

    methods: frozenset[str]
    path: re.Pattern[str]
    write: bool
    """Not for the administrator."""
    strip: str
    upstream: str


_ROUTE = re.compile(
    r"@(?P<name>[\w-]+) \{\s*method (?P<methods>[A-Z ]+?)\s*"
    r"vars_regexp \{http\.request\.uri\} \^\((?P<path>.*)\)\(\[\?\]\|\$\)\s*"
    r"(?P<write>not vars \{http\.auth\.user\.id\} admin\s*)?\}\s*"
    r"handle @(?P=name) \{\s*(?:uri strip_prefix (?P<strip>\S+)\s*)?"
    r"import backend \{\$(?P<upstream>\w+)\}\s*\}"
)


def routes(caddyfile: str) -> list[Route]:
    """Return the gateway's routes, in their order."""
    return [
        Route(
            frozenset(one["methods"].split()),
            re.compile(one["path"]),
            bool(one["write"]),
            one["strip"] or "",
            one["upstream"],
        )
        for one in _ROUTE.finditer(caddyfile)
    ]


#: What Alloy, Tempo and Grafana send: method, path, the backend and its path, by an admin too.
REQUESTS = (
    ("POST", "/otlp/v1/metrics", "MIMIR_URL", "/otlp/v1/metrics", False),
    ("POST", "/api/v1/push", "MIMIR_URL", "/api/v1/push", False),
    ("POST", "/otlp/v1/logs", "LOKI_URL", "/otlp/v1/logs", False),
    ("POST", "/loki/api/v1/push", "LOKI_URL", "/loki/api/v1/push", False),
    ("POST", "/otlp/v1/traces", "TEMPO_OTLP_URL", "/v1/traces", False),
    *(
        (method, f"/prometheus/api/v1/{name}", "MIMIR_URL", f"/prometheus/api/v1/{name}", True)
        for method in ("GET", "POST")
        for name in ("query", "query_range", "series", "labels", "query_exemplars")
    ),
    *(
        ("GET", f"/loki/api/v1/{name}", "LOKI_URL", f"/loki/api/v1/{name}", True)
        for name in ("query", "query_range", "labels", "label/app/values", "series", "index/stats")
    ),
    ("POST", "/loki/api/v1/query_range", "LOKI_URL", "/loki/api/v1/query_range", True),
    *(
        ("GET", f"/tempo/api/{name}", "TEMPO_URL", f"/api/{name}", True)
        for name in ("search", "traces/0af7651916cd43dd8448eb211c80319c", "v2/search/tags", "echo")
    ),
)
#: What nobody may send.
REFUSED = (
    ("GET", "/config"),
    ("GET", "/otlp/v1/metrics"),
    ("GET", "/api/v1/push"),
    ("GET", "/otlp/v1/traces"),
    ("GET", "/otlp/v1/logs"),
    ("DELETE", "/loki/api/v1/query"),
    ("POST", "/tempo/api/search"),
    ("POST", "/loki/api/v1/delete"),
    ("POST", "/prometheus/config/v1/rules/x"),
    ("POST", "/otlp/v1/metrics/../../ruler/delete_tenant"),
)

#: Statements of the Caddyfile in the order in which a request meets them, and why each is there.
STATEMENTS = (
    ("admin off", "its API would change the configuration"),
    ("persist_config off", "a change would outlive the ConfigMap"),
    ("auto_https off", "it would ask an authority for certificates"),
    ("output stdout", "the kubelet collects it"),
    ("level {$LOG_LEVEL:WARN}", "each request would be a line"),
    ("protocols h1 h2c", "there is no TLS here"),
    ("header_up X-Scope-OrgID {vars.tenant}", "the user is the tenant"),
    ("header_up -Authorization", "backends never see a password"),
    ("compression off", "what a client did not ask for it need not understand"),
    ("http://:{$HTTP_PORT} {", "the pod's port"),
    ("bind {$LISTEN_ADDRESS}", "the pod's address"),
    ("vars {http.request.uri} /-/ready", "the kubelet asks without a password"),
    ("respond @ready 200", "the kubelet asks without a password"),
    ("basic_auth {", "nobody gets further without a password"),
    ("import {$USERS_DIR}/users", "the users are in a Secret"),
    ("max_size ", "a body must not fill the memory"),
    ("@tenant not vars {http.auth.user.id} admin", "the administrator is no tenant"),
    ("not vars {http.auth.user.id} admin", "the administrator is no tenant"),
    (
        'not vars {http.request.header.X-Scope-OrgID} "" {http.auth.user.id}',
        "a header may repeat who the user is, and nothing else",
    ),
    ('error @foreign "X-Scope-OrgID names another tenant" 403', "a claim is refused, not dropped"),
    ("vars @tenant tenant {http.auth.user.id}", "the user is the tenant"),
    ("@admin vars {http.auth.user.id} admin", "the administrator names tenants"),
    ("vars {http.auth.user.id} admin", "the administrator names tenants"),
    ("not vars_regexp {http.request.header.X-Scope-OrgID} ^(", "only tenants that exist"),
    ('error @unknown "X-Scope-OrgID is not a list of known tenants joined by |" 403', "as above"),
    ("vars @admin tenant {http.request.header.X-Scope-OrgID}", "the administrator names tenants"),
    ("error 404", "what is not listed is not there"),
    ('respond "{err.status_code} {err.message}" {err.status_code}', "an error says what it is"),
)


@SETTINGS.register
def the_gateway_lets_through_what_is_listed(scene: Scene) -> Iterator[str]:
    """Each request of Alloy and Grafana reaches its backend, and no other request reaches any."""
    caddyfile = _caddyfile(scene)
    if caddyfile is None:
        return
    known = routes(caddyfile)
    for method, path, upstream, behind, admin in REQUESTS:
        found = _first(known, method, path)
        if found is None:
            yield f"Caddyfile: {method} {path} is let through by no route"
        elif (found.upstream, path.removeprefix(found.strip)) != (upstream, behind):
            yield f"Caddyfile: {method} {path} goes to {found.upstream}, not {upstream}{behind}"
        elif found.write is admin:
            yield f"Caddyfile: {method} {path} {'is not' if admin else 'is'} for the administrator"
    for method, path in REFUSED:
        if _first(known, method, path):
            yield f"Caddyfile: {method} {path} is let through"
    if len(known) != caddyfile.count("handle @"):
        yield "Caddyfile: a route has another shape than the others"


def _first(known: Sequence[Route], method: str, path: str) -> Route | None:
    return next((r for r in known if method in r.methods and r.path.fullmatch(path)), None)


def _caddyfile(scene: Scene) -> str | None:
    made = scene.lgtm.find("ConfigMap", "gateway")
    return str(made["data"]["Caddyfile"]) if made else None


@SETTINGS.register
def the_gateway_decides_in_this_order(scene: Scene) -> Iterator[str]:
    """Who a request comes from is decided before anything looks at what it asks for."""
    caddyfile = _caddyfile(scene)
    position = 0
    lines = [line.strip() for line in caddyfile.splitlines()] if caddyfile else []
    for statement, why in STATEMENTS if lines else ():
        later = (i for i, line in enumerate(lines) if i >= position and line.startswith(statement))
        found = next(later, None)
        if found is None:
            yield f"Caddyfile: there is no {statement!r} after line {position}: {why}"
        else:
            position = found + 1
    names = "|".join(scene.deployment.registry.names)
    if lines and f"^({names})([|]({names}))*$" not in str(caddyfile):
        yield "Caddyfile: the administrator's tenants are not exactly the registry's"


# --- Grafana ------------------------------------------------------------------------------------

_PROXY = "the browser has no password: Grafana asks"
_LINKED = "a click leads from one signal to the next"
_SHIFT = "logs and metrics of a span may be a little before and after it"

SOURCES: Mapping[str, tuple[Setting, ...]] = {
    "mimir": (
        Setting("type", "prometheus", "Mimir speaks PromQL"),
        Setting("access", "proxy", _PROXY),
        Setting("url", "$GATEWAY_URL/prometheus", "Mimir's prefix"),
        Setting("jsonData.httpMethod", "POST", "long queries fit no URL"),
        Setting("jsonData.prometheusType", "Mimir", "Grafana asks what Mimir has"),
        Setting("jsonData.exemplarTraceIdDestinations.0.name", "trace_id", _LINKED),
        Setting("jsonData.exemplarTraceIdDestinations.0.datasourceUid", "tempo{suffix}", _LINKED),
    ),
    "loki": (
        Setting("type", "loki", "LogQL"),
        Setting("access", "proxy", _PROXY),
        Setting("url", "$GATEWAY_URL", "Loki's paths start with /loki"),
        Setting("jsonData.derivedFields.0.name", "Trace", _LINKED),
        Setting("jsonData.derivedFields.0.matcherType", "label", "it is structured metadata"),
        Setting("jsonData.derivedFields.0.matcherRegex", "trace_id", _LINKED),
        Setting("jsonData.derivedFields.0.datasourceUid", "tempo{suffix}", _LINKED),
        Setting("jsonData.derivedFields.0.url", "$${__value.raw}", _LINKED),
    ),
    "tempo": (
        Setting("type", "tempo", "TraceQL"),
        Setting("access", "proxy", _PROXY),
        Setting("url", "$GATEWAY_URL/tempo", "the gateway's prefix"),
        Setting("jsonData.tracesToLogsV2.datasourceUid", "loki{suffix}", _LINKED),
        Setting("jsonData.tracesToLogsV2.spanStartTimeShift", "-5m", _SHIFT),
        Setting("jsonData.tracesToLogsV2.spanEndTimeShift", "5m", _SHIFT),
        Setting("jsonData.tracesToLogsV2.customQuery", True, "the default looks for labels"),
        Setting(
            "jsonData.tracesToLogsV2.query",
            '{service_name="$${__span.tags["service.name"]}"} | trace_id="$${__trace.traceId}"',
            "as OTLP logs are stored",
        ),
        Setting("jsonData.tracesToMetrics.datasourceUid", "mimir{suffix}", _LINKED),
        Setting("jsonData.tracesToMetrics.spanStartTimeShift", "-5m", _SHIFT),
        Setting("jsonData.tracesToMetrics.spanEndTimeShift", "5m", _SHIFT),
        Setting("jsonData.tracesToMetrics.tags.0.key", "service.name", "as span metrics have it"),
        Setting("jsonData.tracesToMetrics.tags.0.value", "service", "as span metrics have it"),
        Setting("jsonData.tracesToMetrics.queries.0.name", "Requests per second", "what it shows"),
        Setting(
            "jsonData.tracesToMetrics.queries.0.query",
            "sum(rate(traces_spanmetrics_calls_total{$$__tags}[5m]))",
            "the metric that Tempo's generator makes",
        ),
        Setting("jsonData.serviceMap.datasourceUid", "mimir{suffix}", _LINKED),
        Setting("jsonData.nodeGraph.enabled", True, "shows the service map"),
    ),
}
_CREDENTIAL = (
    Setting("basicAuth", True, "the gateway asks for a password"),
    Setting("basicAuthUser", "admin", "who may read every tenant"),
    Setting("secureJsonData.basicAuthPassword", "$GATEWAY_ADMIN_PASSWORD", "from the Secret"),
)


@SETTINGS.register
def data_sources_link_the_signals(scene: Scene) -> Iterator[str]:
    """Each reader's three data sources ask the gateway, and lead to each other."""
    for source in scene.data_sources:
        uid = str(source["uid"])
        backend, _, tenant = uid.partition("-")
        suffix = f"-{tenant}" if tenant else ""
        wanted = [
            Setting(s.path, s.value.format(suffix=suffix), s.why)
            if isinstance(s.value, str) and "{suffix}" in s.value
            else s
            for s in (*SOURCES.get(backend, ()), *_CREDENTIAL)
        ]
        yield from _differing(f"data source {uid}", source, wanted)
        if bool(source.get("isDefault")) != (uid == "mimir"):
            yield f"data source {uid}: one source is the default, that of all tenants' metrics"
    text = scene.lgtm.get("ConfigMap", "grafana-datasources")["data"]["datasources.yaml"]
    whole = yaml.load(text, Loader=yaml.CSafeLoader)
    yield from _differing(
        "datasources.yaml",
        whole,
        (
            Setting("apiVersion", 1, "what Grafana reads"),
            Setting("prune", True, "a tenant that is gone must not be shown"),
        ),
    )


#: Variables that decide something, by container: value and reason.
VARIABLES: Mapping[str, tuple[Setting, ...]] = {
    "grafana": (
        Setting("GF_SERVER_HTTP_PORT", "3000", "the container's port"),
        Setting("GF_PATHS_DATA", "/var/lib/grafana", "the volume"),
        Setting("GF_PATHS_PROVISIONING", "/etc/grafana/provisioning", "the data sources"),
        Setting("GF_ANALYTICS_REPORTING_ENABLED", "false", _QUIET),
        Setting("GF_ANALYTICS_CHECK_FOR_UPDATES", "false", _QUIET),
        Setting("GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES", "false", _QUIET),
        Setting("GF_USERS_ALLOW_SIGN_UP", "false", "whoever is in sees every tenant"),
        Setting("GF_AUTH_ANONYMOUS_ENABLED", "false", "whoever is in sees every tenant"),
    ),
    "gateway": (
        Setting("CONFIG_DIR", "/etc/gateway", "where the Caddyfile is"),
        Setting("USERS_DIR", "/etc/gateway-users", "where the users are"),
        Setting("LISTEN_ADDRESS", "0.0.0.0", "the pod's address"),  # noqa: S104
        Setting("XDG_DATA_HOME", "/tmp", "the root file system is read-only"),  # noqa: S108
        Setting("XDG_CONFIG_HOME", "/tmp", "the root file system is read-only"),  # noqa: S108
    ),
    "weaviate": (
        Setting("PERSISTENCE_DATA_PATH", "/var/lib/weaviate", "the volume"),
        Setting("CLUSTER_HOSTNAME", "weaviate-0", "its name in its own consensus log"),
        Setting("DEFAULT_VECTORIZER_MODULE", "none", "the application brings its vectors"),
        Setting("AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED", "true", "the policy keeps others out"),
        Setting("DISABLE_TELEMETRY", "true", _QUIET),
        Setting("LIMIT_RESOURCES", "true", "its heap stays below the container's limit"),
    ),
    "postgres": (
        Setting("POSTGRES_DB", "openwebui", "what DATABASE_URL names"),
        Setting("POSTGRES_USER", "openwebui", "what DATABASE_URL names"),
        Setting("PGDATA", "/var/lib/postgresql/data/pgdata", "lost+found would stop initdb"),
    ),
    "alloy": (
        Setting("CONFIG_DIR", "/etc/alloy", "where its files are"),
        Setting("DATA_DIR", "/var/lib/alloy/data", "the root file system is read-only"),
        Setting("LISTEN_ADDRESS", "0.0.0.0", "the pod's address"),  # noqa: S104
        Setting("OTLP_GRPC_PORT", "4317", "what OTLP clients expect"),
        Setting("OTLP_HTTP_PORT", "4318", "what OTLP clients expect"),
        Setting("HTTP_PORT", "12345", "probes and metrics"),
    ),
    "open-webui": (
        Setting("ANONYMIZED_TELEMETRY", "false", _QUIET),
        Setting("DO_NOT_TRACK", "true", _QUIET),
        Setting("SCARF_NO_ANALYTICS", "true", _QUIET),
        Setting("STATIC_DIR", "/tmp/static", "the root file system is read-only"),  # noqa: S108
        Setting("HOME", "/tmp", "the root file system is read-only"),  # noqa: S108
        Setting("ENABLE_OLLAMA_API", "false", "there is none"),
        Setting("ENABLE_PERSISTENT_CONFIG", "false", "the values decide, not the database"),
        Setting("ENABLE_SIGNUP", "false", "whoever reaches the page could make an account"),
        Setting("DEFAULT_USER_ROLE", "pending", "an administrator lets people in"),
        Setting("GLOBAL_LOG_LEVEL", "INFO", "DEBUG prints what users write"),
        Setting("ENABLE_OPENAI_API", "true", "the provider of the models"),
        Setting("OPENAI_API_BASE_URL", "https://api.openai.com/v1", "the provider of the models"),
        Setting("RAG_EMBEDDING_ENGINE", "openai", "the provider of the embeddings"),
        Setting("RAG_EMBEDDING_MODEL", "text-embedding-3-small", "stored vectors are of this one"),
        Setting("RAG_OPENAI_API_BASE_URL", "https://api.openai.com/v1", "whose key it is"),
        Setting("VECTOR_DB", "weaviate", "what the chart runs"),
        Setting("ENABLE_WEB_SEARCH", "true", "what the chart runs"),
        Setting("WEB_SEARCH_ENGINE", "searxng", "what the chart runs"),
        Setting("OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION", "false", "each line would be sent twice"),
        Setting("OTEL_PYTHON_FASTAPI_EXCLUDED_URLS", "/health$,/health/db$,/ready$", "probes"),
        Setting("OTEL_METRICS_EXPORT_INTERVAL_MILLIS", "10000", "fresh without a flood"),
        Setting("OTEL_TRACES_SAMPLER", "parentbased_always_on", "every trace is kept"),
        Setting("OTEL_OTLP_SPAN_EXPORTER", "grpc", "the port that the endpoint names"),
        Setting("ENABLE_OTEL", "true", "telemetry is what this deployment is for"),
        Setting("ENABLE_OTEL_TRACES", "true", "the seed's three signals"),
        Setting("ENABLE_OTEL_METRICS", "true", "the seed's three signals"),
        Setting("ENABLE_OTEL_LOGS", "true", "the seed's three signals"),
    ),
}
_VARIABLES_FROM: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "grafana": {
        "GF_SECURITY_ADMIN_USER": ("grafana-admin", "admin-user"),
        "GF_SECURITY_ADMIN_PASSWORD": ("grafana-admin", "admin-password"),
        "GATEWAY_ADMIN_PASSWORD": ("gateway-admin", "password"),
    },
    "open-webui": {
        "WEBUI_SECRET_KEY": ("open-webui-secrets", "webui-secret-key"),
        "PGPASSWORD": ("open-webui-secrets", "postgres-password"),
        "OPENAI_API_KEY": ("open-webui-provider-secrets", "openai-api-key"),
        "RAG_OPENAI_API_KEY": ("open-webui-provider-secrets", "rag-openai-api-key"),
    },
    "postgres": {"POSTGRES_PASSWORD": ("open-webui-secrets", "postgres-password")},
    "searxng": {"SEARXNG_SECRET": ("open-webui-searxng-secrets", "searxng-secret-key")},
    "alloy": {"GATEWAY_PASSWORD": ("open-webui-alloy-secrets", "gateway-password")},
}


def _running(scene: Scene) -> Iterator[tuple[Release, Manifest, Mapping[str, Any]]]:
    first = next(iter(scene.tenants.values()), None)
    for release in (scene.lgtm, *([first] if first else [])):
        for workload in release.workloads():
            for container in containers(workload):
                yield release, workload, container


@SETTINGS.register
def variables_say_what_they_must(scene: Scene) -> Iterator[str]:
    """Variables that decide about privacy, paths and providers have the values that they must."""
    for release, _, container in _running(scene):
        name = container["name"]
        variables = release.env(container)
        plain = {key: one.value for key, one in variables.items()}
        yield from _differing(f"container {name}", plain, VARIABLES.get(name, ()))
        for variable, (secret, key) in _VARIABLES_FROM.get(name, {}).items():
            found = variables.get(variable)
            if not found or not found.key or (found.key.name, found.key.key) != (secret, key):
                yield f"container {name}: {variable} must come from {secret}, key {key}"


# --- Alloy --------------------------------------------------------------------------------------

_ON = "the tenant's signals pass each step, in this order"
_POD_LABELS = "__meta_kubernetes_"
ALLOY: Mapping[str, tuple[Setting, ...]] = {
    "config.alloy": (
        Setting(
            "otelcol.receiver.otlp.default.grpc.endpoint",
            'sys.env("LISTEN_ADDRESS") + ":" + sys.env("OTLP_GRPC_PORT")',
            _PORT,
        ),
        Setting(
            "otelcol.receiver.otlp.default.http.endpoint",
            'sys.env("LISTEN_ADDRESS") + ":" + sys.env("OTLP_HTTP_PORT")',
            _PORT,
        ),
        *(
            Setting(f"{step}.output.{signal}", f"[{following}.input]", _ON)
            for step, following in (
                ("otelcol.receiver.otlp.default", "otelcol.processor.memory_limiter.default"),
                ("otelcol.processor.memory_limiter.default", "otelcol.processor.transform.tenant"),
            )
            for signal in ("metrics", "logs", "traces")
        ),
        Setting("otelcol.processor.memory_limiter.default.check_interval", '"1s"', "as advised"),
        Setting(
            "otelcol.processor.memory_limiter.default.limit_percentage", "80", "below the limit"
        ),
        Setting(
            "otelcol.processor.memory_limiter.default.spike_limit_percentage", "20", "as advised"
        ),
        Setting(
            "otelcol.processor.transform.tenant.error_mode",
            '"propagate"',
            "rather lose than mislabel",
        ),
        *(
            Setting(
                f"otelcol.processor.transform.tenant.{signal}_statements.{key}",
                value,
                "who sends is this tenant",
            )
            for signal in ("metric", "log", "trace")
            for key, value in (
                ("context", '"resource"'),
                (
                    "statements",
                    '[string.format(`set(attributes["tenant.id"], "%s")`, sys.env("TENANT_ID"))]',
                ),
            )
        ),
        Setting(
            "otelcol.auth.basic.tenant.username", 'sys.env("TENANT_ID")', "the user is the tenant"
        ),
        Setting(
            "otelcol.auth.basic.tenant.password", 'sys.env("GATEWAY_PASSWORD")', "from the Secret"
        ),
        Setting(
            "otelcol.exporter.otlphttp.default.client.endpoint",
            'sys.env("GATEWAY_URL") + "/otlp"',
            "the gateway",
        ),
        Setting(
            "otelcol.exporter.otlphttp.default.client.auth",
            "otelcol.auth.basic.tenant.handler",
            "the gateway asks",
        ),
        Setting(
            "otelcol.exporter.otlphttp.default.client.headers",
            '{ "X-Scope-OrgID" = sys.env("TENANT_ID"), }',
            "a wrong password is a 403",
        ),
    ),
    "pod-logs.alloy": (
        Setting("discovery.kubernetes.pods.role", '"pod"', "what prints"),
        Setting(
            "discovery.kubernetes.pods.namespaces.names",
            '[sys.env("POD_NAMESPACE")]',
            "the role is of this one",
        ),
        Setting("discovery.relabel.pods.targets", "discovery.kubernetes.pods.targets", _ON),
        Setting(
            "discovery.relabel.pods.rule.source_labels", f'["{_POD_LABELS}namespace"]', "label"
        ),
        Setting("discovery.relabel.pods.rule.target_label", '"namespace"', "label"),
        Setting(
            "discovery.relabel.pods.rule#2.source_labels", f'["{_POD_LABELS}pod_name"]', "label"
        ),
        Setting("discovery.relabel.pods.rule#2.target_label", '"pod"', "label"),
        Setting(
            "discovery.relabel.pods.rule#3.source_labels",
            f'["{_POD_LABELS}pod_container_name"]',
            "label",
        ),
        Setting("discovery.relabel.pods.rule#3.target_label", '"container"', "label"),
        Setting(
            "discovery.relabel.pods.rule#4.source_labels",
            f'["{_POD_LABELS}pod_label_app_kubernetes_io_component"]',
            "label",
        ),
        Setting("discovery.relabel.pods.rule#4.target_label", '"component"', "label"),
        Setting("loki.source.kubernetes.pods.targets", "discovery.relabel.pods.output", _ON),
        Setting("loki.source.kubernetes.pods.forward_to", "[loki.process.tenant.receiver]", _ON),
        Setting("loki.process.tenant.forward_to", "[loki.write.default.receiver]", _ON),
        Setting(
            "loki.process.tenant.stage.tenant.value", 'sys.env("TENANT_ID")', "no label decides"
        ),
        Setting(
            "loki.write.default.endpoint.url",
            'sys.env("GATEWAY_URL") + "/loki/api/v1/push"',
            "the gateway",
        ),
        Setting(
            "loki.write.default.endpoint.basic_auth.username",
            'sys.env("TENANT_ID")',
            "the user is the tenant",
        ),
        Setting(
            "loki.write.default.endpoint.basic_auth.password",
            'sys.env("GATEWAY_PASSWORD")',
            "from the Secret",
        ),
    ),
}


def alloy_settings(text: str) -> dict[str, str]:
    """Return an Alloy file's attributes by the dotted names and labels of their blocks.

    A block that comes again gets a number: `rule`, `rule#2`. A map stays one value.
    """
    found: dict[str, str] = {}
    times: dict[str, int] = {}
    blocks: list[str] = []
    lines = iter(text.splitlines())
    for line in (line.strip() for line in lines):
        attribute = re.match(r"([\w.]+)\s*=\s*(.*)", line)
        if line.startswith("//") or not line:
            continue
        if line == "}":
            blocks.pop()
        elif attribute:
            value = attribute[2]
            while value.count("{") > value.count("}"):
                value += f" {next(lines).strip()}"
            found[".".join((*blocks, attribute[1]))] = re.sub(r"\s+=\s+", " = ", value)
        elif line.endswith("{"):
            name = ".".join(part.strip('"') for part in line[:-1].split())
            place = ".".join((*blocks, name))
            times[place] = times.get(place, 0) + 1
            blocks.append(name if times[place] == 1 else f"{name}#{times[place]}")
    return found


@SETTINGS.register
def alloy_passes_everything_on_as_the_tenant(scene: Scene) -> Iterator[str]:
    """Each tenant's Alloy receives, limits, labels, batches and sends all three signals."""
    for release in scene.tenants.values():
        for file in release.config_files():
            for one in ALLOY.get(file.key, ()):
                found = alloy_settings(file.text).get(one.path, _ABSENT)
                if found != one.value:
                    yield f"{file.key}: {one.path} is {found}, must be {one.value}: {one.why}"


@SETTINGS.register
def the_application_knows_its_address(scene: Scene) -> Iterator[str]:
    """What users type is what the application believes its address to be, and nobody else's."""
    for release in scene.tenants.values():
        for ingress in release.of_kind("Ingress"):
            spec = ingress["spec"]
            scheme = "https" if spec.get("tls") else "http"
            wanted = f"{scheme}://{spec['rules'][0]['host']}"
            data = release.get("ConfigMap", "open-webui-config")["data"]
            for name in ("WEBUI_URL", "CORS_ALLOW_ORIGIN"):
                if data.get(name) != wanted:
                    yield f"{name} is {data.get(name)}, the Ingress says {wanted}"


# --- Pods ---------------------------------------------------------------------------------------

#: What a program answers when it is ready, and when it lives; None: only that its port is open.
PROBES: Mapping[str, tuple[str, str | None]] = {
    "mimir": ("/ready", None),
    "loki": ("/ready", None),
    "tempo": ("/ready", None),
    "grafana": ("/api/health", "/api/health"),
    "gateway": ("/-/ready", "/-/ready"),
    "alloy": ("/-/ready", "/-/ready"),
    "open-webui": ("/ready", "/health"),
    "weaviate": ("/v1/.well-known/ready", "/v1/.well-known/live"),
    "searxng": ("/healthz", "/healthz"),
}
#: How long a start may take [s], by what takes so long.
STARTS = {
    "mimir": (300, "replaying the write-ahead log"),
    "loki": (300, "replaying the write-ahead log"),
    "tempo": (300, "replaying the write-ahead log"),
    "grafana": (180, "migrating its database"),
    "open-webui": (600, "migrating its database"),
    "postgres": (600, "recovering"),
    "weaviate": (600, "loading its index"),
    "searxng": (120, "loading its engines"),
}


@SETTINGS.register
def probes_ask_what_the_programs_answer(scene: Scene) -> Iterator[str]:
    """Each probe asks for the path that its program has, and waits as long as a start may take."""
    for _, workload, container in _running(scene):
        name = container["name"]
        if name in PROBES and workload.kind != "Job":
            ready, alive = PROBES[name]
            for probe, path in (("readinessProbe", ready), ("livenessProbe", alive)):
                found = at(container, f"{probe}.httpGet.path")
                if found != path or at(container, f"{probe}.httpGet.port") not in ("http", None):
                    yield f"container {name}: {probe} asks for {found}, must ask for {path}"
            if alive is None and at(container, "livenessProbe.tcpSocket.port") != "http":
                yield f"container {name}: a long query must not look like death: only the port"
        if name in STARTS and workload.kind != "Job":
            start = container.get("startupProbe") or {}
            seconds = start.get("periodSeconds", 10) * start.get("failureThreshold", 3)
            wanted, why = STARTS[name]
            if seconds != wanted:
                yield f"container {name}: a start may take {seconds} s, must {wanted} s: {why}"
        for probe in ("readinessProbe", "livenessProbe"):
            waits = at(container, f"{probe}.periodSeconds") or 10
            fails = at(container, f"{probe}.failureThreshold") or 3
            if probe == "readinessProbe" and waits * fails > 30:
                yield f"container {name}: gets requests for {waits * fails} s after it is unready"
            if probe == "livenessProbe" and not 60 <= waits * fails <= 180:
                yield f"container {name}: is killed after {waits * fails} s, must be 60 to 180"


@SETTINGS.register
def images_are_those_of_the_pins(scene: Scene) -> Iterator[str]:
    """Every image is the one that versions.yaml pins for it."""
    pinned = {str(image) for image in Versions.load(scene.deployment.checkout).images.values()}
    for _, workload, container in _running(scene):
        if container["image"] not in pinned:
            yield f"{workload.ref}: {container['image']} is not in versions.yaml"
        if container.get("imagePullPolicy") != "IfNotPresent":
            yield f"{workload.ref}: a pinned image is pulled only where it is absent"


#: Requests and limits: what the plan gives its components; what it does not name, as measured.
RESOURCES = {
    "mimir": ("100m", "512Mi", "1", "1Gi"),
    "loki": ("100m", "256Mi", "500m", "512Mi"),
    "tempo": ("100m", "256Mi", "500m", "512Mi"),
    "grafana": ("100m", "256Mi", "500m", "512Mi"),
    "alloy": ("100m", "256Mi", "500m", "512Mi"),
    "gateway": ("50m", "64Mi", "500m", "256Mi"),
    "open-webui": ("200m", "512Mi", "1", "2Gi"),
    "postgres": ("100m", "256Mi", "500m", "1Gi"),
    "weaviate": ("200m", "512Mi", "1", "4Gi"),
    "searxng": ("50m", "128Mi", "300m", "512Mi"),
}


@SETTINGS.register
def resources_are_those_of_the_plan(scene: Scene) -> Iterator[str]:
    """Every container has the requests and limits that its component is planned with."""
    places = ("requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
    for _, workload, container in _running(scene):
        wanted = RESOURCES.get(container["name"])
        found = tuple(str(at(container["resources"], place)) for place in places)
        if wanted and found != wanted:
            yield f"{workload.ref}: resources are {found}, planned are {wanted}"


#: Users that the images know: any other owns none of their files.
USERS = {
    "mimir": (10001, 10001),
    "loki": (10001, 10001),
    "tempo": (10001, 10001),
    "gateway": (10001, 10001),
    "grafana": (472, 472),
    "alloy": (473, 473),
    "open-webui": (1000, 0),
    "postgres": (70, 70),
    "weaviate": (1000, 1000),
    "searxng": (977, 977),
}


@SETTINGS.register
def pods_run_as_the_images_users(scene: Scene) -> Iterator[str]:
    """Every pod runs as the user of its image, on a root file system that it cannot change."""
    for _, workload, container in _running(scene):
        security = at(pod_template(workload), "spec.securityContext") or {}
        wanted = USERS.get(container["name"])
        found = (security.get("runAsUser"), security.get("runAsGroup"))
        if wanted and (found != wanted or security.get("fsGroup") != wanted[1]):
            yield f"{workload.ref}: runs as {found}, its image's user and group are {wanted}"
        if at(container, "securityContext.readOnlyRootFilesystem") is not True:
            yield f"{workload.ref}: can change its own programs (readOnlyRootFilesystem)"
        added = at(container, "securityContext.capabilities.add") or []
        if added != (["NET_BIND_SERVICE"] if "caddy:" in container["image"] else []):
            yield f"{workload.ref}: adds {added}; only Caddy's file has a capability and needs it"


@SETTINGS.register
def pods_end_in_peace(scene: Scene) -> Iterator[str]:
    """Stores have time to write what is in memory; the gateway serves until it is forgotten."""
    for _, workload, container in _running(scene):
        spec = pod_template(workload)["spec"]
        if workload.kind == "StatefulSet" and spec.get("terminationGracePeriodSeconds") != 120:
            yield f"{workload.ref}: has not 120 s to write what is in memory"
        if container["name"] == "gateway":
            if at(container, "lifecycle.preStop.sleep.seconds") != 5:
                yield f"{workload.ref}: stops before the endpoints forget it (preStop)"
            rolling = at(workload["spec"], "strategy.rollingUpdate") or {}
            if rolling != {"maxUnavailable": 0, "maxSurge": 1}:
                yield f"{workload.ref}: senders see a gap while it is replaced"


# --- Names, store, network ----------------------------------------------------------------------

#: Services that others know by name: name to port and the port's name. The contract of both charts.
SERVICES = {
    "lgtm": {
        "mimir": {"http": 9009},
        "loki": {"http": 3100},
        "tempo": {"http": 3200, "otlp-http": 4318},
        "gateway": {"http": 8080},
        "grafana": {"http": 80},
    },
    "tenant": {
        "open-webui": {"http": 8080},
        "open-webui-alloy": {"otlp-grpc": 4317, "otlp-http": 4318, "http": 12345},
        "open-webui-postgres": {"postgres": 5432},
        "open-webui-weaviate": {"http": 8080, "grpc": 50051},
        "open-webui-searxng": {"http": 8080},
    },
}
#: What each Secret holds, and whose remote key it is.
REMOTE = {
    "gateway-admin": {"password": "lgtm-gateway-admin-password"},
    "grafana-admin": {"admin-password": "lgtm-grafana-admin-password"},
}


@SETTINGS.register
def services_keep_their_names_and_ports(scene: Scene) -> Iterator[str]:
    """Services have the names and ports that charts, Flux and people use."""
    first = next(iter(scene.tenants.values()), None)
    for what, release in (("lgtm", scene.lgtm), ("tenant", first)):
        for name, ports in SERVICES[what].items() if release else ():
            made = release.find("Service", name) if release else None
            found = {p["name"]: p["port"] for p in made["spec"]["ports"]} if made else None
            if found != ports:
                yield f"Service/{name} has {found}, must have {ports}"
            if made and made["spec"].get("type", "ClusterIP") != "ClusterIP":
                yield f"Service/{name} is open to the outside"


@SETTINGS.register
def secrets_come_from_the_store(scene: Scene) -> Iterator[str]:
    """ExternalSecrets read the shared store every hour, and own the Secrets that they make."""
    for release in scene.releases:
        for external in release.of_kind("ExternalSecret"):
            yield from _differing(
                f"ExternalSecret/{external.name}",
                external["spec"],
                (
                    Setting("refreshInterval", "1h", "a rotated secret arrives within the hour"),
                    Setting("secretStoreRef.kind", "ClusterSecretStore", "one for the cluster"),
                    Setting("secretStoreRef.name", "gcp-secret-manager", "as Flux makes it"),
                    Setting("target.name", external.name, "one name for both"),
                ),
            )
            if at(external["spec"], "target.creationPolicy") not in (None, "Owner"):
                yield f"ExternalSecret/{external.name} does not own its Secret"
    for name, wanted in REMOTE.items():
        made = scene.lgtm.find("ExternalSecret", name)
        data = made["spec"]["data"] if made else []
        found = {entry["secretKey"]: entry["remoteRef"]["key"] for entry in data}
        if made and found != wanted:
            yield f"ExternalSecret/{name} reads {found}, must read {wanted}"


@SETTINGS.register
def everything_is_closed_but_dns(scene: Scene) -> Iterator[str]:
    """In both namespaces nothing passes that no policy names; names are resolved."""
    for release in scene.releases:
        policies = release.of_kind("NetworkPolicy")
        whole = [p["spec"] for p in policies if not p["spec"].get("podSelector")]
        closed = [s for s in whole if set(s["policyTypes"]) == {"Ingress", "Egress"}]
        if not any(not s.get("ingress") and not s.get("egress") for s in closed):
            yield f"{release.namespace}: no policy closes both directions for all pods"
        if not any(_resolves(rule) for s in whole for rule in s.get("egress") or ()):
            yield f"{release.namespace}: no policy lets all pods ask kube-dns, by UDP and TCP"
        for policy in policies:
            yield from _half_open(policy)


def _resolves(rule: Mapping[str, Any]) -> bool:
    ports = {(p.get("protocol"), p.get("port")) for p in rule.get("ports") or ()}
    peers = rule.get("to") or ()
    return ports == {("UDP", 53), ("TCP", 53)} and any(
        at(peer, "podSelector.matchLabels") == {"k8s-app": "kube-dns"}
        and (at(peer, "namespaceSelector.matchLabels") or {}).get("kubernetes.io/metadata.name")
        == "kube-system"
        for peer in peers
    )


def _half_open(policy: Manifest) -> Iterator[str]:
    """Find directions that a policy names without rules, though all is closed already."""
    spec = policy["spec"]
    types = list(spec.get("policyTypes") or ())
    if len(types) != len(set(types)) or not types:
        yield f"NetworkPolicy/{policy.name}: policyTypes {types} is not a list of directions"
    for direction in ("ingress", "egress"):
        for rule in spec.get(direction) or ():
            for peer in rule.get("from") or rule.get("to") or ():
                labels = at(peer, "namespaceSelector.matchLabels")
                if "namespaceSelector" in peer and not labels:
                    yield f"NetworkPolicy/{policy.name}: a peer is every namespace"


@SETTINGS.register
def labels_name_the_right_component(scene: Scene) -> Iterator[str]:
    """What belongs to one component is labelled with it: selecting by label finds all of it."""
    for release in scene.releases:
        components = {
            str(m.labels.get(_COMPONENT)): m.name for m in release.workloads() if m.kind != "Job"
        }
        for m in release:
            own = m.labels.get(_COMPONENT)
            named = [c for c, name in components.items() if m.name in (name, f"{name}-config")]
            if named and m.kind != "NetworkPolicy" and own not in named:
                yield f"{m.ref} is called as {named[0]} is, and labelled {own}"
            selector = at(m.content, "spec.selector")
            chosen: Mapping[str, Any] = (selector or {}).get("matchLabels", selector) or {}
            selects = m.kind in {"Service", "PodDisruptionBudget"} and chosen
            if selects and chosen.get(_COMPONENT) != own:
                yield f"{m.ref} selects {chosen.get(_COMPONENT)}, and is labelled {own}"


# --- Mounts, search, labels, defaults -----------------------------------------------------------

#: Where each program looks for what: container to path to the kind of volume that must be there.
MOUNTS: Mapping[str, Mapping[str, str]] = {
    **{
        name: {f"/etc/{name}": "configMap", "/data": "claim", "/tmp": "emptyDir"}  # noqa: S108
        for name in ("mimir", "loki", "tempo")
    },
    "gateway": {"/etc/gateway": "configMap", "/etc/gateway-users": "secret"},
    "grafana": {
        "/etc/grafana/provisioning/datasources": "configMap",
        "/etc/grafana/provisioning/dashboards": "configMap",
        "/var/lib/grafana": "persistentVolumeClaim",
    },
    "alloy": {"/etc/alloy": "configMap", "/var/lib/alloy/data": "emptyDir"},
    "open-webui": {"/app/backend/data": "persistentVolumeClaim"},
    "postgres": {"/var/lib/postgresql/data": "claim", "/var/run/postgresql": "emptyDir"},
    "weaviate": {"/var/lib/weaviate": "claim"},
    "searxng": {"/etc/searxng": "configMap", "/var/cache/searxng": "emptyDir"},
}


@SETTINGS.register
def volumes_are_where_programs_look(scene: Scene) -> Iterator[str]:
    """Every program finds its configuration and its data at the path where it looks for them."""
    for _, workload, container in _running(scene):
        volumes = {v["name"]: v for v in at(pod_template(workload), "spec.volumes") or ()}
        mounts = {m["mountPath"]: m["name"] for m in container.get("volumeMounts") or ()}
        for path, kind in MOUNTS.get(container["name"], {}).items():
            volume = volumes.get(mounts.get(path, ""), {"claim": None} if path in mounts else {})
            if kind not in volume:
                yield f"{workload.ref}: there is no {kind} at {path}"


_JSON = "the application reads JSON"
_SEARXNG = (
    Setting("use_default_settings", True, "what is not said here is as SearXNG has it"),
    Setting("search.formats", ["html", "json"], _JSON),
    Setting("search.safe_search", 1, "moderate, as the plan has it"),
    Setting("server.limiter", False, "it would refuse the application, its only client"),
    Setting("general.instance_name", "SearXNG", "as the plan has it"),
)


@SETTINGS.register
def the_search_answers_the_application(scene: Scene) -> Iterator[str]:
    """SearXNG answers in JSON, and does not take the application for an attacker."""
    for release in scene.tenants.values():
        made = release.find("ConfigMap", "open-webui-searxng")
        if made:
            text = made["data"]["settings.yml"]
            yield from _differing("settings.yml", yaml.load(text, yaml.CSafeLoader), _SEARXNG)
            application = release.get("ConfigMap", "open-webui-config")["data"]
            url = f"http://open-webui-searxng.{release.namespace}.svc:8080/search"
            if application.get("SEARXNG_QUERY_URL") != url:
                yield f"SEARXNG_QUERY_URL is {application.get('SEARXNG_QUERY_URL')}, must be {url}"


@SETTINGS.register
def labels_tell_what_belongs_together(scene: Scene) -> Iterator[str]:
    """Objects say which application and chart they are part of, and a tenant's whose they are."""
    for release in scene.releases:
        tenant = next((name for name, r in scene.tenants.items() if r is release), None)
        part = "open-webui" if tenant else "observability"
        for m in release:
            if m.labels.get("app.kubernetes.io/part-of") != part:
                yield f"{m.ref} is not labelled part-of {part}"
            if not re.fullmatch(r"[a-z-]+-\d+\.\d+\.\d+", str(m.labels.get("helm.sh/chart"))):
                yield f"{m.ref} does not say which version of the chart it is (helm.sh/chart)"
            if m.labels.get("tenant.id") != tenant:
                yield f"{m.ref} is labelled as {m.labels.get('tenant.id')}'s, is {tenant}'s"


_PLAN = "what a tenant gets that the registry says nothing of"
_DEFAULTS: Mapping[str, tuple[Setting, ...]] = {
    "mimir": (
        Setting("limits.max_global_series_per_user", 1_000_000, _PLAN),
        Setting("limits.ingestion_rate", 100_000, _PLAN),
        Setting("limits.ingestion_burst_size", 200_000, _PLAN),
        Setting("limits.compactor_blocks_retention_period", "744h", "31 days, in every backend"),
        Setting("limits.out_of_order_time_window", "1h", "as long as Alloy keeps trying"),
        Setting("limits.max_global_exemplars_per_user", 10_000, "0 would link no trace"),
        Setting(
            "limits.promote_otel_resource_attributes",
            "deployment.environment,k8s.cluster.name,tenant.id",
            "labels that dashboards choose by",
        ),
    ),
    "loki": (
        Setting("limits_config.ingestion_rate_mb", 4, _PLAN),
        Setting("limits_config.ingestion_burst_size_mb", 8, _PLAN),
        Setting("limits_config.max_global_streams_per_user", 5_000, _PLAN),
        Setting("limits_config.retention_period", "744h", "31 days, in every backend"),
        Setting("limits_config.max_query_series", 500, "as the plan has it"),
        Setting("limits_config.max_entries_limit_per_query", 5_000, "as the plan has it"),
    ),
    "tempo": (
        Setting("overrides.defaults.ingestion.rate_limit_bytes", 15_000_000, _PLAN),
        Setting("overrides.defaults.ingestion.burst_size_bytes", 20_000_000, _PLAN),
        Setting("overrides.defaults.ingestion.max_traces_per_user", 10_000, _PLAN),
        Setting("overrides.defaults.compaction.block_retention", "744h", "31 days, everywhere"),
        Setting(
            "overrides.defaults.metrics_generator.processors",
            ["service-graphs", "span-metrics"],
            "what the service map and the latencies are drawn from",
        ),
    ),
}


@SETTINGS.register
def defaults_are_those_of_the_plan(scene: Scene) -> Iterator[str]:
    """A tenant that the registry says nothing of has the plan's limits and retention."""
    for backend, settings in _DEFAULTS.items():
        yield from _differing(f"{backend}.yaml", scene.config(backend), settings)


@SETTINGS.register
def people_find_grafana(scene: Scene) -> Iterator[str]:
    """Grafana's Ingress leads everywhere to Grafana, and only its controller may come in."""
    ingress = scene.lgtm.find("Ingress", "grafana")
    if ingress is None:
        return
    yield from _differing(
        "Ingress/grafana",
        ingress["spec"],
        (
            Setting("rules.0.http.paths.0.path", "/", "all of Grafana"),
            Setting("rules.0.http.paths.0.pathType", "Prefix", "all of Grafana"),
            Setting("rules.0.http.paths.0.backend.service.name", "grafana", "all of Grafana"),
        ),
    )
    policy = scene.lgtm.get("NetworkPolicy", "grafana")["spec"]
    name = at(policy, "ingress.0.from.0.namespaceSelector.matchLabels") or {}
    if name != {"kubernetes.io/metadata.name": "ingress-nginx"}:
        yield f"NetworkPolicy/grafana lets in {name or 'nobody'}, must let in the controller"
    if scene.lgtm.get("Deployment", "gateway")["spec"].get("replicas") != 2:
        yield "Deployment/gateway: one pod is no door while its node drains"
