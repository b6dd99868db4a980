"""The tree is built as the controllers would build it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from tests.copies import edit

from stackproof.errors import StackproofError
from stackproof.flux.checks import Subject, problems
from stackproof.flux.tree import Tree, build
from stackproof.repo.checkout import Checkout
from stackproof.repo.tenants import load_registry

#: What `flux bootstrap` writes, with shortened CRDs.
BOOTSTRAPPED = Path(__file__).parent / "flux-bootstrap"


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
    edit(copy.observability / "grafana-values.yaml", "memory: 512Mi", "memory: 768Mi")
    before = tree.releases["observability", "lgtm"].manifest
    after = build(copy).releases["observability", "lgtm"].manifest
    assert before != after
    names = {source["name"] for source in after["spec"]["valuesFrom"]}
    assert len(names) == 1
    assert before["spec"]["valuesFrom"][0]["name"] not in names


@pytest.mark.parametrize("patched", [False, True])
def test_files_of_bootstrap_change_nothing(tree: Tree, copy: Checkout, patched: bool) -> None:
    """`flux bootstrap` commits a folder of its own; flux/README.md has people add a patch to it."""
    folder = copy.flux / "clusters" / "production" / "flux-system"
    shutil.copytree(BOOTSTRAPPED, folder)
    if patched:
        readme = (copy.flux / "README.md").read_text(encoding="utf-8")
        (patches,) = re.findall(r"```yaml\n(patches:\n.*?)```", readme, re.DOTALL)
        with (folder / "kustomization.yaml").open("a") as file:
            file.write(patches)
    built = build(copy)
    assert [step.name for step in built.steps] == [step.name for step in tree.steps]
    controller = built.find("Deployment", "flux-system", "kustomize-controller")
    assert controller
    (container,) = controller["spec"]["template"]["spec"]["containers"]
    assert any("CancelHealthCheck" in arg for arg in container["args"]) is patched
    assert list(problems(Subject.load(copy))) == []


def test_cluster_that_is_not_there(checkout: Checkout) -> None:
    with pytest.raises(StackproofError, match=r"clusters/staging: .*There is: production"):
        build(checkout, "staging")
