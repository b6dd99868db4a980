"""The charts that Flux installs from elsewhere are there, and hold what their pins say.

An operator's version is taken for that of its chart (`Versions.deployed`): only the chart can tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml
from tests import charts_from_elsewhere

from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Chart, Versions, plain

#: Programs that versions.yaml knows by their chart alone.
OPERATORS = {"external-secrets"}


def wrong(name: str, pin: Chart, metadata: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a chart's Chart.yaml says otherwise than its pin."""
    if plain(metadata["version"]) != plain(pin.version):
        yield f"the chart {name} is {metadata['version']}, pinned is {pin.version}"
    if name in OPERATORS and plain(metadata["appVersion"]) != plain(pin.version):
        yield f"the chart {name} {pin.version} installs {metadata['appVersion']}"


def chart_yaml(name: str, pin: Chart) -> Mapping[str, Any]:
    """Return the Chart.yaml of a chart: of $STACKPROOF_CHARTS/NAME, else of its repository."""
    if chart := charts_from_elsewhere.given(name):
        text = (chart / "Chart.yaml").read_text()
    else:
        where = ["--repo", pin.repository, name]
        if pin.repository.startswith("oci://"):
            where = [f"{pin.repository}/{name}"]
        asked = ("show", "chart", *where)
        text = charts_from_elsewhere.helm(*asked, name=name, version=pin.version)
    metadata: Mapping[str, Any] = yaml.safe_load(text)
    return metadata


@pytest.mark.parametrize("name", sorted(Versions.load(Checkout.find()).charts))
def test_a_chart_is_what_its_pin_says(checkout: Checkout, name: str) -> None:
    pin = Versions.load(checkout).charts[name]
    assert list(wrong(name, pin, chart_yaml(name, pin))) == []


def test_another_version_is_noticed() -> None:
    pin = Chart("https://charts.example.org", "2.9.0")
    right = {"version": "2.9.0", "appVersion": "v2.9.0"}
    assert list(wrong("external-secrets", pin, right)) == []
    assert list(wrong("external-secrets", pin, right | {"appVersion": "v2.8.1"})) == [
        "the chart external-secrets 2.9.0 installs v2.8.1"
    ]
    assert list(wrong("reloader", pin, right | {"appVersion": "v1.4.0"})) == []
    assert list(wrong("reloader", pin, right | {"version": "2.9.1"})) == [
        "the chart reloader is 2.9.1, pinned is 2.9.0"
    ]
