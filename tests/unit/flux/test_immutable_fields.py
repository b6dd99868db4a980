"""What the API server refuses to change; tests/e2e asks a real one about the same table."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from stackproof.flux.immutable import _FIXED, refused
from stackproof.helm.externals import merged
from stackproof.helm.manifests import Manifest
from stackproof.repo.checkout import Checkout

_TABLE = Checkout.find().root / "tests" / "immutable.yaml"
CASES = [
    (
        each["object"],
        case["patch"],
        case.get("refused", []),
        case.get("refused_server_side", case.get("refused", [])),
    )
    for each in yaml.safe_load(_TABLE.read_text(encoding="utf-8"))
    for case in each["changes"]
]


@pytest.mark.parametrize(
    ("before", "patch", "fields", "server_side"),
    CASES,
    ids=lambda part: part.get("kind", "change") if isinstance(part, dict) else "+".join(part),
)
def test_it_says_what_is_refused(
    before: Any, patch: Any, fields: list[str], server_side: list[str]
) -> None:
    was, wanted = Manifest.of(before, "before"), Manifest.of(merged(before, patch), "after")
    assert list(refused(was, wanted)) == fields
    assert list(refused(was, wanted, server_side=True)) == server_side


def test_every_kind_that_is_known_is_in_the_table() -> None:
    kinds = {before["kind"] for before, _, fields, _ in CASES if fields}
    others = {"ConfigMap", "CustomResourceDefinition", "PersistentVolumeClaim", "Service"}
    assert kinds >= {*_FIXED, *others, "StatefulSet"}


def test_a_hook_is_made_anew() -> None:
    before, patch, fields, _ = next(case for case in CASES if case[0]["kind"] == "Job")
    assert fields
    hook = merged(before, {"metadata": {"annotations": {"helm.sh/hook": "pre-upgrade"}}})
    assert refused(Manifest.of(hook, "t"), Manifest.of(merged(hook, patch), "t")) == ()


@pytest.mark.parametrize(
    ("was", "wanted", "shrinks"),
    [
        ("500Gi", "1Pi", False),
        ("1Pi", "500Gi", True),
        ("10Gi", "1E", False),
        ("1e11", "2E11", False),
        ("2e11", "1e11", True),
        ("1Gi", "1073741824000m", False),
        ("1Gi", "10GB", True),
    ],
)
def test_a_claim_of_any_size(was: str, wanted: str, shrinks: bool) -> None:
    """As Kubernetes writes quantities; what is none is refused."""
    sizes = ({"spec": {"resources": {"requests": {"storage": size}}}} for size in (was, wanted))
    claims = [Manifest.of({"kind": "PersistentVolumeClaim", **size}, "t") for size in sizes]
    assert bool(refused(*claims)) is shrinks
