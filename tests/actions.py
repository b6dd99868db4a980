"""Runs the steps of an action as GitHub's runner does: bash, with files for what comes back."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tests.ran import ran

_INPUT = re.compile(r"\$\{\{ inputs\.([\w-]+) \}\}")


@dataclass(frozen=True)
class Ran:
    """What a step came to: exit code, what it printed, and what is on the page of the run."""

    code: int
    said: str
    outputs: str
    summary: str


class Action:
    """An action of this repository.

    Args:
        folder: Where its action.yml is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._data: dict[str, Any] = yaml.safe_load((folder / "action.yml").read_bytes())
        self.steps = [step for step in self._data["runs"]["steps"] if "run" in step]

    def run(
        self,
        number: int,
        inputs: Mapping[str, str],
        cwd: Path,
        environment: Mapping[str, str] | None = None,
    ) -> Ran:
        """Run one of the steps that have a script; `python` is the one that runs the tests."""
        step = self.steps[number]
        defaults = {key: each.get("default", "") for key, each in self._data["inputs"].items()}
        assert inputs.keys() <= defaults.keys()
        values = {**defaults, **inputs}
        given = {
            key: _INPUT.sub(lambda found: values[found[1]], value)
            for key, value in (step.get("env") or {}).items()
        }
        files = {name: cwd / name.lower() for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for path in files.values():
            path.write_text("")
        programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = ran(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=cwd,
            env={
                **os.environ,
                "PATH": programs,
                "GITHUB_ACTION_PATH": str(self.folder),
                **{name: str(path) for name, path in files.items()},
                **given,
                **(environment or {}),
            },
        )
        outputs, summary = (path.read_text() for path in files.values())
        return Ran(done.returncode, done.stdout + done.stderr, outputs, summary)
