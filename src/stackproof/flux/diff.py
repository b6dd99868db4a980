"""What a change of the tree would do to the cluster, object by object, with secrets masked."""

from __future__ import annotations

import difflib
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from stackproof.errors import UsageError
from stackproof.helm.manifests import Manifest, thaw
from stackproof.helm.masking import hide, mask
from stackproof.repo.checkout import Checkout

from . import losses, steps
from .immutable import refused
from .objects import Key, group_of, key_of, schemas
from .releases import (
    DISABLED,
    HelmRelease,
    is_crd_of_chart,
    keeps_crd,
    release_name,
    server_side_apply,
)
from .tree import GENERATED, KUSTOMIZE_GROUP, Applied, Step, Tree, marks_of, release_label

_Owned = tuple[Manifest, Applied]
"""An object, and who applies it."""


class Change(StrEnum):
    """What happens to an object."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"
    KEPT = "kept"
    """No longer applied, and stays in the cluster as it is."""
    REPLACED = "replaced"
    """Deleted by whoever has applied it, and made anew by another."""


@dataclass(frozen=True, slots=True)
class ObjectDiff:
    """What happens to one object.

    Args:
        key: The object.
        change: What happens to it.
        by: Who applies it: a step, or a HelmRelease.
        lines: A unified diff of its YAML, without its header.
        refused: The fields that Kubernetes refuses to change.
        invalid: Why Kubernetes does not take it at all, as it is now.
    """

    key: Key
    change: Change
    by: str
    lines: tuple[str, ...]
    refused: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """KIND/NAME, its namespace and who applies it."""
        _, kind, namespace, name = self.key
        where = f" in {namespace}" if namespace else ""
        return f"{kind}/{name}{where} ({self.by})"


def diff(before: Tree, after: Tree) -> tuple[ObjectDiff, ...]:
    """Return what going from one tree to another does, in the order of the later tree.

    What was applied by a step or release that the later tree cannot build is left out: nothing can
    be said of it. `failures` names those.
    """
    old, new = _objects(before, after)
    found = []
    for key, (manifest, applied) in new.items():
        was = old.get(key)
        if _is_left(was and was[0], manifest, applied, before):
            continue
        if was is None:
            found.append(_entry(key, Change.ADDED, applied, None, manifest))
        elif _is_replaced(was[1], applied, before, after) or _is_forced(was[1], applied):
            found.append(_entry(key, Change.REPLACED, applied, was[0], manifest))
        elif fixed := _fixed(was[1], applied):
            # Perhaps for nothing but a generated name, which else is not shown.
            pair = (was[0], manifest) if was[0] != manifest else (was[1].manifest, applied.manifest)
            found.append(_entry(key, Change.CHANGED, applied, *pair, fixed))
        elif was[0] != manifest:
            entry = _entry(key, Change.CHANGED, applied, was[0], manifest)
            if entry.lines:
                found.append(entry)
    for key, (manifest, applied) in old.items():
        if key not in new and not _unknown(applied, before, after):
            change = Change.KEPT if _stays(applied, before, after) else Change.REMOVED
            found.append(_entry(key, change, applied, manifest, None))
    return tuple(found)


def lost(before: Tree, after: Tree) -> tuple[str, ...]:
    """Return the data that going from one tree to another takes away, and versions it skips.

    Nothing is said of what the later tree cannot build, or Kubernetes does not take, nor of what
    was as it is now.
    """
    applied, later = _objects(before, after)
    new = {key: m for key, (m, _) in later.items()}
    old = {
        key: m
        for key, (m, by) in applied.items()
        if key in new or not (_unknown(by, before, after) or _stays(by, before, after))
    }
    for key, m in [*old.items(), *new.items()]:
        # What has not the shape that its kind says.
        if not schemas().knows(m) or _invalid(m):
            old.pop(key, None)
            new.pop(key, None)
    found = (
        loss
        for loss in losses.losses(old, new)
        if loss.harm is not losses.Harm.UNGUARDED or losses.is_kept(old[loss.key])
    )
    jumps = (jump for change in steps.images(old, new) for jump in steps.jumps(*change))
    moved = losses.moved_secrets(old, new)
    anew = _made_anew(before, after, applied, later)
    return (*anew, *map(str, found), *moved, *dict.fromkeys(jumps))


#: Kinds that take data along when they are deleted.
_WITH_DATA = frozenset({"CustomResourceDefinition", "Namespace", "PersistentVolumeClaim"})


def _made_anew(
    before: Tree, after: Tree, old: Mapping[Key, _Owned], new: Mapping[Key, _Owned]
) -> Iterator[str]:
    """Yield what is deleted before it is applied again, and takes data along."""
    for key in (key for key in old if key in new):
        manifest, was = old[key]
        _, now = new[key]
        anew = _is_replaced(was, now, before, after) or _is_forced(was, now)
        if manifest.kind in _WITH_DATA and anew:
            why = f"{_by(was)} deletes it, what is in it too, before {_by(now)} makes it anew"
            yield str(losses.Loss(key, losses.Harm.DELETED, why))
    for name, release in before.releases.items():
        later = after.releases.get(name)
        if later is None:
            continue
        old_step, new_step = _step_of(before, name), _step_of(after, name)
        if _is_reinstalled(release, old_step, later, new_step, before, after):
            names = release_name(release.manifest), release_name(later.manifest)
            what = "{} and then installs {}".format(*names) if len({*names}) > 1 else "it first"
            yield f"{release_label(later.manifest)}: Flux uninstalls {what}: {_UNINSTALLED}"


_UNINSTALLED = "everything of it is deleted, but what a policy keeps, and made anew"


def _step_of(tree: Tree, name: tuple[str, str]) -> Step:
    """Return the step that applies a HelmRelease."""
    return next(
        applied.step
        for applied in tree.applied
        if (applied.manifest.kind, applied.manifest.namespace or "", applied.manifest.name)
        == ("HelmRelease", *name)
    )


def failures(before: Tree, after: Tree, since: str) -> tuple[str, ...]:
    """Return what of either tree could not be built: of that, the diff says nothing."""
    return (
        *(f"{who} does not build: {text}" for who, text in after.failures),
        *(
            f"{who} did not build at {since}, so that all of it shows as added: {text}"
            for who, text in before.failures
        ),
    )


def _unknown(applied: Applied, before: Tree, after: Tree) -> bool:
    """Tell whether what somebody applied may still be applied, by what cannot be built now."""
    release = applied.release and after.releases.get(applied.release.key)
    if release and release.rendered is None:
        return True
    now = after.by_name
    return any(name in now and not now[name].known for name in _line(applied.step, before))


def _line(step: Step, tree: Tree) -> Iterator[str]:
    """Yield a step's name, and those of the steps by which it is applied."""
    name: str | None = step.name
    seen: set[str] = set()
    while name and name not in seen:
        yield name
        seen.add(name)
        name = tree.by_name[name].parent if name in tree.by_name else None


def _stays(applied: Applied, before: Tree, after: Tree) -> bool:
    """Tell whether an object that is no longer applied stays in the cluster."""
    if applied.release:
        if _is_no_part(applied.manifest):
            return True
        there = applied.release.key in after.releases
        manifest = applied.release.manifest
        suspended = bool(manifest["spec"].get("suspend"))
        return not there and (suspended or _outlives(manifest, applied.step, before, after))
    return _outlives(applied.manifest, applied.step, before, after)


def _is_no_part(manifest: Manifest) -> bool:
    """Tell whether Helm deletes an object neither with its release nor in an upgrade."""
    kept = manifest.annotations.get("helm.sh/resource-policy") == "keep"
    return kept or manifest.is_hook or is_crd_of_chart(manifest)


def _is_left(was: Manifest | None, now: Manifest, applied: Applied, before: Tree) -> bool:
    """Tell whether who applies an object does not change what is in the cluster."""
    if release := applied.release:
        action = "upgrade" if release.key in before.releases else "install"
        left = keeps_crd(release.manifest, action, is_new=was is None)
        return is_crd_of_chart(now) and left
    return was is not None and marks_of(now).get(f"{KUSTOMIZE_GROUP}/ssa") == "IfNotPresent"


def _is_forced(was: Applied, now: Applied) -> bool:
    """Tell whether kustomize-controller deletes what it cannot change, and makes it anew."""
    step = now.step.manifest or now.step.own
    one, other = was.manifest, now.manifest
    marks = (marks_of(each).get(f"{KUSTOMIZE_GROUP}/force") for each in (one, other))
    forced = "enabled" in marks or bool(step and step["spec"].get("force"))
    same = one.name == other.name  # a generated one of another name is another object
    return forced and same and not now.release and bool(refused(one, other, server_side=True))


def _fixed(was: Applied, now: Applied) -> tuple[str, ...]:
    """Return the fields that change, and that Kubernetes refuses to change.

    A generated name in a Job, say: without the digest in it nothing would change.
    """
    one, other = was.manifest, now.manifest
    if one == other or one.name != other.name or _invalid(one) or _invalid(other):
        return ()
    # What Flux has installed, Helm 4 has: by server-side apply.
    release = now.release
    server_side = release is None or server_side_apply(release.manifest) != DISABLED
    return refused(one, other, server_side=server_side)


def _outlives(manifest: Manifest, step: Step, before: Tree, after: Tree) -> bool:
    """Tell whether kustomize-controller leaves an object that a step no longer applies."""
    return (
        _is_marked_to_stay(manifest)
        or any(key_of(manifest) == key_of(one) for s in after.steps for one in s.untouched)
        or _leaves(step, before, after)
    )


def _is_marked_to_stay(manifest: Manifest) -> bool:
    return marks_of(manifest).get(f"{KUSTOMIZE_GROUP}/prune") == "disabled"


def _leaves(step: Step, before: Tree, after: Tree) -> bool:
    """Tell whether a step deletes nothing of what is no longer in it, or goes on without its file.

    It goes on where the step that has applied it leaves it.
    """
    for name in _line(step, before):
        was, now = before.by_name[name], after.by_name.get(name)
        if now:  # which of the two comes first, the setting or the removal, nobody knows
            return not (was.prunes or now.prunes)
        if was.outlived or (was.manifest and _is_marked_to_stay(was.manifest)):
            return True
    return False


def _is_replaced(was: Applied, now: Applied, before: Tree, after: Tree) -> bool:
    """Tell whether what is applied in both trees is deleted in between.

    helm-controller uninstalls a release before it installs one of another name;
    kustomize-controller prunes what a step no longer applies, whoever else is about to.
    """
    if was.release and now.release and was.release.key == now.release.key:
        if _is_no_part(was.manifest):
            return False
        return _is_reinstalled(was.release, was.step, now.release, now.step, before, after)
    if was.release is now.release is None and was.step.name == now.step.name:
        return False
    waiting = after.by_name.get(was.step.name)
    taken_over = waiting is not None and now.step.name in waiting.depends_on
    return not taken_over and not _stays(was, before, after)


def _is_reinstalled(
    was: HelmRelease, old: Step, now: HelmRelease, new: Step, before: Tree, after: Tree
) -> bool:
    """Tell whether a release is uninstalled although its HelmRelease is still there.

    As helm-controller v1.6 (`ReleaseTargetChanged`).
    """
    if _is_replaced(Applied(was.manifest, old), Applied(now.manifest, new), before, after):
        return True
    upgrade = now.manifest["spec"].get("upgrade") or {}
    charts = (_chart_name(was), _chart_name(now))
    renamed = charts[0] != charts[1] and upgrade.get("chartNameChangeStrategy") != "InPlace"
    return _target(was.manifest) != _target(now.manifest) or (all(charts) and renamed)


def _target(manifest: Manifest) -> tuple[str, str, str]:
    """Return what Helm knows a release by: its name, where it is, and where that is recorded."""
    spec, own = manifest["spec"], manifest.namespace or ""
    return (
        release_name(manifest),
        spec.get("targetNamespace") or own,
        spec.get("storageNamespace") or own,
    )


def _chart_name(release: HelmRelease) -> str:
    """Return the name of a release's chart, "" where it is not known."""
    made = release.rendered.manifests if release.rendered else ()
    return made[0].source.partition("/")[0] if made else ""


def _objects(before: Tree, after: Tree) -> tuple[dict[Key, _Owned], dict[Key, _Owned]]:
    """Return what each tree applies, generated objects under the names before kustomize's digest.

    Where several have one name then, that of the step is added.
    """
    trees = [(tree, _generated(tree)) for tree in (before, after)]
    several: set[Key] = set()
    for tree, names in trees:
        keys = [key_of(one) for one in tree.objects if one.name in names]
        counted = Counter((*key[:3], names[key[3]]) for key in keys)
        several.update(key for key, times in counted.items() if times > 1)
    old, new = (_of(tree, names, several) for tree, names in trees)
    return old, new


def _generated(tree: Tree) -> dict[str, str]:
    """Return the names that kustomize has generated, and what they were before."""
    names = {m.name for m in tree.objects if m.kind in {"ConfigMap", "Secret"}}
    short = {name: GENERATED.sub("", name) for name in names}
    return {name: plain for name, plain in short.items() if plain not in names}


def _of(tree: Tree, generated: Mapping[str, str], several: Collection[Key]) -> dict[Key, _Owned]:
    found: dict[Key, _Owned] = {}
    for applied in tree.applied:
        manifest = applied.manifest
        key = key_of(manifest)
        if applied.release is None and generated:
            key = (*key[:3], generated.get(key[3], key[3]))
            if key in several:
                key = (*key[:3], f"{key[3]} of {applied.step.name}")
            manifest = _renamed(manifest, generated)
        found[key] = (manifest, applied)
    return found


def _by(applied: Applied) -> str:
    release = applied.release
    who = release_label(release.manifest) if release else f"step {applied.step.name}"
    note = (release and release.note) or applied.step.note
    return f"{who}, suspended" if note else who


def _renamed(manifest: Manifest, names: Mapping[str, str]) -> Manifest:
    """Return an object with generated names as they were before kustomize changed them."""

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: renamed(part) for key, part in value.items()}
        if isinstance(value, list):
            return [renamed(part) for part in value]
        return names.get(value, value) if isinstance(value, str) else value

    return Manifest.of(renamed(manifest.content), manifest.source, manifest.index)


def _entry(
    key: Key,
    change: Change,
    applied: Applied,
    before: Manifest | None,
    after: Manifest | None,
    fixed: tuple[str, ...] = (),
) -> ObjectDiff:
    lines = difflib.unified_diff(_lines(before), _lines(after), lineterm="", n=2)
    invalid = _invalid(after) if after else ()
    return ObjectDiff(key, change, _by(applied), tuple(lines)[2:], fixed, invalid)


def _invalid(manifest: Manifest) -> tuple[str, ...]:
    """Return why Kubernetes does not take an object; of a kind without a schema, nobody knows."""
    if manifest.kind == "CustomResourceDefinition" or schemas().foreign(manifest):
        return ()
    return tuple(f"{one.path}: {one.reason}" for one in schemas().check(manifest))


def _lines(manifest: Manifest | None) -> list[str]:
    return as_yaml(manifest).splitlines() if manifest else []


def as_yaml(manifest: Manifest) -> str:
    """Return an object as YAML for people: secrets masked, long texts as blocks."""
    return yaml.dump(masked(manifest), Dumper=_Dumper, sort_keys=True, width=120)


class _Dumper(yaml.CSafeDumper):
    """Writes texts of several lines as blocks, so that a diff shows the line that changed."""


def _text(dumper: _Dumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def masked(manifest: Manifest) -> dict[str, Any]:
    """Return an object's content with its secrets replaced by a digest: a change still shows.

    Masked are all values of a Secret, and every text under a key that names a secret.
    """
    data: dict[str, Any] = thaw(manifest.content)
    if manifest.kind == "Secret" and not group_of(manifest):
        for part in ("data", "stringData"):
            if isinstance(data.get(part), dict):
                data[part] = {key: mask(value) for key, value in data[part].items()}
            elif data.get(part):
                data[part] = mask(data[part])
    return {key: hide(value) for key, value in data.items()}


@contextmanager
def revision(checkout: Checkout, name: str) -> Iterator[Checkout]:
    """Give the files of a revision, in a folder that is removed afterwards.

    Raises:
        UsageError: There is no such revision, or this is no Git repository.
    """
    with tempfile.TemporaryDirectory(prefix="stackproof-diff-") as scratch:
        folder = Path(scratch).resolve() / "files"
        try:
            below = _git(checkout.root, "rev-parse", "--show-prefix")
            tree = _git(checkout.root, "rev-parse", "--verify", f"{name}^{{tree}}")
            # Not `git archive`: it leaves out what has the attribute export-ignore.
            index = {"GIT_INDEX_FILE": str(folder.with_name("index"))}
            _git(checkout.root, "read-tree", tree, **index)
            _git(checkout.root, "checkout-index", "--all", f"--prefix={folder}/", **index)
        except subprocess.CalledProcessError as error:
            said = error.stderr.strip().removeprefix("fatal: ")
            if "--show-prefix" in error.cmd:  # whatever the revision: of no repository, say
                raise UsageError(f"git cannot read it: {said}", where=str(checkout.root)) from None
            raise UsageError(
                f"git has no revision {name!r} ({said})",
                where=str(checkout.root),
                todo="Name a branch, a tag or a commit; in a shallow clone, fetch it first.",
            ) from None
        yield Checkout(folder / below)


def _git(folder: Path, *words: str, **environment: str) -> str:
    """Return what git prints. It gives files as Flux fetches them: LFS and line ends stay."""
    as_they_are = (
        *("filter.lfs.smudge=", "filter.lfs.process=", "filter.lfs.required=false"),
        "core.autocrlf=false",
    )
    options = [word for option in as_they_are for word in ("-c", option)]
    done = subprocess.run(
        ["git", "-C", str(folder), *options, *words],
        env={**os.environ, **environment},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=True,
    )
    return done.stdout.strip()


def summary(entries: tuple[ObjectDiff, ...], failed: tuple[str, ...] = ()) -> str:
    """Return one line: how many objects are added, changed and removed, and what is not known."""
    counts = Counter(entry.change for entry in entries)
    told = ", ".join(f"{counts[change]} {change}" for change in Change if counts[change])
    if not failed:
        return told or "nothing changes in the cluster"
    return f"{told or 'no other change'}; {len(failed)} could not be built, and may change more"


def warnings(entries: tuple[ObjectDiff, ...]) -> tuple[str, ...]:
    """Return a sentence for each object that Kubernetes would not change: its release fails."""
    return tuple(
        f"{entry.title}: Kubernetes refuses to change {', '.join(entry.refused)}. "
        f"Merged as it is, the upgrade fails; {_BY_HAND.get(entry.key[1], _MADE_ANEW)}"
        if entry.refused
        else f"{entry.title}: Kubernetes refuses it: {entry.invalid[0]}"
        for entry in entries
        if entry.refused or entry.invalid
    )


_MADE_ANEW = "delete the object right before, so that it is made anew."
_BY_HAND = {
    "StatefulSet": (
        "first enlarge its volumes by hand, suspend its release and delete it with "
        "--cascade=orphan: its pods and volumes stay, and the new one takes them over."
    ),
    "PersistentVolumeClaim": "leave it, or make one under another name and move the data there.",
}


def as_markdown(
    entries: tuple[ObjectDiff, ...],
    since: str,
    failed: tuple[str, ...] = (),
    limit: int = 60_000,
    data: tuple[str, ...] = (),
) -> str:
    """Return the diff for a pull request: one folded block an object, cut at `limit` characters."""
    text = f"### What this does to the cluster\n\nSince {since}: {summary(entries, failed)}.\n"
    if told := (*(" ".join(one.split())[:1000] for one in failed), *data, *warnings(entries)):
        lines = "\n".join(f"> - {warning}" for warning in told)
        text += f"\n> [!CAUTION]\n{lines}\n"
    for number, entry in enumerate(entries):
        lines = "\n".join(("````diff", *entry.lines, "````"))
        title = f"{entry.change}: {entry.title}"
        block = f"\n<details><summary>{title}</summary>\n\n{lines}\n\n</details>\n"
        if len(text) + len(block) > limit:
            return f"{text}\n… and {len(entries) - number} more: see the artifact `flux-diff`.\n"
        text += block
    return text
