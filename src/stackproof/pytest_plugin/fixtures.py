"""The fixtures `stack`, `proof`, `tenants`, `client` and `render`, and the evidence of failures."""

from __future__ import annotations

import re
import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from stackproof import report
from stackproof.backends import Client
from stackproof.checks import charts
from stackproof.errors import StackproofError
from stackproof.flux.deployment import Deployment
from stackproof.helm import renderer
from stackproof.helm.manifests import Release
from stackproof.helm.renderer import Values
from stackproof.isolation import Proof, prove
from stackproof.kube import diagnostics
from stackproof.repo import results
from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Versions
from stackproof.stack.base import Stack
from stackproof.stack.providers import Options, make_stack
from stackproof.stack.targets import Targets, TargetsStack

from . import provider, setting

#: Evidence of the first failures; those after them mostly have the same cause.
_EVIDENCE = 3

_STACK: pytest.StashKey[Stack] = pytest.StashKey()
_KEPT: pytest.StashKey[list[Path]] = pytest.StashKey()
_LEFT: pytest.StashKey[str] = pytest.StashKey()


class Render:
    """Renders a chart as `helm template` does, and says what `stackproof lint` finds in it.

    Args:
        chart: What is rendered where a call names no other chart.
        root: The folder that paths given as text are seen from.
    """

    def __init__(self, chart: Path | None, root: Path) -> None:
        self._chart = chart
        self._root = root

    def __call__(
        self,
        *values: Values | str,
        chart: Path | str | None = None,
        release: str = "release-name",
        namespace: str = "default",
    ) -> Release:
        """Render a chart with values files and values, each over those before it.

        Raises:
            HelmError: The chart does not render with these values.
            StackproofError: There is no such chart or file.
        """
        return renderer.render(
            self._folder(chart), self._paths(values), release=release, namespace=namespace
        )

    def problems(
        self,
        *values: Values | str,
        chart: Path | str | None = None,
        namespace: str = "default",
        without: tuple[str, ...] = (),
    ) -> list[str]:
        """Return what breaks an invariant, with these values or with each scenario of the chart."""
        folder = self._folder(chart)
        cases = [self._paths(values)] if values else [given for _, given in charts.cases(folder)]
        found = (
            f"{each.rule}: {each.text}"
            for given in cases
            for each in charts.problems(folder, given, namespace, without)
            if each.rule != charts.NOTE
        )
        return list(dict.fromkeys(found))

    def _folder(self, chart: Path | str | None) -> Path:
        folder = self._root / chart if chart else self._chart
        if folder is None:
            raise StackproofError(
                "which chart?", todo="Name it: render(chart=…), or --stackproof-chart."
            )
        if not (folder / "Chart.yaml").is_file():
            raise StackproofError("there is no chart: it has no Chart.yaml", where=str(folder))
        return folder

    def _paths(self, values: tuple[Values | str, ...]) -> list[Values]:
        return [self._root / each if isinstance(each, str | Path) else each for each in values]


def pytest_report_header(config: pytest.Config) -> str:
    """Say what is tested."""
    targets = setting(config, "targets")
    return f"stackproof: {f'targets {targets}' if targets else f'stack {provider(config)}'}"


@contextmanager
def _one_message() -> Iterator[None]:
    """Show a mistake in the settings, or what cannot be had, as its message alone."""
    try:
        yield
    except StackproofError as error:
        pytest.fail(f"stackproof: {error}", pytrace=False)


@pytest.fixture(scope="session")
def render(pytestconfig: pytest.Config) -> Render:
    """Render a chart with values; `render.problems()` says what is wrong with any chart."""
    return Render(setting(pytestconfig, "chart"), pytestconfig.rootpath)


@pytest.fixture(scope="session")
def stack(pytestconfig: pytest.Config) -> Iterator[Stack]:
    """The running deployment: what the targets tell, or the checkout's charts."""
    with ExitStack() as leaving:
        with _one_message():
            running = leaving.enter_context(_stack(pytestconfig))
        pytestconfig.stash[_STACK] = running
        yield running
        del pytestconfig.stash[_STACK]
    if pytestconfig.getoption("stackproof_keep") and running.disposable:
        pytestconfig.stash[_LEFT] = running.name


def _stack(config: pytest.Config) -> Stack:
    if targets := setting(config, "targets"):
        return TargetsStack(Targets.load(targets))
    options = Options(
        keep=config.getoption("stackproof_keep"),
        reuse=config.getoption("stackproof_reuse"),
        context=config.getoption("stackproof_context"),
        # Past pytest's capture: minutes without a word look like a hang.
        say=lambda text: print(f"\n{text}", end="", file=sys.__stderr__, flush=True),
    )
    return make_stack(provider(config), Deployment.load(_checkout(config)), options)


def _checkout(config: pytest.Config) -> Checkout:
    try:
        return Checkout.find(setting(config, "checkout") or config.rootpath)
    except StackproofError as error:
        raise StackproofError(
            "no deployment is given",
            where=str(config.rootpath),
            todo="Give --stackproof-targets FILE, or --stackproof-checkout of a clone.",
        ) from error


@pytest.fixture(scope="session")
def tenants(stack: Stack) -> tuple[str, ...]:
    """The names of the tenants that are deployed."""
    return stack.tenants


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    """A pool of connections, to ask the read APIs by."""
    with Client() as shared:
        yield shared


@pytest.fixture(scope="session")
def proof(pytestconfig: pytest.Config, stack: Stack) -> Proof:
    """One run of the proof with all tenants, signals and read APIs; its report is written."""
    with _one_message():
        if targets := setting(pytestconfig, "targets"):
            of, pins = results.Provenance.of_files(targets), None
        else:
            checkout = _checkout(pytestconfig)
            of, pins = results.Provenance.of(checkout), Versions.load(checkout)
        deadline_s: float = pytestconfig.getoption("stackproof_deadline")
        found = prove(stack, deadline_s=deadline_s, pins=pins)
        report.write(found, _folder(pytestconfig, "report"), of)
    return found


def _folder(config: pytest.Config, name: str) -> Path:
    given: Path | None = config.getoption(f"stackproof_{name}")
    return config.invocation_params.dir / given if given else config.rootpath / "build" / name


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],  # noqa: ARG001
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the evidence of a failure while what failed is still there."""
    made = yield
    stack = item.config.stash.get(_STACK, None)
    kept = item.config.stash.setdefault(_KEPT, [])
    if made.failed and stack and hasattr(stack, "kube") and len(kept) < _EVIDENCE:
        name = re.sub(r"[^a-zA-Z0-9]+", "-", item.name)[:80]
        path = _folder(item.config, "evidence") / f"{name}.tar.gz"
        namespaces = ["flux-system", "external-secrets", *getattr(stack, "namespaces", ())]
        try:
            diagnostics.of_cluster(stack.kube, namespaces, path, users=stack.tenants)
            kept.append(path)
            made.sections.append(("evidence", str(path)))
        except StackproofError as error:
            made.sections.append(("evidence", f"none: {error}"))
    return made


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say where the evidence is, and what is left of the stack."""
    for path in config.stash.get(_KEPT, []):
        terminalreporter.write_line(f"evidence: {path}")
    if left := config.stash.get(_LEFT, ""):
        terminalreporter.write_line(f"kept: {left}")
