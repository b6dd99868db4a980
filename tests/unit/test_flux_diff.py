"""What a change does to the cluster, and that no secret is shown."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from stackproof.checkout import Checkout
from stackproof.commands import flux as command
from stackproof.errors import StackproofError
from stackproof.flux import diff
from stackproof.flux.kustomize import manifest
from stackproof.flux.tree import build


@pytest.fixture
def repository(checkout: Checkout, tmp_path: Path) -> Checkout:
    """A Git repository with this checkout's tree, committed."""
    for name in ("charts", "flux", "observability", "schemas", ".github"):
        shutil.copytree(checkout.root / name, tmp_path / name)
    shutil.copy(checkout.versions_file, tmp_path)
    _git(tmp_path, "init", "--quiet")
    _git(tmp_path, "add", "--all")
    _git(tmp_path, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "t")
    return Checkout(tmp_path)


def _git(folder: Path, *args: str) -> None:
    subprocess.run(["git", "-C", folder, *args], check=True)


def _since_head(repository: Checkout) -> tuple[diff.ObjectDiff, ...]:
    with diff.revision(repository, "HEAD") as before:
        return diff.diff(build(before), build(repository))


def _grow_mimir(repository: Checkout) -> None:
    path = repository.observability / "mimir-values.yaml"
    text = path.read_text()
    assert "size: " in text
    path.write_text(re.sub(r"size: \S+", "size: 4321Gi", text, count=1))


def test_nothing(repository: Checkout) -> None:
    entries = _since_head(repository)
    assert not entries
    assert diff.summary(entries) == "nothing changes in the cluster"


def test_changed_value_shows_in_what_it_renders(repository: Checkout) -> None:
    path = repository.observability / "gateway-values.yaml"
    path.write_text(path.read_text().replace("replicas: 2", "replicas: 3"))
    entries = _since_head(repository)
    by_title = {entry.title: entry for entry in entries}
    assert set(by_title) == {
        "ConfigMap/lgtm-values in observability (step observability)",
        "Deployment/gateway in observability (HelmRelease observability/lgtm)",
    }
    gateway = by_title["Deployment/gateway in observability (HelmRelease observability/lgtm)"]
    assert gateway.change is diff.Change.CHANGED
    assert [line for line in gateway.lines if line[0] in "+-"] == [
        "-  replicas: 2",
        "+  replicas: 3",
    ]


def test_removed_tenant(repository: Checkout) -> None:
    shutil.rmtree(repository.flux / "tenants" / "enterprise-b")
    entries = _since_head(repository)
    assert {entry.change for entry in entries} == {diff.Change.REMOVED}
    assert "Namespace/enterprise-b (step tenant-enterprise-b)" in {e.title for e in entries}


def test_unknown_revision(repository: Checkout) -> None:
    with (
        pytest.raises(StackproofError, match="git has no revision 'nowhere'"),
        diff.revision(repository, "nowhere"),
    ):
        pass


def test_command_writes_markdown(
    checkout: Checkout,
    repository: Checkout,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.rmtree(repository.flux / "tenants" / "enterprise-b")
    _grow_mimir(repository)
    (repository.root / "tools").symlink_to(checkout.tools)
    monkeypatch.setattr(Checkout, "find", lambda: repository)
    parser = argparse.ArgumentParser()
    command.configure(parser)
    target = repository.root / "out" / "diff.md"
    assert command.run(parser.parse_args(["diff", "HEAD", "--markdown", str(target)])) == 0
    told = capsys.readouterr().out
    assert "removed Namespace/enterprise-b" in told
    assert "refused StatefulSet/mimir" in told
    assert "<summary>removed: Namespace/enterprise-b" in target.read_text()


def test_what_kubernetes_refuses_is_said_first(repository: Checkout) -> None:
    """A volume of a StatefulSet cannot grow by a merge: the upgrade would fail."""
    _grow_mimir(repository)
    entries = _since_head(repository)
    (warning,) = diff.warnings(entries)
    assert "StatefulSet/mimir in observability" in warning
    assert "refuses to change spec.volumeClaimTemplates" in warning
    assert "--cascade=orphan" in warning
    markdown = diff.as_markdown(entries, "main")
    assert markdown.index("[!CAUTION]") < markdown.index(warning) < markdown.index("<details>")


def test_markdown_is_cut(repository: Checkout) -> None:
    shutil.rmtree(repository.flux / "tenants" / "enterprise-b")
    text = diff.as_markdown(_since_head(repository), "main", limit=2000)
    assert len(text) < 2200
    assert "more: see the artifact" in text


@pytest.mark.parametrize(
    "data",
    [
        {"apiVersion": "v1", "kind": "Secret", "data": {"anything": "HIDDEN"}},
        {"apiVersion": "v1", "kind": "Secret", "stringData": {"user": "HIDDEN"}},
        {"kind": "HelmRelease", "spec": {"values": {"secrets": {"gatewayPassword": "HIDDEN"}}}},
        {"kind": "HelmRelease", "spec": {"values": {"openaiApiKey": "HIDDEN"}}},
        {"kind": "Deployment", "spec": [{"env": {"API_TOKEN": "HIDDEN"}}]},
        {"kind": "ConfigMap", "data": {"x.yaml": "a: b\n  admin_password: HIDDEN\n"}},
        {"kind": "ConfigMap", "data": {"x.ini": "[a]\nsecret_key = 'HIDDEN'\n"}},
    ],
)
def test_secrets_are_masked(data: dict[str, object]) -> None:
    shown = diff.as_yaml(manifest(data, "test"))
    assert "HIDDEN" not in shown
    assert "***" in shown
    changed = manifest({**data, "metadata": {}}, "test")
    assert diff.masked(changed)["kind"] == data["kind"]


@pytest.mark.parametrize(
    "data",
    [
        {"kind": "ExternalSecret", "spec": {"data": [{"secretKey": "SHOWN"}]}},
        {"kind": "Provider", "spec": {"secretRef": {"name": "SHOWN"}}},
        {"kind": "ConfigMap", "data": {"x": "a:\n  password: ${SHOWN}\n"}},
        {"kind": "ConfigMap", "data": {"x": 'a {\n  password = sys.env("SHOWN")\n}\n'}},
    ],
)
def test_what_only_names_a_secret_is_shown(data: dict[str, object]) -> None:
    assert "SHOWN" in diff.as_yaml(manifest(data, "test"))


def test_changed_secret_shows_as_changed() -> None:
    one, other = (
        diff.masked(manifest({"apiVersion": "v1", "kind": "Secret", "data": {"k": value}}, "t"))
        for value in ("first", "second")
    )
    assert one != other


def test_lost_data_is_told(repository: Checkout) -> None:
    """A tenant's release gets other names, and Weaviate a version far from its own."""
    path = repository.flux / "tenants" / "soev" / "tenant.yaml"
    text = path.read_text()
    name = "            fullnameOverride: open-webui-open-webui-stack\n"
    assert name in text
    path.write_text(text.replace(name, "").replace("tag: 1.28.4", "tag: 1.35.2"))
    with diff.revision(repository, "HEAD") as before:
        old, new = build(before), build(repository)
        entries, data = diff.diff(old, new), diff.lost(old, new)
    for what in (
        "data-open-webui-open-webui-stack-postgres-0 in open-webui: orphaned",
        "data-open-webui-open-webui-stack-weaviate-0 in open-webui: orphaned",
        "its database was openwebui on open-webui-open-webui-stack-postgres.open-webui",
        "weaviate: 1.28.4 to 1.35.2 skips versions; first 1.29, 1.30",
    ):
        assert any(what in text for text in data), what
    assert "orphaned" in diff.as_markdown(entries, "main", data=data).split("<details>")[0]


def test_no_data_is_lost_where_none_is(repository: Checkout) -> None:
    path = repository.observability / "gateway-values.yaml"
    path.write_text(path.read_text().replace("replicas: 2", "replicas: 3"))
    with diff.revision(repository, "HEAD") as before:
        assert diff.lost(build(before), build(repository)) == ()


def test_a_password_from_elsewhere_is_told(repository: Checkout) -> None:
    path = repository.flux / "tenants" / "enterprise-a" / "tenant.yaml"
    path.write_text(path.read_text().replace("SECRET_PREFIX: enterprise-a", "SECRET_PREFIX: acme"))
    with diff.revision(repository, "HEAD") as before:
        data = diff.lost(build(before), build(repository))
    assert any(
        "postgres-password comes from acme-postgres-password instead of enterprise-a-postgres-pass"
        in text
        for text in data
    ), data
