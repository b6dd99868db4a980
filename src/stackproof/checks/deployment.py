"""What must hold for the deployment as a whole: the observability release and every tenant's.

These are read off the rendered bytes. That the programs then do what the configuration says is
proven by running them (tests/e2e).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from stackproof.flux.deployment import Deployment
from stackproof.helm import references
from stackproof.helm.manifests import (
    COMPONENT,
    Release,
    at,
    containers,
    parts,
    pod_template,
    target_secret,
)
from stackproof.model import STACK_TENANT
from stackproof.repo.tenants import parse_duration
from stackproof.values import unused

from . import Rules, accounts, chain, lgtm, ranges, scale_out
from .alloy import Alloy
from .application import ENDPOINTS
from .lgtm import BACKENDS
from .sizes import SIZES

#: What neither chart makes: flux/infrastructure does, before anything that refers to it. Only the
#: registry's credential somebody made by hand, for chart 0.1.0 (docs/migration.md).
FROM_FLUX = references.Externals(
    keys={("open-webui", "ghcr-secret"): frozenset({".dockerconfigjson"})},
    services={("external-secrets", "external-secrets-metrics"): frozenset({8080})},
    objects=frozenset({("ClusterSecretStore", "gcp-secret-manager")}),
)
_TENANT = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class RenderedDeployment:
    """A deployment, rendered once for all checks."""

    deployment: Deployment

    @cached_property
    def lgtm(self) -> Release:
        """The observability release."""
        return self.deployment.lgtm()

    @cached_property
    def tenants(self) -> Mapping[str, Release]:
        """Each tenant's release, by the tenant's name."""
        return {name: self.deployment.tenant(name) for name in self.deployment.registry.names}

    @property
    def releases(self) -> tuple[Release, ...]:
        """All releases together."""
        return (self.lgtm, *self.tenants.values())

    @cached_property
    def cluster(self) -> references.Cluster:
        """All releases and what Flux makes beside them, indexed."""
        return references.Cluster(self.releases, FROM_FLUX)

    def config(self, backend: str) -> Mapping[str, Any]:
        """Return a backend's configuration as data; variables are left as they stand."""
        return lgtm.config(self.lgtm, backend)

    def overrides(self, backend: str) -> Mapping[str, Any]:
        """Return what a backend is told of each tenant."""
        return lgtm.overrides(self.lgtm, backend)

    @cached_property
    def data_sources(self) -> tuple[Mapping[str, Any], ...]:
        """Grafana's provisioned data sources, unexpanded."""
        return lgtm.data_sources(self.lgtm)


DEPLOYMENT: Rules[RenderedDeployment] = Rules()


def _wrong(deployed: RenderedDeployment, wanted: Mapping[tuple[str, str], object]) -> Iterator[str]:
    """Yield where a backend's configuration does not say what it must."""
    for (backend, path), value in wanted.items():
        found = at(deployed.config(backend), path)
        if found != value:
            yield f"{backend}.yaml: {path} is {found!r}, must be {value!r}"


@DEPLOYMENT.register
def multi_tenancy_is_on(deployed: RenderedDeployment) -> Iterator[str]:
    """Every backend asks each request for its tenant."""
    wanted = {
        ("mimir", "multitenancy_enabled"): True,
        ("loki", "auth_enabled"): True,
        ("tempo", "multitenancy_enabled"): True,
    }
    yield from _wrong(deployed, wanted)


@DEPLOYMENT.register
def admins_can_name_several_tenants(deployed: RenderedDeployment) -> Iterator[str]:
    """Every backend answers for an explicit list of tenants."""
    wanted = {
        ("mimir", "tenant_federation.enabled"): True,
        ("loki", "querier.multi_tenant_queries_enabled"): True,
        ("tempo", "query_frontend.multi_tenant_queries_enabled"): True,
    }
    yield from _wrong(deployed, wanted)


@DEPLOYMENT.register
def retention_is_in_force(deployed: RenderedDeployment) -> Iterator[str]:
    """Every backend deletes what is older than the tenant's retention.

    Loki ignores retention_period without compactor.retention_enabled, and does not start without
    delete_request_store then (pkg/compactor/config.go). Mimir and Tempo: 0 keeps for ever.
    """
    deletes = {
        ("loki", "compactor.retention_enabled"): True,
        ("loki", "compactor.delete_request_store"): "filesystem",
    }
    yield from _wrong(deployed, deletes)
    default = parse_duration(at(deployed.config("loki"), "limits_config.retention_period") or "0h")
    for tenant in deployed.deployment.registry:
        wanted = tenant.retention or default
        for backend, (_, path) in ranges.RETENTION.items():
            found = at(deployed.overrides(backend).get(tenant.name) or {}, path)
            kept = parse_duration(found) if isinstance(found, str) else None
            if kept != wanted or not wanted:
                yield f"{backend} keeps {tenant.name}'s data {found or 'for ever'}, not {wanted}"


@DEPLOYMENT.register
def sizes_fit_the_limits(deployed: RenderedDeployment) -> Iterator[str]:
    """Disks, memory, caches and limits fit each other: every rule of `sizes`, of every release."""
    for release in deployed.releases:
        for check in SIZES:
            yield from check.find(release)


@DEPLOYMENT.register
def limits_form_a_chain(deployed: RenderedDeployment) -> Iterator[str]:
    """What an Alloy acknowledges and sends, everything behind it takes, as its tenant's limits."""
    for release in deployed.releases:
        for problem in chain.broken(chain.links(deployed.lgtm, release)):
            yield f"{release.namespace}: {problem}"


@DEPLOYMENT.register
def all_that_is_kept_can_be_read(deployed: RenderedDeployment) -> Iterator[str]:
    """Each query API reads as far back as data is kept, for the longest retention of any tenant."""
    for backend in BACKENDS:
        yield from ranges.too_short(backend, deployed.config(backend), deployed.overrides(backend))


@DEPLOYMENT.register
def every_tenant_is_known_everywhere(deployed: RenderedDeployment) -> Iterator[str]:
    """Overrides, gateway users, data sources and policies name exactly the registry's tenants."""
    registry = deployed.deployment.registry
    wanted = set(registry.names)
    for backend in BACKENDS:
        known = set(deployed.overrides(backend)) - {STACK_TENANT}
        yield from _differs(f"{backend}'s overrides", known, wanted)
    if deployed.lgtm.find("Deployment", "gateway"):
        users = set(accounts.remote_keys(deployed.lgtm))
        yield from _differs("the gateway's users", users, wanted | {"admin"})
    uids = {str(source.get("uid")) for source in deployed.data_sources}
    own = {f"{backend}-{STACK_TENANT}" for backend in ("mimir", "loki")}
    sources = {f"{b}{s}" for b in BACKENDS for s in ("", *(f"-{n}" for n in wanted))}
    yield from _differs("Grafana's data sources", uids, sources | own)
    namespaces = {tenant.namespace for tenant in registry}
    yield from _differs("the gateway's NetworkPolicy", _admitted(deployed.lgtm), namespaces)


def _differs(what: str, found: set[str], wanted: set[str]) -> Iterator[str]:
    for name in sorted(wanted - found):
        yield f"{name} is missing in {what}"
    for name in sorted(found - wanted):
        yield f"{name} is in {what} and not in the registry"


def _admitted(release: Release) -> set[str]:
    """Return the namespaces that may call the gateway, or the backends where there is none."""
    policy = release.find("NetworkPolicy", "gateway") or release.get("NetworkPolicy", "mimir")
    peers = (peer for rule in policy["spec"].get("ingress") or () for peer in rule["from"])
    selectors = (peer.get("namespaceSelector") for peer in peers)
    return {s["matchLabels"]["kubernetes.io/metadata.name"] for s in selectors if s}


@DEPLOYMENT.register
def data_sources_name_known_tenants(deployed: RenderedDeployment) -> Iterator[str]:
    """Every data source asks for tenants by name: one, or all joined by |. There is no pattern."""
    names = deployed.deployment.registry.names
    for source in deployed.data_sources:
        uid, header = str(source["uid"]), str(at(source, "secureJsonData.httpHeaderValue1"))
        if at(source, "jsonData.httpHeaderName1") != "X-Scope-OrgID":
            yield f"data source {uid} sends no X-Scope-OrgID: a viewer's own would pass through"
        asked = header.split("|")
        wanted = names if uid in BACKENDS else (uid.split("-", 1)[-1],)
        for odd in (name for name in asked if not _TENANT.fullmatch(name)):
            yield f"data source {uid} asks for {odd!r}, which can be no tenant: there is no pattern"
        if tuple(asked) != tuple(wanted):
            yield f"data source {uid} asks for {header}, must ask for {'|'.join(wanted)}"


@DEPLOYMENT.register
def only_the_gateway_reaches_a_backend(deployed: RenderedDeployment) -> Iterator[str]:
    """A backend's policy lets the gateway and the monitor in, Tempo into Mimir, and nobody else.

    The backends believe the header: whoever reaches one of them is any tenant.
    """
    if not deployed.lgtm.find("Deployment", "gateway"):
        return
    for backend in BACKENDS:
        allowed = {"gateway", "monitor", *(["tempo"] if backend == "mimir" else [])}
        for rule in deployed.lgtm.get("NetworkPolicy", backend)["spec"].get("ingress") or ():
            for peer in rule.get("from") or [{}]:
                component = at(peer, "podSelector.matchLabels") or {}
                if set(peer) != {"podSelector"} or component.get(COMPONENT) not in allowed:
                    yield f"NetworkPolicy/{backend} lets in {dict(peer) or 'everybody'}"


@DEPLOYMENT.register
def spans_make_metrics(deployed: RenderedDeployment) -> Iterator[str]:
    """Tempo makes service graphs, span metrics and what TraceQL metrics are read from.

    As the tenant whose trace it was.
    """
    wanted = ["service-graphs", "span-metrics", "local-blocks"]
    config = deployed.config("tempo")
    if not at(config, "metrics_generator.storage.remote_write_add_org_id_header"):
        yield "tempo.yaml: metrics_generator.storage.remote_write_add_org_id_header must be true"
    writes = at(config, "metrics_generator.storage.remote_write") or ()
    if not writes:
        yield "tempo.yaml: the metrics generator writes nowhere"
    for write in writes:
        if "X-Scope-OrgID" in (write.get("headers") or {}):
            yield f"tempo.yaml: {write['url']} gets a fixed X-Scope-OrgID: it wins"
    for tenant, limits in deployed.overrides("tempo").items():
        if at(limits, "metrics_generator.processors") != wanted:
            yield f"tempo makes no {' and '.join(wanted)} for {tenant}"
        if at(limits, "metrics_generator.remote_write_headers"):
            yield f"tempo writes {tenant}'s metrics with headers of its own, which win"


@DEPLOYMENT.register
def directories_do_not_overlap(deployed: RenderedDeployment) -> Iterator[str]:
    """No two of Mimir's directories contain each other: it refuses to start otherwise."""
    config = deployed.config("mimir")
    paths = {
        *("blocks_storage.filesystem.dir", "blocks_storage.tsdb.dir", "compactor.data_dir"),
        *("blocks_storage.bucket_store.sync_dir", "ruler_storage.filesystem.dir"),
        "ruler.rule_path",
    }
    found = {path: at(config, path) for path in sorted(paths)}
    for path, directory in found.items():
        if directory is None:
            yield f"mimir.yaml: {path} is not set: its default is outside the volume"
    known = {path: PurePosixPath(str(d)) for path, d in found.items() if d}
    for one, inner in known.items():
        for other, outer in known.items():
            if one != other and inner.is_relative_to(outer):
                yield f"mimir.yaml: {one} ({inner}) lies in {other} ({outer})"


@DEPLOYMENT.register
def data_lies_on_the_volume(deployed: RenderedDeployment) -> Iterator[str]:
    """Every directory that a backend writes to is below DATA_DIR, which is its volume."""
    for backend in BACKENDS:
        for path, value in parts(deployed.config(backend)):
            named = isinstance(value, str) and _DIRECTORY.fullmatch(path)
            if named and ("/" in value or "DIR" in value) and not value.startswith("${DATA_DIR}"):
                yield f"{backend}.yaml: {path} is {value}: lost with the pod"


#: What a setting is called that names a directory to write to.
_DIRECTORY = re.compile(r"(.*[._])?(dir|directory|path|path_prefix)")


@DEPLOYMENT.register
def tenants_share_nothing(deployed: RenderedDeployment) -> Iterator[str]:
    """No two tenants' releases make the same cluster-scoped object or read the same secret."""
    owner: dict[str, str] = {}
    for tenant, release in deployed.tenants.items():
        claims = {m.ref for m in release if m.namespace is None}
        claims |= {f"the remote key {one['remoteRef']['key']}" for one in accounts.fetched(release)}
        for claim in claims:
            if claim in owner:
                yield f"{owner[claim]} and {tenant} both have {claim}"
            owner.setdefault(claim, tenant)


@DEPLOYMENT.register
def a_tenant_and_the_gateway_mean_the_same_password(deployed: RenderedDeployment) -> Iterator[str]:
    """The gateway hashes the very remote key that the tenant's Alloy sends."""
    if not deployed.lgtm.find("Deployment", "gateway"):
        return
    known = accounts.remote_keys(deployed.lgtm)
    for tenant, release in deployed.tenants.items():
        sent = {
            entry["remoteRef"]["key"]
            for entry in accounts.fetched(release)
            if entry["secretKey"] == "gateway-password"
        }
        if sent != {known.get(tenant)}:
            yield f"{tenant} sends {sorted(sent)}, the gateway expects {known.get(tenant)}"


@DEPLOYMENT.register
def an_account_harms_its_owner_only(deployed: RenderedDeployment) -> Iterator[str]:
    """A Secret of the gateway's that is missing, or cannot be made, keeps out its owner alone."""
    yield from accounts.endangered(deployed.lgtm)


@DEPLOYMENT.register
def a_rotation_is_shorter_than_the_senders_patience(deployed: RenderedDeployment) -> Iterator[str]:
    """While one side has the old password and the other the new one, what is sent waits."""
    if not deployed.lgtm.find("Deployment", "gateway"):
        return
    for tenant, release in deployed.tenants.items():
        found = Alloy.of(release)
        longest = accounts.longest_rotation(deployed.lgtm, release)
        for name, patience in accounts.patience(found) if found else ():
            if patience <= longest:
                yield (
                    f"{tenant}: {name} drops what it could not send for {patience}, and both sides "
                    f"know a new password after {longest} (refreshInterval)"
                )


@DEPLOYMENT.register
def references_resolve(deployed: RenderedDeployment) -> Iterator[str]:
    """Every name in a manifest or a configuration leads to something that is rendered."""
    yield from map(str, references.problems(deployed.cluster))


@DEPLOYMENT.register
def what_is_scaled_out_finds_itself(deployed: RenderedDeployment) -> Iterator[str]:
    """The distributed backends call each other where their README installs them."""
    yield from scale_out.astray(deployed.deployment.checkout)


@DEPLOYMENT.register
def what_is_scaled_out_survives_an_ingester(deployed: RenderedDeployment) -> Iterator[str]:
    """Two of the distributed ingesters hold what is acknowledged, so that one may be lost."""
    yield from scale_out.too_few(deployed.deployment.checkout)


@DEPLOYMENT.register
def each_alloy_is_its_tenant(deployed: RenderedDeployment) -> Iterator[str]:
    """Every tenant has one Alloy, a Deployment, which sends as that tenant and nobody else."""
    for tenant, release in deployed.tenants.items():
        alloys = [m for m in release.workloads() if m.labels.get(COMPONENT) == "alloy"]
        if [m.kind for m in alloys] != ["Deployment"]:
            found = ", ".join(m.ref for m in alloys) or "nothing"
            yield f"{tenant} has {found}: on every node it would collect every line once more"
            continue
        sender = release.env_values(containers(alloys[0])[0])["TENANT_ID"]
        if sender != tenant:
            yield f"{tenant}'s Alloy sends as {sender}"


@DEPLOYMENT.register
def the_application_reaches_its_alloy(deployed: RenderedDeployment) -> Iterator[str]:
    """The application sends all three signals where its own Alloy listens, in the way it listens.

    Over HTTP it posts to the endpoint as it is, so each signal needs its own path; over gRPC it
    believes INSECURE rather than the scheme (open_webui/utils/telemetry/setup.py).
    """
    for tenant, release in deployed.tenants.items():
        environment = _application(release)
        problems = (
            problem
            for signal, name in ENDPOINTS.items()
            for endpoint in [environment.get(name) or environment.get(ENDPOINTS["traces"], "")]
            for problem in _wire(signal, endpoint, environment)
        )
        yield from (f"{tenant}: {problem}" for problem in dict.fromkeys(problems))


def _application(release: Release) -> dict[str, str]:
    """Return what is known of the application's environment before its pod runs."""
    workload = next(m for m in release.workloads() if m.labels.get(COMPONENT) == "open-webui")
    given = release.env_values(containers(workload)[-1])
    return {name: value or "" for name, value in given.items()}


def _wire(signal: str, endpoint: str, environment: Mapping[str, str]) -> Iterator[str]:
    if environment.get(f"ENABLE_OTEL_{signal.upper()}") != "true":
        yield f"{signal} are switched off"
    protocol = environment.get("OTEL_OTLP_SPAN_EXPORTER")
    if protocol == "http":
        if not endpoint.endswith(f"/v1/{signal}"):
            yield f"{signal} are posted to {endpoint}, which is not a path for them"
    elif protocol != "grpc":
        yield f"OTEL_OTLP_SPAN_EXPORTER is {protocol!r}: the application takes that for grpc"
    elif endpoint.startswith("http://") and environment["OTEL_EXPORTER_OTLP_INSECURE"] != "true":
        yield f"{signal} are sent with TLS to {endpoint}, where nobody speaks it"
    sampler = environment.get("OTEL_TRACES_SAMPLER", "")
    if "ratio" in sampler and not environment.get("OTEL_TRACES_SAMPLER_ARG"):
        yield f"sampler {sampler} has no OTEL_TRACES_SAMPLER_ARG: it samples everything"


@DEPLOYMENT.register
def replicas_are_told_apart(deployed: RenderedDeployment) -> Iterator[str]:
    """Each pod of the application writes series of its own, marked with its tenant."""
    for tenant, release in deployed.tenants.items():
        attributes = _application(release).get("OTEL_RESOURCE_ATTRIBUTES", "")
        if "service.instance.id=$(POD_NAME)" not in attributes.split(","):
            yield f"{tenant}: no service.instance.id: replicas write to one and the same series"
        # Mimir's label job is namespace/name, Loki's labels are the k8s names (docs/facts.md).
        for name in ("service.namespace", "k8s.namespace.name", "k8s.pod.name"):
            if f"{name}=$(POD_" not in attributes:
                yield f"{tenant}: OTEL_RESOURCE_ATTRIBUTES has no {name}"
        if f"tenant.id={tenant}" not in attributes.split(","):
            yield f"{tenant}: OTEL_RESOURCE_ATTRIBUTES does not say tenant.id={tenant}"


@DEPLOYMENT.register
def rendering_twice_gives_the_same(deployed: RenderedDeployment) -> Iterator[str]:
    """Nothing is made up while rendering: an upgrade that changes nothing changes nothing."""
    for release, again in zip(
        deployed.releases, deployed.deployment.releases(fresh=True), strict=True
    ):
        for one, other in itertools.zip_longest(release, again):
            if one != other:
                found = one or other
                yield f"{found.source}: {found.ref} in {release.namespace} differs each time"


@DEPLOYMENT.register
def rotation_rolls_what_may_roll(deployed: RenderedDeployment) -> Iterator[str]:
    """Pods follow a rotated password, but for those that must not.

    A pod's environment is fixed when it starts. PostgreSQL reads its password only when its
    directory is empty, and a new WEBUI_SECRET_KEY logs everybody out and loses stored credentials.
    """
    for release in deployed.releases:
        for workload in release.workloads():
            annotations = pod_template(workload)["metadata"].get("annotations", {})
            named = set(annotations.get("secret.reloader.stakater.com/reload", "").split(","))
            used = {name for c in containers(workload) for name in _secrets(release, c)}
            for secret in sorted(used):
                stays = _must_stay(release, secret)
                if stays and secret in named:
                    yield f"{workload.ref} in {release.namespace} restarts when {secret} rotates"
                if not stays and secret not in named:
                    yield f"{workload.ref} in {release.namespace} keeps the old value of {secret}"


def _secrets(release: Release, container: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the Secrets in a container's environment."""
    for variable in release.env(container).values():
        if variable.key is not None and variable.key.kind == "Secret":
            yield variable.key.name


def _must_stay(release: Release, secret: str) -> bool:
    for external in release.of_kind("ExternalSecret"):
        if target_secret(external) == secret:
            return bool(unused.STAYS & {entry["secretKey"] for entry in external["spec"]["data"]})
    return False
