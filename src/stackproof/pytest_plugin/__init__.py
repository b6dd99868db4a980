"""A pytest plugin: somebody's own tests of their charts and deployment (docs/extend/pytest.md).

Every pytest of an environment with stackproof in it loads this module, so it imports nothing and
adds no fixture: those come with the first setting that says what is to be tested. So no fixture of
the same name, of whatever plugin, is shadowed in a project that has no use for these.
"""

from __future__ import annotations

from pathlib import Path

import pytest

_FIXTURES = "stackproof.pytest_plugin.fixtures"
#: What is tested, as an option or in pytest's configuration file: name, and what it is.
_PATHS = {
    "chart": "the chart that `render` renders",
    "targets": "any deployment: the file says where each tenant writes and reads",
    "checkout": "the clone of stackproof whose charts `stack` starts (default: the one around)",
}
_STACKS = ("local", "docker", "kind", "cluster")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, each of which begins with --stackproof-."""
    group = parser.getgroup("stackproof", "stackproof (a chart, targets, checkout or stack is it)")
    for name, about in _PATHS.items():
        group.addoption(
            f"--stackproof-{name}", type=Path, metavar="PATH", help=f"{about}; also in the file"
        )
        parser.addini(f"stackproof_{name}", f"stackproof: {about}")
    group.addoption(
        "--stackproof-stack", choices=_STACKS, help="where the checkout's charts run (local)"
    )
    group.addoption(
        "--stackproof-context",
        metavar="NAME",
        help="with the stack cluster: its context in the kubeconfig (default: the current)",
    )
    group.addoption(
        "--stackproof-keep",
        action="store_true",
        help="leave the kind cluster, or the directory of another stack, and say where it is",
    )
    group.addoption(
        "--stackproof-reuse",
        action="store_true",
        help="use the kind cluster if there is one, and leave it",
    )
    group.addoption(
        "--stackproof-deadline",
        type=_seconds,
        default=30.0,
        metavar="SECONDS",
        help="how long each piece of telemetry may take to be seen (default: 30)",
    )
    group.addoption(
        "--stackproof-report",
        type=Path,
        metavar="DIR",
        help="where the report of the proof goes (default: build/report)",
    )
    group.addoption(
        "--stackproof-evidence",
        type=Path,
        metavar="DIR",
        help="what is kept of a cluster where a test failed goes there (default: build/evidence)",
    )


def _seconds(text: str) -> float:
    from stackproof.options import seconds  # only where it is given

    return seconds(text)


def pytest_configure(config: pytest.Config) -> None:
    """Add the fixtures where a setting says what is to be tested.

    Raises:
        UsageError: Two settings say different things.
    """
    given = {name for name in _PATHS if setting(config, name)}
    where = config.getoption("stackproof_stack")
    if "targets" in given and ("checkout" in given or where):
        raise pytest.UsageError(
            "stackproof: targets say where a deployment is: leave out checkout and stack"
        )
    if given or where:
        # By its name: tests/unchanged.py and a start without it must not read what it imports.
        config.pluginmanager.import_plugin(_FIXTURES)


def provider(config: pytest.Config) -> str:
    """Return where the checkout's charts run."""
    return config.getoption("stackproof_stack") or "local"


def setting(config: pytest.Config, name: str) -> Path | None:
    """Return a path: an option's is seen from where pytest was called, the file's from its own."""
    option: Path | None = config.getoption(f"stackproof_{name}")
    if option:
        return config.invocation_params.dir / option
    in_file: str = config.getini(f"stackproof_{name}")
    beside = config.inipath.parent if config.inipath else config.rootpath
    return beside / in_file if in_file else None
