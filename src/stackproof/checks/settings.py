"""Settings of the deployment whose value matters, each with the reason why it is this one.

A value stands here only if it is a fact about a program, a limit, or about tenancy, privacy,
security or the network. What two places must agree on is compared. Whether a program works with its
settings, the program itself says (`configs`, and the tests that run it). What holds for any chart
is in `invariants`, what holds for the application in `application`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_network
from typing import Any

from stackproof.helm import endpoints
from stackproof.helm.externals import read_values
from stackproof.helm.manifests import (
    COMPONENT,
    Manifest,
    Release,
    amount,
    at,
    claims,
    containers,
    hosts,
    parsed,
    parts,
    pod_spec,
)
from stackproof.model import STACK_TENANT, Backend
from stackproof.repo.tenants import parse_duration
from stackproof.repo.versions import Versions

from . import Rules, alerts, gateway, lgtm, network, ranges
from .alloy import Alloy, seconds
from .application import PRIVATE
from .deployment import RenderedDeployment
from .pods import owned, patient

SETTINGS: Rules[RenderedDeployment] = Rules()


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
            shown = "nothing" if found is None else found
            yield f"{where}: {one.path} is {shown}, must be {one.value}: {one.why}"


# --- Mimir, Loki, Tempo -------------------------------------------------------------------------

_LOOPBACK = "127.0.0.1"
_QUIET = "a customer's deployment reports nothing home"
_INSIDE = "whoever reaches the inside of a backend is any tenant"
_OVERRIDES = "limits of single tenants come from here, without a restart"
_ITSELF = (
    "one process that is short of processor finds itself dead, and breaks off every search and "
    "write that it is at"
)
_ANY_BACKEND = (
    Setting("server.grpc_listen_address", _LOOPBACK, _INSIDE),
    Setting("memberlist.bind_addr", [_LOOPBACK], _INSIDE),
)
BACKENDS: Mapping[str, tuple[Setting, ...]] = {
    "mimir": (
        Setting("usage_stats.enabled", False, _QUIET),
        Setting("runtime_config.file", "${CONFIG_DIR}/overrides.yaml", _OVERRIDES),
        Setting(
            "activity_tracker.filepath", "", "read-only root; on a full disk its file kills Mimir"
        ),
    ),
    "loki": (
        Setting("analytics.reporting_enabled", False, _QUIET),
        Setting("runtime_config.file", "${CONFIG_DIR}/overrides.yaml", _OVERRIDES),
    ),
    "tempo": (
        Setting("usage_report.reporting_enabled", False, _QUIET),
        Setting("overrides.per_tenant_override_config", "${CONFIG_DIR}/overrides.yaml", _OVERRIDES),
        Setting("ingester_client.pool_config.healthcheckenabled", False, _ITSELF),
        Setting("metrics_generator_client.pool_config.healthcheckenabled", False, _ITSELF),
    ),
}


@SETTINGS.register
def backends_keep_to_themselves(deployed: RenderedDeployment) -> Iterator[str]:
    """Each backend is one process that nobody joins, reaches behind its API, or hears of."""
    for backend, settings in BACKENDS.items():
        config = deployed.config(backend)
        yield from _differing(f"{backend}.yaml", config, (*_ANY_BACKEND, *settings))
        for path, ring in parts(config):
            if not path.endswith("ring") or not isinstance(ring, Mapping):
                continue
            around = at(config, path.rpartition(".")[0]) or config
            store = at(ring, "kvstore.store")
            found = ring.get("instance_addr", around.get("instance_addr", around.get("address")))
            if (store, found) != ("inmemory", _LOOPBACK):
                yield (
                    f"{backend}.yaml: {path} is kept in {store} and found at {found}, must be "
                    f"inmemory and {_LOOPBACK}"
                )


@SETTINGS.register
def backends_listen_where_their_pods_say(deployed: RenderedDeployment) -> Iterator[str]:
    """A configuration takes every port and address from its pod, and every port of that is used."""
    for backend in BACKENDS:
        workload = deployed.lgtm.get("StatefulSet", backend)
        (container,) = containers(workload)
        config = deployed.config(backend)
        given = deployed.lgtm.env_values(container)
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
            yield f"{backend}.yaml: grpc_listen_port is {inside}, must be a port of its own"
        args = list(container.get("args") or ())
        wanted = [f"-config.file=$(CONFIG_DIR)/{backend}.yaml", "-config.expand-env=true"]
        if args != wanted:
            yield f"{backend} is started with {args}: it must read its file, and expand variables"


def _expanded(text: str, given: Mapping[str, str | None]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda one: given.get(one[1], one[0]) or "", text)


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


@SETTINGS.register
def limits_are_those_of_the_registry(deployed: RenderedDeployment) -> Iterator[str]:
    """Each tenant has the limits that its entry names, and the defaults where it names none."""
    defaults = read_values(deployed.deployment.checkout.charts / "lgtm" / "values.yaml")["defaults"]
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
    for backend, (path, _) in ranges.RETENTION.items():
        kept = at(deployed.config(backend), path)
        if kept != defaults["retention"]:
            yield f"{backend} keeps an unlisted tenant's data {kept}"
    for name, _, limits in _limited(deployed, "tempo"):
        if at(limits, "ingestion.rate_strategy") != "local":
            yield f"tempo: {name}'s ingestion.rate_strategy needs a ring with others"
        if not at(limits, "global.max_bytes_per_trace"):
            yield f"tempo: {name} may send a trace of any size (global.max_bytes_per_trace)"
        if not at(limits, "read.max_bytes_per_tag_values_query"):
            yield f"tempo: {name} may ask for any number of values of an attribute"


def _limited(deployed: RenderedDeployment, backend: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield whom a backend limits: name, limits in the registry, limits in the configuration."""
    yield lgtm.UNLISTED, {}, lgtm.default_limits(deployed.lgtm, backend)
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
                yield f"{tenant}'s Alloy waits {first} to {most} between two tries, 60s at most"
    if not limits.get("max_global_exemplars_per_user"):
        yield "mimir.yaml: exemplars are dropped: max_global_exemplars_per_user is not set"
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
    text = deployed.lgtm.file("gateway", "Caddyfile")
    if text is not None:
        yield from gateway.misrouted(text)
        yield from gateway.unknown(text, (*deployed.deployment.registry.names, STACK_TENANT))


# --- Grafana ------------------------------------------------------------------------------------

_SOURCE = (
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
        yield from _differing(where, source, _SOURCE)
        named = [str(source.get("name")), *_shown_names(source.get("jsonData") or {})]
        if not all(re.search(r"\w", name) and name != "None" for name in named):
            yield f"{where}: a name that people see in Grafana is missing"
        if (tenant or "all tenants") not in named[0]:
            yield f"{where} is called {named[0]}: it does not say whose data it shows"
        if bool(source.get("isDefault")) != (uid == "mimir"):
            yield f"{where}: one source is the default, that of all tenants' metrics"
        for (of, key), to in _LINKS.items():
            link = at(source, f"jsonData.{key}")
            found = at(link[0] if isinstance(link, list) and link else link, "datasourceUid")
            # The stack's own metrics have nothing to lead to.
            if tenant != STACK_TENANT and of == backend and found != f"{to}{dash}{tenant}":
                yield f"{where}: {key} leads to {found}, not to {to}{dash}{tenant}"
    text = deployed.lgtm.file("grafana-datasources", "datasources.yaml")
    if parsed(text or "{}").get("prune") is not True:
        yield "datasources.yaml: a tenant that is gone is still shown (prune)"


def _shown_names(data: Mapping[str, Any]) -> Iterator[str]:
    for key, inside in (("derivedFields", data), ("queries", data.get("tracesToMetrics") or {})):
        for one in inside.get(key) or ():
            yield str(one.get("name"))


@SETTINGS.register
def dashboards_are_found(deployed: RenderedDeployment) -> Iterator[str]:
    """Grafana provisions the dashboards from where they are mounted."""
    text = deployed.lgtm.get("ConfigMap", "grafana-dashboards")["data"]["dashboards.yaml"]
    path = at(parsed(text), "providers.0.options.path")
    (container,) = containers(deployed.lgtm.get("Deployment", "grafana"))
    volumes = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
    if volumes.get(path) != "dashboards":
        yield f"dashboards.yaml: no dashboard lies at {path}"


@SETTINGS.register
def alerts_are_sent_to_somebody(deployed: RenderedDeployment) -> Iterator[str]:
    """Every alert is sent to a contact point: Grafana's own is an address of example.com."""
    made = deployed.lgtm.find("ConfigMap", alerts.CONFIG_MAP)
    files = [parsed(text) for text in made["data"].values()] if made else []
    points = {point["name"] for file in files for point in file.get("contactPoints") or ()}
    routed = {policy["receiver"] for file in files for policy in file.get("policies") or ()}
    if (made and not routed) or routed - points:
        yield "alerts are only shown in Grafana: they are sent to nobody (grafana.contactPoint)"


#: Variables that decide something, by container: value and reason.
_CLOSED = "whoever is in sees every tenant"
VARIABLES: Mapping[str, tuple[Setting, ...]] = {
    "grafana": (
        Setting("GF_ANALYTICS_REPORTING_ENABLED", "false", _QUIET),
        Setting("GF_ANALYTICS_CHECK_FOR_UPDATES", "false", _QUIET),
        Setting("GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES", "false", _QUIET),
        Setting("GF_USERS_ALLOW_SIGN_UP", "false", _CLOSED),
        Setting("GF_AUTH_ANONYMOUS_ENABLED", "false", _CLOSED),
    ),
    "weaviate": (
        Setting("DISABLE_TELEMETRY", "true", _QUIET),
        Setting("LIMIT_RESOURCES", "true", "its heap stays below the container's limit"),
    ),
    "open-webui": (
        Setting("ANONYMIZED_TELEMETRY", "false", _QUIET),
        Setting("DO_NOT_TRACK", "true", _QUIET),
        Setting("SCARF_NO_ANALYTICS", "true", _QUIET),
        Setting("ENABLE_PERSISTENT_CONFIG", "false", "the values decide, not the database"),
        Setting("ENABLE_SIGNUP", "false", "whoever reaches the page could make an account"),
        Setting("DEFAULT_USER_ROLE", "user", "only administrators make accounts, for their users"),
        Setting("ENABLE_ADMIN_CHAT_ACCESS", "false", "users' chats are their own"),
        Setting("ENABLE_CODE_EXECUTION", "false", "nobody reviews what a model writes"),
        Setting("ENABLE_CODE_INTERPRETER", "false", "nobody reviews what a model writes"),
        Setting("ENABLE_COMMUNITY_SHARING", "false", "chats stay here"),
        Setting("GLOBAL_LOG_LEVEL", "INFO", "DEBUG prints what users write"),
        Setting("RAG_EMBEDDING_MODEL", "text-embedding-3-small", "stored vectors are of this one"),
    ),
}
#: Arguments that decide something.
_SHOWS = "it would show the password to whoever reaches the port"
ARGUMENTS: Mapping[str, tuple[tuple[str, str], ...]] = dict.fromkeys(
    ("alloy", "monitor"),
    (
        ("--disable-reporting", _QUIET),
        ("--server.http.enable-pprof=false", _SHOWS),
        ("--server.http.disable-support-bundle=true", _SHOWS),
    ),
)


def _running(deployed: RenderedDeployment) -> Iterator[tuple[Release, Manifest, Mapping[str, Any]]]:
    first = next(iter(deployed.tenants.values()), None)
    for release in (deployed.lgtm, *([first] if first else [])):
        for workload in release.workloads():
            for container in containers(workload):
                yield release, workload, container


def _pinned(deployed: RenderedDeployment) -> set[str]:
    return {str(image) for image in Versions.load(deployed.deployment.checkout).images.values()}


def _older(workload: Manifest) -> bool:
    """Tell whether chart 0.1.0 made a StatefulSet: its template for volumes has no labels."""
    templates = at(workload, "spec.volumeClaimTemplates") or ()
    return any(not template["metadata"].get("labels") for template in templates)


@SETTINGS.register
def variables_say_what_they_must(deployed: RenderedDeployment) -> Iterator[str]:
    """Variables and arguments that decide about privacy, access and data are as they must."""
    for release, workload, container in _running(deployed):
        name = container["name"]
        wanted = [*VARIABLES.get(name, ())]
        if name == "weaviate":
            # Its name in its own consensus log: as each chart began with it.
            began = "node1" if _older(workload) else "weaviate-0"
            why = "under another name it does not find its data"
            wanted.append(Setting("CLUSTER_HOSTNAME", began, why))
        yield from _differing(f"container {name}", release.env_values(container), wanted)
        for argument, why in ARGUMENTS.get(name, ()):
            if argument not in (container.get("args") or ()):
                yield f"container {name} lacks the argument {argument}: {why}"


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

#: Of the observability release; the application's are in `application`. The images' users.
USERS: Mapping[str, tuple[int, int]] = {
    **dict.fromkeys(Backend, (10001, 10001)),
    "grafana": (472, 472),
    "monitor": (473, 473),
}
#: Least time for a start [s]: replaying a write-ahead log, migrating a database.
STARTS: Mapping[str, int] = {**dict.fromkeys(Backend, 300), "grafana": 120}


@SETTINGS.register
def pods_fit_their_programs(deployed: RenderedDeployment) -> Iterator[str]:
    """Each pod is its image's user, runs a pinned image, and is given time to start."""
    pinned = _pinned(deployed)
    for release, workload, container in _running(deployed):
        name = container["name"]
        if release is deployed.lgtm:
            yield from owned(workload, USERS.get(name))
            yield from patient(container, STARTS.get(name, 0))
        if name in set(Backend) and "tcpSocket" not in container["livenessProbe"]:
            yield f"{workload.ref}: livenessProbe must be tcpSocket: HTTP kills long queries"
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
    for release, workload, container in _running(deployed):
        if container["name"] not in set(Backend):
            continue
        limit = amount(at(container, "resources.limits.memory"))
        share = float(release.env_values(container).get("GOMEMLIMIT") or "inf") / limit
        if not 0.8 <= share <= 0.95:
            yield f"{workload.ref}: GOMEMLIMIT is {share:.0%} of its limit, must be 80 to 95 %"


@SETTINGS.register
def pods_end_in_peace(deployed: RenderedDeployment) -> Iterator[str]:
    """Stores have time to write what is in memory; the gateway serves until it is forgotten.

    An Alloy tries once more to send what it keeps.
    """
    for release, workload, container in _running(deployed):
        grace = pod_spec(workload).get("terminationGracePeriodSeconds", 30)
        if container["name"] == "tempo":
            # It writes at once, and then waits for itself until it is killed (grafana/tempo#5733).
            if grace != 30:
                yield f"{workload.ref}: terminationGracePeriodSeconds is {grace}, must be 30"
        elif workload.kind == "StatefulSet" and grace < 120:
            yield f"{workload.ref}: terminationGracePeriodSeconds is {grace}, must be 120 or more"
        goes_on = at(container, "lifecycle.preStop.sleep.seconds") or 0
        if container["name"] == "alloy" and goes_on <= (pause := _longest_pause(release)):
            yield f"{workload.ref}: ends after {goes_on} s, and may wait {pause:g} s to try again"
        if container["name"] == "gateway":
            if goes_on < 5:
                yield f"{workload.ref}: stops before the endpoints forget it (preStop)"
            rolling = at(workload["spec"], "strategy.rollingUpdate") or {}
            if rolling.get("maxUnavailable") != 0 or not rolling.get("maxSurge"):
                yield f"{workload.ref}: senders see a gap while it is replaced"
            if workload["spec"].get("replicas", 1) < 2:
                yield f"{workload.ref}: with one pod nobody gets in while its node drains"


def _longest_pause(release: Release) -> float:
    """Return how long an Alloy waits at most between two tries to send, in seconds."""
    alloy = Alloy.of(release)
    names = alloy.components("otelcol.exporter.otlphttp") if alloy else ()
    retries = (alloy.value(f"{name}.retry_on_failure.max_interval") for name in names if alloy)
    return max((seconds(each or "30s") for each in retries), default=0.0)


#: Where a program looks, whatever its variables say: container to path to the kind of volume.
MOUNTS: Mapping[str, Mapping[str, str]] = {
    "grafana": {"/var/lib/grafana": "emptyDir"},
    "open-webui": {"/app/backend/data": "persistentVolumeClaim"},
    "postgres": {"/var/lib/postgresql/data": "claim", "/var/run/postgresql": "emptyDir"},
    "weaviate": {"/var/lib/weaviate": "claim"},
    "searxng": {"/etc/searxng": "configMap", "/var/cache/searxng": "emptyDir"},
}


@SETTINGS.register
def volumes_are_where_programs_look(deployed: RenderedDeployment) -> Iterator[str]:
    """Every program finds its configuration and its data at the path where it looks for them."""
    for _, workload, container in _running(deployed):
        volumes = {v["name"]: v for v in pod_spec(workload).get("volumes") or ()}
        mounts = {m["mountPath"]: m["name"] for m in container.get("volumeMounts") or ()}
        for path, kind in MOUNTS.get(container["name"], {}).items():
            volume = volumes.get(mounts.get(path, ""), {"claim": None} if path in mounts else {})
            if kind not in volume:
                yield f"{workload.ref}: there is no {kind} at {path}"


@SETTINGS.register
def volumes_are_of_one_class(deployed: RenderedDeployment) -> Iterator[str]:
    """Every claim of the deployment names the same StorageClass."""
    found: dict[str, str] = {}
    for release in deployed.releases:
        # Claims by themselves, and then those of StatefulSets.
        for m in release.of_kind("PersistentVolumeClaim") + release.of_kind("StatefulSet"):
            for claim in claims(m):
                name = str(claim["spec"].get("storageClassName"))
                found.setdefault(name, f"{release.namespace}: {m.ref}")
    if found.keys() == {"None"} or len(found) > 1:
        yield f"the claims are of several classes, or of none: {found}"


# --- Names, store, network ----------------------------------------------------------------------


@SETTINGS.register
def services_are_inside(deployed: RenderedDeployment) -> Iterator[str]:
    """No Service is open to the outside."""
    for release in deployed.releases:
        for made in release.services():
            if made["spec"].get("type", "ClusterIP") != "ClusterIP":
                yield f"{release.namespace}: {made.ref} is open to the outside"


@SETTINGS.register
def secrets_come_from_the_store(deployed: RenderedDeployment) -> Iterator[str]:
    """ExternalSecrets own the Secrets that they make: what is deleted there is deleted here."""
    for release in deployed.releases:
        for external in release.of_kind("ExternalSecret"):
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
        out = [rule for s in whole for rule in s.get("egress") or ()]
        for peer in (peer for rule in out for peer in rule.get("to") or () if peer.get("ipBlock")):
            block = peer["ipBlock"]["cidr"]
            # A name carries data as well: a resolver outside is a way out for every pod.
            if not _is_here(block):
                yield f"{release.namespace}: all pods may call {block}, which is no resolver here"
        for rule in out:
            if {one.get("port") for one in rule.get("ports") or [{}]} != {53}:
                yield f"{release.namespace}: all pods may call more than port 53"


#: Addresses that lead nowhere on the internet: private and link-local ones, and the range that GKE
#: gives to Services (docs.cloud.google.com/kubernetes-engine/docs/concepts/alias-ips).
_HERE = [IPv4Network(block) for block in (*PRIVATE["0.0.0.0/0"], "34.118.224.0/20")]


def _is_here(block: str) -> bool:
    found = ip_network(block, strict=False)
    if isinstance(found, IPv4Network):
        return any(found.subnet_of(one) for one in _HERE)
    return found.is_private


@SETTINGS.register
def releases_reach_each_other_where_they_must(deployed: RenderedDeployment) -> Iterator[str]:
    """Across namespaces each call that is configured passes both policies, and no other does."""
    yield from network.blocked(deployed.cluster)
    yield from network.unneeded(deployed.cluster)


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
    pinned = _pinned(deployed)
    for chart in ("lgtm", "open-webui-stack"):
        values = read_values(deployed.deployment.checkout.charts / chart / "values.yaml")
        for path, value in parts(values):
            where = f"{chart}/values.yaml: {path} is"
            if isinstance(value, Mapping) and value.get("tag") and "repository" in value:
                image = f"{value['repository']}:{value['tag']}"
                if image not in pinned:
                    yield f"{where} {image}, which is not in versions.yaml"
            for one in endpoints.in_value(value) if isinstance(value, str) else ():
                service = one.service("", deployed.cluster.namespaces)
                ports = deployed.cluster.service_ports(service) if service else {}
                if service and str(one.port) not in (ports or {}):
                    yield f"{where} {value}, where there is no Service"


# --- Search, ways in ----------------------------------------------------------------------------

_SEARXNG = (
    Setting("search.formats", ["html", "json"], "the application reads JSON"),
    Setting("server.limiter", False, "it would refuse the application, its only client"),
)


@SETTINGS.register
def the_search_answers_the_application(deployed: RenderedDeployment) -> Iterator[str]:
    """SearXNG answers in JSON, and does not take the application for an attacker."""
    for release in deployed.tenants.values():
        made = release.find_component("ConfigMap", "searxng")
        if made is None:
            continue
        yield from _differing("settings.yml", parsed(made["data"]["settings.yml"]), _SEARXNG)
        data = release.of_component("ConfigMap", "open-webui")["data"]
        url = data.get("SEARXNG_QUERY_URL", "")
        if not url.endswith("/search"):
            yield f"SEARXNG_QUERY_URL is {url}: SearXNG searches at /search"


_NGINX = "nginx.ingress.kubernetes.io/"
_SAFE = Setting(f"{_NGINX}ssl-redirect", "true", "nobody types a password in clear text")
#: Annotations by the Service that the Ingress leads to: without them nginx cuts answers off.
INGRESSES: Mapping[str, tuple[Setting, ...]] = {
    "grafana": (_SAFE,),
    "open-webui": (
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
    tenants = ((release, "open-webui") for release in deployed.tenants.values())
    for release, name in ((deployed.lgtm, "grafana"), *tenants):
        ingress = release.find_component("Ingress", name)
        if ingress is None:
            if not release.of_kind("HTTPRoute"):
                yield f"{release.namespace}: nothing leads people to {name} (Ingress, HTTPRoute)"
            continue
        spec, where = ingress["spec"], f"{release.namespace}: {ingress.ref}"
        path = {"path": "/", "pathType": "Prefix"}
        service = release.of_component("Service", name).name
        backend = {"service": {"name": service, "port": {"name": "http"}}}
        paths = at(spec, "rules.0.http.paths")
        if paths != [{**path, "backend": backend}]:
            yield f"{where}: leads to {paths}, must lead to all of {service}"
        for one in INGRESSES[name]:
            found = ingress.annotations.get(one.path)
            if found != one.value:
                yield f"{where}: {one.path} is {found}, must be {one.value}: {one.why}"
        if not spec.get("tls"):
            yield f"{where} serves passwords in clear text"
        policy = release.of_component("NetworkPolicy", name)["spec"]
        peers = [peer for rule in policy.get("ingress") or () for peer in rule["from"]]
        spaces = [at(peer, "namespaceSelector.matchLabels") for peer in peers]
        if {"kubernetes.io/metadata.name": "ingress-nginx"} not in spaces:
            yield f"{where}: its controller is kept out (NetworkPolicy/{name})"


@SETTINGS.register
def pod_logs_are_collected(deployed: RenderedDeployment) -> Iterator[str]:
    """Each tenant's Alloy also collects what the tenant's pods print."""
    for tenant, release in deployed.tenants.items():
        alloy = Alloy.of(release)
        if alloy is None or not alloy.components("loki.source.kubernetes"):
            yield f"{tenant}: nobody collects what its pods print"
