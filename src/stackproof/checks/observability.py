"""What must hold between the parts of one render of charts/lgtm, whatever its values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from stackproof.checks import Checks, gateway
from stackproof.manifests import Release

OBSERVABILITY: Checks[Release] = Checks()

_NOBODY = 'error @admin "there are no tenants" 403'


@OBSERVABILITY.register
def the_gateway_decides_who_it_is(release: Release) -> Iterator[str]:
    """With tenants or without, the gateway knows who asks before it looks at what is asked for."""
    made = release.find("ConfigMap", "gateway")
    if made is None:
        return
    text = str(made["data"]["Caddyfile"])
    yield from gateway.misrouted(text)
    found = re.search(r"\^\(([^()]*)\)\(\[\|\]", text)
    tenants = found[1].split("|") if found else []
    yield from gateway.mistaken(text, tenants)
    if tenants:
        yield from gateway.misordered(text, tenants)
    elif _NOBODY not in text or text.index(_NOBODY) > text.index("vars @admin tenant"):
        yield "Caddyfile: without tenants the administrator may name any"


@OBSERVABILITY.register
def data_sources_say_for_whom_they_ask(release: Release) -> Iterator[str]:
    """Every data source sends the tenants that it is for, and a password where one is asked for."""
    made = release.find("ConfigMap", "grafana-datasources")
    text = made["data"]["datasources.yaml"] if made else "{}"
    protected = release.find("Deployment", "gateway") is not None
    for source in yaml.load(text, yaml.CSafeLoader).get("datasources") or ():
        plain: Mapping[str, Any] = source.get("jsonData") or {}
        secret: Mapping[str, Any] = source.get("secureJsonData") or {}
        where = f"data source {source.get('uid')}"
        if plain.get("httpHeaderName1") != "X-Scope-OrgID" or not secret.get("httpHeaderValue1"):
            yield f"{where} does not say whose data it asks for"
        asked = (
            source.get("basicAuth"),
            source.get("basicAuthUser"),
            "basicAuthPassword" in secret,
        )
        if asked != ((True, "admin", True) if protected else (None, None, False)):
            yield f"{where} authenticates as {asked[1]}, with a gateway it is admin, else nobody"
        for name in (source.get("name"), source.get("type"), source.get("access")):
            if not name:
                yield f"{where} has no name, type or access"


@OBSERVABILITY.register
def every_part_knows_the_same_tenants(release: Release) -> Iterator[str]:
    """Backends, gateway and data sources name the same tenants, and let their namespaces in."""
    known: dict[str, set[str]] = {}
    for backend in ("mimir", "loki", "tempo"):
        made = release.find("ConfigMap", backend)
        if made is not None:
            overrides = yaml.load(made["data"]["overrides.yaml"], yaml.CSafeLoader) or {}
            if not isinstance(overrides.get("overrides"), dict):
                yield f"{backend}: overrides.yaml does not say that there are none (overrides)"
            known[backend] = set(overrides.get("overrides") or ())
    made = release.find("ExternalSecret", "gateway-users")
    if made is not None:
        known["gateway"] = {one["secretKey"] for one in made["spec"]["data"]} - {"admin"}
    everybody = set().union(*known.values())
    for where, names in known.items():
        for name in sorted(everybody - names):
            yield f"{where} does not know the tenant {name}"
    doors = ("gateway",) if release.find("Deployment", "gateway") else ("mimir", "loki", "tempo")
    for door in doors:
        policy = release.find("NetworkPolicy", door)
        rules = (policy["spec"].get("ingress") or ()) if policy else ()
        spaces = {str(p["namespaceSelector"]) for r in rules for p in r["from"] if len(p) == 2}
        if policy and known and len(spaces) != len(everybody):
            yield f"NetworkPolicy/{door} lets in {len(spaces)} of {len(everybody)} tenants"


@OBSERVABILITY.register
def the_monitor_keeps_what_is_shown(release: Release) -> Iterator[str]:
    """Of the stack's own metrics those are kept that its dashboard shows, and no others."""
    made = release.find("ConfigMap", "monitor")
    shown = release.find("ConfigMap", "grafana-dashboards")
    board = shown["data"].get("stack.json") if shown else None
    if made is None or board is None:
        return
    running = {m.name for m in release.workloads()} & {
        "mimir",
        "loki",
        "tempo",
        "gateway",
        "monitor",
    }
    asked = set(re.findall(r'"instance" = "(\w+)"', made["data"]["config.alloy"]))
    for name in sorted(running ^ asked):
        yield f"the monitor asks {name}, which is not there, or does not ask it"
    found = re.search(r'regex\s*=\s*"([^"]*)"', made["data"]["config.alloy"])
    kept = set(found[1].split("|")) if found else set()
    queries = " ".join(re.findall(r'"expr": ("(?:[^"\\]|\\.)*")', board))
    for name in sorted(kept):
        if not re.search(rf"\b{name}\b", queries):
            yield f"the monitor keeps {name}, which no panel shows"
    for name in sorted(
        set(re.findall(r"\b(?:cortex|loki|tempo|process)_\w+|\bup\b", queries)) - kept
    ):
        yield f"a panel shows {name}, which the monitor does not keep"
