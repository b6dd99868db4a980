"""The images that versions.yaml pins are those that something deploys; the rule of settings
`defaults-are-of-this-deployment` sees to it that the charts name no others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Versions


def images(values: Any) -> Iterator[tuple[str, str]]:
    """Yield repository and tag of every image in a chart's values.

    An empty tag is the user's to fill in: nobody but its owner can say a version of that image.
    """
    if isinstance(values, dict):
        if "repository" in values and values.get("tag"):
            yield str(values["repository"]), str(values["tag"])
        for value in values.values():
            yield from images(value)


def test_every_pinned_image_is_deployed(checkout: Checkout) -> None:
    """By a chart's default, in production, or by Flux itself."""
    files = [*checkout.charts.glob("*/values*.yaml"), *checkout.flux.glob("infrastructure/*.yaml")]
    deployed = {
        image
        for path in files
        for document in yaml.safe_load_all(path.read_bytes())
        for image in images(document)
    }
    for name, image in Versions.load(checkout).images.items():
        assert (image.repository, image.tag) in deployed, f"no chart deploys {name} ({image})"
