"""The plugins of the test suite, and the line that says what is tested. Fixtures are in tests/."""

from __future__ import annotations

import gc
import os
import platform
import tempfile

import pytest

from stackproof.errors import StackproofError
from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Versions
from stackproof.stack import scratch

#: Rendered objects are many, kept and without cycles: looking for garbage among them as often as
#: Python does by default takes a quarter of a run.
gc.set_threshold(50_000, 50, 100)

# Tests make and delete tens of thousands of small files, which takes a disk a third of a run; they
# write programs, too, and run them.
if scratch.has_room(scratch.MEMORY) and not os.statvfs(scratch.MEMORY).f_flag & os.ST_NOEXEC:
    tempfile.tempdir = str(scratch.MEMORY)

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
