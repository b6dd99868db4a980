"""The pytest plugin in projects of other people: their charts, and no trace of it in others."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest
from tests import documented

from stackproof import pytest_plugin
from stackproof.pytest_plugin import fixtures
from stackproof.repo.checkout import Checkout
from stackproof.stack.providers import PROVIDERS
from stackproof.toolchain.cache import cache_root

#: pytester gives each test another home.
CACHE = cache_root()
FIXTURES = {"client", "proof", "render", "stack", "tenants"}
#: Both define --kubeconfig, so nobody can have them at once.
ALONE = ("-p", "no:pytest-kind", "-p", "no:cacheprovider")

DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels:
    app.kubernetes.io/name: web
    app.kubernetes.io/instance: {{ .Release.Name }}
    app.kubernetes.io/managed-by: {{ .Release.Service }}
    helm.sh/chart: web-1.0.0
spec:
  replicas: {{ .Values.replicas }}
  selector:
    matchLabels: {app.kubernetes.io/name: web}
  template:
    metadata:
      labels: {app.kubernetes.io/name: web}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      securityContext:
        runAsNonRoot: true
        seccompProfile: {type: RuntimeDefault}
      containers:
        - name: web
          image: example/web:1.0.0
          imagePullPolicy: IfNotPresent
          resources:
            requests: {cpu: 10m, memory: 16Mi}
            limits: {memory: 16Mi}
          securityContext:
            allowPrivilegeEscalation: false
            capabilities: {drop: [ALL]}
"""


@pytest.fixture
def project(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, checkout: Checkout
) -> pytest.Pytester:
    """Somebody's repository with a chart and the documented settings and tests."""
    page = checkout.root / "docs" / "extend" / "pytest.md"
    monkeypatch.setenv("STACKPROOF_CACHE", str(CACHE))
    pytester.makepyprojecttoml(documented.code(page, "toml"))
    pytester.makepyfile(test_ours=documented.code(page))
    chart = pytester.path / "charts" / "web"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("{apiVersion: v2, name: web, version: 1.0.0}")
    (chart / "values.yaml").write_text("replicas: 1\n")
    (chart / "templates" / "deployment.yaml").write_text(DEPLOYMENT)
    return pytester


def _break(project: pytest.Pytester, old: str, new: str) -> None:
    template = project.path / "charts" / "web" / "templates" / "deployment.yaml"
    text = template.read_text()
    assert old in text
    template.write_text(text.replace(old, new))


CHARTS = ("-k", "scenario or scaled")


def test_the_documented_tests_pass(project: pytest.Pytester) -> None:
    project.runpytest_subprocess(*ALONE, *CHARTS).assert_outcomes(passed=2, deselected=2)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("{drop: [ALL]}", "{}", "*restricted-pod-security: *does not drop ALL capabilities*"),
        ("{{ .Values.replicas }}", "1", "*assert 1 == 3*"),
        ("{{ .Values.replicas }}", "{{ .Values.replica.s }}", "*render: *nil pointer*"),
    ],
    ids=["an invariant", "their own claim", "no render"],
)
def test_a_fault_of_the_chart_is_seen(
    project: pytest.Pytester, old: str, new: str, told: str
) -> None:
    _break(project, old, new)
    done = project.runpytest_subprocess(*ALONE, *CHARTS)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines([told])


def test_values_files_and_other_charts(project: pytest.Pytester) -> None:
    (project.path / "values-prod.yaml").write_text("replicas: 2\n")
    project.makepyfile(
        test_ours="""
        def test_it(render):
            release = render("values-prod.yaml", chart="charts/web", namespace="here")
            (web,) = release.of_kind("Deployment")
            assert (web["spec"]["replicas"], web.namespace) == (2, "here")
        """
    )
    project.runpytest_subprocess(*ALONE).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("settings", "options", "told"),
    [
        ("stackproof_targets = 'no.yaml'", (), "stackproof: *no.yaml: cannot be read*"),
        ("stackproof_chart = 'web'", (), "*: no deployment is given. Give --stackproof-targets*"),
        ("stackproof_checkout = '.'", (), "*: no deployment is given. Give --stackproof-targets*"),
        (
            "",
            ("--stackproof-targets=a", "--stackproof-stack=kind"),
            "*leave out checkout and stac*",
        ),
        ("", ("--stackproof-stack=foo",), "*--stackproof-stack: invalid choice*"),
        ("", ("--stackproof-deadline=nan",), "*--stackproof-deadline: 'nan' is not a number*"),
        ("", ("--stackproof-deadline=-1",), "*--stackproof-deadline: '-1' is not a number*"),
    ],
)
def test_a_mistake_is_one_message(
    pytester: pytest.Pytester, settings: str, options: tuple[str, ...], told: str
) -> None:
    pytester.makepyprojecttoml(f"[tool.pytest.ini_options]\n{settings}\n")
    pytester.makepyfile("def test_it(proof): ...")
    done = pytester.runpytest_subprocess(*ALONE, *options)
    assert done.ret != pytest.ExitCode.OK
    text = [*done.outlines, *done.errlines]
    pytest.LineMatcher(text).fnmatch_lines([told])
    assert "Traceback" not in "\n".join(text)


def test_the_stacks_are_those_that_there_are() -> None:
    """The plugin imports nothing, so it has a list of its own; a gateway alone is a target."""
    assert {*pytest_plugin._STACKS, "gateway"} == set(PROVIDERS)


def test_without_a_setting_it_does_nothing(pytester: pytest.Pytester) -> None:
    """Of all that it could import, pytest has the plugin alone; another's `client` is theirs."""
    pytester.makepyfile(
        other_plugin="""
        import pytest

        @pytest.fixture
        def client():
            return "theirs"
        """,
        test_it="""
        import sys

        def test_nothing_is_imported(request, client):
            ours = {name for name in sys.modules if name.startswith("stackproof")}
            assert ours == {"stackproof", "stackproof.pytest_plugin"}
            assert not {"grpc", "kubernetes", "opentelemetry", "rich", "yaml"} & sys.modules.keys()
            assert client == "theirs"

        def test_no_fixture(render): ...
        """,
    )
    # Loaded before the plugins of installed packages, so that those could shadow its fixtures.
    without_others = ("-p", "no:helm-charts", "-p", "no:hypothesispytest", "-p", "other_plugin")
    done = pytester.runpytest_subprocess(*ALONE, *without_others)
    done.assert_outcomes(passed=1, errors=1)
    done.stdout.fnmatch_lines(["E *fixture 'render' not found"])


def test_no_name_is_one_of_another_plugin() -> None:
    """Those of both plugins that test charts and clusters."""
    ours = {name for name in vars(fixtures) if name in FIXTURES}
    assert ours == FIXTURES
    theirs: set[str] = set()
    for module in ("pytest_helm_charts", "pytest_kind"):
        folder = Path(str(importlib.import_module(module).__file__)).parent
        for path in folder.rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            theirs |= {
                node.name
                for node in ast.walk(tree)
                if isinstance(node, ast.FunctionDef)
                if any("fixture" in ast.unparse(each) for each in node.decorator_list)
            }
    assert {"kind_cluster", "kube_cluster"} <= theirs
    assert not ours & theirs
