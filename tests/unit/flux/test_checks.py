"""The Flux tree is right, and each check of it notices its fault."""

from __future__ import annotations

import re

import pytest
from tests.copies import edit

from stackproof.errors import UsageError
from stackproof.flux.checks import FLUX as CHECKS
from stackproof.flux.checks import Subject, problems
from stackproof.flux.delivered import differing
from stackproof.flux.deployment import Deployment
from stackproof.repo.checkout import Checkout
from stackproof.twins import TWINS as ALL
from stackproof.twins.flux import FLUX as TWINS

IMAGES = "flux/flux-system/image-automation.yaml"
#: Faults beside the twins', which prove each check once: file, old, new, check, message.
FAULTS = [
    (
        "flux-system/image-automation.yaml",
        "        name: FluxCD Bot\n",
        "",
        "branches-are-proven",
        "do not say by whom they are",
    ),
    (
        "tenants/enterprise-b/tenant.yaml",
        "interval: 10m",
        "interval: 60m",
        "tenants-match",
        "step tenant-enterprise-b: interval is 60m",
    ),
    (
        "tenants/enterprise-b/tenant.yaml",
        "name: tenant-enterprise-b",
        "name: enterprise-b",
        "tenants-match",
        "there is no step tenant-enterprise-b",
    ),
    (
        "secret-store/tenant-secrets.yaml",
        "failurePolicy: Fail",
        "failurePolicy: Refuse",
        "kinds-served",
        "no failurePolicy Refuse",
    ),
]


#: What may stand in one tenant's file: what it says, and what is wrong with it, "" for nothing.
PATCHES = [
    (
        "a patch of the HelmRelease alone",
        """\
  patches:
    - patch: |
        apiVersion: helm.toolkit.fluxcd.io/v2
        kind: HelmRelease
        metadata: {name: open-webui, namespace: '${NAMESPACE}'}
        spec: {values: {openWebui: {replicas: 2}}}
""",
        "",
    ),
    (
        "more rights than the others have",
        """\
  patches:
    - target: {kind: RoleBinding, name: release}
      patch: |
        - {op: replace, path: /roleRef/name, value: cluster-admin}
""",
        "step tenant-enterprise-b: changes RoleBinding/release: only its HelmRelease is",
    ),
    (
        "no namespace",
        """\
  patches:
    - patch: |
        $patch: delete
        apiVersion: v1
        kind: Namespace
        metadata: {name: '${NAMESPACE}'}
""",
        "step tenant-enterprise-b: changes Namespace/${NAMESPACE}",
    ),
]


@pytest.fixture(scope="module")
def subject(checkout: Checkout) -> Subject:
    return Subject.load(checkout)


@pytest.mark.parametrize("name", CHECKS.names)
def test_holds(name: str, subject: Subject) -> None:
    problems = list(CHECKS[name].find(subject))
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(("file", "old", "new", "check", "message"), FAULTS)
def test_a_fault_is_noticed(
    copy: Checkout, file: str, old: str, new: str, check: str, message: str
) -> None:
    edit(copy.flux / file, old, new)
    (problem,) = CHECKS[check].find(Subject.load(copy))
    assert message in problem


def test_the_readmes_patches_may_stand_in_a_tenants_file(copy: Checkout) -> None:
    readme = (copy.flux / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(  patches:\n.*?)```", readme, re.DOTALL)
    _write_into_a_tenants_file(copy, example)
    assert list(problems(Subject.load(copy))) == []


@pytest.mark.parametrize(
    ("patches", "message"), [p[1:] for p in PATCHES], ids=[p[0] for p in PATCHES]
)
def test_only_the_release_is_a_tenants_own(copy: Checkout, patches: str, message: str) -> None:
    _write_into_a_tenants_file(copy, patches)
    found = list(CHECKS["tenants-match"].find(Subject.load(copy)))
    assert [message in problem for problem in found] == ([True] if message else []), found


def _write_into_a_tenants_file(copy: Checkout, text: str) -> None:
    path = copy.flux / "tenants/enterprise-b/tenant.yaml"
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


LGTM = "flux/observability/helmrelease.yaml"
RELEASE = "  releaseName: lgtm\n"
RENDERED = RELEASE + "  postRenderers: [{kustomize: {%s}}]\n"
#: A file, what becomes what in it (from nothing: a new file), and what `flux check` says of it.
INPUTS = [
    ("flux/clusters/production/observability.yaml", "retryInterval: 1m", "retryInterval: 30s", ()),
    ("flux/clusters/production/observability.yaml", "timeout: 15m", "timeout: 0.25h", ()),
    (
        "flux/clusters/production/observability.yaml",
        "timeout: 15m",
        "timeout: 0h9m59s",
        ("gives up after 0:09:59, and HelmRelease/lgtm may take 0:10:00",),
    ),
    (
        "flux/clusters/production/observability.yaml",
        "timeout: 15m",
        "timeout: soon",
        ("Kustomization/observability at spec.timeout",),
    ),
    (IMAGES, '">=1.1.3 <1.2.0"', '"~1.1.3"', ()),
    (IMAGES, '">=1.1.3 <1.2.0"', "1.1.3 - 1.1.x", ()),
    (IMAGES, '">=1.1.3 <1.2.0"', "1.1.x", ("may go back below v1.1.3",) * 2),
    (
        IMAGES,
        '">=1.1.3 <1.2.0"',
        "~1.1.3 || 1.2.x",
        ("takes v1.2.0: a new minor version is tried by hand first",),
    ),
    (IMAGES, '">=1.1.3 <1.2.0"', "later", ('policy.semver.range "later"',)),
    (
        IMAGES,
        'semver:\n      range: ">=1.1.3 <1.2.0"',
        "numerical: {order: asc}",
        ("v1.1.3, which runs, is not among what it chooses from",),
    ),
    (
        IMAGES,
        '  policy:\n    semver:\n      range: ">=1.1.3 <1.2.0"',
        "  filterTags: {pattern: '^v1\\.1\\.[3-9]$'}\n  policy: {alphabetical: {order: asc}}",
        (),
    ),
    ("flux/clusters/production/cluster.yaml", "DOMAIN: soev.ai", "DOMAIN: |\n    soev.ai", ()),
    (
        "flux/tenants/enterprise-b/tenant.yaml",
        "SERVICE_NAME: open-webui-enterprise-b",
        "SERVICE_NAME: 2026",
        ("Kustomization/tenant-enterprise-b at spec.postBuild.substitute.SERVICE_NAME: 2026",),
    ),
    ("flux/clusters/production/.sops.yaml", "", "creation_rules: []\n", ()),
    (
        ".sourceignore",
        "",
        "/charts/lgtm\n",
        ("charts/lgtm/Chart.yaml is not among what Flux fetches",),
    ),
    (
        ".sourceignore",
        "",
        "networkpolicies.yaml\n",
        ("networkpolicies.yaml is not among what Flux fetches",),
    ),
    (
        "flux/clusters/production/observability.yaml",
        "  prune: true",
        "  components: [../nothere]\n  prune: true",
        ("nothere",),
    ),
    (
        "flux/clusters/production/observability.yaml",
        "  prune: true",
        "  targetNamespace: elsewhere\n  prune: true",
        ("nobody creates the namespace elsewhere",),
    ),
    (
        "flux/clusters/production/observability.yaml",
        "  prune: true",
        "  namePrefix: x-\n  prune: true",
        ("observability: Flux renders no release lgtm",),
    ),
    (LGTM, RELEASE, RENDERED % "images: [{name: caddy, newTag: latest}]", ("is not pinned",)),
    # By its digest it is pinned; it is not what was tested all the same.
    (
        LGTM,
        RELEASE,
        RENDERED % f"images: [{{name: caddy, newTag: '', digest: 'sha256:{'0' * 64}'}}]",
        ("Flux applies another Deployment/gateway",),
    ),
    (
        LGTM,
        RELEASE,
        RENDERED
        % "patches: [{target: {kind: NetworkPolicy, name: mimir}, patch: '%s'}]"
        % "- {op: replace, path: /spec/ingress, value: [{}]}",
        ("Flux applies another NetworkPolicy/mimir",),
    ),
    # As Flux finds it: a path that leaves the repository begins there again.
    (LGTM, "./charts/lgtm", "/charts/lgtm", ()),
    (LGTM, "./charts/lgtm", "../../charts/./lgtm/", ()),
    (LGTM, "./charts/lgtm", "charts/lgtm/Chart.yaml", ("no chart charts/lgtm/Chart",)),
    (LGTM, "./charts/lgtm", "charts", ("there is no chart charts in",)),
]


@pytest.mark.parametrize(("file", "old", "new", "messages"), INPUTS)
def test_inputs_seen_elsewhere(
    copy: Checkout, file: str, old: str, new: str, messages: tuple[str, ...]
) -> None:
    if old:
        edit(copy.root / file, old, new)
    else:
        (copy.root / file).write_text(new, encoding="utf-8")
    subject = Subject.load(copy)
    found = [message for _, message in problems(subject)]
    if not found:
        found = list(differing(subject.tree, Deployment.load(copy)))
    if not messages:
        assert found == []
    if any("no chart" in message for message in messages):
        assert len(found) == 1, "what does not render is told alone"
    for message in messages:
        assert any(message in one for one in found), found


@pytest.mark.parametrize("name", ["", ".", "..", "nope", "production/flux-system"])
def test_a_cluster_that_is_not_there(checkout: Checkout, name: str) -> None:
    """Nor is an empty one, as of a variable that is not set."""
    with pytest.raises(UsageError, match=r"no cluster .* There is: production"):
        Subject.load(checkout, name)


def test_every_check_has_a_twin() -> None:
    """A check that has never failed proves nothing."""
    caught = {twin.caught_by for twin in ALL if twin.caught_by.startswith("flux.")}
    assert {f"flux.{name}" for name in CHECKS.names} == caught


def test_every_fault_of_the_plan_is_put_back() -> None:
    assert {13, 14, 17, 18, 19, 20, 21} <= {twin.number for twin in TWINS}
