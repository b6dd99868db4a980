"""What is known of images: the chart's own versions, and the application's migrations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from stackproof.helm.externals import read_values
from stackproof.helm.manifests import Manifest, containers
from stackproof.repo.checkout import Checkout
from stackproof.toolchain import openwebui

_REVISION = re.compile(r"^revision\b[^=]*=\s*['\"](\w+)['\"]", re.MULTILINE)
_UPSTREAM = "ghcr.io/open-webui/open-webui"


def goal(checkout: Checkout) -> dict[str, str]:
    """Return the image tag that the chart runs by default, by component."""
    values = read_values(checkout.charts / "open-webui-stack" / "values.yaml")
    return {
        name: str(part["image"]["tag"])
        for name, part in values.items()
        if isinstance(part, Mapping) and "image" in part
    }


def migrations(checkout: Checkout, manifests: Iterable[Manifest]) -> frozenset[str] | None:
    """Return the migrations of the application that a release runs.

    None where they are not known: the image is not upstream's of the version that is installed
    here (tools/open-webui), or none is.
    """
    images = {
        container["image"]
        for manifest in manifests
        if manifest.kind == "Deployment"
        for container in containers(manifest)
        if container["name"] == "open-webui"
    }
    here = openwebui.locate(checkout, build=False)
    if here.path is None or images != {f"{_UPSTREAM}:v{here.version}"}:
        return None
    return read_migrations(here.path.parent.parent)


def read_migrations(environment: Path) -> frozenset[str]:
    """Return the migrations of the application that is installed in a virtual environment."""
    files = environment.glob("lib/python*/site-packages/open_webui/migrations/versions/*.py")
    texts = (file.read_text(encoding="utf-8") for file in files)
    return frozenset(found[1] for text in texts for found in _REVISION.finditer(text))
