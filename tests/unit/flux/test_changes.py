"""What the controllers make of a change by rules of their own, in small trees."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.flux.trees import CONFIG_MAP, release, step, tree

from stackproof.flux import diff
from stackproof.flux.diff import Change

CLAIM = """\
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: flux-system}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"""
SHARED = CLAIM.replace("ReadWriteOnce", "ReadWriteMany")
JOB = """\
---
apiVersion: batch/v1
kind: Job
metadata: {name: once, namespace: flux-system}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: 'a:1'}]}}}
"""
FORCED = "{name: data, annotations: {kustomize.toolkit.fluxcd.io/force: enabled},"
CRD = """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.test}
spec:
  group: example.test
  names: {kind: Thing, plural: things}
  scope: Namespaced
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
"""
HOOK = CLAIM.replace("{name: data,", "{name: data, annotations: {helm.sh/hook: pre-install},")
IF_NOT_PRESENT = CONFIG_MAP.replace(
    "{name", "{annotations: {kustomize.toolkit.fluxcd.io/ssa: IfNotPresent}, name"
)
Files = dict[str, str | None]


def changes(
    root: Path, before: tuple[str, Files], after: tuple[str, Files]
) -> tuple[dict[str, Change], tuple[str, ...], tuple[str, ...]]:
    """Return what happens to each object but Flux' own, what is refused, and what is lost."""
    old, new = tree(root / "before", *before), tree(root / "after", *after)
    assert not (*old.failures, *new.failures)
    entries = diff.diff(old, new)
    flux = {"HelmRelease", "Kustomization"}
    told = {f"{e.key[1]}/{e.key[3]}": e.change for e in entries if e.key[1] not in flux}
    return told, diff.warnings(entries), diff.lost(old, new)


@pytest.mark.parametrize(
    ("was", "now", "forced"),
    [
        (CLAIM, SHARED, False),
        (CLAIM, SHARED, True),
        (CLAIM, SHARED.replace("{name: data,", FORCED), False),
        (CLAIM.replace("{name: data,", FORCED), SHARED, False),
        (JOB, JOB.replace("a:1", "a:2"), False),
        (JOB, JOB.replace("a:1", "a:2"), True),
    ],
    ids=["claim", "of-the-step", "of-the-new", "of-the-old", "job", "job-of-the-step"],
)
def test_what_cannot_be_changed_is_made_anew_by_force(
    tmp_path: Path, was: str, now: str, forced: bool
) -> None:
    """A claim's volume goes with it."""
    steps = step("apps", "  force: true\n" if forced else "")
    told, refused, lost = changes(
        tmp_path, (steps, {"apps/a.yaml": was}), (steps, {"apps/a.yaml": now})
    )
    anew = forced or "force" in was + now
    assert [*told.values()] == [Change.REPLACED if anew else Change.CHANGED]
    assert bool(refused) is not anew
    assert bool(lost) is (anew and "Claim" in was)
    for text in lost:
        assert "step apps deletes it, what is in it too" in text


def test_force_changes_what_can_be_changed(tmp_path: Path) -> None:
    steps = step("apps", "  force: true\n")
    now = CLAIM.replace("1Gi", "2Gi")
    told, _, lost = changes(
        tmp_path, (steps, {"apps/a.yaml": CLAIM}), (steps, {"apps/a.yaml": now})
    )
    assert told == {"PersistentVolumeClaim/data": Change.CHANGED}
    assert not lost


@pytest.mark.parametrize("suspended", [True, False])
def test_who_is_suspended_deletes_nothing(tmp_path: Path, suspended: bool) -> None:
    """A step and a release are taken away, each with a claim."""
    more = "  suspend: true\n" if suspended else ""
    other = CLAIM.replace("name: data", "name: more")
    files: Files = {"apps/a.yaml": CLAIM, "charts/x/templates/made.yaml": other}
    both = step("apps", more) + release(more=more)
    told, _, lost = changes(tmp_path, (both, files), ("", files))
    assert set(told.values()) == {Change.KEPT if suspended else Change.REMOVED}
    assert len(told) == 2
    assert len(lost) == (0 if suspended else 2)


@pytest.mark.parametrize(("field", "lost"), [("prune: true", 1), ("prune: false", 0)])
def test_what_is_not_pruned_is_not_lost(tmp_path: Path, field: str, lost: int) -> None:
    steps = step("apps").replace("prune: true", field)
    other = CONFIG_MAP % "a"
    before: Files = {"apps/a.yaml": other, "apps/b.yaml": CLAIM}
    told = changes(tmp_path, (steps, before), (steps, {"apps/a.yaml": other}))
    assert len(told[2]) == lost


#: A claim in a step that another step applies: what the other says, whether it stays, what is lost.
LEFT = [
    ("prune: true", True, 1),
    ("prune: false", True, 0),
    ("prune: true", False, 1),
    ("prune: true\n  deletionPolicy: Orphan", False, 0),
    ("prune: true\n  suspend: true", False, 0),
]


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize(("field", "stays", "losses"), LEFT)
def test_a_step_that_nobody_prunes_goes_on(
    tmp_path: Path, field: str, stays: bool, losses: int, released: bool
) -> None:
    """Its Kustomization is in no file any more, and applies what it has applied."""
    above = step("above").replace("prune: true", field)
    files: Files = {"above/a.yaml": step("below"), "above/b.yaml": CONFIG_MAP % "b"}
    files["below/a.yaml"] = release() if released else CLAIM
    if released:
        files["charts/x/templates/claim.yaml"] = CLAIM
    gone = {name: text for name, text in files.items() if name != "above/a.yaml"}
    told, _, lost = changes(tmp_path, (above, files), (above if stays else "", gone))
    claim = told["PersistentVolumeClaim/data"]
    assert claim is (Change.REMOVED if losses else Change.KEPT)
    assert len(lost) == losses


def test_pruning_that_is_switched_on_with_a_removal(tmp_path: Path) -> None:
    """Or off: the new setting may be there first, or last."""
    off, on = step("apps").replace("prune: true", "prune: false"), step("apps")
    was: Files = {"apps/a.yaml": CLAIM, "apps/b.yaml": CONFIG_MAP % "b"}
    now: Files = {"apps/b.yaml": CONFIG_MAP % "b"}
    for number, (before, after) in enumerate([(off, on), (on, off)]):
        assert len(changes(tmp_path / str(number), (before, was), (after, now))[2]) == 1


def test_hooks_are_left_behind(tmp_path: Path) -> None:
    """Helm has them apart from a release: neither an upgrade nor an uninstall deletes them."""
    files: Files = {"charts/x/templates/hook.yaml": HOOK}
    for text in (release(), ""):
        told, _, lost = changes(tmp_path, (release(), files), (text, {}))
        assert told["PersistentVolumeClaim/data"] is Change.KEPT
        assert not lost
        (tmp_path / "after/charts/x/templates/hook.yaml").unlink(missing_ok=True)


def test_what_is_applied_only_if_it_is_not_there(tmp_path: Path) -> None:
    was, now = (f"{IF_NOT_PRESENT % 'a'}data: {{k: {value}}}\n" for value in ("one", "two"))
    assert not changes(tmp_path, (was, {}), (now, {}))[0]
    new = changes(tmp_path / "new", ("", {}), (now, {}))[0]
    assert new == {"ConfigMap/a": Change.ADDED}


GENERATED = """\
namespace: flux-system
secretGenerator: [{name: made, literals: [k=%s]}]
configMapGenerator: [{name: made, literals: [k=%s]}]
resources: [pod.yaml]
"""
POD = """\
apiVersion: v1
kind: Pod
metadata: {name: pod}
spec: {containers: [{name: c, image: 'a:1', envFrom: [{secretRef: {name: made}}]}]}
"""


def test_a_generated_secret_that_changes_is_not_lost(tmp_path: Path) -> None:
    """Its name has a digest of its content; the diff shows the content."""
    steps = step("apps")
    was, now = (
        {"apps/kustomization.yaml": GENERATED % (value, value), "apps/pod.yaml": POD}
        for value in ("one", "two")
    )
    told, _, lost = changes(tmp_path, (steps, {**was}), (steps, {**now}))
    assert told == {"Secret/made": Change.CHANGED, "ConfigMap/made": Change.CHANGED}
    assert not lost
    gone = now["apps/kustomization.yaml"].replace("secretGenerator", "configMapGenerator: []\n#")
    (loss,) = changes(
        tmp_path / "gone",
        (steps, {**was}),
        (steps, {"apps/kustomization.yaml": gone, "apps/pod.yaml": POD}),
    )[2]
    assert "Secret/made in flux-system: deleted" in loss


USES = """\
resources: [job.yaml]
namespace: flux-system
configMapGenerator: [{name: made, literals: [k=%s]%s}]
"""
USING = JOB.replace("image: 'a:1'", "image: 'a:1', envFrom: [{configMapRef: {name: made}}]")


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("immutable", [False, True])
def test_a_job_that_names_what_is_generated(tmp_path: Path, forced: bool, immutable: bool) -> None:
    """Its template names the digest, and cannot change; what is generated is another object."""
    steps = step("apps", "  force: true\n" if forced else "")
    more = ", options: {immutable: true}" if immutable else ""
    was, now = (
        {"apps/kustomization.yaml": USES % (value, more), "apps/job.yaml": USING}
        for value in ("one", "two")
    )
    told, refused, lost = changes(tmp_path, (steps, {**was}), (steps, {**now}))
    job = Change.REPLACED if forced else Change.CHANGED
    assert told == {"ConfigMap/made": Change.CHANGED, "Job/once": job}
    assert ["Job/once" in text for text in refused] == ([] if forced else [True])
    assert not lost


def test_one_name_is_generated_in_two_steps(tmp_path: Path) -> None:
    steps = step("apps") + step("more")
    was: Files = {f"{name}/kustomization.yaml": GENERATED % (1, 1) for name in ("apps", "more")}
    was |= {"apps/pod.yaml": POD, "more/pod.yaml": POD.replace("name: pod", "name: other")}
    now = {**was, "apps/kustomization.yaml": GENERATED % (2, 2)}
    told, _, lost = changes(tmp_path / "one", (steps, was), (steps, now))
    assert told == {f"{kind}/made of apps": Change.CHANGED for kind in ("ConfigMap", "Secret")}
    assert not lost
    alone = step("apps")
    told, _, lost = changes(tmp_path / "gone", (steps, was), (alone, was))
    kinds = ("ConfigMap/made of more", "Secret/made of more", "Pod/other")
    assert told == dict.fromkeys(kinds, Change.REMOVED)
    assert len(lost) == 1


# --- CRDs -----------------------------------------------------------------------------------------

IN_CHART: Files = {"charts/x/crds/thing.yaml": CRD}
CHANGED: Files = {
    "charts/x/crds/thing.yaml": CRD.replace("type: object", "type: object, nullable: true")
}
NAME = "CustomResourceDefinition/things.example.test"


@pytest.mark.parametrize(
    ("policies", "before", "after", "change"),
    [
        ("", None, IN_CHART, Change.ADDED),
        ("  install: {crds: Skip}\n", None, IN_CHART, None),
        ("", IN_CHART, CHANGED, None),
        ("  upgrade: {crds: Create}\n", IN_CHART, CHANGED, None),
        ("  upgrade: {crds: CreateReplace}\n", IN_CHART, CHANGED, Change.CHANGED),
        ("", {}, IN_CHART, Change.ADDED),
        ("  upgrade: {crds: Skip}\n", {}, IN_CHART, None),
        ("  upgrade: {crds: Create}\n", {}, IN_CHART, Change.ADDED),
        ("", IN_CHART, {}, Change.KEPT),
        ("", IN_CHART, None, Change.KEPT),
    ],
)
def test_crds_of_a_chart(
    tmp_path: Path, policies: str, before: Files | None, after: Files | None, change: Change | None
) -> None:
    """By default Flux makes those of a chart's folder `crds`, and changes none."""
    sides = [
        ("" if files is None else release(more=policies), files or {}) for files in (before, after)
    ]
    told, _, lost = changes(tmp_path, *sides)
    assert told.get(NAME) is change
    assert not lost


def test_what_is_no_crd_in_the_folder_of_crds_is_left_out(tmp_path: Path) -> None:
    policy = "{apiVersion: v1, kind: ConfigMap, metadata: {name: policy}}"
    files: Files = {"charts/x/crds/more.yaml": f"{CRD}---\n{policy}\n"}
    assert changes(tmp_path, ("", {}), (release(), files))[0] == {
        NAME: Change.ADDED,
        "ConfigMap/made": Change.ADDED,
    }


def test_a_crd_takes_its_objects_along(tmp_path: Path) -> None:
    (loss,) = changes(tmp_path, (CRD, {}), ("", {}))[2]
    assert loss == f"{NAME}: deleted: every object of its kind goes with it, in all namespaces"
    kept = CRD.replace("{name", "{annotations: {helm.sh/resource-policy: keep}, name", 1)
    template: Files = {"charts/x/templates/crd.yaml": kept}
    assert not changes(tmp_path / "kept", (release(), template), (release(), {}))[2]


def test_a_release_of_nothing(tmp_path: Path) -> None:
    """Every template is switched off."""
    files: Files = {"charts/x/templates/made.yaml": "{{- if .Values.on }}\na: b\n{{- end }}\n"}
    more = "  values: {a: b}\n"
    assert changes(tmp_path, (release(), files), (release(more=more), files)) == ({}, (), ())
