"""Charts and Flux trees of other people: what public ones showed to be false, beside the fault."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.copies import written

from stackproof.checks.invariants import INVARIANTS
from stackproof.cli import main
from stackproof.errors import ExitCode
from stackproof.mutants.run import generate
from stackproof.repo.checkout import Checkout

CONFIG = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: web
  labels:
    app.kubernetes.io/name: web
    app.kubernetes.io/instance: {{ .Release.Name }}
    app.kubernetes.io/managed-by: Helm
data:
  key: {{ .Values.word | quote }}
"""
MONITOR = """\
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata: {name: web}
"""
#: Only what these tests are about.
HOUSE = "--without=nothing-is-made-in-vain"


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    files = {
        "Chart.yaml": "{apiVersion: v2, name: web, version: 1.0.0}",
        "values.yaml": "word: one",
        "templates/config.yaml": CONFIG,
    }
    return written(tmp_path / "web", files)


def _lint(capsys: pytest.CaptureFixture[str], chart: Path, *options: str) -> tuple[int, str]:
    code = main(["lint", str(chart), HOUSE, *options])
    return code, capsys.readouterr().out


def test_a_chart_is_rendered_without_a_clone(
    chart: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(chart.parent)
    asked = len(INVARIANTS.names) - 1  # HOUSE
    assert _lint(capsys, chart) == (0, f"web: 1 render, {asked} invariants, 0 problems\n")


def test_kinds_that_others_define_hide_nothing(
    chart: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (chart / "templates" / "monitor.yaml").write_text(MONITOR)
    code, told = _lint(capsys, chart)
    assert code == 0 and "ServiceMonitor/web is not looked at: no schema" in told
    (chart / "templates" / "config.yaml").write_text(CONFIG.replace("managed-by: Helm", "x: z"))
    code, told = _lint(capsys, chart)
    assert code == 1 and "ConfigMap/web has no label app.kubernetes.io/managed-by" in told
    # A kind that Kubernetes itself would have to know is no such kind.
    (chart / "templates" / "monitor.yaml").write_text(
        MONITOR.replace("monitoring.coreos.com", "apps")
    )
    assert "there is no schema for apps/v1 ServiceMonitor" in _lint(capsys, chart)[1]


def test_components_are_named_by_all_or_by_none(
    chart: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = CONFIG.replace(
        "name: web\n  labels:", "name: part\n  labels:\n    app.kubernetes.io/component: x"
    )
    (chart / "templates" / "part.yaml").write_text(part)
    code, told = _lint(capsys, chart)
    assert code == 1 and "ConfigMap/web has no label app.kubernetes.io/component" in told


def test_scenarios_take_the_place_of_the_defaults(
    chart: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = CONFIG.replace(".Values.word", 'required "say a word" .Values.word')
    (chart / "templates" / "config.yaml").write_text(needed)
    (chart / "values.yaml").write_text("word:")
    code, told = _lint(capsys, chart)
    assert code == ExitCode.UNDECIDED and "say a word" in told
    (chart / "ci").mkdir()
    (chart / "ci" / "with-values.yaml").write_text("word: one")
    assert _lint(capsys, chart)[0] == 0


def test_a_probe_may_ask_another_containers_port_by_its_number(
    chart: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All containers of a pod have its address: a proxy beside the program answers for it."""
    pod = """\
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec:
      containers:
        - {name: web, image: "web:1", livenessProbe: {httpGet: {port: PORT}}}
        - {name: proxy, image: "proxy:1", ports: [{name: other, containerPort: 8100}]}
"""
    file = chart / "templates" / "pod.yaml"
    file.write_text(pod.replace("PORT", "8100"))
    assert "has no port" not in _lint(capsys, chart)[1]
    for port in ("8101", "other"):
        file.write_text(pod.replace("PORT", port))
        assert f"the container has no port {port}" in _lint(capsys, chart)[1]


def test_a_chart_with_its_dependencies_in_it_is_a_chart(chart: Path) -> None:
    (chart / "charts" / "sub").mkdir(parents=True)
    assert {mutant.file for mutant in generate(chart)} == {"templates/config.yaml", "values.yaml"}


def test_an_unknown_invariant(chart: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", str(chart), "--without", "image-pinned"]) == ExitCode.USAGE
    assert "Did you mean images-pinned?" in capsys.readouterr().err


def test_what_needs_the_repository_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (
        ["tenants"],
        ["coverage"],
        ["mutants"],
        ["flux", "check"],
        ["twins"],
        ["prove"],
    ):
        assert main(command) == ExitCode.UNAVAILABLE
        assert "Run this in a clone of the repository." in capsys.readouterr().err


# --- Flux trees -----------------------------------------------------------------------------------

SYNC = """\
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: apps, namespace: flux-system}
spec:
  interval: 1h
  prune: true
  path: ./apps
  sourceRef: {kind: SOURCE, name: NAME}
"""
APP = """\
apiVersion: GROUP/v1
kind: KIND
metadata: {name: one}
spec: {}
"""


def _check(
    root: Path, source: tuple[str, str], app: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    for folder in (root / "clusters" / "here", root / "apps", root / ".git"):
        folder.mkdir(parents=True, exist_ok=True)
    sync = SYNC.replace("SOURCE", source[0]).replace("NAME", source[1])
    (root / "clusters" / "here" / "apps.yaml").write_text(sync)
    (root / "apps" / "one.yaml").write_text(APP.replace("GROUP", app[0]).replace("KIND", app[1]))
    code = main(["flux", "check", str(root / "clusters" / "here")])
    return code, capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "app", "told"),
    [
        (("GitRepository", "flux-system"), ("kyverno.io", "ClusterPolicy"), "7 checks, 0 problems"),
        # flux-operator bootstraps from an OCIRepository; others make artifacts.
        (("OCIRepository", "flux-system"), ("kyverno.io", "ClusterPolicy"), "7 checks, 0 problems"),
        (("ExternalArtifact", "any"), ("kyverno.io", "ClusterPolicy"), "not looked at"),
        (("OCIRepository", "any"), ("kyverno.io", "ClusterPolicy"), "OCIRepository/any in flux-sy"),
        (("OCIRepository", "flux-system"), ("apps", "Deploy"), "there is no schema for apps/v1"),
        (("GitRepository", "flux-system"), ("networking.k8s.io", "Ingress"), "has no namespace"),
    ],
)
def test_a_flux_tree(
    source: tuple[str, str],
    app: tuple[str, str],
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, said = _check(tmp_path, source, app, capsys)
    assert told in re.sub(r"\s+", " ", said)
    assert (code == 0) == ("0 problems" in said)


def test_a_step_that_does_not_build_leaves_it_undecided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _check(tmp_path, ("GitRepository", "flux-system"), ("kyverno.io", "ClusterPolicy"), capsys)
    (tmp_path / "apps" / "kustomization.yaml").write_text("resources: [nowhere.yaml]")
    assert main(["flux", "check", str(tmp_path / "clusters" / "here")]) == ExitCode.UNDECIDED


def test_the_root_of_a_repository_is_seldom_what_flux_starts_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _check(tmp_path, ("GitRepository", "flux-system"), ("kyverno.io", "ClusterPolicy"), capsys)
    (tmp_path / "apps" / "kustomization.yaml").write_text("resources: [nowhere.yaml]")
    assert main(["flux", "check", str(tmp_path)]) == ExitCode.UNDECIDED
    assert "Name one as the PATH; there are: clusters/here." in capsys.readouterr().out


def test_a_folder_in_no_repository(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], checkout: Checkout
) -> None:
    assert main(["flux", "check", str(tmp_path)]) == ExitCode.USAGE
    assert "no folder above it has .git" in capsys.readouterr().err
    assert main(["flux", "check", str(checkout.root / "nowhere")]) == ExitCode.USAGE
