"""The plugins of the test suite, and the line that says what is tested. Fixtures are in tests/."""

from __future__ import annotations

import gc
import platform

import pytest

from stackproof.errors import StackproofError
from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Versions

#: Rendered objects are many, kept and without cycles: looking for garbage among them as often as
#: Python does by default takes a quarter of a run.
gc.set_threshold(50_000, 50, 100)

pytest_plugins = ["pytester", "tests.unchanged"]


def pytest_report_header(config: pytest.Config) -> str:
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
    return (
        f"Python {platform.python_version()}, "
        f"Kubernetes {kubernetes.oldest} to {kubernetes.newest}, images: {images}"
    )
