"""A tenant's Alloy, followed from what it receives to where it sends: nothing is lost on the way.

The rules follow the references between components, so that a component more or less, or another
name, changes nothing. They hold for every render of charts/open-webui-stack.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stackproof.helm.manifests import Release, amount, containers, pod_spec

SIGNALS = ("metrics", "logs", "traces")
#: Where each backend takes OTLP over HTTP (docs/facts.md), and Loki its own format.
DIRECT = {
    "metrics": ("MIMIR_URL", "/otlp/v1/metrics"),
    "logs": ("LOKI_URL", "/otlp/v1/logs"),
    "traces": ("TEMPO_URL", "/v1/traces"),
    "pod logs": ("LOKI_URL", "/loki/api/v1/push"),
}
_RECEIVER = "otelcol.receiver.otlp.default"
#: What the memory limiter's documentation recommends at most: a peak fits between two looks.
_MEMORY_S = 1.0
#: Labels of pod logs, and what Kubernetes says that becomes each.
_LABELS = {
    "namespace": "namespace",
    "pod": "pod_name",
    "container": "pod_container_name",
    "component": "pod_label_app_kubernetes_io_component",
}
_TERM = re.compile(r'sys\.env\("(?P<name>\w+)"\)|"(?P<text>[^"]*)"')
_TENANT = 'set(attributes["tenant.id"], "%s")'


@dataclass(frozen=True)
class Alloy:
    """The Alloy of one release: its files as settings, and its environment."""

    settings: Mapping[str, str]
    environment: Mapping[str, str | None]
    """Values from Secrets are None."""
    ports: Mapping[str, int]
    secret_files: frozenset[str] = frozenset()
    """Paths in the container of files that Secrets are mounted as."""

    @classmethod
    def of(cls, release: Release) -> Alloy | None:
        """Return a release's Alloy, None where there is none."""
        for workload in release.workloads():
            for container in containers(workload):
                if container["name"] == "alloy":
                    files = [f.text for f in release.config_files() if f.key.endswith(".alloy")]
                    return cls(
                        alloy_settings("\n".join(files)),
                        release.env_values(container),
                        {port["name"]: port["containerPort"] for port in container["ports"]},
                        frozenset(_secret_files(pod_spec(workload), container)),
                    )
        return None

    def value(self, path: str) -> str | None:
        """Return what an attribute comes to: texts and variables, joined by +; None if it is more.

        A value that only a Secret has is `<NAME>`.
        """
        parts = []
        for term in self.settings.get(path, "").split(" + "):
            found = _TERM.fullmatch(term)
            if found is None or (found["name"] and found["name"] not in self.environment):
                return None
            name = found["name"]
            parts.append((self.environment[name] or f"<{name}>") if name else found["text"])
        return "".join(parts)

    def names(self, path: str) -> list[str]:
        """Return what an attribute refers to: `[a.b.input]` is [a.b]."""
        return re.findall(
            r"([\w.]+)\.(?:input|receiver|handler|targets|output)\b", self.settings.get(path, "")
        )

    def name(self, path: str) -> str:
        """Return the first component that an attribute refers to, "" if none."""
        return next(iter(self.names(path)), "")

    def components(self, kind: str) -> set[str]:
        """Return the components of a kind, by their whole name."""
        found = (re.match(rf"{re.escape(kind)}\.\w+", path) for path in self.settings)
        return {one[0] for one in found if one}

    @property
    def tenant(self) -> str | None:
        """Whose it is."""
        return self.environment.get("TENANT_ID")


def _secret_files(spec: Mapping[str, Any], container: Mapping[str, Any]) -> Iterator[str]:
    volumes = {volume["name"]: volume.get("secret") for volume in spec.get("volumes") or ()}
    for mount in container.get("volumeMounts") or ():
        for item in (volumes.get(mount["name"]) or {}).get("items") or ():
            yield f"{mount['mountPath']}/{item['path']}"


def alloy_settings(text: str) -> dict[str, str]:
    """Return an Alloy file's attributes by the dotted names and labels of their blocks.

    A block that comes again gets a number: `rule`, `rule#2`. A map or a list stays one value.
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
            while _is_open(value) and (more := next(lines, None)) is not None:
                value += f" {more.strip()}"
            found[".".join((*blocks, attribute[1]))] = re.sub(r"\s+=\s+", " = ", value)
        elif line.endswith("{"):
            name = ".".join(part.strip('"') for part in line[:-1].split())
            place = ".".join((*blocks, name))
            times[place] = times.get(place, 0) + 1
            blocks.append(name if times[place] == 1 else f"{name}#{times[place]}")
    return found


#: A text: its brackets are none of Alloy's.
_TEXT = re.compile(r'`[^`]*`|"(?:[^"\\]|\\.)*"')


def _is_open(value: str) -> bool:
    """Tell whether a value goes on in the next line."""
    bare = _TEXT.sub("", value)
    return any(bare.count(one) > bare.count(other) for one, other in ("{}", "[]"))


def seconds(text: str) -> float:
    """Return a short duration of Alloy [s], -1 if the text is none."""
    found = re.fullmatch(r"(\d+)(ms|s)", text)
    return float(found[1]) / (1000 if found[2] == "ms" else 1) if found else -1.0


def faults(alloy: Alloy) -> Iterator[str]:
    """Yield what keeps an Alloy from taking all signals and sending them on as its tenant."""
    for protocol in ("grpc", "http"):
        found = alloy.value(f"{_RECEIVER}.{protocol}.endpoint")
        wanted = f"0.0.0.0:{alloy.ports.get(f'otlp-{protocol}')}"
        if found != wanted:
            yield f"{protocol} is received at {found}, the container's port is {wanted}"
    for signal in SIGNALS:
        way = list(_way(alloy, signal))
        for kind in ("processor.memory_limiter", "processor.transform", "exporter.otlphttp"):
            if not any(f"otelcol.{kind}." in name for name in way):
                yield f"{signal} pass no otelcol.{kind}, only {', '.join(way)}"
        yield from _owner(alloy, way, signal)
        for name in way:
            yield from _step(alloy, name, signal)
    for name in sorted(alloy.components("otelcol.exporter.otlphttp")):
        yield from _queue(alloy, name)
    if "POD_NAMESPACE" in alloy.environment or alloy.components("loki.source.kubernetes"):
        yield from _pod_logs(alloy)


def _way(alloy: Alloy, signal: str) -> Iterator[str]:
    """Yield the components that a signal passes, from the receiver on."""
    waiting, seen = [_RECEIVER], set()
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            yield name
            waiting += alloy.names(f"{name}.output.{signal}")


def _owner(alloy: Alloy, way: Sequence[str], signal: str) -> Iterator[str]:
    """The first transform says whose data it is, and nothing that follows takes that off."""
    transforms = [name for name in way if ".processor.transform." in name]
    for name in transforms[:1]:
        place = f"{name}.{signal.removesuffix('s')}_statements"
        statement = alloy.settings.get(f"{place}.statements", "")
        if alloy.settings.get(f"{place}.context") != '"resource"' or not (
            _TENANT in statement and 'sys.env("TENANT_ID")' in statement
        ):
            yield f"{name} does not set tenant.id of {signal}: who sends is this tenant"
        if alloy.value(f"{name}.error_mode") != "propagate":
            yield f"{name} delivers what it could not label: error_mode must be propagate"
    for name in transforms[1:]:
        for path, text in alloy.settings.items():
            kept = re.search(r"keep_keys\(attributes, \[([^\]]*)\]", text)
            if path.startswith(f"{name}.") and kept and '"tenant.id"' not in kept[1]:
                yield f"{path} does not keep tenant.id"


def _step(alloy: Alloy, name: str, signal: str) -> Iterator[str]:
    if ".processor.memory_limiter." in name:
        parts = (f"{name}.{what}_percentage" for what in ("spike_limit", "limit"))
        spike, limit = (int(alloy.settings.get(part, 0)) for part in parts)
        if not 0 < spike < limit < 100:
            yield (
                f"{name}: must be 0 < spike_limit_percentage ({spike}) < limit_percentage "
                f"({limit}) < 100"
            )
        pause = alloy.value(f"{name}.check_interval") or ""
        if not 0 < seconds(pause) <= _MEMORY_S:
            yield f"{name}: check_interval is {pause or 'not set'}, must be {_MEMORY_S:g} s at most"
    elif ".exporter.otlphttp." in name:
        yield from _exporter(alloy, name, signal)


def _exporter(alloy: Alloy, name: str, signal: str) -> Iterator[str]:
    own = alloy.value(f"{name}.{signal}_endpoint")
    base = alloy.value(f"{name}.client.endpoint")
    if "GATEWAY_URL" in alloy.environment:
        wanted = f"{alloy.environment['GATEWAY_URL']}/otlp/v1/{signal}"
        yield from _credential(alloy, name, f"{alloy.name(f'{name}.client.auth')}.client_auth")
    else:
        variable, behind = DIRECT[signal]
        wanted = f"{alloy.environment.get(variable)}{behind}"
    found = own or f"{base}/v1/{signal}"
    if found != wanted or base is None:
        yield f"{name} sends {signal} to {found}, must be {wanted}"
    headers = alloy.settings.get(f"{name}.client.headers")
    if headers != '{ "X-Scope-OrgID" = sys.env("TENANT_ID"), }':
        yield f"{name} does not say whose {signal} these are (X-Scope-OrgID)"


def _credential(alloy: Alloy, name: str, place: str) -> Iterator[str]:
    if alloy.value(f"{place}.username") != alloy.tenant:
        yield f"{name} calls itself {alloy.value(f'{place}.username')}: the user is the tenant"
    if alloy.value(f"{place}.password_file") not in alloy.secret_files:
        yield f"{name} reads its password from no mounted Secret: it keeps one that was rotated"


def _queue(alloy: Alloy, name: str) -> Iterator[str]:
    storage = alloy.name(f"{name}.sending_queue.storage")
    directory = alloy.value(f"{storage}.directory") or ""
    if not directory.startswith(f"{alloy.environment.get('DATA_DIR')}/"):
        yield f"{name} queues at {directory or 'no place'}: what was taken must lie on the disk"
    batch = f"{name}.sending_queue.batch"
    least, most = (int(alloy.settings.get(f"{batch}.{s}_size", 0)) for s in ("min", "max"))
    if not 0 < least <= most:
        yield f"{name}: min_size of a batch is {least}, must be from 1 to max_size, {most}"
    if alloy.value(f"{batch}.sizer") != "bytes" or alloy.value(f"{batch[:-6]}.sizer") != "bytes":
        yield f"{name} does not count batches and the queue by bytes, as receivers do (sizer)"
    if amount(alloy.settings.get(f"{batch[:-6]}.queue_size", "0")) < 2**20:
        yield f"{name}: queue_size is less than a mebibyte"


def _pod_logs(alloy: Alloy) -> Iterator[str]:
    """Follow a line of a pod: found, labelled, read, given its tenant, written."""
    source = next(iter(sorted(alloy.components("loki.source.kubernetes"))), "")
    relabel = alloy.name(f"{source}.targets")
    discovery = alloy.name(f"{relabel}.targets")
    if alloy.value(f"{discovery}.role") != "pod":
        yield "pod logs: no pods are discovered"
    if alloy.settings.get(f"{discovery}.namespaces.names") != '[sys.env("POD_NAMESPACE")]':
        yield "pod logs: pods of other namespaces are looked for, where Alloy has no rights"
    rules = [path[: -len(".target_label")] for path in alloy.settings if "target_label" in path]
    labels = {
        alloy.value(f"{rule}.target_label"): alloy.settings.get(f"{rule}.source_labels")
        for rule in rules
        if rule.startswith(f"{relabel}.")
    }
    wanted = {name: f'["__meta_kubernetes_{meta}"]' for name, meta in _LABELS.items()}
    if labels != wanted:
        yield f"pod logs: labels are {labels}, must be {wanted}"
    process = alloy.name(f"{source}.forward_to")
    if alloy.value(f"{process}.stage.tenant.value") != alloy.tenant:
        yield "pod logs: a label could say whose they are (stage.tenant)"
    write = alloy.name(f"{process}.forward_to")
    direct, behind = DIRECT["pod logs"]
    variable = "GATEWAY_URL" if "GATEWAY_URL" in alloy.environment else direct
    url = f"{alloy.environment.get(variable)}{behind}"
    if alloy.value(f"{write}.endpoint.url") != url:
        yield f"pod logs are sent to {alloy.value(f'{write}.endpoint.url')}, must be {url}"
    if variable == "GATEWAY_URL":
        yield from _credential(alloy, write, f"{write}.endpoint.basic_auth")
