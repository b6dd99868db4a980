"""The plugins of the test suite, and the line that says what is tested. Fixtures are in tests/."""

from __future__ import annotations

import gc
import os
import platform
import tempfile
from pathlib import Path

import pytest

from stackproof.errors import StackproofError
from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Versions

#: Rendered objects are many, kept and without cycles: looking for garbage among them as often as
#: Python does by default takes a quarter of a run.
gc.set_threshold(50_000, 50, 100)

#: Tests make and delete tens of thousands of small files, which takes a disk a third of a run.
_MEMORY = Path("/dev/shm")  # noqa: S108 - whoever needs a directory makes one of its own there
_ROOM_BYTES = 4 * 2**30


def _memory_is_fit() -> bool:
    """Tell whether files may be in memory: tests write programs, too, and run them."""
    if not os.access(_MEMORY, os.W_OK):
        return False
    there = os.statvfs(_MEMORY)
    return there.f_bavail * there.f_frsize >= _ROOM_BYTES and not there.f_flag & os.ST_NOEXEC


if "TMPDIR" not in os.environ and _memory_is_fit():
    tempfile.tempdir = str(_MEMORY)

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
