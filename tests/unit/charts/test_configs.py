"""Every configuration that the charts render is accepted by the program that will read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackproof.checks import configs
from stackproof.checks.configs import refused
from stackproof.flux.deployment import Deployment
from stackproof.helm import renderer
from stackproof.helm.manifests import Release
from stackproof.repo.checkout import Checkout
from stackproof.toolchain import programs

# On one worker: what a program said of some bytes is asked once a process.
pytestmark = pytest.mark.xdist_group("configs")

_CHECKOUT = Checkout.find()
_SCENARIOS = sorted(_CHECKOUT.charts.glob("*/ci/*.yaml"))


def _render(chart: str, values: list[renderer.Values], **overlay: str) -> Release:
    return renderer.render(
        _CHECKOUT.charts / chart,
        values,
        release="release",
        namespace="observability",
        overlay={f"templates/{name}.yaml": text for name, text in overlay.items()},
    )


def test_the_deployment_is_accepted() -> None:
    for release in Deployment.load(_CHECKOUT).releases():
        assert not list(refused(release))


@pytest.mark.parametrize("values", _SCENARIOS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_the_scenarios_are_accepted(values: Path) -> None:
    with_secrets: renderer.Values = {"externalSecrets": {"enabled": True}}
    chart = values.parts[-3]
    extra = [with_secrets] if chart == "lgtm" else []
    assert not list(refused(_render(chart, [values, *extra])))


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
    path = _CHECKOUT.charts / "lgtm" / "templates" / f"{template}.yaml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    values: list[renderer.Values] = [{"externalSecrets": {"enabled": True}}]
    found = "\n".join(refused(_render("lgtm", values, **{template: text.replace(old, new)})))
    assert message in found


def test_an_unknown_alloy_component_is_refused() -> None:
    path = _CHECKOUT.charts / "open-webui-stack" / "templates" / "alloy.yaml"
    text = path.read_text(encoding="utf-8")
    wrong = text.replace("otelcol.exporter.otlphttp", "otelcol.exporter.prometheusremotewrite")
    deployment = Deployment.load(_CHECKOUT)
    release = renderer.render(
        _CHECKOUT.charts / "open-webui-stack",
        deployment.tenant_values(deployment.registry.tenants[0]),
        release="open-webui",
        namespace="open-webui",
        overlay={"templates/alloy.yaml": wrong},
    )
    found = "\n".join(refused(release))
    assert 'component name "otelcol.exporter.prometheusremotewrite"' in found


def test_temporary_files_of_what_is_asked_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alloy makes some whatever it is asked, and leaves them."""
    release = _render("lgtm", [{"externalSecrets": {"enabled": True}}])
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho in $TMPDIR; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(programs, "find", lambda _: program)
    monkeypatch.setattr(configs, "_answers", dict)
    told = next(refused(release))
    folder = Path(told.rpartition(" in ")[2])
    assert "stackproof-configs-" in str(folder)
    assert not folder.exists()
