"""Settings of the deployment whose value matters, each with the reason why it is this one.

No snapshot: what is not in a table here may change freely. A value stands here only if it is a fact
about a program, or what the plan asks for; what two places must agree on is compared, not repeated.
The plan is the one that the deployment was built from; "tenancy" and "open-webui" are its notes of
facts. What holds for any chart is in `invariants`, what holds for the application in `application`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_network
from typing import Any

from stackproof.helm import endpoints, references
from stackproof.helm.externals import read_values
from stackproof.helm.manifests import (
    COMPONENT,
    Manifest,
    Release,
    amount,
    containers,
    hosts,
    parsed,
    pod_template,
)
from stackproof.model import STACK_TENANT, Backend
from stackproof.repo.tenants import parse_duration
from stackproof.repo.versions import Versions

from . import Rules, gateway, network
from .alloy import Alloy, seconds
from .deployment import FROM_FLUX, RenderedDeployment
from .pods import answering, at, planned

SETTINGS: Rules[RenderedDeployment] = Rules()

_ABSENT = "nothing"


@dataclass(frozen=True)
class Setting:
    """A value and its reason."""

    path: str
    value: object
    why: str


def _differing(where: str, data: Any, settings: Sequence[Setting]) -> Iterator[str]:
    for one in settings:
        found = at(data, one.path)
        if found != one.value:
            shown = _ABSENT if found is None else found
            yield f"{where}: {one.path} is {shown}, must be {one.value}: {one.why}"


# --- Mimir, Loki, Tempo -------------------------------------------------------------------------

#: Where each backend as one process keeps what many would share (its configuration reference), and
#: what these settings must be there: a single process waits for nobody and talks to itself.
RINGS: Mapping[str, tuple[str, ...]] = {
    "mimir": (
        "compactor.sharding_ring",
        "ruler.ring",
        "distributor.ring",
        "ingester.ring",
        "store_gateway.sharding_ring",
        "query_scheduler.ring",
        "overrides_exporter.ring",
    ),
    "tempo": ("distributor.ring", "compactor.ring", "metrics_generator.ring"),
    "loki": (),
}
_LOOPBACK = "127.0.0.1"
#: Keys that mean the same wherever they stand.
_ALONE: Mapping[str, tuple[object, str]] = {
    "kvstore.store": ("inmemory", "one process keeps its ring in memory"),
    "instance_addr": (_LOOPBACK, "it finds itself on the loopback interface"),
    "address": (_LOOPBACK, "it finds itself on the loopback interface"),
    "grpc_listen_address": (_LOOPBACK, "nobody may talk to its inside from outside"),
    "bind_addr": ([_LOOPBACK], "there is nobody to gossip with"),
    "bind_port": (0, "a fixed port could be taken"),
    "replication_factor": (1, "a second copy has no place"),
    "min_ready_duration": ("0s", "a single replica waits for nobody"),
    "final_sleep": ("0s", "a single replica waits for nobody"),
    "wait_stability_min_duration": ("0s", "a single replica waits for nobody"),
    "scheduler_dns_lookup_period": ("500ms", "ready in 1 s, not 10 s (tenancy, finding 10)"),
    "flush_check_period": ("500ms", "a trace is searchable at once (tenancy, finding 11)"),
    "trace_idle_period": ("500ms", "a trace is searchable at once (tenancy, finding 11)"),
    "reporting_enabled": (False, "a customer's deployment reports nothing home"),
    "usage_stats.enabled": (False, "a customer's deployment reports nothing home"),
    "target": ("all", "one process is the whole backend"),
    "backend": ("filesystem", "the volume is the store"),
    "object_store": ("filesystem", "the volume is the store"),
}
_SERVER = ("target", "server.grpc_listen_address", "memberlist.bind_addr", "memberlist.bind_port")
#: Where they must stand, beside the rings'.
_SET: Mapping[str, tuple[str, ...]] = {
    "mimir": (
        "usage_stats.enabled",
        "blocks_storage.backend",
        "ruler_storage.backend",
        "ingester.ring.replication_factor",
        "ingester.ring.min_ready_duration",
        "ingester.ring.final_sleep",
        "store_gateway.sharding_ring.replication_factor",
        "store_gateway.sharding_ring.wait_stability_min_duration",
        "frontend.address",
        "frontend.scheduler_dns_lookup_period",
    ),
    "loki": (
        "analytics.reporting_enabled",
        "common.instance_addr",
        "common.ring.kvstore.store",
        "common.replication_factor",
        "schema_config.configs.0.object_store",
        "ingester.lifecycler.min_ready_duration",
        "ingester.lifecycler.final_sleep",
        "frontend.scheduler_dns_lookup_period",
    ),
    "tempo": (
        "usage_report.reporting_enabled",
        "ingester.lifecycler.address",
        "ingester.lifecycler.ring.kvstore.store",
        "ingester.lifecycler.ring.replication_factor",
        "ingester.lifecycler.min_ready_duration",
        "ingester.lifecycler.final_sleep",
        "ingester.flush_check_period",
        "ingester.trace_idle_period",
        "compactor.ring.wait_stability_min_duration",
    ),
}
_OVERRIDES = "limits of single tenants come from here, without a restart"
_SCHEMA = "as the plan has it; OTLP needs tsdb and v13, and a change loses what is older"
BACKENDS: Mapping[str, tuple[Setting, ...]] = {
    "mimir": (
        Setting("runtime_config.file", "${CONFIG_DIR}/overrides.yaml", _OVERRIDES),
        Setting("limits.otel_metric_suffixes_enabled", True, "names as dashboards have them"),
        Setting(
            "activity_tracker.filepath", "", "read-only root; on a full disk its file kills Mimir"
        ),
    ),
    "loki": (
        Setting("runtime_config.file", "${CONFIG_DIR}/overrides.yaml", _OVERRIDES),
        Setting("schema_config.configs.0.from", "2024-01-01", _SCHEMA),
        Setting("schema_config.configs.0.store", "tsdb", _SCHEMA),
        Setting("schema_config.configs.0.schema", "v13", _SCHEMA),
        Setting("schema_config.configs.0.index", {"prefix": "index_", "period": "24h"}, _SCHEMA),
        Setting("query_scheduler.use_scheduler_ring", False, "there is no second scheduler"),
        Setting("limits_config.allow_structured_metadata", True, "it holds OTLP's trace_id"),
        Setting("limits_config.volume_enabled", True, "Grafana's log volume asks for it"),
        Setting("limits_config.max_query_series", 500, "as the plan has it"),
        Setting("limits_config.max_entries_limit_per_query", 5_000, "as the plan has it"),
    ),
    "tempo": (
        Setting("storage.trace.backend", "local", "the volume is the store"),
        Setting("overrides.per_tenant_override_config", "${CONFIG_DIR}/overrides.yaml", _OVERRIDES),
        Setting(
            "metrics_generator.storage.remote_write.0.url", "${MIMIR_URL}/api/v1/push", "Mimir"
        ),
        Setting("metrics_generator.storage.remote_write.0.send_exemplars", True, "metric to trace"),
        Setting(
            "overrides.defaults.metrics_generator.processors",
            ["service-graphs", "span-metrics", "local-blocks"],
            "what the service map, the latencies and Traces Drilldown are drawn from",
        ),
    ),
}


@SETTINGS.register
def backends_are_set_as_one_process_needs(deployed: RenderedDeployment) -> Iterator[str]:
    """Each backend runs as one process on its own volume, and nobody else reaches its inside."""
    for backend, settings in BACKENDS.items():
        config = deployed.config(backend)
        yield from _differing(f"{backend}.yaml", config, settings)
        rings = (f"{r}.{key}" for r in RINGS[backend] for key in ("kvstore.store", "instance_addr"))
        for path in (*_SERVER, *_SET[backend], *rings):
            last = path.split(".")
            key = next(k for k in (".".join(last[-2:]), last[-1]) if k in _ALONE)
            yield from _differing(f"{backend}.yaml", config, [Setting(path, *_ALONE[key])])


@SETTINGS.register
def backends_listen_where_their_pods_say(deployed: RenderedDeployment) -> Iterator[str]:
    """A configuration takes every port and address from its pod, and every port of that is used."""
    for backend in BACKENDS:
        workload = deployed.lgtm.get("StatefulSet", backend)
        (container,) = containers(workload)
        config = deployed.config(backend)
        given = {name: one.value or "" for name, one in deployed.lgtm.env(container).items()}
        server = config.get("server") or {}
        listening = [f"{server.get('http_listen_address')}:{server.get('http_listen_port')}"]
        otlp = at(config, "distributor.receivers.otlp.protocols") or {}
        listening += [one.get("endpoint") for one in otlp.values()]
        if otlp.keys() - {"http"}:
            yield f"{backend}.yaml: the gateway sends OTLP over http, not over {list(otlp)}"
        found = {_expanded(str(one), given) for one in listening}
        ports = {f"0.0.0.0:{port['containerPort']}" for port in container["ports"]}
        if found != ports:
            yield f"{backend}.yaml listens on {sorted(found)}, its container on {sorted(ports)}"
        inside = _expanded(f"{server.get('grpc_listen_port')}", given)
        if not inside.isdigit() or f"0.0.0.0:{inside}" in ports:
            yield f"{backend}.yaml: its inside listens on {inside}, which must be a port of its own"
        args = list(container.get("args") or ())
        wanted = [f"-config.file=$(CONFIG_DIR)/{backend}.yaml", "-config.expand-env=true"]
        if args != wanted:
            yield f"{backend} is started with {args}: it must read its file, and expand variables"


def _expanded(text: str, given: Mapping[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda one: given.get(one[1], one[0]), text)


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
_RETENTION = {
    "mimir": "compactor_blocks_retention_period",
    "loki": "retention_period",
    "tempo": "compaction.block_retention",
}
#: The plan's own figures (phase 3). Its rates fit no disk: `sizes` says what they may be.
PLANNED = {
    "limits.metrics.samplesBurst": 200_000,
    "limits.logs.streams": 5_000,
    "limits.traces.burstBytes": 20_000_000,
    "limits.traces.liveTraces": 10_000,
    "retention": "744h",
}


@SETTINGS.register
def limits_are_those_of_the_registry(deployed: RenderedDeployment) -> Iterator[str]:
    """Each tenant has the limits that its entry names, and the plan's where it names none."""
    defaults = read_values(deployed.deployment.checkout.charts / "lgtm" / "values.yaml")["defaults"]
    for place, value in PLANNED.items():
        if at(defaults, place) != value:
            yield f"defaults.{place} is {at(defaults, place)}, planned is {value}"
    for kind, rate, burst in (
        ("metrics", "samplesPerSecond", "samplesBurst"),
        ("logs", "megabytesPerSecond", "megabytesBurst"),
        ("traces", "bytesPerSecond", "burstBytes"),
    ):
        if at(defaults, f"limits.{kind}.{burst}") < at(defaults, f"limits.{kind}.{rate}"):
            yield f"defaults.limits.{kind}: less at once ({burst}) than in a second ({rate})"
    for backend, path, place in LIMITS:
        for name, own, limits in _limited(deployed, backend):
            wanted = at(own, place) or at(defaults, f"limits.{place}")
            if at(limits, path) != wanted:
                yield f"{backend}: {name}'s {path} is {at(limits, path)}, not its {place}: {wanted}"
    for backend, path in _RETENTION.items():
        whole = at(deployed.config(backend), _DEFAULT_LIMITS[backend])
        if at(whole, path) != defaults["retention"]:
            yield f"{backend} keeps an unlisted tenant's data {at(whole, path)}"
    for name, _, limits in _limited(deployed, "tempo"):
        if at(limits, "ingestion.rate_strategy") != "local":
            yield f"tempo: {name}'s ingestion.rate_strategy needs a ring with others"
        if at(limits, "global.max_bytes_per_trace") != 5_000_000:
            yield f"tempo: {name} may send a trace of any size (global.max_bytes_per_trace)"


def _limited(deployed: RenderedDeployment, backend: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield whom a backend limits: name, limits in the registry, limits in the configuration."""
    yield "an unlisted tenant", {}, at(deployed.config(backend), _DEFAULT_LIMITS[backend])
    for tenant in deployed.deployment.registry:
        yield tenant.name, tenant.limits, deployed.overrides(backend).get(tenant.name)


@SETTINGS.register
def late_samples_are_taken_as_long_as_they_are_sent(deployed: RenderedDeployment) -> Iterator[str]:
    """Mimir takes a sample as late as an Alloy may still send it, and keeps links to traces."""
    limits = deployed.config("mimir")["limits"]
    window = parse_duration(str(limits.get("out_of_order_time_window") or "0h"))
    for tenant, release in deployed.tenants.items():
        alloy = Alloy.of(release)
        for name in alloy.components("otelcol.exporter.otlphttp") if alloy else ():
            retry = f"{name}.retry_on_failure"
            first, most, tries = (
                (alloy.value(f"{retry}.{what}") if alloy else None) or "0s"
                for what in ("initial_interval", "max_interval", "max_elapsed_time")
            )
            if not re.fullmatch(r"\d+h", tries) or parse_duration(tries) != window:
                yield f"{tenant}'s Alloy tries for {tries}, Mimir takes what is {window} late"
            if not 0 < seconds(first) <= seconds(most) <= 60:
                yield f"{tenant}'s Alloy waits {first} to {most} between two tries"
    if not limits.get("max_global_exemplars_per_user"):
        yield "mimir.yaml: exemplars are dropped: no metric leads to its trace (tenancy, section 1)"
    promoted = str(limits.get("promote_otel_resource_attributes")).split(",")
    lacking = {"deployment.environment", "k8s.cluster.name", "tenant.id"} - set(promoted)
    if lacking:
        yield f"mimir.yaml: dashboards choose by {sorted(lacking)}, which are no labels"


@SETTINGS.register
def a_tenant_costs_little_before_it_sends(deployed: RenderedDeployment) -> Iterator[str]:
    """What is made for each tenant at once is small: stripes of a head, buffers of a queue."""
    generator = at(deployed.config("tempo"), "metrics_generator.storage") or {}
    for where, stripes in (
        ("mimir.yaml", at(deployed.config("mimir"), "blocks_storage.tsdb.stripe_size")),
        ("tempo.yaml", at(generator, "wal.stripe_size")),
    ):
        # A power of two (tsdb.Options); 16384 by default, 2 MB of each tenant.
        if not isinstance(stripes, int) or not 0 < stripes <= 1024 or stripes & (stripes - 1):
            yield f"{where}: the stripe_size is {stripes}, must be a power of two up to 1024"
    queue = at(generator, "remote_write.0.queue_config") or {}
    if not 0 < queue.get("max_samples_per_send", 0) <= queue.get("capacity", 0) <= 2_500:
        yield f"tempo.yaml: a queue of {queue} is made for each tenant (by default of 10000)"


# --- The gateway --------------------------------------------------------------------------------


@SETTINGS.register
def the_gateway_lets_through_what_is_listed(deployed: RenderedDeployment) -> Iterator[str]:
    """Each request of Alloy and Grafana reaches its backend, and no other request reaches any."""
    for text in _caddyfiles(deployed):
        yield from gateway.misrouted(text)


@SETTINGS.register
def the_gateway_decides_in_this_order(deployed: RenderedDeployment) -> Iterator[str]:
    """Who a request comes from is decided before anything looks at what it asks for."""
    for text in _caddyfiles(deployed):
        yield from gateway.misordered(text, (*deployed.deployment.registry.names, STACK_TENANT))


def _caddyfiles(deployed: RenderedDeployment) -> Iterator[str]:
    made = deployed.lgtm.find("ConfigMap", "gateway")
    if made is not None:
        yield str(made["data"]["Caddyfile"])


# --- Grafana ------------------------------------------------------------------------------------

#: What Grafana's plugins read (their documentation). Which source links to which is below.
SOURCES: Mapping[str, tuple[Setting, ...]] = {
    "mimir": (
        Setting("type", "prometheus", "Mimir speaks PromQL"),
        Setting("url", "$GATEWAY_URL/prometheus", "Mimir's prefix"),
        Setting("jsonData.httpMethod", "POST", "long queries fit no URL"),
        Setting("jsonData.prometheusType", "Mimir", "Grafana asks what Mimir has"),
        Setting("jsonData.exemplarTraceIdDestinations.0.name", "trace_id", "OTLP's exemplars"),
    ),
    "loki": (
        Setting("type", "loki", "LogQL"),
        Setting("url", "$GATEWAY_URL", "Loki's paths start with /loki"),
        Setting("jsonData.derivedFields.0.matcherType", "label", "it is structured metadata"),
        Setting("jsonData.derivedFields.0.matcherRegex", "trace_id", "where OTLP logs have it"),
        Setting("jsonData.derivedFields.0.url", "$${__value.raw}", "the whole value is the id"),
    ),
    "tempo": (
        Setting("type", "tempo", "TraceQL"),
        Setting("url", "$GATEWAY_URL/tempo", "the gateway's prefix"),
        Setting("jsonData.tracesToLogsV2.customQuery", True, "the default looks for labels"),
        Setting(
            "jsonData.tracesToLogsV2.query",
            '{service_name="$${__span.tags["service.name"]}"} | trace_id="$${__trace.traceId}"',
            "as OTLP logs are stored",
        ),
        Setting(
            "jsonData.tracesToMetrics.tags.0",
            {"key": "service.name", "value": "service"},
            "as span metrics have it",
        ),
        Setting(
            "jsonData.tracesToMetrics.queries.0.query",
            "sum(rate(traces_spanmetrics_calls_total{$$__tags}[5m]))",
            "the metric that Tempo's generator makes",
        ),
        Setting("jsonData.nodeGraph.enabled", True, "shows the service map"),
    ),
}
_COMMON = (
    Setting("access", "proxy", "the browser has no password: Grafana asks"),
    Setting("basicAuth", True, "the gateway asks for a password"),
    Setting("basicAuthUser", "admin", "who may read every tenant"),
    Setting("secureJsonData.basicAuthPassword", "$GATEWAY_ADMIN_PASSWORD", "from the Secret"),
)
#: From which source a click leads to which.
_LINKS = {
    ("mimir", "exemplarTraceIdDestinations"): "tempo",
    ("loki", "derivedFields"): "tempo",
    ("tempo", "tracesToLogsV2"): "loki",
    ("tempo", "tracesToMetrics"): "mimir",
    ("tempo", "serviceMap"): "mimir",
}


@SETTINGS.register
def data_sources_link_the_signals(deployed: RenderedDeployment) -> Iterator[str]:
    """Each reader's three data sources ask the gateway, and lead to each other's, nobody else's."""
    for source in deployed.data_sources:
        uid = str(source.get("uid"))
        backend, dash, tenant = uid.partition("-")
        where = f"data source {uid}"
        wanted = [
            one
            for one in (*SOURCES.get(backend, ()), *_COMMON)
            if tenant != STACK_TENANT or not re.search("exemplar|derivedFields", one.path)
        ]
        yield from _differing(where, source, wanted)
        named = [str(source.get("name")), *_shown_names(source.get("jsonData") or {})]
        if not all(re.search(r"\w", name) and name != "None" for name in named):
            yield f"{where}: what people see of it has no name"
        if (tenant or "all tenants") not in named[0]:
            yield f"{where} is called {named[0]}: it does not say whose data it shows"
        if bool(source.get("isDefault")) != (uid == "mimir"):
            yield f"{where}: one source is the default, that of all tenants' metrics"
        for (of, key), to in _LINKS.items():
            link = at(source, f"jsonData.{key}")
            link = link[0] if isinstance(link, list) and link else link
            # The stack's own metrics have nothing to lead to.
            if (
                tenant != STACK_TENANT
                and of == backend
                and at(link, "datasourceUid") != f"{to}{dash}{tenant}"
            ):
                yield f"{where}: {key} leads to {at(link, 'datasourceUid')}, not to {to}'s"
        for key in ("tracesToLogsV2", "tracesToMetrics") if backend == "tempo" else ():
            shifts = [at(source, f"jsonData.{key}.span{end}TimeShift") for end in ("Start", "End")]
            if shifts != ["-5m", "5m"]:
                yield f"{where}: {key} looks from {shifts[0]} to {shifts[1]} around a span"
    text = deployed.lgtm.get("ConfigMap", "grafana-datasources")["data"]["datasources.yaml"]
    whole = (
        Setting("apiVersion", 1, "what Grafana reads"),
        Setting("prune", True, "a tenant that is gone must not be shown"),
    )
    yield from _differing("datasources.yaml", parsed(text), whole)


def _shown_names(data: Mapping[str, Any]) -> Iterator[str]:
    for key, inside in (("derivedFields", data), ("queries", data.get("tracesToMetrics") or {})):
        for one in inside.get(key) or ():
            yield str(one.get("name"))


@SETTINGS.register
def dashboards_are_found_and_stay_as_they_are(deployed: RenderedDeployment) -> Iterator[str]:
    """Grafana provisions the dashboards from where they are mounted, and nobody changes them."""
    text = deployed.lgtm.get("ConfigMap", "grafana-dashboards")["data"]["dashboards.yaml"]
    data = parsed(text)
    yield from _differing(
        "dashboards.yaml",
        data,
        (
            Setting("apiVersion", 1, "what Grafana reads"),
            Setting("providers.0.type", "file", "they are files"),
            Setting("providers.0.allowUiUpdates", False, "what is in the chart is what is shown"),
            Setting("providers.0.disableDeletion", True, "what is in the chart is what is shown"),
        ),
    )
    (container,) = containers(deployed.lgtm.get("Deployment", "grafana"))
    volumes = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
    if volumes.get(at(data, "providers.0.options.path")) != "dashboards":
        yield f"dashboards.yaml: no dashboard lies at {at(data, 'providers.0.options.path')}"


#: Variables that decide something, by container: value and reason.
_QUIET = "a customer's deployment reports nothing home"
_CLOSED = "whoever is in sees every tenant (tenancy, section 5, row 24)"
_SIGNALS = "the plan's three signals"
VARIABLES: Mapping[str, tuple[Setting, ...]] = {
    "grafana": (
        Setting("GF_ANALYTICS_REPORTING_ENABLED", "false", _QUIET),
        Setting("GF_ANALYTICS_CHECK_FOR_UPDATES", "false", _QUIET),
        Setting("GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES", "false", _QUIET),
        Setting("GF_USERS_ALLOW_SIGN_UP", "false", _CLOSED),
        Setting("GF_AUTH_ANONYMOUS_ENABLED", "false", _CLOSED),
    ),
    "gateway": (
        Setting("XDG_DATA_HOME", "/tmp", "the root file system is read-only"),  # noqa: S108
        Setting("XDG_CONFIG_HOME", "/tmp", "the root file system is read-only"),  # noqa: S108
    ),
    "weaviate": (
        Setting("DEFAULT_VECTORIZER_MODULE", "none", "the application brings its vectors"),
        Setting("AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED", "true", "the policy keeps others out"),
        Setting("DISABLE_TELEMETRY", "true", _QUIET),
        Setting("LIMIT_RESOURCES", "true", "its heap stays below the container's limit"),
    ),
    "open-webui": (
        Setting("ANONYMIZED_TELEMETRY", "false", _QUIET),
        Setting("DO_NOT_TRACK", "true", _QUIET),
        Setting("SCARF_NO_ANALYTICS", "true", _QUIET),
        Setting("ENABLE_OLLAMA_API", "false", "there is none"),
        Setting("ENABLE_PERSISTENT_CONFIG", "false", "the values decide, not the database"),
        Setting("ENABLE_SIGNUP", "false", "whoever reaches the page could make an account"),
        Setting("DEFAULT_USER_ROLE", "user", "only administrators make accounts, for their users"),
        Setting("ENABLE_ADMIN_CHAT_ACCESS", "false", "users' chats are their own"),
        Setting("ENABLE_CODE_EXECUTION", "false", "nobody reviews what a model writes"),
        Setting("ENABLE_CODE_INTERPRETER", "false", "nobody reviews what a model writes"),
        Setting("ENABLE_COMMUNITY_SHARING", "false", "chats stay here"),
        Setting("ENABLE_EVALUATION_ARENA_MODELS", "false", "no models compete"),
        Setting("GLOBAL_LOG_LEVEL", "INFO", "DEBUG prints what users write"),
        Setting("ENABLE_OPENAI_API", "true", "the provider of the models"),
        Setting("RAG_EMBEDDING_ENGINE", "openai", "the provider of the embeddings"),
        Setting("RAG_EMBEDDING_MODEL", "text-embedding-3-small", "stored vectors are of this one"),
        Setting("VECTOR_DB", "weaviate", "what the chart runs"),
        Setting("ENABLE_WEB_SEARCH", "true", "what the chart runs"),
        Setting("WEB_SEARCH_ENGINE", "searxng", "what the chart runs"),
        Setting("OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION", "false", "each line would be sent twice"),
        Setting("OTEL_PYTHON_FASTAPI_EXCLUDED_URLS", "/health$,/health/db$,/ready$", "probes"),
        Setting("OTEL_METRICS_EXPORT_INTERVAL_MILLIS", "10000", "the application's own default"),
        Setting("OTEL_TRACES_SAMPLER", "parentbased_always_on", "as the plan has it"),
        Setting("ENABLE_OTEL", "true", _SIGNALS),
        Setting("ENABLE_OTEL_TRACES", "true", _SIGNALS),
        Setting("ENABLE_OTEL_METRICS", "true", _SIGNALS),
        Setting("ENABLE_OTEL_LOGS", "true", _SIGNALS),
    ),
}
#: Arguments that decide something.
_SHOWS = "it would show the password to whoever reaches the port"
ARGUMENTS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "alloy": (
        ("--disable-reporting", _QUIET),
        ("--server.http.enable-pprof=false", _SHOWS),
        ("--server.http.disable-support-bundle=true", _SHOWS),
        ("--storage.path=$(DATA_DIR)", "the root file system is read-only"),
        ("--server.http.listen-addr=$(LISTEN_ADDRESS):$(HTTP_PORT)", "probes and metrics"),
    ),
    "gateway": (("--watch", "a rotated password is in force without a restart"),),
    "monitor": (
        ("--disable-reporting", _QUIET),
        ("--server.http.enable-pprof=false", "whoever reaches the port would see its memory"),
        ("--server.http.disable-support-bundle=true", "it would show the configuration"),
        ("--storage.path=$(DATA_DIR)", "the root file system is read-only"),
    ),
}


def _running(deployed: RenderedDeployment) -> Iterator[tuple[Release, Manifest, Mapping[str, Any]]]:
    first = next(iter(deployed.tenants.values()), None)
    for release in (deployed.lgtm, *([first] if first else [])):
        for workload in release.workloads():
            for container in containers(workload):
                yield release, workload, container


def _older(workload: Manifest) -> bool:
    """Tell whether chart 0.1.0 made a StatefulSet: its template for volumes has no labels."""
    templates = at(workload, "spec.volumeClaimTemplates") or ()
    return any(not template["metadata"].get("labels") for template in templates)


#: Weaviate's name in its own consensus log: as each chart began with it.
_NAMES = {False: "weaviate-0", True: "node1"}


@SETTINGS.register
def variables_say_what_they_must(deployed: RenderedDeployment) -> Iterator[str]:
    """Variables and arguments that decide about privacy, access and providers are as they must."""
    for release, workload, container in _running(deployed):
        name = container["name"]
        plain = {key: one.value for key, one in release.env(container).items()}
        yield from _differing(f"container {name}", plain, VARIABLES.get(name, ()))
        if name == "weaviate" and plain.get("CLUSTER_HOSTNAME") != _NAMES[_older(workload)]:
            yield (
                f"container {name}: CLUSTER_HOSTNAME is {plain.get('CLUSTER_HOSTNAME')}, must be "
                f"{_NAMES[_older(workload)]}: under another name it does not find its data"
            )
        for argument, why in ARGUMENTS.get(name, ()):
            if argument not in (container.get("args") or ()):
                yield f"container {name}: has not the argument {argument}: {why}"


@SETTINGS.register
def the_application_knows_its_address(deployed: RenderedDeployment) -> Iterator[str]:
    """What users type is what the application believes its address to be, and nobody else's."""
    for release in deployed.tenants.values():
        served = {f"https://{host}" for m in release for host in hosts(m)}
        data = release.of_component("ConfigMap", "open-webui")["data"] if served else {}
        for name in ("WEBUI_URL", "CORS_ALLOW_ORIGIN") if served else ():
            if data.get(name) not in served:
                yield f"{name} is {data.get(name)}, what is served is {sorted(served)}"


# --- Pods ---------------------------------------------------------------------------------------

#: Of the observability release; the application's are in `application`. Resources are the plan's
#: (phase 3), users those of the images, paths what the programs answer (tenancy, sections 1 to 3).
RESOURCES = {
    "mimir": ("500m", "3Gi", "2", "6Gi"),
    "loki": ("100m", "512Mi", "1", "1Gi"),
    "tempo": ("200m", "1Gi", "1", "2Gi"),
    "grafana": ("100m", "256Mi", "500m", "512Mi"),
    "monitor": ("50m", "128Mi", "200m", "256Mi"),
}
USERS = {
    "mimir": (10001, 10001),
    "loki": (10001, 10001),
    "tempo": (10001, 10001),
    "grafana": (472, 472),
    "monitor": (473, 473),
}
PROBES: Mapping[str, tuple[str, str | None]] = {
    "mimir": ("/ready", None),
    "loki": ("/ready", None),
    "tempo": ("/ready", None),
    "grafana": ("/api/health", "/api/health"),
    "gateway": ("/-/ready", "/-/ready"),
    "monitor": ("/-/ready", "/-/ready"),
}
#: Least time for a start [s]: replaying a write-ahead log, migrating a database.
STARTS = {"mimir": 300, "loki": 300, "tempo": 300, "grafana": 120}


@SETTINGS.register
def pods_are_as_planned(deployed: RenderedDeployment) -> Iterator[str]:
    """Each pod has the plan's resources, its image's user, and probes that its program answers."""
    pinned = {str(image) for image in Versions.load(deployed.deployment.checkout).images.values()}
    for release, workload, container in _running(deployed):
        name = container["name"]
        if release is deployed.lgtm:
            yield from planned(workload, container, RESOURCES.get(name), USERS.get(name))
            yield from answering(container, PROBES.get(name), STARTS.get(name, 0))
        # What chart 0.1.0 began goes to the pinned version step by step (docs/migration.md).
        if container["image"] not in pinned and not _older(workload):
            yield f"{workload.ref}: {container['image']} is not in versions.yaml"
        if container.get("imagePullPolicy") != "IfNotPresent":
            yield f"{workload.ref}: a pinned image is pulled only where it is absent"
        if at(container, "securityContext.readOnlyRootFilesystem") is not True:
            yield f"{workload.ref}: can change its own programs (readOnlyRootFilesystem)"
        added = at(container, "securityContext.capabilities.add") or []
        if added != (["NET_BIND_SERVICE"] if "caddy:" in container["image"] else []):
            yield f"{workload.ref}: adds {added}; only Caddy's file has a capability and needs it"


@SETTINGS.register
def heaps_fit_their_limits(deployed: RenderedDeployment) -> Iterator[str]:
    """The backends' garbage collectors know the container's limit: Tempo was killed at it."""
    for _, workload, container in _running(deployed):
        if container["name"] not in {backend.value for backend in Backend}:
            continue
        limit = amount(at(container, "resources.limits.memory"))
        values = {each["name"]: each.get("value") for each in container["env"]}
        share = float(values.get("GOMEMLIMIT") or "inf") / limit
        if not 0.8 <= share <= 0.95:
            yield f"{workload.ref}: GOMEMLIMIT is {share:.0%} of its limit"


@SETTINGS.register
def pods_end_in_peace(deployed: RenderedDeployment) -> Iterator[str]:
    """Stores have time to write what is in memory; the gateway serves until it is forgotten."""
    for _, workload, container in _running(deployed):
        spec = pod_template(workload)["spec"]
        grace = spec.get("terminationGracePeriodSeconds", 30)
        if container["name"] == "tempo":
            # It writes at once, and then waits for itself until it is killed (grafana/tempo#5733).
            if grace != 30:
                yield f"{workload.ref}: is away for {grace} s each time, and needs half a minute"
        elif workload.kind == "StatefulSet" and grace < 120:
            yield f"{workload.ref}: has not two minutes to write what is in memory"
        if container["name"] == "gateway":
            if (at(container, "lifecycle.preStop.sleep.seconds") or 0) < 5:
                yield f"{workload.ref}: stops before the endpoints forget it (preStop)"
            rolling = at(workload["spec"], "strategy.rollingUpdate") or {}
            if rolling.get("maxUnavailable") != 0 or not rolling.get("maxSurge"):
                yield f"{workload.ref}: senders see a gap while it is replaced"
            if workload["spec"].get("replicas", 1) < 2:
                yield f"{workload.ref}: with one pod nobody gets in while its node drains"


#: Where a program looks, whatever its variables say: container to path to the kind of volume.
MOUNTS: Mapping[str, Mapping[str, str]] = {
    "grafana": {"/var/lib/grafana": "emptyDir"},
    "open-webui": {"/app/backend/data": "persistentVolumeClaim"},
    "postgres": {"/var/lib/postgresql/data": "claim", "/var/run/postgresql": "emptyDir"},
    "weaviate": {"/var/lib/weaviate": "claim"},
    "searxng": {"/etc/searxng": "configMap", "/var/cache/searxng": "emptyDir"},
    **{backend: {"/data": "claim"} for backend in ("mimir", "loki", "tempo")},
}


@SETTINGS.register
def volumes_are_where_programs_look(deployed: RenderedDeployment) -> Iterator[str]:
    """Every program finds its configuration and its data at the path where it looks for them."""
    for _, workload, container in _running(deployed):
        volumes = {v["name"]: v for v in at(pod_template(workload), "spec.volumes") or ()}
        mounts = {m["mountPath"]: m["name"] for m in container.get("volumeMounts") or ()}
        for path, kind in MOUNTS.get(container["name"], {}).items():
            volume = volumes.get(mounts.get(path, ""), {"claim": None} if path in mounts else {})
            if kind not in volume:
                yield f"{workload.ref}: there is no {kind} at {path}"


@SETTINGS.register
def volumes_are_of_one_class(deployed: RenderedDeployment) -> Iterator[str]:
    """Every claim of the deployment names the same StorageClass, that of the plan's cluster."""
    for release in deployed.releases:
        claims = [(m.ref, m["spec"]) for m in release.of_kind("PersistentVolumeClaim")]
        for m in release.of_kind("StatefulSet"):
            claims += [(m.ref, c["spec"]) for c in m["spec"].get("volumeClaimTemplates") or ()]
        for ref, spec in claims:
            if spec.get("storageClassName") != "standard-rwo":
                yield f"{release.namespace}: {ref} is of class {spec.get('storageClassName')}"


# --- Names, store, network ----------------------------------------------------------------------

#: Services that the plan calls, by their component: name to port and the port's name.
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
        "alloy": {"otlp-grpc": 4317, "otlp-http": 4318, "http": 12345},
    },
}


@SETTINGS.register
def services_keep_their_names_and_ports(deployed: RenderedDeployment) -> Iterator[str]:
    """Services have the names and ports of the plan, and none is open to the outside."""
    first = next(iter(deployed.tenants.values()), None)
    for what, release in (("lgtm", deployed.lgtm), *([("tenant", first)] if first else [])):
        for name, ports in SERVICES[what].items():
            made = next((m for m in release.services() if m.labels.get(COMPONENT) == name), None)
            found = {p["name"]: p["port"] for p in made["spec"]["ports"]} if made else None
            if found != ports:
                yield f"Service/{name} has {found}, must have {ports}"
        for made in release.services():
            if made["spec"].get("type", "ClusterIP") != "ClusterIP":
                yield f"{made.ref} is open to the outside"


@SETTINGS.register
def secrets_come_from_the_store(deployed: RenderedDeployment) -> Iterator[str]:
    """ExternalSecrets read the shared store every hour, and own the Secrets that they make."""
    for release in deployed.releases:
        for external in release.of_kind("ExternalSecret"):
            wanted = (
                Setting(
                    "refreshInterval", "15m", "a sender waits an hour for both sides of a rotation"
                ),
                Setting("secretStoreRef.kind", "ClusterSecretStore", "one for the cluster"),
                Setting("target.name", external.name, "one name for both"),
            )
            yield from _differing(f"ExternalSecret/{external.name}", external["spec"], wanted)
            if at(external["spec"], "target.creationPolicy") not in (None, "Owner"):
                yield f"ExternalSecret/{external.name} does not own its Secret"


@SETTINGS.register
def everything_is_closed_but_dns(deployed: RenderedDeployment) -> Iterator[str]:
    """In both namespaces nothing passes that no policy names; names are asked for near by."""
    for release in deployed.releases:
        policies = release.of_kind("NetworkPolicy")
        whole = [p["spec"] for p in policies if not p["spec"].get("podSelector")]
        closed = [s for s in whole if set(s["policyTypes"]) == {"Ingress", "Egress"}]
        if not any(not s.get("ingress") and not s.get("egress") for s in closed):
            yield f"{release.namespace}: no policy closes both directions for all pods"
        for block in (b for s in whole for rule in s.get("egress") or () for b in _blocks(rule)):
            # A name carries data as well: a resolver outside is a way out for every pod.
            if not _is_here(block):
                yield f"{release.namespace}: all pods may call {block}, which is no resolver here"
        for rule in (rule for s in whole for rule in s.get("egress") or ()):
            if {one.get("port") for one in rule.get("ports") or [{}]} != {53}:
                yield f"{release.namespace}: all pods may call more than port 53"


#: Addresses that lead nowhere on the internet: private and link-local ones, and the range that GKE
#: gives to Services (docs.cloud.google.com/kubernetes-engine/docs/concepts/alias-ips).
_HERE = [
    IPv4Network(block)
    for block in (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "34.118.224.0/20",
    )
]


def _is_here(block: str) -> bool:
    found = ip_network(block, strict=False)
    if isinstance(found, IPv4Network):
        return any(found.subnet_of(one) for one in _HERE)
    return found.is_private


def _blocks(rule: Mapping[str, Any]) -> Iterator[str]:
    return (peer["ipBlock"]["cidr"] for peer in rule.get("to") or () if peer.get("ipBlock"))


@SETTINGS.register
def releases_reach_each_other_where_they_must(deployed: RenderedDeployment) -> Iterator[str]:
    """Across namespaces each call that is configured passes both policies, and no other does."""
    yield from network.blocked(deployed.releases, FROM_FLUX)
    yield from network.unneeded(deployed.releases, FROM_FLUX)


@SETTINGS.register
def labels_name_the_right_component(deployed: RenderedDeployment) -> Iterator[str]:
    """What belongs to one component is labelled with it: selecting by label finds all of it."""
    for release in deployed.releases:
        components = {
            str(m.labels.get(COMPONENT)): m.name for m in release.workloads() if m.kind != "Job"
        }
        for m in release:
            own = m.labels.get(COMPONENT)
            named = [c for c, name in components.items() if re.match(rf"{name}(-|$)", m.name)]
            if named and m.kind not in {"NetworkPolicy", "ExternalSecret"} and own not in named:
                yield f"{m.ref} is called as {named[0]} is, and labelled {own}"
            selector = at(m.content, "spec.selector")
            chosen: Mapping[str, Any] = (selector or {}).get("matchLabels", selector) or {}
            selects = m.kind in {"Service", "PodDisruptionBudget"} and chosen
            if selects and chosen.get(COMPONENT) != own:
                yield f"{m.ref} selects {chosen.get(COMPONENT)}, and is labelled {own}"


@SETTINGS.register
def labels_tell_what_belongs_together(deployed: RenderedDeployment) -> Iterator[str]:
    """Objects say which application and chart they are part of, and a tenant's whose they are."""
    for release in deployed.releases:
        tenant = next((name for name, r in deployed.tenants.items() if r is release), None)
        part = "open-webui" if tenant else "observability"
        for m in release:
            if m.labels.get("app.kubernetes.io/part-of") != part:
                yield f"{m.ref} is not labelled part-of {part}"
            if not re.fullmatch(
                r"[a-z-]+-\d+\.\d+\.\d+_[0-9a-f]+", str(m.labels.get("helm.sh/chart"))
            ):
                yield f"{m.ref} does not say which version of the chart it is (helm.sh/chart)"
            if m.labels.get("tenant.id") != tenant:
                yield f"{m.ref} is labelled as {m.labels.get('tenant.id')}'s, is {tenant}'s"


@SETTINGS.register
def defaults_are_of_this_deployment(deployed: RenderedDeployment) -> Iterator[str]:
    """What the charts' values name by default is there: addresses of Services, pinned images."""
    known = references.Cluster(deployed.releases, FROM_FLUX)
    pinned = {str(image) for image in Versions.load(deployed.deployment.checkout).images.values()}
    for chart in ("lgtm", "open-webui-stack"):
        values = read_values(deployed.deployment.checkout.charts / chart / "values.yaml")
        for path, image in _maps(values, "values.yaml"):
            name = f"{image.get('repository')}:{image.get('tag')}"
            if image.get("tag") and "repository" in image and name not in pinned:
                yield f"{chart}/{path} is {name}, which is not in versions.yaml"
            for key, text in image.items():
                for one in endpoints.in_value(text) if isinstance(text, str) else ():
                    service = one.service("", known.namespaces)
                    ports = known.service_ports(service) if service else {}
                    if service and str(one.port) not in (ports or {}):
                        yield f"{chart}/{path}.{key} is {text}, where there is no Service"


def _maps(values: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every map of values, with where it is."""
    yield path, values
    for key, below in values.items():
        if isinstance(below, Mapping):
            yield from _maps(below, f"{path}: {key}" if path.endswith(".yaml") else f"{path}.{key}")


# --- Search, ways in ----------------------------------------------------------------------------

_SEARXNG = (
    Setting("use_default_settings", True, "what is not said here is as SearXNG has it"),
    Setting("search.formats", ["html", "json"], "the application reads JSON"),
    Setting("search.safe_search", 1, "moderate, as the chart that the plan changes has it"),
    Setting("server.limiter", False, "it would refuse the application, its only client"),
)


@SETTINGS.register
def the_search_answers_the_application(deployed: RenderedDeployment) -> Iterator[str]:
    """SearXNG answers in JSON, and does not take the application for an attacker."""
    for release in deployed.tenants.values():
        for made in (m for m in release.of_kind("ConfigMap") if m.labels[COMPONENT] == "searxng"):
            text = made["data"]["settings.yml"]
            yield from _differing("settings.yml", parsed(text), _SEARXNG)
            data = release.of_component("ConfigMap", "open-webui")["data"]
            url = data.get("SEARXNG_QUERY_URL", "")
            if not url.endswith("/search"):
                yield f"SEARXNG_QUERY_URL is {url}: SearXNG searches at /search"


_NGINX = "nginx.ingress.kubernetes.io/"
_ISSUED = Setting("cert-manager.io/cluster-issuer", "letsencrypt-prod", "the plan's issuer")
_SAFE = Setting(f"{_NGINX}ssl-redirect", "true", "nobody types a password in clear text")
#: Annotations by the Service that the Ingress leads to (the plan, phases 3 and 5).
INGRESSES: Mapping[str, tuple[Setting, ...]] = {
    "grafana": (_ISSUED, _SAFE),
    "open-webui": (
        _ISSUED,
        _SAFE,
        Setting(f"{_NGINX}proxy-body-size", "100m", "documents are uploaded"),
        Setting(f"{_NGINX}proxy-read-timeout", "600", "an answer takes its time"),
        Setting(f"{_NGINX}proxy-send-timeout", "600", "an answer takes its time"),
        Setting(f"{_NGINX}proxy-buffering", "off", "answers are streamed"),
    ),
}


@SETTINGS.register
def people_come_in_by_https_only(deployed: RenderedDeployment) -> Iterator[str]:
    """Each Ingress leads everywhere to its Service, with a certificate, through one controller."""
    for release, name in (
        (deployed.lgtm, "grafana"),
        *((r, "open-webui") for r in _tenants(deployed)),
    ):
        ingress = next((m for m in release.of_kind("Ingress") if m.labels[COMPONENT] == name), None)
        if ingress is None:
            if not release.of_kind("HTTPRoute"):
                yield f"{release.namespace}: nothing leads people to {name} (Ingress, HTTPRoute)"
            continue
        spec, where = ingress["spec"], f"{release.namespace}: {ingress.ref}"
        path = {"path": "/", "pathType": "Prefix"}
        service = release.of_component("Service", name).name
        backend = {"service": {"name": service, "port": {"name": "http"}}}
        wanted = (
            Setting("ingressClassName", "nginx", "the plan's controller"),
            Setting("rules.0.http.paths", [{**path, "backend": backend}], "all of it"),
        )
        yield from _differing(where, spec, wanted)
        for one in INGRESSES[name]:
            if ingress.annotations.get(one.path) != one.value:
                found = ingress.annotations.get(one.path)
                yield f"{where}: {one.path} is {found}, must be {one.value}: {one.why}"
        if not spec.get("tls"):
            yield f"{where} serves passwords in clear text"
        policy = release.of_component("NetworkPolicy", name)["spec"]
        peers = [peer for rule in policy.get("ingress") or () for peer in rule["from"]]
        spaces = [at(peer, "namespaceSelector.matchLabels") for peer in peers]
        if {"kubernetes.io/metadata.name": "ingress-nginx"} not in spaces:
            yield f"{where}: its controller is kept out (NetworkPolicy/{name})"


def _tenants(deployed: RenderedDeployment) -> tuple[Release, ...]:
    return tuple(deployed.tenants.values())


@SETTINGS.register
def pod_logs_are_collected(deployed: RenderedDeployment) -> Iterator[str]:
    """Each tenant's Alloy also collects what the tenant's pods print, as the plan has it."""
    for tenant, release in deployed.tenants.items():
        alloy = Alloy.of(release)
        if alloy is None or not alloy.components("loki.source.kubernetes"):
            yield f"{tenant}: nobody collects what its pods print"
