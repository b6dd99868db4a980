"""Options of the test suite, and the line that says what was tested. Fixtures are in tests/."""

from __future__ import annotations

import gc
import platform
from pathlib import Path

import pytest

from stackproof.errors import StackproofError
from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Versions

#: Rendered objects are many, kept and without cycles: looking for garbage among them as often as
#: Python does by default takes a quarter of a run.
gc.set_threshold(50_000, 50, 100)

pytest_plugins = ["tests.unchanged"]

STACKS = ("local", "docker", "kind", "cluster")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("stackproof")
    group.addoption(
        "--stack",
        choices=STACKS,
        default="local",
        help="where the end-to-end tests run (default: local)",
    )
    group.addoption(
        "--keep",
        action="store_true",
        help="leave the stack running after the tests, and say where it is",
    )
    group.addoption(
        "--reuse",
        action="store_true",
        help="use the stack that an earlier --keep left, if it still runs",
    )
    group.addoption(
        "--context",
        default=None,
        metavar="NAME",
        help="with --stack cluster: the cluster's context in the kubeconfig (default: the current)",
    )
    group.addoption(
        "--evidence-dir",
        type=Path,
        default=None,
        metavar="DIR",
        help="keep logs and answers of failed tests in DIR (default: build/evidence)",
    )


def pytest_report_header(config: pytest.Config) -> list[str]:
    checkout = Checkout.find(config.rootpath)
    try:
        versions = Versions.load(checkout)
    except StackproofError as error:
        raise pytest.UsageError(str(error)) from None
    images = ", ".join(
        f"{name} {image.tag}"
        for name, image in versions.images.items()
        if name in {"mimir", "loki", "tempo", "alloy"}
    )
    kubernetes = versions.kubernetes
    return [
        f"stackproof: stack {config.getoption('stack')}, Python {platform.python_version()}",
        f"Kubernetes {kubernetes.oldest} to {kubernetes.newest}, images: {images}",
    ]
