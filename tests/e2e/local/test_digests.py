"""`make pins` writes what a registry says, in all places; what it does not say stays as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.copies import copied
from tests.e2e.local.registry import Registry, layer
from tests.ran import ran

from stackproof.errors import ExitCode
from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Versions
from stackproof.toolchain import deployed, programs

#: Whose tag Flux writes (flux/flux-system/image-automation.yaml).
OWNERS = "ghcr.io/gradient-ds/open-webui"


@pytest.fixture
def clone(checkout: Checkout, tmp_path: Path) -> Checkout:
    (tmp_path / "tools").symlink_to(checkout.tools)
    return copied(checkout, tmp_path, ("charts", "flux"))


@pytest.fixture
def registry(clone: Checkout) -> Iterator[Registry]:
    """A mirror of all images that are deployed; each has a digest of its own."""
    made = Registry()
    for image in Versions.load(clone).images.values():
        _, path = deployed._split(image.repository)
        content = {"name": str(image).encode()}
        image_of = {"linux/amd64": [layer(content)], "linux/arm64": [layer({})]}
        made.push(path, image.version, image_of)
    with made.serving():
        yield made


def pin(clone: Checkout, registry: Registry) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "STACKPROOF_MIRROR": registry.address,
        "STACKPROOF_FETCH": str(programs.find("fetch")),
    }
    script = Checkout.find().tools / "digests.py"
    return ran([sys.executable, script], cwd=clone.root, env=environment)


def texts(clone: Checkout) -> dict[Path, str]:
    return {path: path.read_text() for path in clone.root.rglob("*.yaml")}


def test_digests_are_written_wherever_the_image_is(clone: Checkout, registry: Registry) -> None:
    done = pin(clone, registry)
    assert done.returncode == ExitCode.GOOD, done.stderr
    assert "run `make charts`" in done.stdout
    images = Versions.load(clone).images
    for name, image in images.items():
        _, path = deployed._split(image.repository)
        digest = registry._tags[f"{path}:{image.version}"]
        assert image.digest == ("" if image.repository == OWNERS else digest), name
    values = yaml.safe_load((clone.charts / "lgtm" / "values.yaml").read_bytes())
    assert values["tempo"]["image"]["tag"] == images["tempo"].tag
    values = yaml.safe_load((clone.charts / "open-webui-stack" / "values.yaml").read_bytes())
    assert values["postgres"]["image"]["tag"] == images["postgres"].tag
    written = texts(clone)
    pin(clone, registry)
    assert texts(clone) == written


def test_a_tag_that_moved_gets_its_new_digest(clone: Checkout, registry: Registry) -> None:
    pin(clone, registry)
    version = Versions.load(clone).images["tempo"].version
    digest = registry.push("grafana/tempo", version, {"linux/amd64": [layer({"a": b"new"})]})
    pin(clone, registry)
    assert Versions.load(clone).images["tempo"].digest == digest


def test_what_a_registry_does_not_say_stays(clone: Checkout, registry: Registry) -> None:
    pin(clone, registry)
    before = texts(clone)
    registry._tags.clear()
    done = pin(clone, registry)
    assert done.returncode == ExitCode.UNAVAILABLE
    assert "grafana/tempo:" in done.stderr
    assert "MANIFEST_UNKNOWN" in done.stderr
    assert texts(clone) == before
