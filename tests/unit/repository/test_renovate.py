"""renovate.json proposes a new version for whatever is pinned."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Versions

ROOT = Checkout.find().root
CONFIG: dict[str, Any] = json.loads((ROOT / "renovate.json").read_text(encoding="utf-8"))
#: Renovate's own patterns (its docs: modules/manager) of the managers that have none of ours.
BUILT_IN = {
    "gomod": [r"(^|/)go\.mod$"],
    "github-actions": [r"(^|/)\.github/(workflows|actions)/.+\.ya?ml$"],
    "dockerfile": [r"(^|/)(Dockerfile|Containerfile)$"],
}


def patterns(manager: str) -> list[str]:
    own = CONFIG.get(manager, {}).get("managerFilePatterns")
    return [each.strip("/") for each in own] if own else BUILT_IN[manager]


def found(text: str) -> Iterator[tuple[str, str]]:
    """Yield what the custom managers find in versions.yaml, as Renovate's RE2 reads it."""
    for manager in CONFIG["customManagers"]:
        for pattern in manager["matchStrings"]:
            for match in re.finditer(pattern.replace("(?<", "(?P<"), text):
                yield match["depName"], match["currentValue"]


def test_every_image_of_the_pins_is_found(checkout: Checkout) -> None:
    versions = Versions.load(checkout)
    images = {(image.repository, image.version) for image in versions.images.values()}
    node = versions.kubernetes.kind_node.partition("@")[0].rpartition(":")
    assert set(found(checkout.versions_file.read_text(encoding="utf-8"))) == {
        *images,
        (node[0], node[2]),
    }


@pytest.mark.parametrize("chart", ["lgtm", "open-webui-stack"])
def test_every_image_of_a_chart_is_found(chart: str, checkout: Checkout) -> None:
    text = (checkout.charts / chart / "values.yaml").read_text(encoding="utf-8")
    images = [
        (each["image"]["repository"], each["image"]["tag"].partition("@")[0])
        for each in yaml.safe_load(text).values()
        if isinstance(each, dict) and each.get("image", {}).get("tag")
    ]
    assert sorted(found(text)) == sorted(images)


@pytest.mark.parametrize(
    ("manager", "glob"),
    [
        ("gomod", "tools/*/go.mod"),
        ("gomod", "schemas/go.mod"),
        ("github-actions", ".github/workflows/*.yaml"),
        ("github-actions", ".github/actions/*/action.yaml"),
        ("dockerfile", "Dockerfile"),
        ("pip_requirements", "requirements.lock"),
        ("flux", "flux/infrastructure/*.yaml"),
    ],
)
def test_every_file_with_pins_is_looked_at(manager: str, glob: str) -> None:
    assert manager in CONFIG["enabledManagers"]
    files = [path.relative_to(ROOT) for path in ROOT.glob(glob)]
    assert files
    for file in files:
        assert any(re.search(pattern, file.as_posix()) for pattern in patterns(manager)), file


def test_nothing_merges_itself() -> None:
    text = (ROOT / "renovate.json").read_text(encoding="utf-8")
    assert re.findall(r'"(?:auto|platformAuto)merge": *(\w+)', text) == ["false"]


@pytest.mark.parametrize("command", ["tools/pin.py", "tools/open-webui/lock.py"])
def test_the_commands_that_it_names_are_there(command: str) -> None:
    assert command in json.dumps(CONFIG)
    assert Path(ROOT, command).is_file()
