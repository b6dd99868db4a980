"""The tree is built as the controllers would build it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from stackproof import programs
from stackproof.checkout import Checkout
from stackproof.errors import StackproofError
from stackproof.flux import kustomize
from stackproof.flux.checks import problems
from stackproof.flux.kustomize import manifest
from stackproof.flux.substitution import substitute
from stackproof.flux.tree import Tree, build
from stackproof.manifests import thaw
from stackproof.tenants import load_registry


@pytest.fixture(scope="module")
def tree(checkout: Checkout) -> Tree:
    return build(checkout)


@pytest.fixture
def copy(checkout: Checkout, tmp_path: Path) -> Checkout:
    """A copy whose tree a test may change."""
    for name in ("charts", "flux", "observability", "schemas", ".github"):
        shutil.copytree(checkout.root / name, tmp_path / name)
    shutil.copy(checkout.versions_file, tmp_path)
    return Checkout(tmp_path)


def test_order(tree: Tree, checkout: Checkout) -> None:
    names = [step.name for step in tree.steps]
    assert names[:6] == [
        "flux-system",
        "infrastructure",
        "secret-store",
        "flux-extras",
        "observability",
        "tenants",
    ]
    assert set(names[6:]) == {f"tenant-{name}" for name in load_registry(checkout).names}


def test_releases_render_with_their_values(tree: Tree) -> None:
    lgtm = tree.releases["observability", "lgtm"]
    assert lgtm.rendered
    assert lgtm.rendered.get("Ingress", "grafana")["spec"]["rules"][0]["host"] == "grafana.soev.ai"
    tenant = tree.releases["enterprise-a", "open-webui"]
    assert tenant.rendered
    (container,) = tenant.rendered.get("Deployment", "open-webui-alloy")["spec"]["template"][
        "spec"
    ]["containers"]
    assert tenant.rendered.env(container)["TENANT_ID"].value == "enterprise-a"


def test_values_of_the_cluster_are_substituted(tree: Tree) -> None:
    store = tree.find("ClusterSecretStore", None, "gcp-secret-manager")
    assert store
    assert store["spec"]["provider"]["gcpsm"]["projectID"] == "soev-ai-001"


def test_changed_values_change_the_release(tree: Tree, copy: Checkout) -> None:
    """A change of observability/ reaches the HelmRelease itself, or it would not roll."""
    path = copy.observability / "grafana-values.yaml"
    path.write_text(path.read_text().replace("memory: 512Mi", "memory: 768Mi"))
    before = tree.releases["observability", "lgtm"].manifest
    after = build(copy).releases["observability", "lgtm"].manifest
    assert before != after
    names = {source["name"] for source in after["spec"]["valuesFrom"]}
    assert len(names) == 1
    assert before["spec"]["valuesFrom"][0]["name"] not in names


def test_files_of_bootstrap_change_nothing(tree: Tree, copy: Checkout) -> None:
    """`flux bootstrap` commits a folder of its own, with a Kustomization of the whole cluster."""
    folder = copy.flux / "clusters" / "production" / "flux-system"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text("resources: [gotk-sync.yaml]\n")
    (folder / "gotk-sync.yaml").write_text(
        """\
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: flux-system, namespace: flux-system}
spec:
  interval: 1m0s
  ref: {branch: main}
  secretRef: {name: flux-system}
  url: ssh://git@example.test/repository
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: flux-system, namespace: flux-system}
spec:
  interval: 10m0s
  path: ./flux/clusters/production
  prune: true
  sourceRef: {kind: GitRepository, name: flux-system}
"""
    )
    assert [s.name for s in build(copy).steps] == [s.name for s in tree.steps]
    assert list(problems(copy)) == []


def test_folder_without_a_kustomization(tmp_path: Path) -> None:
    """As Flux does: every manifest, and a folder below only through its own kustomization."""
    (tmp_path / "a.yaml").write_text(_config_map("a"))
    (tmp_path / "notes.txt").write_text("no manifest")
    plain, own = tmp_path / "plain", tmp_path / "own"
    plain.mkdir()
    (plain / "b.yml").write_text(_config_map("b"))
    own.mkdir()
    (own / "kustomization.yaml").write_text("resources: [c.yaml]\n")
    (own / "c.yaml").write_text(_config_map("c"))
    (own / "unused.yaml").write_text(_config_map("unused"))
    built = kustomize.build(Checkout(tmp_path), tmp_path)
    assert sorted(one.name for one in built) == ["a", "b", "c"]
    assert {path.name for path in kustomize.files_used(tmp_path)} == {
        "a.yaml",
        "b.yml",
        "c.yaml",
        "kustomization.yaml",
    }
    assert not list(tmp_path.glob("kustomization*")), "the folder itself is left alone"


def test_patches_of_a_step(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(_config_map("a"))
    patch = {
        "target": {"kind": "ConfigMap"},
        "patch": "- op: add\n  path: /data\n  value: {x: new}",
    }
    (built,) = kustomize.build(Checkout(tmp_path), tmp_path, [patch])
    assert built["data"] == {"x": "new"}


def test_same_objects_as_the_program_itself(checkout: Checkout) -> None:
    for folder in ("infrastructure", "flux-system", "observability"):
        done = subprocess.run(
            [programs.find("kustomize"), "build", checkout.flux / folder],
            capture_output=True,
            check=True,
        )
        wanted = [data for data in yaml.safe_load_all(done.stdout) if data]
        built = kustomize.build(checkout, checkout.flux / folder)
        assert [thaw(one.content) for one in built] == wanted


def test_what_kustomize_refuses(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [missing.yaml]\n")
    with pytest.raises(StackproofError, match=r"kustomize cannot build it: .*missing\.yaml"):
        kustomize.build(Checkout(tmp_path), tmp_path)
    with pytest.raises(StackproofError, match="there is no such folder"):
        kustomize.build(Checkout(tmp_path), tmp_path / "nowhere")


def test_cluster_that_is_not_there(checkout: Checkout) -> None:
    with pytest.raises(StackproofError, match=r"clusters/staging: .*There is: production"):
        build(checkout, "staging")


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("${A}", "one"),
        ("x-${A}-${B}", "x-one-two"),
        ("${NONE:=default}", "default"),
        ("${NONE:-default}", "default"),
        ("${A:=default}", "one"),
        ("$${A}", "${A}"),
        ("$A", "$A"),
        ("{{ $x }}", "{{ $x }}"),
        ("${NUMBER}", 5),
    ],
)
def test_substitution(text: str, becomes: Any) -> None:
    made, missing = substitute(
        manifest({"kind": "X", "spec": {"v": text}}, "test"),
        {"A": "one", "B": "two", "NUMBER": "5"},
    )
    assert made["spec"]["v"] == becomes
    assert not missing


def test_substitution_of_what_nobody_defines() -> None:
    made, missing = substitute(manifest({"kind": "X", "spec": {"v": "a${NONE}b"}}, "test"), {})
    assert made["spec"]["v"] == "ab"
    assert missing == ("NONE",)


def test_substitution_can_be_switched_off() -> None:
    data = {
        "kind": "X",
        "metadata": {"annotations": {"kustomize.toolkit.fluxcd.io/substitute": "disabled"}},
        "spec": "${A}",
    }
    made, missing = substitute(manifest(data, "test"), {"A": "one"})
    assert (made["spec"], missing) == ("${A}", ())


def _config_map(name: str) -> str:
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n"
