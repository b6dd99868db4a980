"""The programs that were built say that they are the pinned versions."""

from __future__ import annotations

import subprocess

import pytest

from stackproof import programs
from stackproof.checkout import Checkout


@pytest.mark.parametrize("name", ["alloy", "caddy", "helm", "loki", "mimir", "tempo"])
def test_it_says_its_pinned_version(checkout: Checkout, name: str) -> None:
    program = programs.locate(name, checkout)
    ask = programs.RECIPES[name].ask
    assert program.path
    assert ask
    done = subprocess.run([program.path, *ask], capture_output=True, text=True, check=True)
    assert program.version in done.stdout + done.stderr
