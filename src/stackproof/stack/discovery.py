"""What a cluster's objects tell of a deployment of Mimir, Loki and Tempo: where it is, whose it is.

Services are known by the names, labels and ports that the official charts give, and our own. No
Secret is asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema_rs
import yaml

from stackproof.errors import StackproofError
from stackproof.helmyaml import reading
from stackproof.kube.client import ApiError, Kube, Object
from stackproof.model import FALLBACK_TENANTS, READS, STACK_TENANT, TENANT_HEADER, Backend

_KINDS = (
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("networking.k8s.io/v1", "Ingress"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "StatefulSet"),
    ("opentelemetry.io/v1beta1", "OpenTelemetryCollector"),
    ("monitoring.coreos.com/v1", "Prometheus"),
    ("grafana.integreatly.org/v1beta1", "GrafanaDatasource"),
)

_SCHEMA = jsonschema_rs.validator_for(
    json.loads(Path(__file__).with_name("objects.schema.json").read_bytes())
)

_NAME, _COMPONENT = "app.kubernetes.io/name", "app.kubernetes.io/component"
#: What our charts are called by their labels.
_OURS, _TENANTS_CHART = "lgtm", "open-webui-stack"

_BACKEND = re.compile(r"(?:^|-)(mimir|loki|tempo)(?:-|$)")
#: Beside a component's own Service: for its peers, its metrics, and one that is no component.
_NO_ENTRY = re.compile(
    r"-(headless|discovery|memberlist|exporter|gossip-ring|canary|(\w+-)?cache|memcached)$"
)
_GATEWAY, _SINGLE = "gateway", "single-binary"
_SAME = {"": _SINGLE, "nginx": _GATEWAY, "all": _SINGLE}
#: Which component of a backend is read from and written to, the best first.
_READ = (_GATEWAY, _SINGLE, "query-frontend", "read", "querier")
_WRITE = (_GATEWAY, _SINGLE, "distributor", "write")

_HTTP_NAMES = ("http", "http-metrics", "tempo-prom-metrics")
_HTTP_PORTS = (80, 8080, 3100, 3200, 9009)
_OTLP_HTTP, _OTLP_GRPC = 4318, 4317

#: Where an Ingress says a part of an API, and not where that begins.
_API = re.compile(r"/(api|loki|otlp|prometheus|tempo|v1)(/|$)")
_AUTH_TYPE = "nginx.ingress.kubernetes.io/auth-type"
_REWRITE = "nginx.ingress.kubernetes.io/rewrite-target"

#: `X-Scope-OrgID: acme`, `"X-Scope-OrgID" = "acme"`, `X-Scope-OrgID=acme`; what a variable gives
#: is told apart by its `$`, `{` or bracket.
_HEADER = re.compile(rf"""(?i)["']?{TENANT_HEADER}["']?\s*[:=]\s*(["']?)([^"'\s,}}]+)\1""")
#: As promtail and Alloy's loki.write have it.
_TENANT_ID = re.compile(r"""(?m)^\s*tenant_id\s*[:=]\s*(["']?)([^"'\s,}]+)\1""")
_VARIABLE = re.compile(r"[${(]")
_ID = re.compile(r"[A-Za-z0-9!._*'()-]{1,150}")

_BASIC_AUTH = re.compile(r"(?m)^\s*(auth_basic\s+(?!off)|basic_auth\b)")
_BY_USER = re.compile(
    rf"(?i){TENANT_HEADER}\s+(\$remote_user|\{{vars\.tenant\}})|map\s+\$remote_user\s"
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where something is reached.

    Args:
        url: Its base URL, without a slash at its end.
        service: NAMESPACE/NAME of the Service behind it.
        port: That Service's.
        outside: An Ingress leads there.
    """

    url: str
    service: str
    port: int
    outside: bool = False


@dataclass(slots=True)
class Found:
    """What the objects tell.

    Args:
        reads: The address that each backend is read at, without the path of its API.
        writes: The address that each backend is written to.
        one_gateway: All of it is behind one gateway, of our own chart.
        tenants: Each with where its name stands.
        basic_auth: What asks for user and password, or an empty string.
        by_user: The gateway derives the tenant from the user.
        open: What could not be found out, each as a sentence.
    """

    reads: dict[Backend, Address] = field(default_factory=dict)
    writes: dict[Backend, Address] = field(default_factory=dict)
    one_gateway: bool = False
    tenants: dict[str, str] = field(default_factory=dict)
    basic_auth: str = ""
    by_user: bool = False
    open: list[str] = field(default_factory=list)


def from_cluster(kube: Kube) -> tuple[list[Object], list[str]]:
    """Return the objects that tell of a deployment, and the kinds that may not be listed.

    Raises:
        StackproofError: The cluster cannot be reached, or Services may not be listed.
    """
    found: list[Object] = []
    refused: list[str] = []
    for api_version, kind in _KINDS:
        try:
            found += kube.listed(api_version, kind)
        except ApiError as error:
            if kind == "Service" or error.status != 403:
                raise
            refused.append(kind)
    return found, refused


def from_text(text: str, where: str) -> Iterator[Object]:
    """Yield the objects of what `kubectl get -o yaml` (or json) prints.

    Raises:
        StackproofError: It is not valid YAML, or holds what are no objects of Kubernetes.
    """
    with reading(where):
        documents = list(yaml.load_all(text, Loader=yaml.CSafeLoader))
    waiting: list[Any] = documents[::-1]
    while waiting:
        each = waiting.pop()
        if each is None:
            continue
        if not isinstance(each, dict) or "kind" not in each:
            raise StackproofError(
                "is not a list of Kubernetes' objects",
                where=where,
                todo="`kubectl get services,configmaps,ingresses,deployments,daemonsets,"
                "statefulsets -A -o yaml` makes one.",
            )
        items = each.get("items") if str(each["kind"]).endswith("List") else None
        if isinstance(items, list):
            waiting += reversed(items)
        else:
            _refuse_malformed(each, where)
            yield each


def _refuse_malformed(each: Object, where: str) -> None:
    """What a cluster gives is as it must be; what somebody wrote or cut may not be."""
    for problem in _SCHEMA.iter_errors(each):
        place = ".".join(map(str, problem.instance_path))
        told = f"{place}: {problem.message}" if place else problem.message
        raise StackproofError(
            f"holds a {each['kind']} as Kubernetes has none: {told}",
            where=where,
            todo="Let kubectl make the file.",
        )


def discover(objects: Iterable[Object], refused: Sequence[str] = ()) -> Found:
    """Return what objects tell.

    Raises:
        StackproofError: There is no Mimir, Loki or Tempo among them.
    """
    told, found = tuple(objects), Found()
    found.open += [f"This user may not list the kind {kind} in all namespaces." for kind in refused]
    _addresses(told, found)
    if not found.reads and not found.writes:
        raise StackproofError(
            "there is no Service of Mimir, Loki or Tempo",
            todo="They are recognised by their labels or names: docs/targets.md.",
        )
    _authentication(told, found)
    _tenants(told, found)
    return found


# --- where it is ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entry:
    """A Service that is a component of a backend, or the gateway of all three."""

    backend: Backend | None
    component: str
    service: Object


def _entry(service: Object) -> _Entry | None:
    name, labels = service["metadata"]["name"], service["metadata"].get("labels") or {}
    spec = service["spec"]
    # One without ports is another name for something outside (ExternalName).
    if _NO_ENTRY.search(name) or spec.get("clusterIP") == "None" or not spec.get("ports"):
        return None
    of, component = labels.get(_NAME, ""), labels.get(_COMPONENT, "")
    if of == _OURS:
        if component == _GATEWAY:
            return _Entry(None, _GATEWAY, service)
        known = component in set(Backend)
        return _Entry(Backend(component), _SINGLE, service) if known else None
    match = _BACKEND.search(of) or _BACKEND.search(name)
    if match is None:
        return None
    if _BACKEND.search(of) is None:  # labelled by nobody, or by another chart: the name counts
        component = name[match.end(1) :].strip("-")
    return _Entry(Backend(match[1]), _SAME.get(component, component), service)


def _addresses(objects: Sequence[Object], found: Found) -> None:
    services = [each for each in objects if each["kind"] == "Service"]
    entries = [entry for each in services if (entry := _entry(each))]
    if gateways := [each for each in entries if each.backend is None]:
        found.one_gateway = True
        for backend in Backend:
            if address := _address(gateways, _HTTP_NAMES, _HTTP_PORTS, objects, found):
                found.reads[backend] = found.writes[backend] = address
        return
    for backend in Backend:
        mine = [each for each in entries if each.backend is backend]
        reads = _best(mine, _READ)
        if reads and (address := _address(reads, _HTTP_NAMES, _HTTP_PORTS, objects, found)):
            found.reads[backend] = address
        if writes := _best(mine, _WRITE):
            takes_otlp = backend is Backend.TEMPO and writes[0].component != _GATEWAY
            ports = (_OTLP_HTTP, _OTLP_GRPC) if takes_otlp else _HTTP_PORTS
            names = () if takes_otlp else _HTTP_NAMES
            if address := _address(writes, names, ports, objects, found):
                found.writes[backend] = address
        for known, used in ((found.reads, "read from"), (found.writes, "written to")):
            if mine and backend not in known:
                found.open.append(f"No Service of {backend} that is {used} was recognised.")


def _best(entries: Sequence[_Entry], order: Sequence[str]) -> list[_Entry]:
    """Return the entries of the best component that there is."""
    alike = ([each for each in entries if each.component == component] for component in order)
    return next(filter(None, alike), [])


def _address(
    entries: Sequence[_Entry],
    names: Sequence[str],
    ports: Sequence[int],
    objects: Sequence[Object],
    found: Found,
) -> Address | None:
    """Return the address of the first of some Services that are alike."""
    service, *others = [each.service for each in entries]
    own = _full_name(service)
    if others:
        more = ", ".join(map(_full_name, others))
        _say(found, f"Beside Service {own} there is {more}: is it the one that is meant?")
    offered = service["spec"]["ports"]
    by_name = [each["port"] for name in names for each in offered if each.get("name") == name]
    by_port = [port for port in ports for each in offered if each["port"] == port]
    if not by_name and not by_port:
        known = ", ".join(map(str, ports))
        _say(found, f"Service {own} has no port that is known: {' or '.join(names)}, or {known}.")
        return None
    port = int((by_name or by_port)[0])
    if url := _outside(service, objects, found):
        return Address(url, own, port, outside=True)
    namespace, name = _namespace(service), service["metadata"]["name"]
    _say(
        found,
        f"No Ingress leads to Service {own}. From outside of the cluster: kubectl --namespace "
        f"{namespace} port-forward service/{name} {port}, "
        f"and http://127.0.0.1:{port} in its place.",
    )
    return Address(f"http://{name}.{namespace}.svc:{port}", own, port)


def _say(found: Found, text: str) -> None:
    if text not in found.open:
        found.open.append(text)


def _namespace(found: Object) -> str:
    return str(found["metadata"].get("namespace") or "default")


def _full_name(found: Object) -> str:
    return f"{_namespace(found)}/{found['metadata']['name']}"


def _outside(service: Object, objects: Sequence[Object], found: Found) -> str:
    """Return the URL by which an Ingress leads to a Service, or an empty string."""
    for ingress, host, path in _routes(service, objects):
        spec = ingress["spec"]
        secure = any(host in (each.get("hosts") or ()) for each in spec.get("tls") or ())
        annotations = ingress["metadata"].get("annotations") or {}
        if _REWRITE in annotations or re.search(r"[$(*\\]", path):
            _say(
                found,
                f"Ingress {_full_name(ingress)} rewrites paths: "
                f"what comes after {host} may be another.",
            )
            path = re.split(r"[$(*\\]", path)[0]
        base = "" if _API.match(path) else path.rstrip("/")
        return f"http{'s' if secure else ''}://{host}{base}"
    return ""


def _routes(service: Object, objects: Sequence[Object]) -> Iterator[tuple[Object, str, str]]:
    """Yield the Ingresses that lead to a Service, each with host and path."""
    for ingress in objects:
        if ingress["kind"] == "Ingress":
            for target, host, path in _paths(ingress):
                if target == _full_name(service) and host and "*" not in host:
                    yield ingress, host, path


def _paths(ingress: Object) -> Iterator[tuple[str, str, str]]:
    """Yield where an Ingress leads: NAMESPACE/NAME of a Service, host and path."""
    for rule in ingress["spec"].get("rules") or ():
        for each in (rule.get("http") or {}).get("paths") or ():
            service = (each["backend"].get("service") or {}).get("name")
            path = each.get("path") or "/"
            yield f"{_namespace(ingress)}/{service}", rule.get("host", ""), path


# --- who asks -------------------------------------------------------------------------------------


def _authentication(objects: Sequence[Object], found: Found) -> None:
    """Find what asks for a password before the addresses that were found."""
    used = {each.service for each in (*found.reads.values(), *found.writes.values())}
    for each in objects:
        if each["kind"] == "ConfigMap":
            # A gateway's configuration is named for its Service: `loki-gateway`, `…-gateway-nginx`.
            mine = any(_full_name(each).startswith(service) for service in used)
            text = "\n".join((each.get("data") or {}).values()) if mine else ""
            if _BASIC_AUTH.search(text):
                found.basic_auth = f"ConfigMap {_full_name(each)}"
                found.by_user = found.by_user or bool(_BY_USER.search(text))
        elif each["kind"] == "Ingress":
            annotations = each["metadata"].get("annotations") or {}
            services = {service for service, _, _ in _paths(each)}
            if annotations.get(_AUTH_TYPE) == "basic" and services & used:
                found.basic_auth = f"Ingress {_full_name(each)}"


# --- whose it is ----------------------------------------------------------------------------------


def _tenants(objects: Sequence[Object], found: Found) -> None:
    none = {*FALLBACK_TENANTS, *([STACK_TENANT] if found.one_gateway else ())}
    # What sends as a tenant tells more than who has limits of its own.
    for source in (_of_our_charts, _of_headers, _of_overrides):
        for each in objects:
            where = f"{each['kind']} {_full_name(each)}"
            for name in source(each):
                if _VARIABLE.search(name):
                    _say(found, f"{where} names a tenant by a variable: {name}")
                elif _ID.fullmatch(name) and name not in none:
                    found.tenants.setdefault(name, where)


def _of_our_charts(found: Object) -> Iterator[str]:
    """Yield the tenant of an Alloy of ours."""
    labels = found["metadata"].get("labels") or {}
    if found["kind"] == "Deployment" and labels.get(_NAME) == _TENANTS_CHART:
        for container in found["spec"]["template"]["spec"]["containers"]:
            for entry in container.get("env") or ():
                if entry["name"] == "TENANT_ID" and "value" in entry:
                    yield entry["value"]


def _of_headers(found: Object) -> Iterator[str]:
    """Yield the tenants that collectors send as, and Grafana asks as."""
    if found["kind"] in {"Service", "Ingress"}:
        return
    ours = (found["metadata"].get("labels") or {}).get(_NAME) in {_OURS, _TENANTS_CHART}
    for text in _texts(found):
        for source in _data_sources(text):
            yield from source.split("|")
        if not ours:  # there a variable gives it, which the Deployment tells
            for pattern in (_HEADER, _TENANT_ID):
                for match in pattern.finditer(text):
                    yield from match[2].split("|")


def _data_sources(text: str) -> Iterator[str]:
    """Yield the values of the tenant header in Grafana's provisioning of data sources."""
    sources = _yaml(text).get("datasources")
    for source in sources if isinstance(sources, list) else ():
        options = source.get("jsonData") or {}
        values = source.get("secureJsonData") or {}
        for key, value in options.items():
            number = str(key).removeprefix("httpHeaderName")
            if number != key and str(value).lower() == TENANT_HEADER.lower():
                yield str(values.get(f"httpHeaderValue{number}", ""))


def _of_overrides(found: Object) -> Iterator[str]:
    """Yield the tenants that have limits of their own, and those of a list of tenants."""
    if found["kind"] != "ConfigMap":
        return
    for text in _texts(found):
        content = _yaml(text)
        limits, listed = content.get("overrides"), content.get("tenants")
        # Tempo's own configuration has a part of the same name.
        if isinstance(limits, dict) and "server" not in content:
            yield from (str(name) for name in limits if name != "*")
        for entry in listed if isinstance(listed, list) else ():
            if isinstance(entry, dict) and isinstance(entry.get("name"), str):
                yield entry["name"]


def _texts(found: Object) -> Iterator[str]:
    if found["kind"] == "ConfigMap":
        yield from (found.get("data") or {}).values()
    elif "spec" in found:
        yield yaml.safe_dump(_plain(found["spec"]))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list) else value


def _yaml(text: str) -> Mapping[str, Any]:
    """Return what a text holds, if that is a map in YAML."""
    if not re.search(r"(?m)^(datasources|overrides|tenants):", text):
        return {}
    try:
        content = yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}


def read_url(found: Found, backend: Backend) -> str:
    """Return what Grafana's data source would have for its URL."""
    read = READS[backend]
    return f"{found.reads[backend].url}{read.prefix if found.one_gateway else read.direct}"


def write_urls(found: Found, backend: Backend) -> dict[str, str]:
    """Return how a backend is written to: format and URL."""
    address = found.writes[backend]
    if backend is Backend.TEMPO and address.port == _OTLP_GRPC and not address.outside:
        return {"otlpGrpc": address.url}
    if backend is Backend.TEMPO:
        return {"otlpHttp": f"{address.url}{'/otlp' if found.one_gateway else ''}/v1/traces"}
    if backend is Backend.MIMIR:
        return {"otlpHttp": f"{address.url}/otlp/v1/metrics"}
    return {
        "otlpHttp": f"{address.url}/otlp/v1/logs",
        # No OTLP makes a label with a name of its own.
        "lokiPush": f"{address.url}/loki/api/v1/push",
    }
