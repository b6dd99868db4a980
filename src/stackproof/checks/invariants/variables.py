"""Variables and configuration files."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import yaml

from stackproof.helm.externals import Rendered
from stackproof.helm.manifests import Manifest, containers, pod_spec
from stackproof.helm.uses import named

from .base import INVARIANTS, of_each_container, of_each_object

_FIELDS = {
    *("metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName"),
    *("spec.serviceAccountName", "status.hostIP", "status.podIP", "status.podIPs"),
}
_SWITCH = re.compile(r"(ENABLE|DISABLE)_\w+|\w+_(ENABLED|DISABLED)")


@INVARIANTS.register
@of_each_object
def variables_have_a_value(m: Manifest) -> Iterator[str]:
    """Every variable has a value or says where it comes from; a switch is true or false."""
    for container in containers(m):
        for variable in container.get("env") or ():
            name, source = variable["name"], variable.get("valueFrom")
            if (variable.get("value") is None) is (not source):
                yield f"container {container['name']}: {name} has no value, or two"
            field = (source or {}).get("fieldRef")
            if field is not None and field.get("fieldPath") not in _FIELDS:
                yield f"container {container['name']}: a pod has no field {field.get('fieldPath')}"
            yield from _odd_switch(name, variable.get("value"))
    if m.kind == "ConfigMap":
        for key, value in (m.get("data") or {}).items():
            yield from _odd_switch(key, value)


@INVARIANTS.register
@of_each_container
def variables_refer_to_earlier_ones(container: Mapping[str, Any]) -> Iterator[str]:
    """Every $(NAME) in a value names a variable above it: the kubelet leaves any other as it is."""
    above: set[str] = set()
    for variable in container.get("env") or ():
        for name in re.findall(r"(?<!\$)\$\((\w+)\)", str(variable.get("value") or "")):
            # Others may come from envFrom; what the pod says of itself never does.
            known = name in above or (container.get("envFrom") and not name.startswith("POD_"))
            if not known:
                yield f"container {container['name']}: {variable['name']} needs {name} above it"
        above.add(variable["name"])


def _odd_switch(name: str, value: str | None) -> Iterator[str]:
    if value is not None and _SWITCH.fullmatch(name) and value.lower() not in {"true", "false"}:
        yield f"{name} is {value!r}, neither true nor false"


@INVARIANTS.register
@of_each_object
def configuration_parses(m: Manifest) -> Iterator[str]:
    """Every YAML or JSON file in a ConfigMap parses, and gives no key twice."""
    if m.kind != "ConfigMap":
        return
    for key, text in (m.get("data") or {}).items():
        if not key.endswith((".yaml", ".yml", ".json")):
            continue
        try:
            if key.endswith(".json"):
                json.loads(text)
            else:
                yaml.load(text, Loader=_StrictLoader)  # noqa: S506 (a CSafeLoader)
        except (ValueError, yaml.YAMLError) as error:
            yield f"{key} does not parse: {' '.join(str(error).split())}"


class _StrictLoader(yaml.CSafeLoader):
    """A loader for which a key given twice is an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that is there already."""
        keys = Counter(
            str(key.value) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"
        )
        twice = [key for key, times in keys.items() if times > 1]
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {twice[0]} is given twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


@INVARIANTS.register
@of_each_object
def variables_are_given_once(m: Manifest) -> Iterator[str]:
    """No container has a variable, a port, a mount path or a volume twice."""
    yield from _twice(pod_spec(m), "volumes", "name", "volume")
    for container in containers(m):
        named = f"container {container['name']}"
        yield from _twice(container, "env", "name", f"{named}: variable")
        yield from _twice(container, "ports", "containerPort", f"{named}: port")
        yield from _twice(container, "volumeMounts", "mountPath", f"{named}: mount")


def _twice(part: Mapping[str, Any], field: str, key: str, what: str) -> Iterator[str]:
    for name, times in Counter(one[key] for one in part.get(field) or ()).items():
        if times > 1:
            yield f"{what} {name} is given {times} times"


#: Variables that a program reads by itself, whatever its files say.
_BY_ITSELF = re.compile(
    r"GO(MEMLIMIT|MAXPROCS|GC)|GF_\w+|XDG_(DATA|CONFIG)_HOME|POD_\w+|STACKPROOF_\w+|PGPASSWORD"
)


@INVARIANTS.register
def variables_are_read(rendered: Rendered) -> Iterator[str]:
    """Where files or arguments expand variables, each variable of the container is among them."""
    for m in rendered.release.workloads():
        found = (rendered.release.find(*one) for one in sorted(set(named(m))))
        yield from _unread(m, tuple(made for made in found if made and made.kind == "ConfigMap"))


_EXPANDED = re.compile(r"\$\(|\$\{[A-Z]\w+[:}]|\{\$[A-Z]|sys\.env\(|\$[A-Z]{2,}_")


@lru_cache(maxsize=20_000)
def _unread(m: Manifest, config_maps: Sequence[Manifest]) -> tuple[str, ...]:
    """Return where a workload has variables that none of its files, if they expand any, names."""
    volumes = {v["name"]: v.get("configMap") for v in pod_spec(m).get("volumes") or ()}
    by_name = {made.name: made for made in config_maps}
    found: list[str] = []
    for container in containers(m):
        mounted = [volumes.get(one["name"]) for one in container.get("volumeMounts") or ()]
        names = [one["name"] for one in mounted if one and one["name"] in by_name]
        files = [text for name in names for text in (by_name[name].get("data") or {}).values()]
        words = [*(container.get("command") or ()), *(container.get("args") or ()), *files]
        if not any(_EXPANDED.search(str(text)) for text in words):
            continue
        words += [str(variable.get("value") or "") for variable in container.get("env") or ()]
        read = set(re.findall(r"\b[A-Z][A-Z0-9_]+\b", "\n".join(words)))
        given = (variable["name"] for variable in container.get("env") or ())
        found += [n for n in given if n not in read and not _BY_ITSELF.fullmatch(n)]
    return tuple(f"{m.source}: {m.ref}: nothing reads {name}" for name in found)
