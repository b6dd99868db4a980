"""Small disks and full ones, for local stacks."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.ran import ran

from stackproof.stack.local import LocalStack

DISK_BYTES = 8 * 2**20


@contextmanager
def small_disk(stack: LocalStack, component: str) -> Iterator[Path]:
    """Run a backend on an empty small disk, and on its own again when the block ends."""
    data = stack.directory / component / "data"
    if shutil.which("mount") is None:
        pytest.skip("a small disk must be mounted, and there is no `mount`")
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "small", str(data)]
    mounted = ran(command)
    if mounted.returncode:
        pytest.skip(f"a small disk must be mounted, which takes root: {mounted.stderr.strip()}")
    try:
        stack.restart(component)
        yield data
    finally:
        stack.process(component).kill()
        subprocess.run(["umount", str(data)], check=True)
        stack.restart(component)


@contextmanager
def full(disk: Path) -> Iterator[float]:
    """Take all that is left of a disk until the block ends; gives since when."""
    filler = disk / "filler"
    try:
        with suppress(OSError), filler.open("wb", 0) as file:
            while True:
                file.write(b"x" * 4096)
        assert shutil.disk_usage(disk).free == 0
        yield time.monotonic()
    finally:
        filler.unlink()
