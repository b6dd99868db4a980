"""Rendered Kubernetes objects, and what one asks of them.

Objects are shared between tests and caches, so they are frozen: a change raises `TypeError`.
`thaw` gives a copy that may be changed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Never

import yaml

from stackproof.errors import StackproofError

COMPONENT = "app.kubernetes.io/component"
"""The label that says which program of a release an object is for."""

WORKLOAD_KINDS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")

CLUSTER_KINDS = frozenset(
    {
        "APIService",
        "CSIDriver",
        "CertificateSigningRequest",
        "ClusterExternalSecret",
        "ClusterRole",
        "ClusterRoleBinding",
        "ClusterSecretStore",
        "CustomResourceDefinition",
        "DeviceClass",
        "FlowSchema",
        "GatewayClass",
        "IngressClass",
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
        "MutatingWebhookConfiguration",
        "Namespace",
        "Node",
        "PersistentVolume",
        "PriorityClass",
        "PriorityLevelConfiguration",
        "RuntimeClass",
        "ServiceCIDR",
        "StorageClass",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingWebhookConfiguration",
        "VolumeAttributesClass",
    }
)
"""Kinds without a namespace."""


def _refuse(*_: object, **__: object) -> Never:
    raise TypeError("rendered objects are shared and frozen; change a copy: manifests.thaw(…)")


class FrozenDict(dict[str, Any]):
    """A dict that cannot change: equal to a plain dict, and one to JSON and YAML writers."""

    __slots__ = ()
    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __deepcopy__(self, memo: object) -> dict[str, Any]:
        return {key: thaw(value) for key, value in self.items()}


class FrozenList(list[Any]):
    """A list that cannot change: equal to a plain list."""

    __slots__ = ()
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __deepcopy__(self, memo: object) -> list[Any]:
        return [thaw(value) for value in self]


def freeze(value: Any) -> Any:
    """Return JSON data as frozen data, all the way down."""
    if isinstance(value, dict):
        return FrozenDict({key: freeze(part) for key, part in value.items()})
    if isinstance(value, list):
        return FrozenList([freeze(part) for part in value])
    return value


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


def parts(data: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all that maps and lists hold, all the way down, each after its place: `a.b[0].c`."""
    if isinstance(data, list):
        for index, below in enumerate(data):
            yield f"{path}[{index}]", below
            yield from parts(below, f"{path}[{index}]")
    elif isinstance(data, Mapping):
        for key, below in data.items():
            place = f"{path}.{key}" if path else str(key)
            yield place, below
            yield from parts(below, place)


@lru_cache(maxsize=512)
def parsed(text: str) -> Any:
    """Return what a YAML file inside an object holds, frozen: a hundred checks read the same ones.

    Raises:
        yaml.YAMLError: It is none.
    """
    return freeze(yaml.load(text, Loader=yaml.CSafeLoader))


def thaw(value: Any) -> Any:
    """Return a copy of frozen data, as plain dicts and lists that may be changed."""
    if isinstance(value, Mapping):
        return {key: thaw(part) for key, part in value.items()}
    if isinstance(value, list):
        return [thaw(part) for part in value]
    return value


class Manifest(Mapping[str, Any]):
    """One rendered object: a read-only mapping that knows where it comes from.

    Two manifests are equal when their contents are. `digest` is that content's.
    """

    __slots__ = (
        "_object",
        "digest",
        "index",
        "kind",
        "metadata",
        "name",
        "namespace",
        "release_namespace",
        "source",
    )

    def __init__(
        self,
        content: FrozenDict,
        *,
        source: str,
        index: int,
        digest: str,
        release_namespace: str = "",
    ) -> None:
        self._object = content
        self.source = source
        """The template: CHART/templates/FILE."""
        self.index = index
        """Which document of that file, from 0, as rendered."""
        self.digest = digest
        self.release_namespace = release_namespace
        # Attributes, not properties: checks of thousands of renders ask them millions of times.
        self.kind = str(content.get("kind") or "")
        """`kind`, or "" where there is none."""
        found = content.get("metadata")
        self.metadata: Mapping[str, Any] = found if isinstance(found, dict) else FrozenDict()
        """`metadata`, empty where there is none."""
        self.name = str(self.metadata.get("name") or "")
        """`metadata.name`, or "" where there is none."""
        own_namespace: str | None = self.metadata.get("namespace") or release_namespace
        self.namespace = None if self.kind in CLUSTER_KINDS else own_namespace
        """Where the object ends up: its own namespace or the release's; None for cluster kinds."""

    @classmethod
    def of(
        cls, data: Mapping[str, Any], source: str, index: int = 0, namespace: str = ""
    ) -> Manifest:
        """Return plain data as an object that comes from `source`."""
        text = json.dumps(data, sort_keys=True, default=str)
        return cls(
            freeze(data),
            source=source,
            index=index,
            digest=hashlib.sha256(text.encode()).hexdigest(),
            release_namespace=namespace,
        )

    def __getitem__(self, key: str) -> Any:
        return self._object[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._object)

    def __len__(self) -> int:
        return len(self._object)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Manifest):
            return self.digest == other.digest
        return self._object == other

    def __repr__(self) -> str:
        return f"<{self.ref} from {self.source}>"

    @property
    def content(self) -> FrozenDict:
        """The object itself, frozen."""
        return self._object

    @property
    def api_version(self) -> str:
        """`apiVersion`, or "" where there is none."""
        return str(self._object.get("apiVersion") or "")

    @property
    def labels(self) -> Mapping[str, str]:
        """`metadata.labels`."""
        return self.metadata.get("labels") or FrozenDict()

    @property
    def annotations(self) -> Mapping[str, str]:
        """`metadata.annotations`."""
        return self.metadata.get("annotations") or FrozenDict()

    @property
    def is_hook(self) -> bool:
        """Whether Helm treats the object as a hook."""
        return "helm.sh/hook" in self.annotations

    @property
    def ref(self) -> str:
        """Short name for messages: KIND/NAME."""
        return f"{self.kind or 'object without kind'}/{self.name}"


@dataclass(frozen=True, slots=True)
class Key:
    """A key in a ConfigMap or Secret."""

    kind: str
    name: str
    key: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class EnvVar:
    """An environment variable of a container: exactly one of the three says what it holds."""

    name: str
    value: str | None = None
    key: Key | None = None
    """From a ConfigMap or a Secret."""
    field: str | None = None
    """From the pod itself: a path such as `metadata.name`, or a resource."""


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """One key of a ConfigMap."""

    config_map: Manifest
    key: str
    text: str


@dataclass(frozen=True)
class Release:
    """What one release renders, and questions about it. Everything is read-only."""

    name: str
    namespace: str
    kube_version: str
    manifests: tuple[Manifest, ...]
    notes: str = ""
    branches: frozenset[str] = field(default=frozenset(), compare=False)
    """Ids of the template branches that the render entered, if it was asked for coverage."""

    @cached_property
    def _by_ref(self) -> Mapping[tuple[str, str], Manifest]:
        return {(m.kind, m.name): m for m in reversed(self.manifests)}

    def __iter__(self) -> Iterator[Manifest]:
        return iter(self.manifests)

    def of_kind(self, *kinds: str) -> tuple[Manifest, ...]:
        """Return the objects of these kinds, in the order of the render."""
        return tuple(m for m in self.manifests if m.kind in kinds)

    def find(self, kind: str, name: str) -> Manifest | None:
        """Return an object by kind and name, None where there is none."""
        return self._by_ref.get((kind, name))

    def get(self, kind: str, name: str) -> Manifest:
        """Return an object by kind and name; the error lists what there is."""
        found = self.find(kind, name)
        if found is None:
            same_kind = [m.name for m in self.of_kind(kind)]
            there = (
                f"of this kind there is: {', '.join(same_kind)}"
                if same_kind
                else f"kinds there are: {', '.join(sorted({m.kind for m in self.manifests}))}"
            )
            raise StackproofError(
                f"renders no {kind}/{name}", where=f"release {self.name}", todo=there
            )
        return found

    def find_component(self, kind: str, component: str) -> Manifest | None:
        """Return the object of a kind that a component has, whatever its name; None without."""
        found = (m for m in self.of_kind(kind) if m.labels.get(COMPONENT) == component)
        return next(found, None)

    def of_component(self, kind: str, component: str) -> Manifest:
        """Return the object of a kind that a component has; that there is none is an error."""
        found = self.find_component(kind, component)
        if found is None:
            raise StackproofError(f"{component} has no {kind}", where=f"release {self.name}")
        return found

    def workloads(self) -> tuple[Manifest, ...]:
        """Return everything that makes pods."""
        return self.of_kind(*WORKLOAD_KINDS)

    def services(self) -> tuple[Manifest, ...]:
        """Return the Services."""
        return self.of_kind("Service")

    def config_files(self) -> tuple[ConfigFile, ...]:
        """Return every key of every ConfigMap."""
        return tuple(
            ConfigFile(config_map, key, text)
            for config_map in self.of_kind("ConfigMap")
            for key, text in (config_map.get("data") or {}).items()
        )

    def file(self, config_map: str, key: str) -> str | None:
        """Return a file of a ConfigMap, None where there is no such ConfigMap."""
        made = self.find("ConfigMap", config_map)
        return str(made["data"][key]) if made else None

    def env(
        self, container: Mapping[str, Any], fields: Mapping[str, str] | None = None
    ) -> dict[str, EnvVar]:
        """Return a container's environment by name, as the kubelet would make it.

        Values from this release's ConfigMaps are resolved, and those from the pod that `fields`
        has (`metadata.name`, …); those from Secrets are not. `$(NAME)` in a value is expanded where
        NAME came before it and is known.
        """
        found: dict[str, EnvVar] = {}
        for source in container.get("envFrom") or ():
            for variable in self._env_from(source):
                found[variable.name] = variable
        for entry in container.get("env") or ():
            found[entry["name"]] = self._variable(entry, found, fields or {})
        return found

    def env_values(self, container: Mapping[str, Any]) -> dict[str, str | None]:
        """Return what is known of a container's environment before its pod runs, else None."""
        return {name: variable.value for name, variable in self.env(container).items()}

    def _env_from(self, source: Mapping[str, Any]) -> Iterator[EnvVar]:
        prefix = source.get("prefix") or ""
        if made := self.find("ConfigMap", at(source, "configMapRef.name")):
            for key, text in (made.get("data") or {}).items():
                yield EnvVar(prefix + key, value=text)
        if made := self.find("Secret", at(source, "secretRef.name")):
            for key in {**(made.get("data") or {}), **(made.get("stringData") or {})}:
                yield EnvVar(prefix + key, key=Key("Secret", made.name, key))

    def _variable(
        self, entry: Mapping[str, Any], before: Mapping[str, EnvVar], fields: Mapping[str, str]
    ) -> EnvVar:
        name = entry["name"]
        source = entry.get("valueFrom")
        if not source:
            known = {n: v.value for n, v in before.items() if v.value is not None}
            return EnvVar(name, value=expand(entry.get("value") or "", known))
        key = key_of(source)
        if key is None:
            wanted = source.get("fieldRef") or source.get("resourceFieldRef") or {}
            path = wanted.get("fieldPath") or wanted.get("resource") or ""
            return EnvVar(name, value=fields[path]) if path in fields else EnvVar(name, field=path)
        if key.kind == "ConfigMap":
            made = self.find("ConfigMap", key.name)
            text = (made.get("data") or {}).get(key.key) if made else None
            if text is not None:
                return EnvVar(name, value=text)
        return EnvVar(name, key=key)


def key_of(source: Mapping[str, Any]) -> Key | None:
    """Return the key that an `env[].valueFrom` names."""
    for field_name, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
        ref = source.get(field_name)
        if ref:
            return Key(kind, ref.get("name", ""), ref.get("key", ""), bool(ref.get("optional")))
    return None


def pod_template(workload: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the pod template (`metadata`, `spec`) of anything that makes pods, or is one."""
    if workload["kind"] == "Pod":
        return workload
    spec = workload["spec"]
    if workload["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    template: Mapping[str, Any] = spec["template"]
    return template


def pod_spec(m: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the spec of an object's pods, or of a pod; nothing for what makes no pods."""
    has_pods = m.get("kind") in {*WORKLOAD_KINDS, "Pod"}
    return pod_template(m)["spec"] if has_pods else FrozenDict()


def pod_labels(m: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the labels of a workload's pods; none for what makes no pods."""
    template = pod_template(m) if m.get("kind") in WORKLOAD_KINDS else {}
    return at(template, "metadata.labels") or FrozenDict()


#: What comes before a container starts [s]: a node, a volume that was elsewhere, a large image.
BEFORE_START_S = 300


def lasting(probe: Mapping[str, Any] | None) -> int:
    """Return how long a probe fails until it counts [s]; 0 without one."""
    return probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3) if probe else 0


def start_s(container: Mapping[str, Any]) -> int:
    """Return how long a start may take [s]: until its startup probe gives up; 0 without one."""
    probe = container.get("startupProbe")
    return lasting(probe) + int(probe.get("initialDelaySeconds", 0)) if probe else 0


def containers(workload: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Return the containers of an object's pods, init containers first."""
    spec = pod_spec(workload)
    return (*(spec.get("initContainers") or ()), *(spec.get("containers") or ()))


def claims(m: Manifest) -> tuple[Mapping[str, Any], ...]:
    """Return the claims that an object makes: itself, or those of each pod of a StatefulSet."""
    if m.kind == "PersistentVolumeClaim":
        return (m,)
    return tuple(at(m, "spec.volumeClaimTemplates") or ()) if m.kind == "StatefulSet" else ()


def target_secret(external: Mapping[str, Any]) -> str:
    """Return the name of the Secret that an ExternalSecret makes."""
    return str(at(external, "spec.target.name") or external["metadata"]["name"])


def hosts(m: Manifest) -> tuple[str, ...]:
    """Return the host names that a way in serves, `*` for any: of an Ingress or an HTTPRoute."""
    if m.kind == "Ingress":
        return tuple(str(rule.get("host") or "*") for rule in m["spec"].get("rules") or ())
    if m.kind == "HTTPRoute":
        return tuple(m["spec"].get("hostnames") or ("*",))
    return ()


def backends(m: Manifest) -> Iterator[tuple[str, str]]:
    """Yield name and port, by number or name, of each Service that a way in leads to."""
    spec = m.get("spec") or {}
    if m.kind == "Ingress":
        rules = spec.get("rules") or ()
        paths = [path for rule in rules for path in (rule.get("http") or {}).get("paths") or ()]
        default = spec.get("defaultBackend")
        for backend in [*(path["backend"] for path in paths), *([default] if default else [])]:
            service = backend.get("service") or {}
            port = service.get("port") or {}
            yield service.get("name", ""), str(port.get("name") or port.get("number"))
    elif m.kind == "HTTPRoute":
        for rule in spec.get("rules") or ():
            for backend in rule.get("backendRefs") or ():
                yield backend["name"], str(backend.get("port"))


_UNITS = {"": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3}
_UNITS |= {unit: 1e3**power for power, unit in enumerate("MGTPE", 2)}
_UNITS |= {f"{unit}i": 2.0 ** (10 * power) for power, unit in enumerate("KMGTPE", 1)}
_QUANTITY = re.compile(r"([+-]?[\d.]+(?:[eE][+-]?\d+)?)([A-Za-z]*)")


def amount(quantity: object) -> float:
    """Return a quantity of cpu [cores] or memory [bytes] as a number: 100m is 0.1, 1e3 is 1000.

    Raises:
        ValueError: It is none.
    """
    found = _QUANTITY.fullmatch(str(quantity))
    if not found or found[2] not in _UNITS:
        raise ValueError(f"{quantity!r} is no quantity")
    return float(found[1]) * _UNITS[found[2]]


def memory_limit(container: Mapping[str, Any]) -> float:
    """Return the memory limit of a container [bytes], infinity if it has none."""
    limit = at(container, "resources.limits.memory")
    return amount(limit) if limit else float("inf")


_REFERENCE = re.compile(r"\$(?:\$|\(([A-Za-z_.-][\w.-]*)\))")


def expand(text: str, known: Mapping[str, str]) -> str:
    """Expand `$(NAME)` as the kubelet does: unknown names stay, `$$` is a dollar sign."""

    def replacement(found: re.Match[str]) -> str:
        name = found[1]
        return "$" if name is None else known.get(name, found[0])

    return _REFERENCE.sub(replacement, text)
