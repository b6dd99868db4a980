"""charts/lgtm: a canary runs where it can prove something, and somebody hears of it."""

from __future__ import annotations

import json

import pytest
from tests.unit.charts.scenarios import CHECKOUT

from stackproof.helm import renderer
from stackproof.helm.manifests import Release, thaw
from stackproof.helm.renderer import HelmError


def _render(*tenants: str, tells: str) -> Release:
    values = {
        "tenants": [{"name": name, "namespace": name, "secretPrefix": name} for name in tenants],
        "canary": {"enabled": True, "image": {"tag": "1"}, "metricsTenant": tells},
    }
    return renderer.render(
        CHECKOUT.charts / "lgtm", [values], release="lgtm", namespace="observability"
    )


def test_whoever_is_alone_needs_no_canary() -> None:
    """`prove` has nobody to keep it apart from: each run would fail, and its alert fire."""
    alone = _render("acme", tells="acme")
    assert alone.find("CronJob", "canary") is None
    assert "stackproof_isolated" not in json.dumps(thaw(alone.get("ConfigMap", "grafana-alerts")))
    both = _render("acme", "globex", tells="acme")
    assert both.find("CronJob", "canary") is not None
    assert "stackproof_isolated" in json.dumps(thaw(both.get("ConfigMap", "grafana-alerts")))


def test_a_canary_that_tells_nobody_is_refused() -> None:
    with pytest.raises(HelmError, match="nobody is none of the tenants acme, globex"):
        _render("acme", "globex", tells="nobody")
