"""The image of the canary, as far as it can be tried without Docker: what its stages get suffices.

The files that .dockerignore lets in are laid out as each stage copies them. Those of the first make
a wheel, and among those of the last the canary's command runs.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.utils import exclude_paths
from tests.ran import ran

from stackproof.flux.deployment import Deployment
from stackproof.helm.manifests import containers
from stackproof.repo.checkout import Checkout

CHECKOUT = Checkout.own()
_IGNORED = (CHECKOUT.root / ".dockerignore").read_text().splitlines()
_STAGES = re.split(r"^FROM ", (CHECKOUT.root / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]


@pytest.fixture(scope="module")
def context() -> set[str]:
    """The paths that Docker sends to its daemon."""
    rules = [line for line in _IGNORED if line and not line.startswith("#")]
    return set(exclude_paths(str(CHECKOUT.root), rules))


def _copied(stage: str) -> Iterator[str]:
    """Yield what a stage copies out of the context, under the names that it has there."""
    for words in re.findall(r"^COPY (?!--from)(.+)$", stage, re.MULTILINE):
        *sources, target = words.split()
        assert target in {"./", *sources}
        yield from sources


def _laid_out(stage: str, context: set[str], folder: Path) -> Path:
    for source in _copied(stage):
        found = [path for path in context if path == source or path.startswith(f"{source}/")]
        assert found, f"COPY {source}: it is not there, or .dockerignore does not let it in"
        for path in found:
            if (CHECKOUT.root / path).is_file():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(CHECKOUT.root / path, folder / path)
    return folder


def test_nothing_else_is_sent(context: set[str]) -> None:
    """Not .venv, whose half a gigabyte would go to the daemon each time; nor what Python caches."""
    top = {path.partition("/")[0] for path in context}
    assert top - {"Dockerfile", ".dockerignore"} == {s for stage in _STAGES for s in _copied(stage)}
    assert not [path for path in context if "__pycache__" in path]


def test_the_wheel_is_built_of_what_the_first_stage_gets(context: set[str], tmp_path: Path) -> None:
    folder = _laid_out(_STAGES[0], context, tmp_path)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", "."]
    built = ran(command, cwd=folder)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = (folder / "dist").glob("*.whl")
    assert "stackproof/carried/versions.yaml" in zipfile.ZipFile(wheel).namelist()


def test_the_canary_finds_what_the_last_stage_gets(context: set[str], tmp_path: Path) -> None:
    """Its command gets as far as the gateway, at which nobody answers."""
    folder = _laid_out(_STAGES[-1], context, tmp_path / "image")
    canary = {"enabled": True, "image": {"tag": "1"}, "metricsTenant": "soev"}
    release = Deployment.load(CHECKOUT).with_values(lgtm=[{"canary": canary}]).lgtm()
    (container,) = containers(release.get("CronJob", "canary"))
    args = [str(each) for each in container["args"] if not str(each).startswith("--report")]
    args = [each.replace("$(GATEWAY_URL)", "http://127.0.0.1:9") for each in args]
    passwords = {each["name"]: "x" for each in container["env"] if "PASSWORD" in each["name"]}
    done = ran(
        [sys.executable, "-m", "stackproof.cli", *args, f"--report={tmp_path}/report"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **passwords},
    )
    assert "http://127.0.0.1:9: nothing answers there" in done.stderr, done.stderr
