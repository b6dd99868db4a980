"""What becomes of a HelmRelease: its chart rendered with its values, as helm-controller does."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from stackproof import helmyaml
from stackproof.errors import StackproofError
from stackproof.helm import renderer
from stackproof.helm.manifests import Manifest, Release, thaw

from . import controllers

if TYPE_CHECKING:
    from .tree import Tree

_LONGEST_NAME = 53
_MARK = "stackproof/rendered"
_SUSPENDED = "is suspended: nothing of it is applied until it is resumed"
#: The parts of a chart that Helm reads; where Flux leaves one out, less is deployed than is here.
_READ_OF_CHART = ("Chart.yaml", "values.yaml", "values.schema.json", "templates/*", "crds/*")


@dataclass(frozen=True)
class HelmRelease:
    """A HelmRelease, and what it becomes.

    Args:
        manifest: The object itself.
        chart: The chart's folder; None where there is no such chart in this repository.
        values: What the chart is rendered with, in Helm's order.
        rendered: What reaches the cluster, after post-rendering; None where it was not rendered.
        problems: Why it could not be, or what it names and nobody has.
        note: What keeps it from the cluster, or from being looked at, though nothing is wrong.
    """

    manifest: Manifest
    chart: Path | None
    values: tuple[renderer.Values, ...] = ()
    rendered: Release | None = None
    problems: tuple[str, ...] = ()
    note: str = ""


#: How an upgrade is applied: by server-side apply, from the client, or as the release was before.
#: The names of `spec.upgrade.serverSideApply`.
ENABLED, DISABLED, AUTO = "enabled", "disabled", "auto"


def server_side_apply(manifest: Manifest) -> str:
    """Return how a HelmRelease's upgrades are applied; helm-controller v1.6, `newUpgrade`."""
    return str((manifest["spec"].get("upgrade") or {}).get("serverSideApply") or AUTO)


def release_name(manifest: Manifest) -> str:
    """Return the name that Helm is given: cut and hashed where it is too long for Helm.

    As helm-controller v1.6 (`GetReleaseName`, `ShortenName`).
    """
    spec = manifest["spec"]
    space = spec.get("targetNamespace")
    name: str = spec.get("releaseName") or (f"{space}-{manifest.name}" if space else manifest.name)
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def rendered(tree: Tree, manifest: Manifest) -> HelmRelease:
    """Return a HelmRelease with what it becomes."""
    spec = manifest["spec"]
    if spec.get("kubeConfig"):
        return HelmRelease(manifest, None, note="is installed in another cluster: not looked at")
    wanted = _chart(tree, manifest)
    reference = wanted.get("sourceRef") or {}
    if not tree.is_repository(reference, manifest.namespace or ""):
        what = f"{reference.get('kind')}/{reference.get('name')}" if reference else "elsewhere"
        return HelmRelease(manifest, None, note=f"its chart is from {what}: not looked at")
    chart = fetched(tree.checkout.root, wanted["chart"])
    values, problems = values_of(tree, manifest)
    problems = (*_unusable_chart(tree, manifest, chart, str(wanted["chart"])), *problems)
    there = chart if (chart / "Chart.yaml").is_file() else None
    found = HelmRelease(manifest, there, values, None, problems)
    if problems:
        return found
    try:
        plain = renderer.render(
            chart,
            values,
            release=release_name(manifest),
            namespace=spec.get("targetNamespace") or manifest.namespace or "",
        )
        made = _post_rendered(plain, manifest)
    except StackproofError as error:
        return replace(found, problems=(f"{manifest.ref}: {error}",))
    return replace(found, rendered=made, note=_SUSPENDED if spec.get("suspend") else "")


def values_of(
    tree: Tree, manifest: Manifest
) -> tuple[tuple[renderer.Values, ...], tuple[str, ...]]:
    """Return what a HelmRelease of a chart in the repository gives it, and what is wrong with it.

    The values are in Helm's order: files, `valuesFrom`, then those of the HelmRelease itself.
    """
    wanted = _chart(tree, manifest)
    chart = fetched(tree.checkout.root, wanted["chart"])
    parts = [*_values_files(tree, manifest, wanted, chart), *_values_from(tree, manifest)]
    if own := manifest["spec"].get("values"):
        parts.append(own)
    problems = tuple(part for part in parts if isinstance(part, str))
    return tuple(part for part in parts if not isinstance(part, str)), problems


def _chart(tree: Tree, manifest: Manifest) -> Mapping[str, Any]:
    """Return what says which chart it is: its own, or that of the HelmChart that it names."""
    spec = manifest["spec"]
    reference = spec.get("chartRef")
    if not reference:
        return (spec.get("chart") or {}).get("spec") or {}
    where = reference.get("namespace") or manifest.namespace
    found = tree.find("HelmChart", where, reference["name"])
    if reference["kind"] == "HelmChart" and found:
        source = {"namespace": where, **found["spec"]["sourceRef"]}
        return {**found["spec"], "sourceRef": source}
    return {"sourceRef": reference}


def fetched(root: Path, name: str) -> Path:
    """Return the file or folder that Flux finds by a name in what it fetches.

    As filepath-securejoin: one that leaves the root begins there again.
    """
    return root / posixpath.normpath(f"/{name}").lstrip("/")


def _unusable_chart(tree: Tree, manifest: Manifest, chart: Path, name: str) -> Iterator[str]:
    if not (chart / "Chart.yaml").is_file():
        yield f"{manifest.ref}: there is no chart {name} in the repository"
        return
    here = [str(path.relative_to(tree.checkout.root)) for path in _read_by_helm(chart)]
    for path in tree.ignored(here):
        yield f"{manifest.ref}: {path} is not among what Flux fetches: .sourceignore, or a link"


def _read_by_helm(chart: Path) -> Iterator[Path]:
    for path in sorted(chart.rglob("*")):
        below = path.relative_to(chart)
        if path.is_file() and any(below.match(f"{part}") for part in _READ_OF_CHART):
            yield path


def _values_files(
    tree: Tree, manifest: Manifest, wanted: Mapping[str, Any], chart: Path
) -> Iterator[renderer.Values | str]:
    """Yield the values files after the chart's own; a text for what is wrong with one."""
    root = tree.checkout.root
    files = [(name, fetched(root, name)) for name in wanted.get("valuesFiles") or ()]
    if files and files[0][1] != chart / "values.yaml":
        yield (
            f"{manifest.ref}: valuesFiles must begin with the chart's own values.yaml: "
            "they replace it"
        )
    for name, path in files:
        if not path.is_file():
            if not wanted.get("ignoreMissingValuesFiles"):
                yield f"{manifest.ref}: valuesFiles names {name}, which is not there"
        elif tree.ignored([str(path.relative_to(root))]):
            yield f"{manifest.ref}: valuesFiles names {name}, which Flux does not fetch"
        elif path != chart / "values.yaml":
            yield path


def _values_from(tree: Tree, manifest: Manifest) -> Iterator[renderer.Values | str]:
    """Yield the values that `valuesFrom` names; a text for those that are not there."""
    for source in manifest["spec"].get("valuesFrom") or ():
        key = source.get("valuesKey") or "values.yaml"
        what = f"{manifest.ref}: valuesFrom names {source['kind']}/{source['name']}"
        found = tree.find(source["kind"], manifest.namespace or None, source["name"])
        text = texts(found).get(key) if found else None
        if text is None:
            if source.get("optional"):
                continue
            missing = f"has no key {key}" if found else "is made by no step"
            yield f"{what}, which {missing}"
        elif path := source.get("targetPath"):
            try:
                yield controllers.value_at(path, text)
            except StackproofError as error:
                yield f"{what}: {error}"
        else:
            yield _parsed(text, f"{what}, {key}")


def _parsed(text: str, where: str) -> renderer.Values | str:
    try:
        data = helmyaml.load(text)
    except yaml.YAMLError as error:
        return f"{where}: is not valid YAML: {str(error).splitlines()[0]}"
    if data is None:
        return {}
    return data if isinstance(data, Mapping) else f"{where}: holds no map of values"


def texts(found: Manifest) -> dict[str, str]:
    """Return what a ConfigMap or a Secret holds, as text; what is no text is left out."""
    held, plain = _strings(found.get("data")), _strings(found.get("stringData"))
    if found.kind != "Secret":
        return held
    for key, value in held.items():
        with contextlib.suppress(binascii.Error, UnicodeDecodeError):
            plain.setdefault(key, base64.b64decode(value, validate=True).decode())
    return plain


def _strings(held: object) -> dict[str, str]:
    if not isinstance(held, Mapping):
        return {}
    return {key: value for key, value in held.items() if isinstance(value, str)}


def _post_rendered(plain: Release, manifest: Manifest) -> Release:
    """Return a release after `spec.postRenderers` and `spec.commonMetadata`."""
    spec = manifest["spec"]
    renderers, common = spec.get("postRenderers") or (), spec.get("commonMetadata") or {}
    if not renderers and not common:
        return plain
    objects: list[dict[str, Any]] = [_marked(one, n) for n, one in enumerate(plain)]
    if renderers:
        objects = controllers.post_rendered(objects, renderers)
    made = []
    for data in objects:
        metadata = data["metadata"]
        was = plain.manifests[int(metadata["annotations"].pop(_MARK))]
        for field in ("labels", "annotations"):
            merged = {**(metadata.get(field) or {}), **(common.get(field) or {})}
            metadata.pop(field, None)
            if merged:
                metadata[field] = merged
        made.append(_like(was, data))
    return replace(plain, manifests=tuple(made))


def _marked(one: Manifest, number: int) -> dict[str, Any]:
    data: dict[str, Any] = thaw(one.content)
    metadata = data.setdefault("metadata", {})
    metadata["annotations"] = {**(metadata.get("annotations") or {}), _MARK: str(number)}
    return data


def _like(was: Manifest, data: Mapping[str, Any]) -> Manifest:
    if thaw(was.content) == data:
        return was
    return Manifest.of(data, was.source, was.index, was.release_namespace)
