"""A chart's version changes with what Helm reads of it, and with nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stackproof.helm import chartversion
from stackproof.repo.checkout import Checkout

CHARTS = sorted(path.parent for path in Checkout.find().charts.glob("*/Chart.yaml"))


@pytest.fixture(params=CHARTS, ids=lambda path: str(path.name))
def chart(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(request.param, tmp_path / request.param.name))


def _append(path: Path, text: str = "\n# changed\n") -> None:
    path.write_text(path.read_text() + text)


def test_documentation_and_scenarios_leave_the_version(chart: Path) -> None:
    before = chartversion.version(chart)
    _append(chart / "README.md")
    _append(next(path for path in sorted((chart / "ci").rglob("*.yaml")) if path.is_file()))
    (chart / "ci" / "new.yaml").write_text("{}")
    assert chartversion.version(chart) == before


@pytest.mark.parametrize(
    "file",
    ["values.yaml", "values.schema.json", "Chart.yaml", "templates/_helpers.tpl", ".helmignore"],
)
def test_what_helm_reads_changes_the_version(chart: Path, file: str) -> None:
    assert chartversion.stale(chart) is None
    _append(chart / file)
    problem = chartversion.stale(chart)
    assert problem
    assert "run `make charts`" in problem
    chartversion.write(chart)
    assert chartversion.stale(chart) is None


def test_a_file_that_is_new_or_goes_changes_the_version(chart: Path) -> None:
    (chart / "templates" / "new.yaml").write_text("")
    assert chartversion.stale(chart)
    (chart / "templates" / "new.yaml").unlink()
    assert chartversion.stale(chart) is None
    (chart / "templates" / "NOTES.txt").unlink()
    assert chartversion.stale(chart)


def test_as_it_was_is_the_version_that_was(chart: Path) -> None:
    before = (chart / "Chart.yaml").read_text()
    _append(chart / "values.yaml")
    chartversion.write(chart)
    assert (chart / "Chart.yaml").read_text() != before
    text = (chart / "values.yaml").read_text()
    (chart / "values.yaml").write_text(text.removesuffix("\n# changed\n"))
    chartversion.write(chart)
    assert (chart / "Chart.yaml").read_text() == before
