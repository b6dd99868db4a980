"""Every scenario of a chart breaks no rule: of any chart, of sizes, of its own."""

from __future__ import annotations

from pathlib import Path

from tests.unit.charts.scenarios import each_scenario

from stackproof.checks.application import APPLICATION
from stackproof.checks.invariants import problems
from stackproof.checks.observability import OBSERVABILITY
from stackproof.checks.sizes import SIZES
from stackproof.helm import renderer
from stackproof.helm.externals import ExternalObjects

OWN = {"lgtm": OBSERVABILITY, "open-webui-stack": APPLICATION}


@each_scenario
def test_a_scenario_breaks_no_rule(values: Path) -> None:
    chart = values.parents[1]
    release = renderer.render(chart, [values], release="one", namespace="here")
    assert list(problems(ExternalObjects.load(chart).around(release, [values]))) == []
    rules = (*SIZES, *OWN[chart.name])
    assert [f"{rule.name}: {problem}" for rule in rules for problem in rule.find(release)] == []
