"""What is installed from the wheel works in an empty folder, with no clone around it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.ran import ran

from stackproof.model import Backend
from stackproof.repo.checkout import Checkout
from stackproof.repo.tenants import load_registry
from stackproof.stack.local import LocalStack

pytestmark = pytest.mark.xdist_group("targets")

Stackproof = Callable[..., subprocess.CompletedProcess[str]]

CONFIG = """\
{{- if .Values.made }}
apiVersion: v1
kind: ConfigMap
metadata: {name: web}
{{- end }}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, checkout: Checkout) -> Path:
    """The wheel's files. Its dependencies are those of the environment that runs the tests."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", folder, checkout.root], check=True, capture_output=True)
    return folder


@pytest.fixture
def stackproof(installed: Path, tmp_path: Path) -> Stackproof:
    """Runs the command in an empty folder."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    code = "import sys; from stackproof.cli import main; sys.exit(main())"

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return ran([sys.executable, "-P", "-c", code, *words], cwd=tmp_path, env=environment)

    return run


@pytest.fixture
def chart(tmp_path: Path) -> str:
    folder = tmp_path / "web" / "templates"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    (folder.parent / "Chart.yaml").write_text("{apiVersion: v2, name: web, version: 1.0.0}")
    (folder.parent / "values.yaml").write_text("made: true\n")
    return "web"


def test_it_has_what_it_builds_from(installed: Path, checkout: Checkout) -> None:
    carried = Checkout(installed / "stackproof" / "carried")
    for name in ("render", "flux"):
        for path in (checkout.tools / name).iterdir():
            assert (carried.tools / name / path.name).read_bytes() == path.read_bytes()
    assert carried.versions_file.read_bytes() == checkout.versions_file.read_bytes()


def test_charts_of_anybody(stackproof: Stackproof, chart: str, tmp_path: Path) -> None:
    linted = stackproof("lint", chart)
    assert "labels-consistent" in linted.stdout and linted.returncode == 1, linted.stderr
    covered = stackproof("coverage", chart)
    assert "2 of 2 branches" in covered.stdout and covered.returncode == 0, covered
    mutated = stackproof("mutants", chart, "--jobs", "1")
    assert "mutants: " in mutated.stdout, mutated.stderr
    found = json.loads((tmp_path / "build" / "report" / "partial" / "coverage.json").read_bytes())
    assert list(found["provenance"]["digests"]) == ["web"]


def test_trees_of_anybody_and_loads(stackproof: Stackproof, tmp_path: Path) -> None:
    (tmp_path / "clusters").mkdir()
    checked = stackproof("flux", "check", "clusters")
    assert (checked.stdout, checked.returncode) == ("7 checks, 0 problems\n", 0), checked.stderr
    assert "One process each, on one node" in stackproof("capacity", "--tenants", "3").stdout


@pytest.mark.parametrize("command", ["tenants", "twins", "prove", "bench", "tools", "attacks"])
def test_what_needs_the_repository_says_so(command: str, stackproof: Stackproof) -> None:
    done = stackproof(command)
    assert done.stderr.endswith("Run this in a clone of the repository.\n")
    assert done.returncode not in {0, 1, 2}


def test_a_deployment_is_proven(stackproof: Stackproof, stack: LocalStack, tmp_path: Path) -> None:
    """Of the metrics alone, straight at Mimir, where anybody may name any tenant."""
    url = stack.backend_url(Backend.MIMIR)
    targets = {
        "name": "straight at Mimir",
        "read": {"metrics": url},
        "write": {"metrics": {"remoteWrite": url.removesuffix("/prometheus") + "/api/v1/push"}},
        "tenants": [
            {"name": name, "auth": {"headers": {"X-Scope-OrgID": name}}}
            for name in load_registry(Checkout.find()).names
        ],
    }
    (tmp_path / "targets.yaml").write_text(yaml.safe_dump(targets))
    done = stackproof(
        "prove", "--targets", "targets.yaml", "--json", "--junitxml", "build/junit.xml"
    )
    assert done.returncode == 1, done.stderr
    assert "anybody may name any tenant in X-Scope-OrgID" in done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads((tmp_path / "build" / "report" / "isolation.json").read_bytes())
    (suite,) = ET.parse(tmp_path / "build" / "junit.xml").getroot()  # noqa: S314 (our own file)
    cases = {case.attrib["name"]: case for case in suite}
    assert not len(cases["mimir.query"]) and cases["verdict"].find("failure") is not None
    failed = [name for name, case in cases.items() if len(case)]
    assert "refused: a list of tenants: mimir.query as soev" in failed
    assert (found["verdict"], found["signals"]) == ("leaking", ["metrics"])
    assert found["summary"]["leaks"] == 0 and found["summary"]["hidden"] == 6
    assert found["provenance"]["file"] == "targets.yaml"
    assert "file targets.yaml" in (tmp_path / "build" / "report" / "index.html").read_text()
