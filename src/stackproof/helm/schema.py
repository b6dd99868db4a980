"""Validate rendered objects against the schemas of a Kubernetes version: offline and strict.

Kubernetes' own kinds come from the package `kubernetes-validate`; custom ones from the folder
`schemas/`, as `schemas/GROUP/VERSION/KIND.json`. A field that a schema does not know is a problem,
and so is an object for which there is no schema.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema_rs

from stackproof.errors import StackproofError
from stackproof.wording import counted

from .manifests import Manifest, at
from .masking import is_secret_name

# What the packaged schemas call the file of shared definitions, made absolute.
_DEFINITIONS = "file:///api/_definitions.json"
# How they refer to it.
_REFERRED = "/api/_definitions.json#"
_DEFINITION = re.compile(r'"#/\$defs/([^"]+)"')
_FOLDER = re.compile(r"v(\d+\.\d+)\.\d+-local-strict")


#: Groups with a dot that the API server itself serves; others under k8s.io are operators', too.
SERVED = frozenset(
    f"{name}.k8s.io"
    for name in (
        *("admissionregistration", "apiextensions", "apiregistration", "authentication"),
        *("authorization", "certificates", "coordination", "discovery", "events"),
        *("flowcontrol.apiserver", "internal.apiserver", "networking", "node"),
        *("rbac.authorization", "resource", "scheduling", "storage", "storagemigration"),
    )
)


@dataclass(frozen=True, slots=True)
class SchemaError:
    """A reason why Kubernetes would refuse an object, or lose a part of it."""

    object: str
    """KIND/NAME."""
    path: str
    """Where in the object, as `spec.containers[0].ports`; "" for the object itself."""
    reason: str
    source: str
    """The template that the object comes from."""

    def __str__(self) -> str:
        at = f" at {self.path}" if self.path else ""
        return f"{self.source}: {self.object}{at}: {self.reason}"


class Schemas:
    """The schemas of one Kubernetes version; compiled on first use, verdicts kept by content.

    Args:
        kube_version: `1.N` or `1.N.P`; schemas are those of the minor version.
        custom: Folder of the schemas of custom kinds, if any.
    """

    def __init__(self, kube_version: str, custom: Path | None = None) -> None:
        self.kube_version = kube_version
        self._custom = custom
        self._folder = _packaged(kube_version)
        self._registry = jsonschema_rs.Registry(
            [(_DEFINITIONS, json.loads((self._folder / "_definitions.json").read_text("utf-8")))]
        )
        self._validators: dict[tuple[str, str], jsonschema_rs.Draft202012Validator | None] = {}
        self._verdicts: dict[str, tuple[tuple[str, str], ...]] = {}

    def check(self, manifest: Manifest) -> list[SchemaError]:
        """Return what is wrong with an object; empty if nothing is."""
        found = self._verdicts.get(manifest.digest)
        if found is None:
            found = tuple(self._problems(manifest))
            self._verdicts[manifest.digest] = found
        return [SchemaError(manifest.ref, path, reason, manifest.source) for path, reason in found]

    def knows(self, manifest: Manifest) -> bool:
        """Tell whether there is a schema for what an object says that it is."""
        return self._validator(manifest.api_version, manifest.kind) is not None

    def standalone(self, manifest: Manifest) -> dict[str, Any] | None:
        """Return the schema of an object's kind with all that it refers to, for other programs."""
        schema = self._schema(manifest.api_version, manifest.kind)
        if schema is None:
            return None
        own = {key: value for key, value in schema.items() if key != "$id"}
        text = json.dumps(own).replace(_REFERRED, "#")
        shared = json.loads((self._folder / "_definitions.json").read_text("utf-8"))["$defs"]
        needed: dict[str, Any] = {}
        names = set(_DEFINITION.findall(text))
        while names := names - needed.keys():
            needed |= {name: shared[name] for name in names}
            names = set(_DEFINITION.findall(json.dumps(needed)))
        found: dict[str, Any] = json.loads(text)
        return found | {"$defs": needed} if needed else found

    def foreign(self, manifest: Manifest) -> bool:
        """Tell whether it is of a kind that others define, and nobody has given the schema."""
        group = manifest.api_version.rpartition("/")[0]
        return "." in group and group not in SERVED and not self.knows(manifest)

    def _problems(self, manifest: Manifest) -> Iterator[tuple[str, str]]:
        if not manifest.kind or not manifest.api_version:
            yield "", "has no kind or no apiVersion"
            return
        version, kind = manifest.api_version, manifest.kind
        validator = self._validator(version, kind)
        if validator is None:
            lacking = (
                f"neither in Kubernetes {self.kube_version} nor as schemas/{version}/{kind}.json"
            )
            yield "", f"there is no schema for {version} {kind}: {lacking}"
            return
        found = [(e.instance_path, e.message) for e in validator.iter_errors(manifest.content)]
        if any(_is_secret(manifest, path) for path, _ in found):
            masked = self._masking_validator(version, kind).iter_errors(manifest.content)
            found = [
                (path, each.message if _is_secret(manifest, path) else message)
                for (path, message), each in zip(found, masked, strict=True)
            ]
        # Names are looked at in what has the shape that they stand in.
        yield from [(_dotted(path), message) for path, message in found] or _bad_names(manifest)

    def _validator(self, api_version: str, kind: str) -> jsonschema_rs.Draft202012Validator | None:
        key = (api_version, kind)
        if key not in self._validators:
            schema, registry = self._schema(api_version, kind), self._registry
            self._validators[key] = (
                jsonschema_rs.Draft202012Validator(schema, registry=registry) if schema else None
            )
        return self._validators[key]

    def _masking_validator(self, version: str, kind: str) -> jsonschema_rs.Draft202012Validator:
        """Return a validator whose messages name no value."""
        schema, registry = self._schema(version, kind) or {}, self._registry
        return jsonschema_rs.Draft202012Validator(schema, registry=registry, mask="its value")

    def _schema(self, api_version: str, kind: str) -> dict[str, Any] | None:
        return self._packaged_schema(api_version, kind) or self._custom_schema(api_version, kind)

    def _packaged_schema(self, api_version: str, kind: str) -> dict[str, Any] | None:
        # rbac.authorization.k8s.io/v1 Role -> role-rbac-v1.json, v1 Pod -> pod-v1.json
        group, _, version = api_version.rpartition("/")
        parts = [kind.lower(), group.partition(".")[0], version]
        file = self._folder / ("-".join(part for part in parts if part) + ".json")
        if not file.is_file():
            return None
        schema: dict[str, Any] = json.loads(file.read_text("utf-8"))
        allowed = schema.get("properties", {}).get("apiVersion", {}).get("enum")
        if allowed != [api_version]:
            return None  # a file of this name for some other group
        return schema | {"$id": f"file:///api/{file.name}"}

    def _custom_schema(self, api_version: str, kind: str) -> dict[str, Any] | None:
        if self._custom is None:
            return None
        file = self._custom / api_version / f"{kind}.json"
        try:
            schema: dict[str, Any] = json.loads(file.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StackproofError(f"is not a valid JSON schema: {error}", where=str(file)) from None
        return schema


def _is_secret(manifest: Manifest, path: Sequence[str | int]) -> bool:
    """Tell whether what stands at a path is a secret: nobody is shown it."""
    names = [part for part in path if isinstance(part, str)]
    return manifest.kind == "Secret" or bool(names and is_secret_name(names[-1]))


def _packaged(kube_version: str) -> Path:
    """Return the folder of a version's schemas."""
    # Only its files are wanted: to import it takes a tenth of a second.
    package = find_spec("kubernetes_validate")
    assert package and package.origin
    found = (Path(package.origin).parent / "kubernetes-json-schema").iterdir()
    folders = {match[1]: folder for folder in found if (match := _FOLDER.fullmatch(folder.name))}
    minor = ".".join(kube_version.removeprefix("v").split(".")[:2])
    if minor not in folders:
        there = sorted(folders, key=lambda version: int(version.partition(".")[2]))
        raise StackproofError(
            f"has no schemas for Kubernetes {kube_version}; it has those for {', '.join(there)}",
            where="the package kubernetes-validate",
            todo="Correct versions.yaml, or take a newer kubernetes-validate.",
        )
    return folders[minor]


def _dotted(path: Iterable[str | int]) -> str:
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[\w-]+", part):
            text += f".{part}" if text else part
        else:
            text += f"[{part!r}]"
    return text


_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_NAME_OF = {
    "Service": re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"),
    "Namespace": re.compile(_LABEL),
    "StatefulSet": re.compile(_LABEL),  # the name is a label of its pods
}
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_RBAC_NAME = re.compile(r"[^/%]+")
_RBAC_KINDS = {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
_LABEL_KEY = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?)?")
_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")


def _bad_names(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Check names, labels and keys, for which Kubernetes has rules that no schema holds."""
    rule = _RBAC_NAME if manifest.kind in _RBAC_KINDS else _NAME_OF.get(manifest.kind, _NAME)
    if not rule.fullmatch(manifest.name):
        yield "metadata.name", f"{manifest.name!r} is no valid name for a {manifest.kind}"
    for path in _LABELS:
        for key, value in (at(manifest.content, path) or {}).items():
            if not _LABEL_KEY.fullmatch(key):
                yield path, f"{key!r} is no valid label"
            if isinstance(value, str) and not _LABEL_VALUE.fullmatch(value):
                yield path, f"{value!r} is no valid value for the label {key}"
    if manifest.kind in {"ConfigMap", "Secret"}:
        yield from _bad_data(manifest)


#: How a text begins that stands for a secret which cannot be read here, before its name.
HIDDEN = "secret-"
#: The largest that the API server takes (MaxSecretSize, and the same number for a ConfigMap).
_MOST_DATA = 1024 * 1024


def _bad_data(manifest: Manifest) -> Iterator[tuple[str, str]]:
    size = 0
    for part in ("data", "stringData", "binaryData"):
        coded = part == "binaryData" or (part, manifest.kind) == ("data", "Secret")
        for key, text in (manifest.get(part) or {}).items():
            if not _DATA_KEY.fullmatch(key):
                yield part, f"{key!r} is no valid key"
            size += len((text or "").encode()) * (3 if coded else 4) // 4
            if coded and not _is_base64(text or ""):
                yield f"{part}.{key}", "is not base64"
    if size > _MOST_DATA:
        yield "", f"holds {counted(size, 'byte')}, and {_MOST_DATA:,} are the most"


def _is_base64(text: str) -> bool:
    if text.startswith((HIDDEN, "ENC[")):  # SOPS has encrypted it
        return True
    try:
        base64.b64decode("".join(text.splitlines()), validate=True)
    except ValueError:
        return False
    return True


#: Where the labels of an object stand, and those of the pods and Jobs that it makes.
_LABELS = (
    "metadata.labels",
    "spec.template.metadata.labels",
    "spec.jobTemplate.metadata.labels",
    "spec.jobTemplate.spec.template.metadata.labels",
)


@cache
def schemas(kube_version: str, custom: Path | None = None) -> Schemas:
    """Return the schemas of a version; the same ones each time."""
    return Schemas(kube_version, custom)


def validate(
    manifests: Iterable[Manifest], kube_version: str, custom: Path | None = None
) -> list[SchemaError]:
    """Return everything that is wrong with these objects for a Kubernetes version."""
    known = schemas(kube_version, custom)
    return [problem for manifest in manifests for problem in known.check(manifest)]
