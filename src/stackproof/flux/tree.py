"""What Flux applies to a cluster, step by step, from the files of a checkout.

A step is a Flux Kustomization: a folder built as kustomize-controller builds it. A HelmRelease in
it whose chart lies in the repository is rendered with its values, as helm-controller would. No
network is asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from stackproof.errors import StackproofError, UsageError
from stackproof.helm import renderer, schema
from stackproof.helm.manifests import Manifest
from stackproof.repo.checkout import Checkout

from . import controllers
from .objects import BOOTSTRAP, FLUX_NAMESPACE, Key, Lookup, group_of, refused, usable
from .releases import HelmRelease, follows_commits, rendered, values_of

__all__ = ["Applied", "HelmRelease", "Key", "Step", "Tree", "build"]

GENERATED = re.compile(r"-[bcdfghkmt2456789]{10}$")
"""What kustomize appends to the name of a ConfigMap that it generates."""
KUSTOMIZE_GROUP = "kustomize.toolkit.fluxcd.io"
#: flux-operator's kinds that become other objects in the cluster.
_MAKERS = {("fluxcd.controlplane.io", kind) for kind in ("FluxInstance", "ResourceSet")}
#: Annotations or labels with which kustomize-controller leaves an object alone.
_UNTOUCHED = {f"{KUSTOMIZE_GROUP}/reconcile": "disabled", f"{KUSTOMIZE_GROUP}/ssa": "Ignore"}


def step_name(name: str, namespace: str | None) -> str:
    """Return how a Kustomization is called here: with its namespace where that is not Flux' own."""
    return name if namespace in (None, "", FLUX_NAMESPACE) else f"{namespace}/{name}"


@dataclass(frozen=True)
class Step:
    """A Flux Kustomization, and what it applies.

    Args:
        manifest: The Kustomization itself; None for the folder that Flux starts from.
        folder: What it builds.
        objects: What that gives.
        problems: Why it could not be built, or what it names and nobody has.
        undefined: Variables that post-build substitution surely has no value for.
        files: What building it reads.
        untouched: Lookup that it builds, and neither makes nor changes.
        note: What keeps it from the cluster, or from being looked at, though nothing is wrong.
        elsewhere: Whether its files are not in this repository.
        parent: Name of the step that applies the Kustomization.
        own: The Kustomization that bootstrap has put into the folder that Flux starts from.
    """

    manifest: Manifest | None
    folder: Path
    objects: tuple[Manifest, ...] = ()
    problems: tuple[str, ...] = ()
    undefined: tuple[str, ...] = ()
    files: frozenset[Path] = frozenset()
    untouched: tuple[Manifest, ...] = ()
    note: str = ""
    elsewhere: bool = False
    parent: str | None = None
    own: Manifest | None = None

    @property
    def name(self) -> str:
        """The Kustomization's name, after its namespace where that is not Flux' own."""
        manifest = self.manifest or self.own
        return step_name(manifest.name, manifest.namespace) if manifest else BOOTSTRAP

    @property
    def known(self) -> bool:
        """Whether what it applies is known."""
        return not self.elsewhere and not self.problems

    @property
    def prunes(self) -> bool:
        """Whether what it no longer applies is deleted."""
        manifest = self.manifest or self.own
        return bool(manifest["spec"].get("prune")) if manifest else True

    @property
    def outlived(self) -> bool:
        """Whether what it applied stays in the cluster when the Kustomization itself goes.

        As kustomize-controller v1.9 (`finalizerShouldDeleteResources`).
        """
        spec = self.manifest["spec"] if self.manifest else {}
        policy = spec.get("deletionPolicy", "MirrorPrune")
        mirrors = policy == "MirrorPrune" and not self.prunes
        return policy == "Orphan" or mirrors or bool(spec.get("suspend"))

    @property
    def depends_on(self) -> tuple[str, ...]:
        """Names of the steps that must be ready first."""
        if self.manifest is None:
            return ()
        return tuple(
            step_name(one["name"], one.get("namespace") or self.manifest.namespace)
            for one in self.manifest["spec"].get("dependsOn") or ()
        )


@dataclass(frozen=True)
class Applied:
    """An object that reaches the cluster."""

    manifest: Manifest
    step: Step
    release: HelmRelease | None = None


@dataclass(frozen=True)
class Tree(Lookup):
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
    def by_name(self) -> Mapping[str, Step]:
        """The steps by their names, in order."""
        return {step.name: step for step in self.steps}

    @cached_property
    def objects(self) -> tuple[Manifest, ...]:
        """What the steps apply themselves, in order."""
        return tuple(manifest for step in self.steps for manifest in step.objects)

    @cached_property
    def releases(self) -> Mapping[tuple[str, str], HelmRelease]:
        """Every HelmRelease by namespace and name, in order."""
        return {
            (m.namespace or "", m.name): rendered(self, m)
            for m in self.objects
            if m.kind == "HelmRelease" and usable(m)
        }

    @cached_property
    def failures(self) -> tuple[tuple[str, str], ...]:
        """Who could not be built, a step or a release, and why."""
        releases = [(release_label(r.manifest), r.problems) for r in self.releases.values()]
        steps = [(f"step {step.name}", step.problems) for step in self.steps]
        return tuple((who, text) for who, problems in steps + releases for text in problems)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What is not looked at, or does not reach the cluster now, though nothing is wrong."""
        return (
            *(f"step {step.name} {step.note}" for step in self.steps if step.note),
            *(f"{release_label(r.manifest)}: {r.note}" for r in self.releases.values() if r.note),
            *(
                f"{release_label(r.manifest)}: is upgraded at every commit, whatever is in it "
                "(reconcileStrategy: Revision)"
                for r in self.releases.values()
                if r.rendered and follows_commits(self, r.manifest)
            ),
            *(
                f"{m.ref} in {m.namespace} makes objects of its own: not looked at"
                for m in self.objects
                if (group_of(m), m.kind) in _MAKERS
            ),
        )

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

    def values_of(self, namespace: str, name: str) -> tuple[renderer.Values, ...]:
        """Return what a HelmRelease gives its chart, in Helm's order, without rendering it.

        Raises:
            StackproofError: No step applies such a HelmRelease, or it names values that nobody has.
        """
        manifest = self.find("HelmRelease", namespace, name)
        if manifest is None:
            raise StackproofError(f"no step applies HelmRelease/{name} in {namespace}")
        given = values_of(self, manifest)
        if given.problems:
            raise StackproofError("\n".join(given.problems))
        return given.parts


def release_label(manifest: Manifest) -> str:
    """Return how a HelmRelease is called here."""
    return f"HelmRelease {manifest.namespace}/{manifest.name}"


def build(checkout: Checkout, cluster: str = "production") -> Tree:
    """Build the tree of a cluster: `flux/clusters/CLUSTER` and all that it points at.

    What cannot be built is a step's `problems`; `checks` tells them.

    Raises:
        UsageError: There is no such cluster.
    """
    root = checkout.flux / "clusters" / cluster
    there = sorted(path.name for path in (checkout.flux / "clusters").glob("*/"))
    if cluster not in there:  # nor is "" or ".", which are folders
        raise UsageError(
            f"there is no cluster {cluster!r}",
            where=checkout.show(root),
            todo=f"There is: {', '.join(there) or 'none'}.",
        )
    return build_from(checkout, root)


def build_from(checkout: Checkout, root: Path) -> Tree:
    """Build the tree that Flux makes when it starts from a folder of a repository."""
    first = _start(checkout, root)
    found: list[Step] = []
    waiting = _kustomizations(first)
    while waiting := [one for one in waiting if not _is_known(one[0], (first, *found))]:
        # Whoever is depended on may make the variables of the others: it is built first.
        left = {step_name(m.name, m.namespace) for m, _ in waiting}
        free = (one for one in waiting if left.isdisjoint(Step(one[0], Path()).depends_on))
        chosen = next(free, waiting[0])
        waiting.remove(chosen)
        step = _step(Tree(checkout, (first, *found)), *chosen)
        found.append(step)
        waiting += _kustomizations(step)
    ordered, circle = _order(found)
    return Tree(checkout, (first, *ordered), circle)


def build_tenant(checkout: Checkout, name: str) -> Tree:
    """Build the part of the tree that is one tenant's: `flux/tenants/NAME` and what it points at.

    Raises:
        StackproofError: There is no such folder, or it cannot be built.
    """
    folder = checkout.flux / "tenants" / name
    first = _start(checkout, folder)
    steps = [_step(Tree(checkout, (first,)), *one) for one in _kustomizations(first)]
    if problems := [problem for step in (first, *steps) for problem in step.problems]:
        raise StackproofError("\n".join(problems), where=checkout.show(folder))
    return Tree(checkout, (first, *steps))


def _start(checkout: Checkout, root: Path) -> Step:
    """Build what Flux starts from; as bootstrap's own Kustomization says, where it is in there."""
    where = {"spec": {"path": f"./{root.relative_to(checkout.root)}"}}
    first = _built(Tree(checkout, ()), Step(None, root), where)
    tree = Tree(checkout, (first,))
    for own, _ in _kustomizations(first):
        if _folder(checkout, own) == root.resolve():
            return _built(tree, Step(None, root, own=own), own.content)
    return first


def _kustomizations(step: Step) -> list[tuple[Manifest, str]]:
    """Return the Kustomizations that a step applies, with its name."""
    found = [
        m for m in step.objects if m.kind == "Kustomization" and group_of(m) == KUSTOMIZE_GROUP
    ]
    return [(m, step.name) for m in found if usable(m)]


def _is_known(manifest: Manifest, steps: tuple[Step, ...]) -> bool:
    """Tell whether a step is made of this very Kustomization, which two steps may apply.

    One that lies in the folder that it builds is applied by itself.
    """
    start = steps[0]
    if start.own is None and step_name(manifest.name, manifest.namespace) == start.name:
        return True  # bootstrap's, of another folder
    return any(manifest in (one.manifest, one.own) for one in steps)


def _folder(checkout: Checkout, manifest: Manifest) -> Path:
    return (checkout.root / str(manifest["spec"].get("path") or ".").lstrip("/")).resolve()


def _step(tree: Tree, manifest: Manifest, parent: str) -> Step:
    """Build one step, after those that the tree has."""
    spec = manifest["spec"]
    step = Step(manifest, _folder(tree.checkout, manifest), parent=parent)
    reference = spec["sourceRef"]
    if any(one.name == step.name for one in tree.steps):
        return replace(step, problems=(f"there are several Kustomizations {step.name}",))
    if not tree.is_repository(reference, manifest.namespace or ""):
        source = f"{reference['kind']}/{reference['name']}"
        note = f"is built from {source}, which is not here: not looked at"
        return replace(step, note=note, elsewhere=True)
    if spec.get("kubeConfig"):
        note = "is applied to another cluster: not looked at"
        return replace(step, note=note, elsewhere=True)
    if spec.get("suspend"):
        step = replace(step, note="is suspended: it applies nothing until it is resumed")
    return _built(tree, step, manifest.content)


def _built(tree: Tree, step: Step, kustomization: Mapping[str, Any]) -> Step:
    """Return a step with what its Kustomization gives; `tree` has the variables it takes."""
    variables = _variables(tree, kustomization)
    root = tree.checkout.root
    try:
        source = kustomization["spec"].get("sourceRef") or {"name": BOOTSTRAP}
        space = (kustomization.get("metadata") or {}).get("namespace") or FLUX_NAMESPACE
        ignore = tree.ignore(source, space)
        built = controllers.build(root, kustomization, variables.given, ignore=ignore)
    except StackproofError as error:
        return replace(step, problems=(*variables.problems, str(error)))
    objects = [_decrypted(one, kustomization) for one in built.objects]
    untouched = tuple(one for one in objects if _is_untouched(one))
    not_taken = [text for one in objects for text in (*refused(one), *_encrypted(one))]
    if sparse := tree.unfetched(source, space, sorted(built.read)):
        not_taken.append(f"the source does not check out {', '.join(sparse)} (sparseCheckout)")
    return replace(
        step,
        objects=tuple(one for one in objects if not _is_untouched(one)),
        problems=(*variables.problems, *not_taken),
        undefined=() if variables.is_open else built.undefined,
        files=frozenset((root / name).resolve() for name in built.read),
        untouched=untouched,
    )


def marks_of(one: Manifest) -> dict[str, Any]:
    """Return an object's labels and annotations, by either of which it can be left alone."""
    found = (one.metadata.get(field) for field in ("labels", "annotations"))
    return {
        key: value for part in found if isinstance(part, Mapping) for key, value in part.items()
    }


def _is_untouched(one: Manifest) -> bool:
    marks = marks_of(one)
    return any(marks.get(key) == value for key, value in _UNTOUCHED.items())


def _decrypted(one: Manifest, kustomization: Mapping[str, Any]) -> Manifest:
    """Return an object without what SOPS has written into it; its values stay encrypted here."""
    if "sops" not in one or not kustomization["spec"].get("decryption"):
        return one
    plain = {key: value for key, value in one.items() if key != "sops"}
    return Manifest.of(plain, one.source, one.index)


def _encrypted(one: Manifest) -> Iterator[str]:
    """Yield that a Secret is still encrypted: kustomize-controller then applies nothing at all."""
    if (one.kind, one.api_version) == ("Secret", "v1") and "sops" in one:
        yield f"{one.ref} is encrypted by SOPS, and nothing says how to read it (spec.decryption)"


@dataclass(frozen=True)
class _Variables:
    """What a step's substitution takes from elsewhere.

    Args:
        given: Names and values.
        problems: What it names and nobody has.
        is_open: Whether there may be more, whose names only the cluster knows.
    """

    given: Mapping[str, str]
    problems: tuple[str, ...] = ()
    is_open: bool = False


def _variables(tree: Tree, kustomization: Mapping[str, Any]) -> _Variables:
    """Return a step's variables, as Flux without the line ends in them.

    What a Secret holds that is not in Git is known by name, if at all.
    """
    spec, metadata = kustomization["spec"], kustomization.get("metadata") or {}
    namespace = metadata.get("namespace")
    given: dict[str, str] = {}
    problems = []
    is_open = False
    for source in (spec.get("postBuild") or {}).get("substituteFrom") or ():
        kind, name = source["kind"], source["name"]
        if held := tree.held(kind, namespace, name):
            for key, text in held.texts.items():
                given[key] = f"{schema.HIDDEN}{key}" if text is None else text.replace("\n", "")
            is_open = is_open or held.is_open
        else:
            is_open = True
            if not source.get("optional"):
                problems.append(
                    f"Kustomization/{metadata.get('name')}: substituteFrom names {kind}/{name}, "
                    f"which no earlier step makes in {namespace}"
                )
    return _Variables(given, tuple(problems), is_open)


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
