"""What Flux applies to a cluster, step by step, from the files of a checkout.

A step is a Flux Kustomization: a folder built with kustomize. A HelmRelease in it whose chart lies
in the repository is rendered with its values, as helm-controller would. No network is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from stackproof import helm
from stackproof.checkout import Checkout
from stackproof.errors import StackproofError
from stackproof.manifests import Manifest, Release

from . import kustomize
from .substitution import substitute

FLUX_NAMESPACE = "flux-system"
BOOTSTRAP = "flux-system"
"""Name of the GitRepository, the Kustomization and the Secret that `flux bootstrap` makes."""
KUSTOMIZE_GROUP = "kustomize.toolkit.fluxcd.io"

Key = tuple[str, str, str | None, str]
"""API group, kind, namespace and name: what an object is to the cluster."""


def group_of(manifest: Manifest) -> str:
    """Return the API group of an object, "" for the core group."""
    return manifest.api_version.rpartition("/")[0]


def key_of(manifest: Manifest) -> Key:
    """Return what identifies an object in the cluster."""
    return group_of(manifest), manifest.kind, manifest.namespace or None, manifest.name


@dataclass(frozen=True)
class HelmRelease:
    """A HelmRelease, and what it becomes.

    Args:
        manifest: The object itself.
        chart: The chart's folder; None where the chart is not in this repository.
        values: What the chart is rendered with, in Helm's order.
        rendered: What the chart renders; None where it was not rendered.
        problems: Why it could not be, or what it names and nobody has.
    """

    manifest: Manifest
    chart: Path | None
    values: tuple[helm.Values, ...] = ()
    rendered: Release | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """A Flux Kustomization, and what it applies.

    Args:
        manifest: The Kustomization itself; None for the folder that Flux starts from.
        folder: What it builds.
        objects: What that gives.
        problems: Why it could not be built, or what it names and nobody has.
        undefined: Variables that post-build substitution found no value for.
    """

    manifest: Manifest | None
    folder: Path
    objects: tuple[Manifest, ...] = ()
    problems: tuple[str, ...] = ()
    undefined: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The Kustomization's name."""
        return self.manifest.name if self.manifest else BOOTSTRAP

    @property
    def depends_on(self) -> tuple[str, ...]:
        """Names of the steps that must be ready first."""
        spec = self.manifest["spec"] if self.manifest else {}
        return tuple(one["name"] for one in spec.get("dependsOn") or ())


@dataclass(frozen=True)
class Applied:
    """An object that reaches the cluster.

    Args:
        manifest: The object.
        step: Which step applies it.
        release: The HelmRelease that rendered it, if one did.
    """

    manifest: Manifest
    step: Step
    release: HelmRelease | None = None

    @property
    def source(self) -> str:
        """Where it comes from, for messages."""
        return self.manifest.source


@dataclass(frozen=True)
class Tree:
    """Everything that Flux applies.

    Args:
        checkout: Whose files.
        steps: In an order in which every step comes after those that it depends on; the folder that
            Flux starts from comes first. Steps in a circle come last.
        circle: Names of the steps that depend on each other in a circle.
    """

    checkout: Checkout
    steps: tuple[Step, ...]
    circle: tuple[str, ...] = ()

    @cached_property
    def objects(self) -> tuple[Manifest, ...]:
        """What the steps apply themselves, in order."""
        return tuple(manifest for step in self.steps for manifest in step.objects)

    @cached_property
    def releases(self) -> Mapping[tuple[str, str], HelmRelease]:
        """Every HelmRelease by namespace and name, in order."""
        return {
            (m.namespace or "", m.name): _release(self, m)
            for m in self.objects
            if m.kind == "HelmRelease"
        }

    @cached_property
    def applied(self) -> tuple[Applied, ...]:
        """Every object that reaches the cluster, in order: a release's right after the release."""
        return tuple(self._applied())

    def _applied(self) -> Iterator[Applied]:
        for step in self.steps:
            for manifest in step.objects:
                yield Applied(manifest, step)
                release = self.releases.get((manifest.namespace or "", manifest.name))
                if manifest.kind == "HelmRelease" and release and release.rendered:
                    for made in release.rendered:
                        yield Applied(made, step, release)

    def find(self, kind: str, namespace: str | None, name: str) -> Manifest | None:
        """Return an object that a step applies itself, None if none does."""
        for manifest in self.objects:
            if (manifest.kind, manifest.namespace or None, manifest.name) == (
                kind,
                namespace,
                name,
            ):
                return manifest
        return None

    def values_of(self, namespace: str, name: str) -> tuple[helm.Values, ...]:
        """Return what a HelmRelease gives its chart, in Helm's order, without rendering it.

        Raises:
            StackproofError: No step applies such a HelmRelease, or it names values that nobody has.
        """
        manifest = self.find("HelmRelease", namespace, name)
        if manifest is None:
            raise StackproofError(f"no step applies HelmRelease/{name} in {namespace}")
        values, problems = _values(self, manifest)
        if problems:
            raise StackproofError("\n".join(problems))
        return values

    def is_repository(self, reference: Mapping[str, Any], namespace: str) -> bool:
        """Tell whether a `sourceRef` is this repository: bootstrap's, or another GitRepository."""
        if reference.get("kind") != "GitRepository":
            return False
        where = reference.get("namespace") or namespace
        if (where, reference.get("name")) == (FLUX_NAMESPACE, BOOTSTRAP):
            return True
        return self.find("GitRepository", where, str(reference.get("name"))) is not None


def build(checkout: Checkout, cluster: str = "production") -> Tree:
    """Build the tree of a cluster: `flux/clusters/CLUSTER` and all that it points at.

    What cannot be built is a step's `problems`; `checks` tells them.

    Raises:
        StackproofError: There is no such cluster.
    """
    root = checkout.flux / "clusters" / cluster
    if not root.is_dir():
        there = sorted(path.name for path in (checkout.flux / "clusters").glob("*/"))
        raise StackproofError(
            "there is no such cluster",
            where=checkout.show(root),
            todo=f"There is: {', '.join(there) or 'none'}.",
        )
    first = _start(checkout, root)
    found: dict[str, Step] = {}
    built: dict[Path, tuple[Manifest, ...]] = {}
    waiting = _kustomizations(first)
    while waiting:
        manifest = waiting.pop(0)
        folder = _folder(checkout, manifest)
        if manifest.name in found or folder == root:
            continue  # bootstrap's own Kustomization builds where we started
        step = _step(checkout, manifest, folder, [first, *found.values()], built)
        found[manifest.name] = step
        waiting += _kustomizations(step)
    ordered, circle = _order(list(found.values()))
    return Tree(checkout, (first, *ordered), circle)


def build_tenant(checkout: Checkout, name: str) -> Tree:
    """Build the part of the tree that is one tenant's: `flux/tenants/NAME` and what it points at.

    Raises:
        StackproofError: There is no such folder, or it cannot be built.
    """
    first = Step(
        None, folder := checkout.flux / "tenants" / name, kustomize.build(checkout, folder)
    )
    steps = [_step(checkout, m, _folder(checkout, m), (), {}) for m in _kustomizations(first)]
    if problems := [problem for step in steps for problem in step.problems]:
        raise StackproofError("\n".join(problems), where=checkout.show(folder))
    return Tree(checkout, (first, *steps))


def _start(checkout: Checkout, root: Path) -> Step:
    try:
        return Step(None, root, kustomize.build(checkout, root))
    except StackproofError as error:
        return Step(None, root, problems=(str(error),))


def _kustomizations(step: Step) -> list[Manifest]:
    return [m for m in step.objects if m.kind == "Kustomization" and group_of(m) == KUSTOMIZE_GROUP]


def _folder(checkout: Checkout, manifest: Manifest) -> Path:
    return (checkout.root / str(manifest["spec"].get("path") or ".")).resolve()


def _step(
    checkout: Checkout,
    manifest: Manifest,
    folder: Path,
    known: Iterable[Step],
    built: dict[Path, tuple[Manifest, ...]],
) -> Step:
    """Build one step; `built` keeps what the folders that several steps share became."""
    patches = manifest["spec"].get("patches") or ()
    try:
        if patches:
            objects = kustomize.build(checkout, folder, patches)
        else:
            if folder not in built:
                built[folder] = kustomize.build(checkout, folder)
            objects = built[folder]
    except StackproofError as error:
        return Step(manifest, folder, problems=(str(error),))
    after = manifest["spec"].get("postBuild") or {}
    if not after:
        return Step(manifest, folder, objects)
    variables, problems = _variables(manifest, after, known)
    done = [substitute(one, variables) for one in objects]
    undefined = sorted({name for _, missing in done for name in missing})
    return Step(manifest, folder, tuple(one for one, _ in done), problems, tuple(undefined))


def _variables(
    manifest: Manifest, after: Mapping[str, Any], known: Iterable[Step]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return a step's variables, and what it takes some from and nobody has."""
    maps = {
        (m.namespace, m.name): m for step in known for m in step.objects if m.kind == "ConfigMap"
    }
    variables: dict[str, str] = {}
    problems = []
    for source in after.get("substituteFrom") or ():
        found = maps.get((manifest.namespace, source["name"]))
        if found is not None and source["kind"] == "ConfigMap":
            variables |= found.get("data") or {}
        elif not source.get("optional"):
            problems.append(
                f"{manifest.ref}: substituteFrom names {source['kind']}/{source['name']}, "
                f"which no earlier step makes in {manifest.namespace}"
            )
    variables |= after.get("substitute") or {}
    return variables, tuple(problems)


def _order(steps: list[Step]) -> tuple[list[Step], tuple[str, ...]]:
    """Return the steps, dependencies first, and the names of those in a circle (they come last)."""
    there = {step.name for step in steps}
    done: list[Step] = []
    left = list(steps)
    while left:
        names = {step.name for step in done}
        ready = [s for s in left if all(d in names or d not in there for d in s.depends_on)]
        if not ready:
            return [*done, *left], tuple(step.name for step in left)
        done.append(ready[0])
        left.remove(ready[0])
    return done, ()


def _release(tree: Tree, manifest: Manifest) -> HelmRelease:
    spec = manifest["spec"]
    wanted = (spec.get("chart") or {}).get("spec") or {}
    namespace = manifest.namespace or ""
    if not tree.is_repository(wanted.get("sourceRef") or {}, namespace):
        return HelmRelease(manifest, None)
    chart = (tree.checkout.root / wanted["chart"]).resolve()
    values, problems = _values(tree, manifest)
    if not (chart / "Chart.yaml").is_file():
        missing = f"{manifest.ref}: there is no chart {wanted['chart']} in the repository"
        problems = (missing, *problems)
    if problems:
        return HelmRelease(manifest, chart, values, None, problems)
    try:
        rendered = helm.render(
            chart,
            values,
            release=spec.get("releaseName") or manifest.name,
            namespace=spec.get("targetNamespace") or namespace,
        )
    except StackproofError as error:
        return HelmRelease(manifest, chart, values, None, (f"{manifest.ref}: {error}",))
    return HelmRelease(manifest, chart, values, rendered)


def _values(tree: Tree, manifest: Manifest) -> tuple[tuple[helm.Values, ...], tuple[str, ...]]:
    """Return the values of a HelmRelease whose chart is in the repository, and what is wrong."""
    spec = manifest["spec"]
    wanted = (spec.get("chart") or {}).get("spec") or {}
    root = tree.checkout.root
    chart = (root / wanted["chart"]).resolve()
    values: list[helm.Values] = []
    problems: list[str] = []
    files = [(name, (root / name).resolve()) for name in wanted.get("valuesFiles") or ()]
    if files and files[0][1] != chart / "values.yaml":
        problems.append(
            f"{manifest.ref}: valuesFiles must begin with the chart's own values.yaml: "
            "they replace it"
        )
    for name, path in files:
        if not path.is_file():
            problems.append(f"{manifest.ref}: valuesFiles names {name}, which is not there")
        elif path != chart / "values.yaml":
            values.append(path)
    for source in spec.get("valuesFrom") or ():
        found = _values_from(tree, manifest, source)
        if isinstance(found, str):
            problems.append(found)
        elif found:
            values.append(found)
    if spec.get("values"):
        values.append(spec["values"])
    return tuple(values), tuple(problems)


def _values_from(
    tree: Tree, manifest: Manifest, source: Mapping[str, Any]
) -> Mapping[str, Any] | str | None:
    """Return the values that a `valuesFrom` names, why there are none, or None if that is fine."""
    key = source.get("valuesKey") or "values.yaml"
    if source["kind"] != "ConfigMap" or source.get("targetPath"):
        return (
            f"{manifest.ref}: valuesFrom {source['kind']}/{source['name']}: "
            "only whole values files from ConfigMaps are in Git, and can be checked"
        )
    found = tree.find("ConfigMap", manifest.namespace or None, source["name"])
    text = (found.get("data") or {}).get(key) if found else None
    if text is not None:
        data = yaml.load(text, Loader=yaml.CSafeLoader)
        return data if isinstance(data, Mapping) else {}
    if source.get("optional"):
        return None
    what = f"has no key {key}" if found else "is made by no step"
    return f"{manifest.ref}: valuesFrom names ConfigMap/{source['name']}, which {what}"
