"""Every key of every values file does something, and what does nothing is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackproof import audit
from stackproof.checkout import Checkout
from stackproof.deployment import Deployment
from stackproof.helm import Values
from stackproof.surroundings import read_values

CHECKOUT = Checkout.find()
CHARTS = sorted(file.parent for file in CHECKOUT.charts.glob("*/Chart.yaml"))
SCENARIOS = sorted(CHECKOUT.charts.glob("*/ci/*.yaml"))


@pytest.mark.parametrize("chart", CHARTS, ids=lambda path: path.name)
def test_templates_read_every_key(chart: Path) -> None:
    assert audit.unread(chart) == []


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda p: f"{p.parts[-3]}-{p.stem}")
def test_every_leaf_of_a_scenario_does_something(file: Path) -> None:
    found = audit.idle(file.parent.parent, [file], 0, file.name)
    assert [str(one) for one in found if (file.stem, one.path) not in SAID] == []


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
    assert [str(one) for one in audit.idle(CHECKOUT.charts / chart, values, place, name)] == []


@pytest.fixture
def loose(tmp_path: Path) -> Path:
    """A chart that takes every key: the mistakes of the plan go unnoticed by its schema."""
    files = {
        "Chart.yaml": "apiVersion: v2\nname: loose\nversion: 0.1.0\n",
        "values.yaml": "replicas: 1\ntenantId: ''\nmimir: {resources: {}}\nunused: 1\n",
        "templates/a.yaml": (
            "kind: A\nspec: {replicas: {{ .Values.replicas }}}\n"
            "resources: {{ toJson .Values.mimir.resources }}\n"
        ),
    }
    for name, text in files.items():
        path = tmp_path / "loose" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "loose"


def test_a_key_at_a_wrong_place_does_nothing(loose: Path) -> None:
    """Faults 1 and 4 of the plan: resources at the top, and keys of another chart."""
    values: Values = {
        "replicas": 2,
        "resources": {"requests": {"cpu": "1"}},
        "persistence": {"enabled": True},
        "mimir": {"resources": {"limits": {"cpu": "1"}}},
    }
    found = audit.idle(loose, [values], 0, "mimir-values.yaml")
    assert [str(one) for one in found] == [
        "mimir-values.yaml: resources.requests.cpu = '1' changes nothing",
        "mimir-values.yaml: persistence.enabled = True changes nothing",
    ]


def test_a_default_said_again_is_no_mistake(loose: Path) -> None:
    assert audit.idle(loose, [{"replicas": 1}], 0, "values") == []


def test_a_value_that_no_template_reads_is_found(loose: Path) -> None:
    """Fault 8 of the plan: tenantId is rendered nowhere."""
    assert audit.unread(loose) == ["tenantId", "unused"]


def test_leaves_and_what_is_left_without_one() -> None:
    values = {"a": {"b": 1, "c": []}, "d": {}}
    assert list(audit.leaves(values)) == [(("a", "b"), 1), (("a", "c"), []), (("d",), {})]
    assert audit.without(values, ("a", "b")) == {"a": {"c": []}, "d": {}}
    assert read_values(CHARTS[0] / "values.yaml")
