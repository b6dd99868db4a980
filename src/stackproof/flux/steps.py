"""Versions that must run one after the other: no upgrade skips one, and none goes back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final

from stackproof.helm.manifests import COMPONENT, containers

from .losses import Objects, successor


class UpgradeStep(StrEnum):
    """How far an upgrade may go at once."""

    MINOR = "one minor version"
    MAJOR = "within a major version"
    ANY = "any later version"


#: By component. docs.weaviate.io, "Migration guide": one minor version at a time. postgresql.org,
#: "Upgrading a PostgreSQL Cluster": another major version does not read the files.
STEPS: Final[Mapping[str, UpgradeStep]] = {
    "weaviate": UpgradeStep.MINOR,
    "postgres": UpgradeStep.MAJOR,
    "open-webui": UpgradeStep.ANY,
}
_VERSION = re.compile(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?")


def images(before: Objects, after: Objects) -> Iterator[tuple[str, str, str]]:
    """Yield component, image before and image after, of the workloads that go on."""
    for manifest in before.values():
        component = manifest.labels.get(COMPONENT)
        if component and manifest.kind in {"Deployment", "StatefulSet"}:
            heir = successor(manifest, after)
            if heir is not None:
                yield component, containers(manifest)[-1]["image"], containers(heir)[-1]["image"]


def jumps(component: str, was: str, now: str) -> Iterator[str]:
    """Yield why an image may not follow another at once."""
    before, after = version(was), version(now)
    step = STEPS.get(component)
    if step is None or not before or not after:
        return
    what = f"{component}: {tag(was)} to {tag(now)}"
    if after < before[: len(after)]:
        yield f"{what} goes back: it may not read what the newer one has written"
    elif step is UpgradeStep.MAJOR and after[0] != before[0]:
        yield f"{what}: another major version does not read its files; dump and restore"
    elif step is UpgradeStep.MINOR and (skipped := between(before, after)):
        path = ", ".join(skipped)
        yield f"{what} skips versions; first {path}, each until it is ready, then {tag(now)}"


def between(before: tuple[int, ...], after: tuple[int, ...]) -> list[str]:
    """Return the minor versions that must run between two."""
    if before[0] != after[0]:
        return ["the last minor version of this major one"]
    return [f"{before[0]}.{minor}" for minor in range(before[1] + 1, after[1])]


def version(image: str) -> tuple[int, ...]:
    """Return the numbers of an image's tag; empty where it has none, as `main`."""
    found = _VERSION.match(tag(image))
    return tuple(int(part) for part in found.groups() if part) if found else ()


def tag(image: str) -> str:
    """Return an image's tag, "" where it names none."""
    name, _, found = image.partition("@")[0].rpartition(":")
    return found if name and "/" not in found else ""
