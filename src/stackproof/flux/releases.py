"""What becomes of a HelmRelease: its chart rendered with its values, as helm-controller does."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from stackproof import helmyaml
from stackproof.errors import StackproofError
from stackproof.helm import chartversion, masking, renderer, schema
from stackproof.helm.manifests import Manifest, Release, thaw

from . import controllers
from .objects import Lookup, dug

_LONGEST_NAME = 53
#: How a chart names one in the same repository that it depends on.
_LOCAL = "file://"
_SCHEMA = "values.schema.json"
_CHART_NAME = re.compile(r"\w([\w.-]*\w)?")
#: Policies for the CRDs of a chart; the third is CreateReplace.
_CREATE, _SKIP = "Create", "Skip"
_SUSPENDED = "is suspended: nothing of it is applied until it is resumed"
#: What of a chart is deployed; where Flux leaves some of it out, less is deployed than is here.
_OF_CHART = frozenset({"Chart.yaml", "values.yaml", _SCHEMA})
_OF_CHART_FOLDERS = frozenset({"templates", "crds"})


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

    @property
    def key(self) -> tuple[str, str]:
        """Its namespace and name."""
        return self.manifest.namespace or "", self.manifest.name


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


def is_crd_of_chart(manifest: Manifest) -> bool:
    """Tell whether an object is a CRD from a chart's folder `crds`, which Helm treats apart."""
    parts = manifest.source.split("/")
    return "crds" in parts and "templates" not in parts


def _crds(manifest: Manifest, action: str) -> str:
    """Return what a HelmRelease's install or upgrade does with such CRDs.

    As helm-controller v1.6 (`crdPolicyOrDefault`); its documentation has another default for
    upgrades.
    """
    return (manifest["spec"].get(action) or {}).get("crds") or _CREATE


def keeps_crd(manifest: Manifest, action: str, *, is_new: bool) -> bool:
    """Tell whether an install or an upgrade of a HelmRelease leaves such a CRD out."""
    return _crds(manifest, action) in ({_SKIP} if is_new else {_SKIP, _CREATE})


def rendered(lookup: Lookup, manifest: Manifest) -> HelmRelease:
    """Return a HelmRelease with what it becomes."""
    spec = manifest["spec"]
    if spec.get("kubeConfig"):
        return HelmRelease(manifest, None, note="is installed in another cluster: not looked at")
    wanted = _chart(lookup, manifest)
    reference = wanted.get("sourceRef") or {}
    if not lookup.is_repository(reference, manifest.namespace or ""):
        what = f"{reference.get('kind')}/{reference.get('name')}" if reference else "elsewhere"
        return HelmRelease(manifest, None, note=f"its chart is from {what}: not looked at")
    chart = fetched(lookup.checkout.root, wanted["chart"])
    given = values_of(lookup, manifest)
    unusable = _unusable_chart(lookup, manifest, chart, str(wanted["chart"]))
    problems = (*unusable, *given.problems)
    there = chart if (chart / "Chart.yaml").is_file() else None
    found = HelmRelease(manifest, there, given.parts, None, problems)
    if problems:
        return found
    if elsewhere := (*given.unknown, *_not_here(chart)):
        return replace(found, note=f"takes {', '.join(elsewhere)}: not looked at")
    try:
        plain = renderer.render(
            chart,
            given.parts,
            release=release_name(manifest),
            namespace=spec.get("targetNamespace") or manifest.namespace or "",
            overlay=_packaged(lookup, manifest, chart, wanted),
            include_crds=any(_crds(manifest, action) != _SKIP for action in ("install", "upgrade")),
        )
        made = _post_rendered(plain, manifest)
    except StackproofError as error:
        return replace(found, problems=(f"{manifest.ref}: {_without_secrets(error)}",))
    return replace(found, rendered=made, note=_SUSPENDED if spec.get("suspend") else "")


#: A line of a rendered file in a message of Helm's, and one that says it is no Secret's.
_RENDERED_LINE = re.compile(r"^[> ] +\d+ \| .*\n?", re.MULTILINE)
_OTHER_KIND = re.compile(r"\| kind: (?!Secret\b)")


def _without_secrets(error: StackproofError) -> str:
    """Return what is wrong with a release, without the lines of what may be a Secret."""
    text = str(error)
    shown: str = masking.hide(text if _OTHER_KIND.search(text) else _RENDERED_LINE.sub("", text))
    return shown


@dataclass(frozen=True)
class Given:
    """What a HelmRelease of a chart in the repository gives it.

    Args:
        parts: The values in Helm's order: files, `valuesFrom`, then its own.
        problems: What is wrong with them.
        unknown: Where it takes values from that nobody can read here.
    """

    parts: tuple[renderer.Values, ...]
    problems: tuple[str, ...]
    unknown: tuple[str, ...]


def values_of(lookup: Lookup, manifest: Manifest) -> Given:
    """Return what a HelmRelease of a chart in the repository gives it."""
    wanted = _chart(lookup, manifest)
    chart = fetched(lookup.checkout.root, wanted["chart"])
    files = [*_values_files(lookup, manifest, wanted, chart)]
    own = manifest["spec"].get("values") or {}
    sources = manifest["spec"].get("valuesFrom") or ()
    found = [*(_taken(lookup, manifest, source) for source in sources)]
    problems = [part for part in (*files, *found) if isinstance(part, str)]
    unknown = [one.text for one in found if isinstance(one, _Unknown)]
    references = [one for one in found if isinstance(one, Mapping)]
    parts: list[renderer.Values] = [part for part in files if not isinstance(part, str)]
    if any("path" in one for one in references):
        try:
            parts.append(controllers.merged(references, own))
        except StackproofError as error:
            problems.append(f"{manifest.ref}: valuesFrom: {error.what}")
    else:
        parts += [part for part in (*(one["values"] for one in references), own) if part]
    return Given(tuple(parts), tuple(problems), tuple(dict.fromkeys(unknown)))


def _chart(lookup: Lookup, manifest: Manifest) -> Mapping[str, Any]:
    """Return what says which chart it is: its own, or that of the HelmChart that it names."""
    spec = manifest["spec"]
    reference = spec.get("chartRef")
    if not reference:
        return (spec.get("chart") or {}).get("spec") or {}
    where = reference.get("namespace") or manifest.namespace
    found = lookup.find("HelmChart", where, reference["name"])
    if reference["kind"] == "HelmChart" and found:
        source = {"namespace": where, **found["spec"]["sourceRef"]}
        return {**found["spec"], "sourceRef": source}
    return {"sourceRef": reference}


def follows_commits(lookup: Lookup, manifest: Manifest) -> bool:
    """Tell whether each commit is a new version of a HelmRelease's chart."""
    return _chart(lookup, manifest).get("reconcileStrategy") == "Revision"


def fetched(root: Path, name: str) -> Path:
    """Return the file or folder that Flux finds by a name in what it fetches.

    As filepath-securejoin: one that leaves the root begins there again.
    """
    return root / posixpath.normpath(f"/{name}").lstrip("/")


def _unusable_chart(lookup: Lookup, manifest: Manifest, chart: Path, name: str) -> Iterator[str]:
    if not (chart / "Chart.yaml").is_file():
        yield f"{manifest.ref}: there is no chart {name} in the repository"
        return
    for path in _ignored(lookup, manifest, *filter(_is_deployed, _files(chart))):
        yield f"{manifest.ref}: {path} is not among what Flux fetches: .sourceignore, or a link"
    for text in _other_versions(lookup, chart):
        yield f"{manifest.ref}: {text}"


def _ignored(lookup: Lookup, manifest: Manifest, *paths: Path) -> tuple[str, ...]:
    """Return those of some files that Flux does not fetch for a HelmRelease's chart."""
    root, space = lookup.checkout.root, manifest.namespace or ""
    source = _chart(lookup, manifest)["sourceRef"]
    names = [str(path.relative_to(root)) for path in paths]
    if not names:
        return ()
    left_out = controllers.ignored(root, names, ignore=lookup.ignore(source, space))
    return tuple(sorted({*left_out, *lookup.unfetched(source, space, names)}))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _is_deployed(path: Path) -> bool:
    """Tell whether a file of a chart is one without which the chart is another."""
    folders = _OF_CHART_FOLDERS.intersection(path.parts[:-1])
    return bool(folders) or path.name in _OF_CHART or path.suffix == ".tgz"


def _values_files(
    lookup: Lookup, manifest: Manifest, wanted: Mapping[str, Any], chart: Path
) -> Iterator[Path | str]:
    """Yield the values files after the chart's own; a text for what is wrong with one."""
    root = lookup.checkout.root
    for number, name in enumerate(wanted.get("valuesFiles") or ()):
        path = fetched(root, name)
        if not path.is_file():
            if not wanted.get("ignoreMissingValuesFiles"):
                yield f"{manifest.ref}: valuesFiles names {name}, which is not there"
        elif _ignored(lookup, manifest, path):
            yield f"{manifest.ref}: valuesFiles names {name}, which Flux does not fetch"
        elif number or path != chart / "values.yaml":
            yield path


def _packaged(
    lookup: Lookup, manifest: Manifest, chart: Path, wanted: Mapping[str, Any]
) -> Mapping[str, str | None]:
    """Return the files of a chart that Flux makes as it packages it, None for what it leaves out.

    Values files stand in the place of its own values.yaml, and charts of the repository that it
    depends on among its own.
    """
    root = lookup.checkout.root
    left_out = {root / name for name in _ignored(lookup, manifest, *_files(chart))}
    made: dict[str, str | None] = {str(path.relative_to(chart)): None for path in left_out}
    files = wanted.get("valuesFiles")
    if files and fetched(root, files[0]) != chart / "values.yaml":
        made["values.yaml"] = ""
    for one in _missing(chart):
        folder = _beside(root, chart, one)
        if folder is None:
            continue
        there = [*chartversion.read_by_helm(folder)]
        ignored = _ignored(lookup, manifest, *there)
        for path in there:
            if str(path.relative_to(root)) not in ignored:
                text = path.read_text("utf-8", errors="replace")
                made[f"charts/{one['name']}/{path.relative_to(folder)}"] = text
    if not _has_schema(manifest):
        schemas = (path for path in _files(chart) if path.name == _SCHEMA)
        names = [*made, *(str(path.relative_to(chart)) for path in schemas)]
        made.update({name: None for name in names if name.rpartition("/")[2] == _SCHEMA})
    return made


def _has_schema(manifest: Manifest) -> bool:
    """Tell whether values that the chart's schema refuses fail an install or an upgrade."""
    actions = (manifest["spec"].get(action) or {} for action in ("install", "upgrade"))
    return not all(action.get("disableSchemaValidation") for action in actions)


def _beside(root: Path, chart: Path, dependency: Mapping[str, Any]) -> Path | None:
    """Return the folder in the repository of a chart that one depends on."""
    repository = dependency["repository"]
    below = chart.relative_to(root) / repository.removeprefix(_LOCAL)
    folder = fetched(root, str(below))
    is_chart = (folder / "Chart.yaml").is_file() and folder != chart
    return folder if repository.startswith(_LOCAL) and is_chart else None


def _not_here(chart: Path) -> Iterator[str]:
    """Yield the charts that Flux fetches from elsewhere as it packages this one."""
    for one in _missing(chart):
        if one["repository"] and not one["repository"].startswith(_LOCAL):
            yield f"the chart {one['name']} from {one['repository']}"


def _other_versions(lookup: Lookup, chart: Path) -> Iterator[str]:
    """Yield the charts of the repository that have not the version that one asks for.

    As source-controller v1.9 (`addLocalDependency`).
    """
    for one in _missing(chart):
        folder, wanted = _beside(lookup.checkout.root, chart, one), str(one.get("version") or "*")
        has = str(_yaml(folder / "Chart.yaml").get("version")) if folder else ""
        try:
            taken = controllers.accepted({"policy": {"semver": {"range": wanted}}}, [has])
        except StackproofError:
            taken = ()
        if folder and not taken:
            yield f"the chart {one['name']} beside it has version {has}, and {wanted} is asked for"


def _missing(chart: Path) -> Iterator[Mapping[str, Any]]:
    """Yield what a chart depends on and does not contain; a lock says more than the chart.

    As source-controller v1.9 (`DependencyManager.Build`).
    """
    about = _yaml(chart / "Chart.yaml")
    is_old = about.get("apiVersion") == "v1"
    lock = _yaml(chart / ("requirements.lock" if is_old else "Chart.lock"))
    own = _yaml(chart / "requirements.yaml") if is_old else about
    needed = (lock or own).get("dependencies")
    there = chart / "charts"
    for one in needed if isinstance(needed, Sequence) else ():
        name, repository = (dug(one, key) for key in ("name", "repository"))
        if not isinstance(name, str) or not isinstance(repository, str):
            continue
        if not _CHART_NAME.fullmatch(name):
            continue
        if not (there / name).is_dir() and not any(there.glob(f"{name}-*.tgz")):
            yield one


def _yaml(path: Path) -> Mapping[str, Any]:
    """Return the map in a file of a chart, empty where there is none: Helm says what is wrong."""
    try:
        data = helmyaml.load(path.read_text("utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return {}
    return data if isinstance(data, Mapping) else {}


@dataclass(frozen=True)
class _Unknown:
    """Values that nobody can read here."""

    text: str


def _taken(
    lookup: Lookup, manifest: Manifest, source: Mapping[str, Any]
) -> Mapping[str, Any] | _Unknown | str:
    """Return what an entry of `valuesFrom` gives (`controllers.merged`), or what is wrong with it.

    A single text that is not known stands there as its name.
    """
    key, name = source.get("valuesKey") or "values.yaml", f"{source['kind']}/{source['name']}"
    what, path = f"{manifest.ref}: valuesFrom names {name}", source.get("targetPath")
    held = lookup.held(source["kind"], manifest.namespace or None, source["name"])
    if held is None or (key not in held.texts and not held.is_open):
        missing = f"has no key {key}" if held else "is made by no step"
        return {"values": {}} if source.get("optional") else f"{what}, which {missing}"
    text = held.texts.get(key)
    if path:
        known = f"{schema.HIDDEN}{key}" if text is None else text
        return {"path": path, "text": known, "literal": bool(source.get("literal"))}
    if text is None:
        return _Unknown(f"values of {name}, which cannot be read here")
    values = _parsed(text, f"{what}, {key}")
    return values if isinstance(values, str) else {"values": values}


def _parsed(text: str, where: str) -> Mapping[str, Any] | str:
    try:
        data = helmyaml.load(text)
    except yaml.YAMLError as error:
        return f"{where}: is not valid YAML: {str(error).splitlines()[0]}"
    if data is None:
        return {}
    return data if isinstance(data, Mapping) else f"{where}: holds no map of values"


def _post_rendered(plain: Release, manifest: Manifest) -> Release:
    """Return a release as the post-renderers leave it.

    As helm-controller v1.6 (`BuildPostRenderers`) and Helm 4.2 (`renderResources`): hooks go
    through them beside the other objects, unless `spec.postRenderStrategy` says otherwise.
    """
    every = [(is_crd_of_chart(one), part) for one in plain for part in _taken_apart(one)]
    # What is no CRD in that folder, helm-controller leaves out (`applyCRDs`).
    crds = [one for apart, one in every if apart and one.kind == "CustomResourceDefinition"]
    parts = [one for apart, one in every if not apart]
    hooks = [one for one in parts if one.is_hook]
    others = [one for one in parts if not one.is_hook]
    strategy = manifest["spec"].get("postRenderStrategy") or "combined"
    streams = {"combined": [parts], "separate": [others, hooks], "nohooks": [others]}[strategy]
    made = [one for stream in streams for one in _changed(stream, manifest)]
    left = hooks if strategy == "nohooks" else ()
    return replace(plain, manifests=(*crds, *made, *left))


def _taken_apart(one: Manifest) -> Iterator[Manifest]:
    """Yield the objects of a list, or the object itself."""
    items = one.get("items")
    if not one.kind.endswith("List") or not isinstance(items, Sequence):
        yield one
        return
    for item in items:
        if not isinstance(item, Mapping):
            raise StackproofError(f"{one.kind}: holds what is no object", where=one.source)
        yield Manifest.of(thaw(item), one.source, one.index, one.release_namespace)


def _changed(stream: Sequence[Manifest], manifest: Manifest) -> Iterator[Manifest]:
    """Yield what `spec.postRenderers` and `spec.commonMetadata` make of some objects."""
    _have_names(stream)
    spec = manifest["spec"]
    renderers, common = spec.get("postRenderers") or (), spec.get("commonMetadata") or {}
    if not stream or not (renderers or common):
        yield from stream
        return
    objects: list[dict[str, Any]] = [thaw(one.content) for one in stream]
    if renderers:
        objects = controllers.post_rendered(objects, renderers)
    for data in objects:
        metadata = data["metadata"]
        for field in ("labels", "annotations"):
            merged = {**(metadata.get(field) or {}), **(common.get(field) or {})}
            metadata.pop(field, None)
            if merged:
                metadata[field] = merged
        yield _like(_origin(stream, data), data)


def _have_names(stream: Sequence[Manifest]) -> None:
    """Refuse objects that kustomize cannot tell apart: its label transformer always goes last."""
    seen = Counter(
        (one.api_version, one.kind, one.metadata.get("namespace") or "default", one.name)
        for one in stream
    )
    for (_, kind, _, name), times in seen.items():
        if not name:
            raise StackproofError(f"renders a {kind} without metadata.name")
        if times > 1:
            raise StackproofError(
                f"renders {kind}/{name} {times} times: Flux' post-renderer refuses a second"
            )


def _origin(plain: Sequence[Manifest], data: Mapping[str, Any]) -> Manifest:
    """Return the object of a chart that a post-renderer has made this of: it keeps its name."""
    named = (data["kind"], data["metadata"]["name"])
    alike = [one for one in plain if (one.kind, one.name) == named]
    space = data["metadata"].get("namespace")
    same = [one for one in alike if one.metadata.get("namespace") == space]
    return (same or alike or plain)[0]


def _like(was: Manifest, data: Mapping[str, Any]) -> Manifest:
    if thaw(was.content) == data:
        return was
    return Manifest.of(data, was.source, was.index, was.release_namespace)
