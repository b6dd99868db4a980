"""The images that the charts deploy are those that versions.yaml pins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
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


def default_images(checkout: Checkout) -> dict[str, set[tuple[str, str]]]:
    """Return the images in the default values of each chart."""
    return {
        path.parent.name: set(images(yaml.safe_load(path.read_bytes())))
        for path in sorted(checkout.charts.glob("*/values.yaml"))
    }


def deployed_images(checkout: Checkout) -> set[tuple[str, str]]:
    """Return those that something here deploys: a chart by default, production, or Flux itself."""
    files = [*checkout.charts.glob("*/values*.yaml"), *checkout.flux.glob("infrastructure/*.yaml")]
    return {
        image
        for path in files
        for document in yaml.safe_load_all(path.read_bytes())
        for image in images(document)
    }


@pytest.mark.parametrize("chart", ["lgtm", "open-webui-stack"])
def test_a_charts_default_images_are_pinned(checkout: Checkout, chart: str) -> None:
    pinned = {(i.repository, i.tag) for i in Versions.load(checkout).images.values()}
    found = default_images(checkout)[chart]
    assert found
    assert found <= pinned, f"charts/{chart}/values.yaml and versions.yaml differ"


def test_every_pinned_image_is_deployed(checkout: Checkout) -> None:
    deployed = deployed_images(checkout)
    for name, image in Versions.load(checkout).images.items():
        assert (image.repository, image.tag) in deployed, f"no chart deploys {name} ({image})"
