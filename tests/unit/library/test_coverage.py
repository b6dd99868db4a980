"""Template coverage: both charts reach the threshold, and what is missed is found and shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.copies import written
from tests.unit.charts.scenarios import each_chart

from stackproof.errors import StackproofError
from stackproof.values import coverage
from stackproof.values.coverage.page import page

TEMPLATE = """\
kind: ConfigMap
apiVersion: v1
metadata: {name: a}
data:
  {{- if .Values.enabled }}
  on: "yes"
  {{- end }}
  {{- if eq .Values.name "nobody" }}
  name: nobody
  {{- end }}
  {{- range list "a" "b" }}
  {{ . }}: literal
  {{- end }}
  {{- with .Values.items }}
  {{- range . }}
  {{ . }}: guarded
  {{- end }}
  {{- end }}
  {{- range .Values.items }}
  {{ . }}-: open
  {{- end }}
"""


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    files = {
        "Chart.yaml": "apiVersion: v2\nname: small\nversion: 0.1.0\n",
        # A date, a time and a number of base 60 are text to Helm.
        "values.yaml": "enabled: true\nname: someone\nitems: []\nstart: 2026-01-01\n",
        "ci/items.yaml": "items: [x]\nstart: 2026-01-01T10:00:00Z\nevery: 10:30:00\n",
        "templates/a.yaml": TEMPLATE,
    }
    return written(tmp_path / "small", files)


def declare(chart: Path, template: str, branch: str) -> None:
    entries = [{"template": template, "branch": branch, "reason": "so it is"}]
    written(chart, {str(coverage.UNREACHABLE): json.dumps(entries)})


@each_chart
def test_the_charts_reach_the_threshold(chart: Path) -> None:
    found = coverage.measure(chart, mixed=10)
    missed = [f"{b.template}:{b.line} {b.text}" for b in found.missed]
    assert found.share >= coverage.THRESHOLD, missed
    assert found.branches
    # What cannot happen is the empty case of a range, and nothing that somebody wrote.
    assert all(branch.implicit and branch.kind == "range-else" for branch in found.left_out)


def test_switches_are_tried_and_what_is_missed_is_found(chart: Path) -> None:
    found = coverage.measure(chart)
    assert [branch.text for branch in found.missed] == ['if eq .Values.name "nobody"']
    assert sorted(found.impossible.values()) == [
        "line 14 has found it to be something",
        "the list stands in the template",
    ]
    assert (len(found.branches), found.covered) == (10, 9)


def test_a_declared_branch_is_left_out(chart: Path) -> None:
    declare(chart, "templates/a.yaml", 'if eq .Values.name "nobody"')
    found = coverage.measure(chart)
    assert found.share == 1
    assert "so it is" in found.impossible.values()


@pytest.mark.parametrize(
    ("branch", "message"),
    [("if .Values.enabled", "is entered"), ("if .Values.off", "there is no such branch")],
)
def test_a_wrong_declaration_is_an_error(chart: Path, branch: str, message: str) -> None:
    declare(chart, "templates/a.yaml", branch)
    with pytest.raises(StackproofError, match=message):
        coverage.measure(chart)


def test_the_page_marks_what_was_missed(chart: Path) -> None:
    measured = [coverage.measure(chart)]
    html = page(measured)
    assert "never rendered: if eq .Values.name &#34;nobody&#34;" in html
    assert '<tr class="missed"><td class="number">9</td>' in html
    assert '<tr class="covered"><td class="number">5</td>' in html
    assert "http" not in html.replace("http-equiv", "")
    figures = json.loads(json.dumps(coverage.record(measured)))
    assert figures["charts"]["small"]["branches"] == 10
    assert figures["charts"]["small"]["covered"] == 9
