"""Every key of every values file does something, and what does nothing is found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.copies import written
from tests.unit.charts.scenarios import CHECKOUT, each_chart, each_scenario

from stackproof.flux.deployment import Deployment
from stackproof.helm.renderer import Values
from stackproof.values import unused


@each_chart
def test_templates_read_every_key(chart: Path) -> None:
    assert unused.unread(chart) == []


@each_scenario
def test_every_leaf_of_a_scenario_does_something(values: Path) -> None:
    found = unused.find(values.parents[1], [values], 0, values.name)
    assert [str(one) for one in found if (values.stem, one.path) not in SAID] == []


#: What a scenario says to show that it changes nothing, there.
SAID = {("nothing-but-backends", ("externalSecrets", "enabled"))}


def deployed() -> list[tuple[str, str, list[Values], int]]:
    """Chart, name, all values and the audited one's place, of each file of the deployment."""
    deployment = Deployment.load(CHECKOUT)
    found = []
    lgtm = deployment.lgtm_values()
    for i, part in enumerate(lgtm):
        found.append(("lgtm", part.name if isinstance(part, Path) else "tenants.yaml", lgtm, i))
    for tenant in deployment.registry:
        values = deployment.tenant_values(tenant)
        for i, part in enumerate(values):
            if isinstance(part, Path):
                found.append(("open-webui-stack", f"{tenant.name}-{part.name}", values, i))
    return found


@pytest.mark.parametrize(
    ("chart", "name", "values", "place"), [pytest.param(*one, id=one[1]) for one in deployed()]
)
def test_every_leaf_of_the_deployment_does_something(
    chart: str, name: str, values: list[Values], place: int
) -> None:
    assert [str(one) for one in unused.find(CHECKOUT.charts / chart, values, place, name)] == []


@pytest.fixture
def loose(tmp_path: Path) -> Path:
    """A chart that takes every key: misplaced keys go unnoticed by its schema."""
    files = {
        "Chart.yaml": "apiVersion: v2\nname: loose\nversion: 0.1.0\n",
        "values.yaml": "replicas: 1\ntenantId: ''\nmimir: {resources: {}}\nunused: 1\n",
        "templates/a.yaml": (
            "kind: A\nspec: {replicas: {{ .Values.replicas }}}\n"
            "resources: {{ toJson .Values.mimir.resources }}\n"
        ),
    }
    return written(tmp_path / "loose", files)


def test_a_key_at_a_wrong_place_does_nothing(loose: Path) -> None:
    """Faults 1 and 4 of docs/faults.md: resources at the top, and keys of another chart."""
    values: Values = {
        "replicas": 2,
        "resources": {"requests": {"cpu": "1"}},
        "persistence": {"enabled": True},
        "mimir": {"resources": {"limits": {"cpu": "1"}}},
    }
    found = unused.find(loose, [values], 0, "mimir-values.yaml")
    assert [str(one) for one in found] == [
        "mimir-values.yaml: resources.requests.cpu = '1' changes nothing",
        "mimir-values.yaml: persistence.enabled = True changes nothing",
    ]


def test_a_default_said_again_is_no_mistake(loose: Path) -> None:
    assert unused.find(loose, [{"replicas": 1}], 0, "values") == []


def test_a_value_that_no_template_reads_is_found(loose: Path) -> None:
    """Fault 8 of docs/faults.md: tenantId is rendered nowhere."""
    assert unused.unread(loose) == ["tenantId", "unused"]


def test_leaves_and_what_is_left_without_one() -> None:
    values = {"a": {"b": 1, "c": []}, "d": {}}
    assert list(unused.leaves(values)) == [(("a", "b"), 1), (("a", "c"), []), (("d",), {})]
    assert unused.without(values, ("a", "b")) == {"a": {"c": []}, "d": {}}


# --- Changes that must reach running pods -------------------------------------------------------

ROLLED = [("lgtm", "production"), ("open-webui-stack", "default-values")]


@pytest.mark.parametrize(("chart", "scenario"), ROLLED)
def test_every_change_reaches_its_pods(chart: str, scenario: str) -> None:
    file = CHECKOUT.charts / chart / "ci" / f"{scenario}.yaml"
    assert unused.unrolled(CHECKOUT.charts / chart, [file]) == []


@pytest.mark.parametrize(
    ("chart", "scenario", "file", "old", "new", "found"),
    [
        (*ROLLED[0], "_backend.tpl", "checksum/config", "sum/config", None),
        (
            *ROLLED[0],
            "_backend.tpl",
            'checksum/config: {{ include (printf "lgtm.%s.config" $name) $root | sha256sum }}',
            'checksum/config: "0"',
            r"ConfigMap/loki, loki.yaml: .*: StatefulSet/loki goes on with the old one",
        ),
        (
            *ROLLED[1],
            "searxng.yaml",
            '"checksums" (dict "config" $config)',
            '"checksums" (dict)',
            r"ConfigMap/.*searxng, settings.yml: .*searxng goes on with the old one",
        ),
        (
            *ROLLED[1],
            "open-webui.yaml",
            '"secrets" (list "provider-secrets")',
            '"secrets" (list)',
            r"Secret/.*provider-secrets, openai-api-key: .* goes on with the old one",
        ),
        (
            *ROLLED[1],
            "open-webui.yaml",
            '"secrets" (list "provider-secrets")',
            '"secrets" (list "provider-secrets" "secrets")',
            r"Secret/.*, webui-secret-key: .* is rolled, and must not be",
        ),
    ],
)
def test_a_change_that_reaches_no_pod_is_found(
    chart: str, scenario: str, file: str, old: str, new: str, found: str | None
) -> None:
    root = CHECKOUT.charts / chart
    text = (root / "templates" / file).read_text(encoding="utf-8")
    assert old in text
    overlay = {f"templates/{file}": text.replace(old, new)}
    problems = unused.unrolled(root, [root / "ci" / f"{scenario}.yaml"], overlay)
    assert bool(problems) is (found is not None)
    assert found is None or any(re.search(found, problem) for problem in problems)
