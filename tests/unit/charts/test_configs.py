"""Every configuration that the charts render is accepted by the program that will read it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.copies import script
from tests.unit.charts.scenarios import CHECKOUT, each_scenario

from stackproof.checks import configs
from stackproof.checks.configs import refused
from stackproof.flux.deployment import Deployment
from stackproof.helm import renderer
from stackproof.helm.manifests import Release
from stackproof.toolchain import programs
from stackproof.values.combinations import Choice, Space

# On one worker: what a program said of some bytes is asked once a process.
pytestmark = pytest.mark.xdist_group("configs")


#: A number within a text.
BODY = ("gateway", "maxBodySize")
WITH_SECRETS: renderer.Values = {"externalSecrets": {"enabled": True}}


def _render(chart: str, values: list[renderer.Values], **overlay: str) -> Release:
    return renderer.render(
        CHECKOUT.charts / chart,
        values,
        release="release",
        namespace="observability",
        overlay={f"templates/{name}.yaml": text for name, text in overlay.items()},
    )


def test_the_deployment_is_accepted() -> None:
    for release in Deployment.load(CHECKOUT).releases():
        assert not list(refused(release))


@each_scenario
def test_the_scenarios_are_accepted(values: Path) -> None:
    chart = values.parts[-3]
    extra = [WITH_SECRETS] if chart == "lgtm" else []
    assert not list(refused(_render(chart, [values, *extra])))


def _limits(bound: str) -> dict[str, dict[str, float]]:
    """Return limits of which each is the largest, or the smallest, that the schema takes."""
    schema = json.loads((CHECKOUT.charts / "lgtm/values.schema.json").read_bytes())["$defs"]

    def figure(part: dict[str, Any]) -> float:
        known = schema[part["$ref"].removeprefix("#/$defs/")]
        return float(part.get(bound, known.get(bound, 1e-6)))

    groups = schema["limits"]["properties"].items()
    return {
        signal: {name: figure(part) for name, part in group["properties"].items()}
        for signal, group in groups
    }


@pytest.mark.parametrize(("bound", "retention"), [("maximum", "999999h"), ("minimum", "1m")])
def test_whatever_a_tenant_may_have_is_accepted(bound: str, retention: str) -> None:
    """What one tenant has, all tenants' backends read: they would start for none."""
    tenant = {"name": "acme", "namespace": "acme", "secretPrefix": "acme"}
    odd = {**tenant, "limits": _limits(bound), "retention": retention}
    release = _render("lgtm", [{"tenants": [odd]}])
    assert not list(refused(release))
    backends = {"mimir", "loki", "tempo"}
    texts = [str(m["data"]) for m in release if m.kind == "ConfigMap" and m.name in backends]
    assert len([text for text in texts if '"acme":' in text]) == 3
    assert not re.search(r": -\d", "".join(texts)), "more than 64 bits hold"
    assert "max_active_series: 0" not in "".join(texts), "to Tempo that is any number"


def test_the_largest_numbers_are_accepted() -> None:
    """With one that a program cannot hold it starts for no tenant."""
    chart = Space.of(CHECKOUT.charts / "lgtm")
    largest = tuple(
        (leaf.path, leaf.schema.get("maximum", 10**18))
        for leaf in chart.leaves
        if leaf.schema.get("type") == "integer"
    )
    sizes = [f"{'9' * digits}GiB" for digits in range(1, 30)]
    body = max((size for size in sizes if chart.accepts(Choice(((BODY, size),)))), key=len)
    choice = Choice((*largest, (BODY, body)))
    assert chart.accepts(choice)
    assert not list(refused(_render("lgtm", [WITH_SECRETS, choice.values])))


@pytest.mark.parametrize(
    ("template", "old", "new", "message"),
    [
        ("mimir", "tenant_federation:", "tenant_federations:", "tenant_federations not found"),
        ("mimir", "${DATA_DIR}/compactor", "${DATA_DIR}/blocks", "overlap"),
        ("loki", "delete_request_store: filesystem", "", "delete-request-store"),
        ("tempo", "trace_idle_period:", "trace_idle:", "trace_idle not found"),
        ("gateway", "auto_https off", "auto_https of", "auto_https"),
    ],
)
def test_a_fault_is_refused(template: str, old: str, new: str, message: str) -> None:
    path = CHECKOUT.charts / "lgtm" / "templates" / f"{template}.yaml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    release = _render("lgtm", [WITH_SECRETS], **{template: text.replace(old, new)})
    assert message in "\n".join(refused(release))


def test_an_unknown_alloy_component_is_refused() -> None:
    path = CHECKOUT.charts / "open-webui-stack" / "templates" / "alloy.yaml"
    text = path.read_text(encoding="utf-8")
    wrong = text.replace("otelcol.exporter.otlphttp", "otelcol.exporter.prometheusremotewrite")
    deployment = Deployment.load(CHECKOUT)
    values = deployment.tenant_values(deployment.registry.tenants[0])
    found = "\n".join(refused(_render("open-webui-stack", values, alloy=wrong)))
    assert 'component name "otelcol.exporter.prometheusremotewrite"' in found


def test_temporary_files_of_what_is_asked_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alloy makes some whatever it is asked, and leaves them."""
    release = _render("lgtm", [WITH_SECRETS])
    program = script(tmp_path / "program", "echo in $TMPDIR; exit 1")
    monkeypatch.setattr(programs, "find", lambda _: program)
    monkeypatch.setattr(configs, "_answers", {})
    told = next(refused(release))
    folder = Path(told.rpartition(" in ")[2])
    assert "stackproof-configs-" in str(folder)
    assert not folder.exists()
