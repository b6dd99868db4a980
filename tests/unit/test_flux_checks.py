"""The Flux tree is right, and each check of it notices its fault."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from stackproof.checkout import Checkout
from stackproof.flux.checks import FLUX as CHECKS
from stackproof.flux.checks import Subject, problems
from stackproof.twins.accounts import ACCOUNTS
from stackproof.twins.flux import FLUX as TWINS

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
    - target: {kind: RoleBinding}
      patch: |
        - {op: replace, path: /roleRef/name, value: cluster-admin}
""",
        "step tenant-enterprise-b: changes RoleBinding/flux: only its HelmRelease is",
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


@pytest.fixture
def copy(checkout: Checkout, tmp_path: Path) -> Checkout:
    """A copy of what the checks look at, to put faults into."""
    for name in ("charts", "flux", "observability", "schemas", ".github"):
        shutil.copytree(checkout.root / name, tmp_path / name)
    shutil.copy(checkout.versions_file, tmp_path)
    return Checkout(tmp_path)


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
    changed = copy.flux / file
    text = changed.read_text(encoding="utf-8")
    assert old in text
    changed.write_text(text.replace(old, new), encoding="utf-8")
    (problem,) = CHECKS[check].find(Subject.load(copy))
    assert message in problem


def test_the_readmes_patches_may_stand_in_a_tenants_file(copy: Checkout) -> None:
    readme = (copy.flux / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(  patches:\n.*?)```", readme, re.DOTALL)
    _write_into_a_tenants_file(copy, example)
    assert list(problems(copy)) == []


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


def test_every_check_has_a_twin() -> None:
    """A check that has never failed proves nothing."""
    assert {f"flux.{name}" for name in CHECKS.names} == {
        twin.caught_by for twin in (*TWINS, *ACCOUNTS) if twin.caught_by.startswith("flux.")
    }


def test_every_fault_of_the_plan_is_put_back() -> None:
    assert {13, 14, 17, 18, 19, 20, 21} <= {twin.seed for twin in TWINS}
