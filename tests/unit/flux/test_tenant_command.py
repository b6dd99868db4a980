"""`stackproof tenant add` writes the registry's entry and one folder, and the tree stays right."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import pytest
from tests.copies import copied

from stackproof.checks.deployment import DEPLOYMENT, RenderedDeployment
from stackproof.commands import tenant as command
from stackproof.errors import StackproofError
from stackproof.flux import tenancy
from stackproof.flux import tenant as folders
from stackproof.flux.checks import Subject, problems
from stackproof.flux.deployment import Deployment
from stackproof.repo.checkout import Checkout

#: A tenant that this repository will hardly have.
NEW = "a-newcomer"


@pytest.fixture
def copy(checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    made = copied(checkout, tmp_path)
    (tmp_path / "tools").symlink_to(checkout.tools)
    monkeypatch.setattr(Checkout, "find", lambda: made)
    return made


def _run(*args: str) -> None:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    assert command.run(parser.parse_args(args)) == 0


def _files(checkout: Checkout) -> dict[str, str]:
    return {
        str(path.relative_to(checkout.root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in checkout.root.rglob("*")
        if path.is_file()
    }


def test_add_changes_two_places_and_breaks_nothing(copy: Checkout) -> None:
    before = _files(copy)
    text = copy.tenants_file.read_text()
    _run("add", NEW)
    after = _files(copy)
    changed = {name for name in after if before.get(name) != after[name]}
    assert changed == {"observability/tenants.yaml", f"flux/tenants/{NEW}/tenant.yaml"}
    assert copy.tenants_file.read_text().startswith(text), "the rest of the file is as it was"
    assert list(problems(Subject.load(copy))) == []
    deployed = RenderedDeployment(Deployment.load(copy))
    assert [m for check in DEPLOYMENT for m in check.find(deployed)] == []


def test_remove_undoes_add(copy: Checkout) -> None:
    before = _files(copy)
    _run("add", NEW, "--namespace", "apps-acme", "--secret-prefix", "a1", "--host", "a.test")
    text = (copy.flux / "tenants" / NEW / "tenant.yaml").read_text()
    for line in ("NAMESPACE: apps-acme", "SECRET_PREFIX: a1", "HOST: a.test"):
        assert line in text
    _run("remove", NEW)
    assert _files(copy) == before


def test_same_folder_as_those_that_are_there(copy: Checkout) -> None:
    there = copy.flux / "tenants" / "enterprise-b" / "tenant.yaml"
    text = there.read_text()
    _run("remove", "enterprise-b")
    assert list(problems(Subject.load(copy))) == []
    _run("add", "enterprise-b")
    assert there.read_text() == text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["add", "soev"], "already taken in line"),
        (["add", "Acme"], "does not match"),
        (["add", "admin"], "'admin' cannot be used .the gateway's administrator"),
        (["add", "import"], "'import' cannot be used .the gateway, Caddy"),
        (["add", "123"], "'123' cannot be used .YAML reads it as a number"),
        (["add", "yes"], "'yes' cannot be used .YAML reads it as a truth value"),
        (["add", "y"], "'y' cannot be used .YAML reads it as a truth value"),
        (["add", "a" * 35], "is longer than 34 characters .Grafana"),
        (["add", NEW, "--host", "1.5"], "is not text to YAML"),
        (["add", NEW, "--secret-prefix", "1e3"], "'1e3' cannot be used .YAML reads it as a number"),
        (["add", NEW, "--secret-prefix", "soev-x", "--namespace", "open-webui"], "already taken"),
        (["add", NEW, "--namespace", "observability"], "a namespace of the platform"),
        (["add", NEW, "--namespace", "kube-system"], "a namespace of Kubernetes or of GKE"),
        (["add", "grafana"], "'grafana.soev.ai' is taken: Ingress/grafana serves it"),
        (
            ["add", NEW, "--host", "enterprise-a.soev.ai"],
            "'enterprise-a.soev.ai' is taken: Ingress",
        ),
        (["remove", "nobody"], "no tenant 'nobody'"),
    ],
)
def test_refused(copy: Checkout, args: list[str], message: str) -> None:
    before = _files(copy)
    with pytest.raises(StackproofError, match=message):
        _run(*args)
    assert _files(copy) == before


@pytest.mark.parametrize("interrupted", ["check_free", "write"])
def test_ctrl_c_leaves_no_half_tenant(
    copy: Checkout, interrupted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = {"check_free": tenancy, "write": folders}[interrupted]
    whole = getattr(module, interrupted)

    def press(*args: object) -> None:
        whole(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, interrupted, press)
    before = _files(copy)
    with pytest.raises(KeyboardInterrupt):
        _run("add", NEW)
    assert _files(copy) == before


def test_folder_of_an_unknown_tenant_is_kept(copy: Checkout) -> None:
    (copy.flux / "tenants" / NEW).mkdir()
    with pytest.raises(StackproofError, match=f"flux/tenants/{NEW}: is there already"):
        _run("add", NEW)


def test_a_namespace_that_something_of_the_tree_is_in_is_taken(copy: Checkout) -> None:
    folder = copy.flux / "infrastructure"
    made = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: x, namespace: backups}\n"
    (folder / "backups.yaml").write_text(made)
    listed = (folder / "kustomization.yaml").read_text()
    (folder / "kustomization.yaml").write_text(f"{listed}  - backups.yaml\n")
    before = _files(copy)
    with pytest.raises(StackproofError, match="'backups' is taken: ServiceAccount/x is in it"):
        _run("add", NEW, "--namespace", "backups")
    assert _files(copy) == before
