"""The charts, and the values files under their ci/: one parameter for each."""

from __future__ import annotations

import pytest

from stackproof.repo.checkout import Checkout

CHECKOUT = Checkout.find()
CHARTS = sorted(path.parent for path in CHECKOUT.charts.glob("*/Chart.yaml"))
SCENARIOS = sorted(CHECKOUT.charts.glob("*/ci/*.yaml"))

each_scenario = pytest.mark.parametrize(
    "values", SCENARIOS, ids=lambda path: f"{path.parts[-3]}-{path.stem}"
)
each_chart = pytest.mark.parametrize("chart", CHARTS, ids=lambda path: path.name)
