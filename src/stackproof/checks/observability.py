"""What must hold between the parts of one render of charts/lgtm, whatever its values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from stackproof.helm import endpoints
from stackproof.helm.manifests import Manifest, Release, containers, expand, hosts, pod_spec
from stackproof.model import STACK_TENANT
from stackproof.wording import counted

from . import Rules, accounts, alerts, dashboards, gateway, lgtm
from .alloy import alloy_settings, seconds
from .pods import owned

OBSERVABILITY: Rules[Release] = Rules()

_NOBODY = 'error @admin "there are no tenants" 403'


@OBSERVABILITY.register
def the_gateway_decides_who_it_is(release: Release) -> Iterator[str]:
    """With tenants or without, the gateway knows who asks before it looks at what is asked for."""
    text = release.file("gateway", "Caddyfile")
    if text is None:
        return
    yield from gateway.misrouted(text)
    yield from gateway.dropped(text)
    found = re.search(r"\^\(([^()]*)\)\(\[\|\]", text)
    tenants = found[1].split("|") if found else []
    yield from gateway.mistaken(text, tenants)
    if not tenants and _NOBODY not in text:
        yield "Caddyfile: without tenants the administrator may name any"


@OBSERVABILITY.register
def data_sources_say_for_whom_they_ask(release: Release) -> Iterator[str]:
    """Every data source sends the tenants that it is for, and a password where one is asked for."""
    protected = release.find("Deployment", "gateway") is not None
    for source in lgtm.data_sources(release):
        plain: Mapping[str, Any] = source.get("jsonData") or {}
        secret: Mapping[str, Any] = source.get("secureJsonData") or {}
        where = f"data source {source.get('uid')}"
        if plain.get("httpHeaderName1") != "X-Scope-OrgID" or not secret.get("httpHeaderValue1"):
            yield f"{where} does not say whose data it asks for"
        user, has_password = source.get("basicAuthUser"), "basicAuthPassword" in secret
        wanted = (True, "admin", True) if protected else (None, None, False)
        if (source.get("basicAuth"), user, has_password) != wanted:
            yield (
                f"{where} authenticates as {user}, must be admin with a gateway and nobody without"
            )
        for key in ("name", "type", "access"):
            if not source.get(key):
                yield f"{where} has no {key}"


@OBSERVABILITY.register
def every_part_knows_the_same_tenants(release: Release) -> Iterator[str]:
    """Backends, gateway and data sources name the same tenants, and let their namespaces in."""
    known: dict[str, set[str]] = {}
    for backend in lgtm.BACKENDS:
        if release.find("ConfigMap", backend):
            listed = lgtm.config(release, backend, "overrides.yaml").get("overrides")
            if not isinstance(listed, dict):
                yield f"{backend}: overrides.yaml does not say that there are none (overrides)"
            known[backend] = set(listed or ()) - {STACK_TENANT}
    protected = release.find("Deployment", "gateway")
    if protected:
        known["gateway"] = accounts.remote_keys(release).keys() - {"admin"}
    everybody = set().union(*known.values())
    for where, names in known.items():
        for name in sorted(everybody - names):
            yield f"{where} does not know the tenant {name}"
    for entrance in ("gateway",) if protected else lgtm.BACKENDS:
        policy = release.find("NetworkPolicy", entrance)
        rules = (policy["spec"].get("ingress") or ()) if policy else ()
        spaces = {str(p["namespaceSelector"]) for r in rules for p in r["from"] if len(p) == 2}
        if policy and known and len(spaces) != len(everybody):
            of_all = f"{len(spaces)} of {counted(len(everybody), 'tenant')}"
            yield f"NetworkPolicy/{entrance} lets in {of_all}"


@OBSERVABILITY.register
def the_monitor_keeps_what_is_shown(release: Release) -> Iterator[str]:
    """Of the stack's own metrics those are kept that its dashboard shows, and no others."""
    config = release.file("monitor", "config.alloy")
    shown = release.find("ConfigMap", "grafana-dashboards")
    board = shown["data"].get("stack.json") if shown else None
    if config is None or board is None:
        return
    running = {m.name for m in release.workloads()} & {*lgtm.BACKENDS, "gateway", "monitor"}
    asked = set(re.findall(r'"instance" = "(\w+)"', config))
    for name in sorted(running ^ asked):
        yield f"the monitor asks {name}, which is not there, or does not ask it"
    found = re.search(r'regex\s*=\s*"([^"]*)"', config)
    kept = set(found[1].split("|")) if found else set()
    queries = " ".join(re.findall(r'"expr": ("(?:[^"\\]|\\.)*")', board))
    queries += " ".join(rule.expr for rule in alerts.read(release))
    for name in sorted(kept):
        # Asked only where these are scraped, and of no backend: kept at no cost.
        scraped = name.startswith(("kubelet_volume_", "externalsecret_"))
        if not scraped and not re.search(rf"\b{name}\b", queries):
            yield f"the monitor keeps {name}, which no panel shows"
    drawn = set(re.findall(r"\b(?:cortex|loki|tempo|process)_\w+|\bup\b", queries))
    for name in sorted(drawn - kept):
        yield f"a panel shows {name}, which the monitor does not keep"


@OBSERVABILITY.register
def grafana_is_what_its_values_say(release: Release) -> Iterator[str]:
    """Grafana knows its address, and its secrets are those of the Secret: now, not once.

    Without a root_url links say localhost, and Live refuses browsers (its origin check). The
    default of secret_key is public. The database keeps the administrator's first password
    (https://grafana.com/docs/grafana/latest/setup-grafana/configure-grafana/#admin_password), so it
    must not outlive the pod.
    """
    made = release.find("Deployment", "grafana")
    if made is None:
        return
    (container,) = containers(made)
    given = release.env(container)
    root = given.get("GF_SERVER_ROOT_URL")
    address = urlsplit(root.value or "" if root else "")
    ways = set(_ways_in(release)) or {("http", "localhost")}
    if (address.scheme, address.hostname) not in ways:
        yield f"Grafana's root_url is {root and root.value}, people come in by {sorted(ways)}"
    for name in ("GF_SECURITY_SECRET_KEY", "GF_SECURITY_ADMIN_PASSWORD"):
        key = given[name].key if name in given else None
        if key is None or key.kind != "Secret":
            yield f"Grafana's {name} is from no Secret"
    data = given["GF_PATHS_DATA"].value if "GF_PATHS_DATA" in given else None
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    for volume in pod_spec(made)["volumes"]:
        if volume["name"] == mounted.get(data or "") and "emptyDir" not in volume:
            yield "Grafana's database outlives its pod: a rotated password is never in force"


def _ways_in(release: Release) -> Iterator[tuple[str, str]]:
    """Yield scheme and host of each way by which people reach Grafana."""
    for m in release.of_kind("Ingress", "HTTPRoute"):
        tls = m.kind == "Ingress" and m["spec"].get("tls")
        # Which of the two a route has, only the gateway's listener knows.
        schemes = ("http", "https") if m.kind == "HTTPRoute" else ("https" if tls else "http",)
        yield from ((scheme, host) for scheme in schemes for host in hosts(m))


@OBSERVABILITY.register
def the_stacks_own_logs_are_its_own(release: Release) -> Iterator[str]:
    """What the monitor collects of this namespace goes to the stack's own tenant, and no other."""
    settings = alloy_settings(release.file("monitor", "config.alloy") or "")
    if "loki.write.stack.endpoint.url" not in settings:
        return
    tenant = settings.get("loki.write.stack.endpoint.tenant_id", "").strip('"')
    if tenant != STACK_TENANT:
        yield f"the namespace's logs go to {tenant or 'nobody'}, not to {STACK_TENANT}"
    names = settings.get("discovery.kubernetes.pods.namespaces.names")
    if names != '[sys.env("POD_NAMESPACE")]':
        yield f"the monitor collects the logs of {names or 'every namespace'}"


@OBSERVABILITY.register
def alerts_can_fire(release: Release) -> Iterator[str]:
    """Every alert rule asks a data source that there is, for metrics that are there.

    That each fires when it should, and only then, is shown by
    tests/e2e/local/test_stack_dashboard.py.
    """
    uids = frozenset(str(source["uid"]) for source in lgtm.data_sources(release))
    yield from alerts.problems(release, uids)
    kept = dashboards.kept(release)
    for rule in alerts.read(release):
        for name in sorted(set(_METRICS.findall(rule.expr)) - kept):
            yield f"alert rule {rule.uid} asks for {name}, which the monitor does not keep"


@OBSERVABILITY.register
def silence_is_an_alert(release: Release) -> Iterator[str]:
    """Whatever the monitor asks is missed when it does not answer: of all else there is no data.

    One that does not answer among several leaves the answers of the others, so that no rule has no
    data (noDataState).
    """
    settings = alloy_settings(release.file("monitor", "config.alloy") or "")
    rules = alerts.read(release)
    jobs = [settings[name] for name in settings if re.fullmatch(_JOB, name)]
    for job in jobs if rules else ():
        if not any(f"up{{job={job}}}" in rule.expr for rule in rules):
            yield f"no alert rule says that what the monitor asks as {job} does not answer"


_JOB = r"prometheus\.scrape\.\w+\.job_name"
_METRICS = re.compile(r"\b(?:cortex|loki|tempo|kubelet|externalsecret)_\w+|\bup\b")

#: What Grafana takes for the time between two samples where a data source has no timeInterval.
_ASSUMED = "15s"


@OBSERVABILITY.register
def rates_have_samples_enough(release: Release) -> Iterator[str]:
    """The stack's own metrics come as often as their data source says.

    Grafana's $__rate_interval is four times that: with fewer samples a rate is empty.
    """
    config = release.file("monitor", "config.alloy")
    scrape = "prometheus.scrape.stack.scrape_interval"
    every = alloy_settings(config or "").get(scrape, '"60s"').strip('"')
    for source in lgtm.data_sources(release) if config is not None else ():
        assumed = str((source.get("jsonData") or {}).get("timeInterval", _ASSUMED))
        if source.get("type") == "prometheus" and not 0 < seconds(every) <= seconds(assumed):
            yield f"data source {source.get('uid')}: a sample in {every}, Grafana takes {assumed}"


#: The Dockerfile's USER.
CANARY_USER = (65532, 65532)


@OBSERVABILITY.register
def the_canary_tells_what_it_finds(release: Release) -> Iterator[str]:
    """The canary asks the gateway, as each tenant whose password it has, and is not asked again."""
    job = release.find("CronJob", "canary")
    if job is None:
        return
    (container,) = containers(job)
    given = {name: value or "" for name, value in release.env_values(container).items()}
    words = [expand(str(word), given).removeprefix("--") for word in container["args"]]
    options = dict(word.partition("=")[::2] for word in words)
    url = options.get("gateway-url", "")
    asked = {one.host.partition(".")[0] for one in endpoints.in_value(url)}
    if asked != {"gateway"}:
        yield f"the canary asks {sorted(asked) or 'nobody'}, must ask the gateway (--gateway-url)"
    tenants = options.get("tenants", "").split(",")
    known = {name for name in given if name.startswith(_PASSWORD)}
    if {_PASSWORD + name.upper().replace("-", "_") for name in tenants} != known:
        yield f"the canary asks as {tenants}, and has {sorted(known)}"
    if options.get("metrics-as") not in tenants:
        yield f"the canary's verdict is nobody's: {options.get('metrics-as')} (--metrics-as)"
    places = [mount["mountPath"] for mount in container["volumeMounts"]]
    if not any(options.get("report", "").startswith(f"{place}/") for place in places):
        yield f"the canary can write no report to {options.get('report')} (--report)"
    yield from _once(job)
    yield from owned(job, CANARY_USER)


_PASSWORD = "STACKPROOF_PASSWORD_"


def _once(job: Manifest) -> Iterator[str]:
    """Yield where a proof that failed is done again: the second may pass, the first was true."""
    spec: Mapping[str, Any] = job["spec"]["jobTemplate"]["spec"]
    if spec.get("backoffLimit") != 0:
        yield f"{job.ref} tries again what was found (backoffLimit)"
    if spec["template"]["spec"].get("restartPolicy") != "Never":
        yield f"{job.ref} tries again what was found (restartPolicy)"
