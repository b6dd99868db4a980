"""What a change does to the cluster, and that no secret is shown."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.copies import commit, copied, edit
from tests.ran import ran

from stackproof.cli import main
from stackproof.errors import StackproofError
from stackproof.flux import diff
from stackproof.flux.tree import build
from stackproof.helm.manifests import Manifest
from stackproof.repo.checkout import Checkout


@pytest.fixture
def repository(checkout: Checkout, tmp_path: Path) -> Checkout:
    """A Git repository with this checkout's tree, committed."""
    made = copied(checkout, tmp_path)
    commit(tmp_path, "tools\n")
    (tmp_path / "tools").symlink_to(checkout.tools)
    return made


@pytest.fixture
def flux(
    repository: Checkout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """What runs `stackproof flux WORDS`, and returns its exit code and what it printed."""
    monkeypatch.setattr(Checkout, "find", lambda: repository)
    monkeypatch.chdir(repository.root)
    return lambda *words: (main(["flux", *words]), capsys.readouterr().out)


def _since_head(repository: Checkout) -> tuple[diff.ObjectDiff, ...]:
    return _changed(repository)[0]


def _changed(repository: Checkout) -> tuple[tuple[diff.ObjectDiff, ...], tuple[str, ...]]:
    """Return what differs from the last commit, and what data that loses."""
    with diff.revision(repository, "HEAD") as before:
        was, now = build(before), build(repository)
        return diff.diff(was, now), diff.lost(was, now)


def _grow_mimir(repository: Checkout) -> None:
    edit(repository.observability / "mimir-values.yaml", "size: 250Gi", "size: 4321Gi")


def test_nothing(repository: Checkout) -> None:
    entries = _since_head(repository)
    assert not entries
    assert diff.summary(entries) == "nothing changes in the cluster"


def test_changed_value_shows_in_what_it_renders(repository: Checkout) -> None:
    edit(repository.observability / "gateway-values.yaml", "replicas: 2", "replicas: 3")
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
    kept = {entry.title for entry in entries if entry.change is diff.Change.KEPT}
    assert "Namespace/enterprise-b (step tenant-enterprise-b)" in kept
    assert "Role/release in enterprise-b (step tenant-enterprise-b)" in kept
    stays = {"Namespace", "PersistentVolumeClaim", "Role", "RoleBinding", "ServiceAccount"}
    assert {title.partition("/")[0] for title in kept} == stays
    removed = {entry.title for entry in entries if entry.change is diff.Change.REMOVED}
    assert "HelmRelease/open-webui in enterprise-b (step tenant-enterprise-b)" in removed
    assert len(removed) + len(kept) == len(entries)


def test_no_repository(tmp_path: Path) -> None:
    """Whatever the revision is called: git says what is wrong, and another name would not help."""
    with (
        pytest.raises(StackproofError, match="git cannot read it: not a git repository") as raised,
        diff.revision(Checkout(tmp_path), "HEAD"),
    ):
        pass
    assert "Name a branch" not in str(raised.value)


def test_unknown_revision(repository: Checkout) -> None:
    with (
        pytest.raises(StackproofError, match="git has no revision 'nowhere'"),
        diff.revision(repository, "nowhere"),
    ):
        pass


def test_command_writes_markdown(
    repository: Checkout, flux: Callable[..., tuple[int, str]]
) -> None:
    shutil.rmtree(repository.flux / "tenants" / "enterprise-b")
    _grow_mimir(repository)
    code, told = flux("diff", "HEAD", "--markdown", "out/diff.md")
    assert code == 1
    assert "kept Namespace/enterprise-b" in told
    assert "removed HelmRelease/open-webui in enterprise-b" in told
    assert "refused StatefulSet/mimir" in told
    markdown = (repository.root / "out/diff.md").read_text()
    assert "<summary>removed: HelmRelease/open-webui in enterprise-b" in markdown
    assert flux("diff", "HEAD", "--fail-on", "none")[0] == 0


@pytest.mark.parametrize(
    ("fail_on", "ends"), [(None, 2), ("refused", 2), ("data-loss", 0), ("none", 0)]
)
def test_the_target_of_the_workflow_fails_on_what_is_refused(
    fail_on: str | None, ends: int, checkout: Checkout, repository: Checkout
) -> None:
    """Make ends with 2 for any failure of its own."""
    _grow_mimir(repository)
    words = [f"BIN={Path(sys.executable).parent}", "READY=", "REV=HEAD", "GITHUB_STEP_SUMMARY="]
    words += [f"FAIL_ON={fail_on}"] if fail_on else []
    done = ran(
        ["make", "--silent", "-f", checkout.root / ".github" / "ci.mk", "flux-diff", *words],
        cwd=repository.root,
    )
    assert done.returncode == ends, done.stderr
    assert "refused StatefulSet/mimir" in done.stdout
    assert "Kubernetes refuses" in (repository.root / "build/report/flux-diff.md").read_text()


#: A file, what is put into it, what does not build then, and an object that must not be "removed".
BROKEN = [
    (
        "flux/base/open-webui/helmrelease.yaml",
        "  values:\n",
        "  values:\n    serchng: {}\n",
        "HelmRelease enterprise-a/open-webui does not build",
    ),
    (
        "flux/observability/kustomization.yaml",
        "  - helmrelease.yaml\n",
        "  - helmrelease.yaml\n  - missing.yaml\n",
        "step observability does not build",
    ),
    (
        "flux/clusters/production/tenants.yaml",
        "  prune: true\n",
        "  prune: maybe\n",
        "step flux-system does not build",
    ),
]


@pytest.mark.parametrize(("file", "old", "new", "told"), BROKEN)
def test_what_does_not_build_is_no_removal(
    repository: Checkout,
    flux: Callable[..., tuple[int, str]],
    file: str,
    old: str,
    new: str,
    told: str,
) -> None:
    path = repository.root / file
    good = path.read_text(encoding="utf-8")
    edit(path, old, new)
    code, said = flux("diff", "HEAD", "--markdown", "diff.md")
    assert code == 2
    assert f"error {told}" in said
    assert "removed" not in said
    assert told in (repository.root / "diff.md").read_text(encoding="utf-8")
    assert flux("build")[0] == 2
    assert flux("check")[0] == 1
    # The other way: what did not build before shows as added, and as not known.
    commit(repository.root)
    path.write_text(good, encoding="utf-8")
    code, said = flux("diff", "HEAD")
    assert code == 2
    assert "error " + told.replace("does not build", "did not build at HEAD") in said
    assert "added" in said


def test_files_of_older_fields_are_looked_at(repository: Checkout) -> None:
    folder = repository.flux / "infrastructure"
    with (folder / "kustomization.yaml").open("a") as file:
        file.write("patchesStrategicMerge: [p.yaml]\n")
    patch = "apiVersion: v1\nkind: Namespace\nmetadata: {name: observability, labels: {x: '%s'}}\n"
    (folder / "p.yaml").write_text(patch % 1)
    commit(repository.root)
    (folder / "p.yaml").write_text(patch % 2)
    (entry,) = _since_head(repository)
    assert entry.title == "Namespace/observability (step infrastructure)"


#: What keeps the objects of a step when it goes.
KEEPS = pytest.mark.parametrize("kept", ["prune: false", "prune: true\n  deletionPolicy: Orphan"])


@KEEPS
def test_what_stays_in_the_cluster_is_told(repository: Checkout, kept: str) -> None:
    path = repository.flux / "clusters/production/tenants.yaml"
    edit(path, "prune: true", kept)
    commit(repository.root)
    path.unlink()
    changes = {entry.change for entry in _since_head(repository) if "tenants)" in entry.title}
    assert changes == {diff.Change.KEPT}


STEP = "clusters/production/observability.yaml"
RELEASE = "observability/helmrelease.yaml"
#: What Flux deletes and makes anew though it is in both trees: a file, and what becomes what in it.
ANEW = [
    (RELEASE, "releaseName: lgtm", "releaseName: other", "uninstalls lgtm and then installs other"),
    (RELEASE, "releaseName:", "storageNamespace: x\n  releaseName:", "uninstalls it first"),
    (STEP, "name: observability", "name: other", "uninstalls it first"),
    ("../charts/lgtm/Chart.yaml", "name: lgtm", "name: other", "uninstalls it first"),
]


@pytest.mark.parametrize(("file", "old", "new", "told"), ANEW)
def test_what_is_deleted_and_made_anew_is_told(
    repository: Checkout, file: str, old: str, new: str, told: str
) -> None:
    edit(repository.flux / file, old, new, 1)
    entries, data = _changed(repository)
    mimir = next(entry for entry in entries if entry.key[1:] == MIMIR)
    assert mimir.change is diff.Change.REPLACED
    assert not mimir.refused, "it is not changed, but made anew"
    assert f"HelmRelease observability/lgtm: Flux {told}" in data[0]


MIMIR = ("StatefulSet", "observability", "mimir")


@KEEPS
def test_what_is_handed_over_is_not_made_anew(repository: Checkout, kept: str) -> None:
    path = repository.flux / STEP
    edit(path, "prune: true", kept, 1)
    commit(repository.root)
    edit(path, "name: observability", "name: other", 1)
    entries, data = _changed(repository)
    assert {entry.key[1] for entry in entries} == {"Kustomization"}
    assert not data


def test_what_the_earlier_step_waits_for_is_handed_over(repository: Checkout) -> None:
    """The step that has applied it prunes nothing that by then is another's."""
    steps = repository.flux / STEP
    folder = repository.flux / "observability"
    shutil.copytree(folder, repository.flux / "other")
    text = steps.read_text()
    other = text.replace("name: observability", "name: other", 1).replace(
        "path: ./flux/observability", "path: ./flux/other"
    )
    assert "- name: secret-store" in text
    both = text.replace("- name: secret-store", "- name: secret-store\n    - name: other", 1)
    steps.write_text(f"{both}\n---\n{other.removeprefix('---')}")
    kustomization = folder / "kustomization.yaml"
    kustomization.write_text("resources: []\nconfigMapGenerator: [{name: a, literals: [b=c]}]\n")
    assert diff.Change.REPLACED not in {entry.change for entry in _since_head(repository)}


#: Objects that Kubernetes does not take, or of a kind that anything can be; what is told of each.
ODD = [
    ("apps/v1", "Deployment", "spec: 7", "could not be built"),
    ("apps/v1", "StatefulSet", "spec: {template: none, volumeClaimTemplates: 7}", "not be built"),
    ("v1", "PersistentVolumeClaim", "spec: {resources: [1]}", "refuses it"),
    ("v1", "Secret", "data: text", "refuses it"),
    ("v1", "ConfigMap", "data: {a: {b: c}}", "refuses it"),
    ("external-secrets.io/v1beta1", "ExternalSecret", "spec: {data: [7]}", None),
    ("example.test/v1", "Deployment", "spec: text", None),
    ("monitoring.coreos.com/v1", "PodMonitor", "spec: [a]", None),
]


@pytest.mark.parametrize(("version", "kind", "odd", "told"), ODD)
def test_odd_objects(
    repository: Checkout, version: str, kind: str, odd: str, told: str | None
) -> None:
    """Put there, changed into and out of, and taken away: an answer each time."""
    path = repository.flux / "infrastructure" / "odd.yaml"
    base = f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: odd, namespace: reloader}}\n"
    edit(path.parent / "kustomization.yaml", "resources:\n", "resources:\n  - odd.yaml\n")
    texts = [base, base + odd + "\n", base + odd + " \nextra: {}\n"]
    trees = []
    for text in texts:
        path.write_text(text)
        trees.append(build(repository))
    for was, now in itertools.permutations(trees, 2):
        entries = diff.diff(was, now)
        diff.lost(was, now)
        said = diff.as_markdown(entries, "before", diff.failures(was, now, "before"))
        if not told:
            assert "refuses it" not in said
        elif now is trees[1]:
            assert told in said


def test_what_was_unguarded_before_is_no_loss_of_a_change(repository: Checkout) -> None:
    """A claim without a policy, as other people have; one that loses it is told."""
    path = repository.flux / "infrastructure" / "claim.yaml"
    claim = """\
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: reloader%s}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"""
    edit(path.parent / "kustomization.yaml", "resources:\n", "resources:\n  - claim.yaml\n")
    path.write_text(claim % "")
    plain = build(repository)
    path.write_text(claim % ", annotations: {helm.sh/resource-policy: keep}")
    kept = build(repository)
    assert diff.lost(plain, plain) == ()
    assert diff.lost(plain, kept) == ()
    (loss,) = diff.lost(kept, plain)
    assert "PersistentVolumeClaim/data in reloader: unguarded" in loss


@pytest.mark.parametrize("link", ["/etc/hostname", "../../outside", "link.yaml", "nowhere"])
def test_links_in_git_are_no_obstacle(repository: Checkout, link: str) -> None:
    (repository.flux / "link.yaml").symlink_to(link)
    commit(repository.root)
    assert not _since_head(repository)


def test_what_git_archives_leave_out_is_there(repository: Checkout) -> None:
    """Flux clones: `export-ignore` is nothing to it."""
    (repository.root / ".gitattributes").write_text("/flux/observability export-ignore\n")
    commit(repository.root)
    assert not _since_head(repository)


def test_line_ends_are_those_of_git(repository: Checkout) -> None:
    """Whatever git makes of them on this machine: Flux takes them as they are."""
    git = ["git", "-C", str(repository.root)]
    subprocess.run([*git, "config", "core.autocrlf", "true"], check=True)
    assert not _since_head(repository)


def test_a_tree_in_a_folder_of_its_repository(repository: Checkout, tmp_path: Path) -> None:
    outer = tmp_path.with_name(f"{tmp_path.name}-outer")
    shutil.copytree(
        repository.root, outer / "inner", ignore=shutil.ignore_patterns(".git", "tools")
    )
    commit(outer)
    assert not _since_head(Checkout(outer / "inner"))


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
        {"apiVersion": "v1", "kind": "Secret", "data": "HIDDEN"},
        {"apiVersion": "v1", "kind": "Secret", "stringData": ["HIDDEN"]},
        {"kind": "HelmRelease", "spec": {"values": {"secrets": {"gatewayPassword": "HIDDEN"}}}},
        {"kind": "HelmRelease", "spec": {"values": {"openaiApiKey": "HIDDEN"}}},
        {"kind": "Deployment", "spec": [{"env": {"API_TOKEN": "HIDDEN"}}]},
        {"kind": "ConfigMap", "data": {"x.yaml": "a: b\n  admin_password: HIDDEN\n"}},
        {"kind": "ConfigMap", "data": {"x.ini": "[a]\nsecret_key = 'HIDDEN'\n"}},
        {"kind": "Pod", "spec": [{"env": [{"name": "DB_PASSWORD", "value": "HIDDEN"}]}]},
        {"kind": "Pod", "spec": {"args": ["--admin-password", "HIDDEN"]}},
        {"kind": "Pod", "spec": {"args": ["--admin-password=HIDDEN"]}},
        {"kind": "HelmRelease", "spec": {"values": {"clientSecret": "HIDDEN"}}},
        {"kind": "HelmRelease", "spec": {"values": {"AWS_SECRET_ACCESS_KEY": "HIDDEN"}}},
        {"kind": "HelmRelease", "spec": {"values": {"passwords": ["HIDDEN"]}}},
        {"kind": "HelmRelease", "spec": {"values": {"credentials": {"admin": "HIDDEN"}}}},
        {"kind": "HelmRelease", "spec": {"values": {"password": "/HIDDEN"}}},
        {"kind": "HelmRelease", "spec": {"values": {"password": "$2y$10$HIDDEN"}}},
        {"kind": "HelmRelease", "spec": {"values": {"privateKey": "a\nHIDDEN\n"}}},
        {"kind": "HelmRelease", "spec": {"values": {"url": "postgres://u:HIDDEN@h/db"}}},
        {"kind": "ConfigMap", "data": {"x.json": '{"user": "u", "password": "HIDDEN"}'}},
        {"kind": "ConfigMap", "data": {"x.json": '{"password_file": "u", "password": "HIDDEN"}'}},
        {"kind": "ConfigMap", "data": {"x.json": '{\n  "password": "HIDDEN"\n}\n'}},
        {"kind": "ConfigMap", "data": {"x.yaml": "a: 1\npassword: |\n  HIDDEN\nb: 1\n"}},
        {"kind": "ConfigMap", "data": {"x.yaml": "- name: API_KEY\n  value: HIDDEN\n"}},
        {"kind": "ConfigMap", "data": {"x.yaml": "a:\n  - password: HIDDEN\n"}},
        {"kind": "ConfigMap", "data": {"x.sh": "set -e\nexport API_TOKEN=HIDDEN\n"}},
        {"kind": "ConfigMap", "data": {"x": "a: b\nAuthorization: Bearer HIDDEN\n"}},
        {
            "kind": "ConfigMap",
            "data": {"x": "-----BEGIN PRIVATE KEY-----\nHIDDEN\n-----END PRIVATE KEY-----\n"},
        },
        {
            "kind": "Kustomization",
            "spec": {"patch": "- op: add\n  path: /data/password\n  value: HIDDEN\n"},
        },
    ],
)
def test_secrets_are_masked(data: dict[str, object]) -> None:
    shown = diff.as_yaml(Manifest.of(data, "test"))
    assert "HIDDEN" not in shown
    assert "***" in shown
    changed = Manifest.of({**data, "metadata": {}}, "test")
    assert diff.masked(changed)["kind"] == data["kind"]


def test_a_number_may_be_a_secret() -> None:
    values = {"adminPassword": 271828, "maxTokens": 4096, "passwordAuth": True}
    shown = diff.masked(Manifest.of({"kind": "HelmRelease", "values": values}, "test"))["values"]
    assert "271828" not in shown["adminPassword"]
    assert (shown["maxTokens"], shown["passwordAuth"]) == (4096, True)


@pytest.mark.parametrize(
    "data",
    [
        {"kind": "ExternalSecret", "spec": {"data": [{"secretKey": "SHOWN"}]}},
        {"kind": "Provider", "spec": {"secretRef": {"name": "SHOWN"}}},
        {"kind": "ConfigMap", "data": {"x": "a:\n  password: ${SHOWN}\n"}},
        {"kind": "ConfigMap", "data": {"x": 'a {\n  password = sys.env("SHOWN")\n}\n'}},
        {"kind": "HelmRelease", "spec": {"values": {"existingSecret": "SHOWN"}}},
        {"kind": "Pod", "spec": {"imagePullSecrets": ["SHOWN"]}},
        {"kind": "Pod", "spec": {"args": ["--token-file", "SHOWN", "--auth-token", "--SHOWN"]}},
        {"kind": "ConfigMap", "data": {"x": "u: postgres://u:$(PASSWORD)@SHOWN/db\n"}},
        {"kind": "ConfigMap", "data": {"x": "image: ghcr.io/a/token-service:SHOWN\n"}},
        {"kind": "ConfigMap", "data": {"x": "password: /run/secrets/SHOWN\n"}},
    ],
)
def test_what_only_names_a_secret_is_shown(data: dict[str, object]) -> None:
    assert "SHOWN" in diff.as_yaml(Manifest.of(data, "test"))


def test_changed_secret_shows_as_changed() -> None:
    one, other = (
        diff.masked(Manifest.of({"apiVersion": "v1", "kind": "Secret", "data": {"k": value}}, "t"))
        for value in ("first", "second")
    )
    assert one != other


def test_lost_data_is_told(repository: Checkout) -> None:
    """A tenant's release gets other names, and Weaviate a version far from its own."""
    path = repository.flux / "tenants" / "soev" / "tenant.yaml"
    edit(path, "            fullnameOverride: open-webui-open-webui-stack\n", "")
    edit(path, "tag: 1.28.4", "tag: 1.35.2")
    entries, data = _changed(repository)
    for what in (
        "data-open-webui-open-webui-stack-postgres-0 in open-webui: orphaned",
        "data-open-webui-open-webui-stack-weaviate-0 in open-webui: orphaned",
        "its database was openwebui on open-webui-open-webui-stack-postgres.open-webui",
        "weaviate: 1.28.4 to 1.35.2 skips versions; first 1.29, 1.30",
    ):
        assert any(what in text for text in data), what
    assert "orphaned" in diff.as_markdown(entries, "main", data=data).split("<details>")[0]


def test_no_data_is_lost_where_none_is(repository: Checkout) -> None:
    edit(repository.observability / "gateway-values.yaml", "replicas: 2", "replicas: 3")
    assert _changed(repository)[1] == ()


def test_a_password_from_elsewhere_is_told(repository: Checkout) -> None:
    path = repository.flux / "tenants" / "enterprise-a" / "tenant.yaml"
    edit(path, "SECRET_PREFIX: enterprise-a", "SECRET_PREFIX: acme")
    data = _changed(repository)[1]
    assert any(
        "postgres-password comes from acme-postgres-password instead of enterprise-a-postgres-pass"
        in text
        for text in data
    ), data
