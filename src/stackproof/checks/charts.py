"""What is wrong with anybody's chart: the invariants that a scenario of it breaks."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stackproof.helm import renderer, schema
from stackproof.helm.externals import ExternalObjects
from stackproof.helm.renderer import Values
from stackproof.repo.checkout import Checkout
from stackproof.values.combinations import scenarios

from . import invariants

#: What stands in the place of an invariant's name: it did not render, or was not looked at.
RENDER, NOTE = "render", "note"


@dataclass(frozen=True, slots=True)
class Problem:
    """What one render breaks."""

    rule: str
    text: str


def cases(folder: Path) -> Iterator[tuple[str, Sequence[Values]]]:
    """Yield the values of a chart's scenarios, each with its name; of none, its defaults."""
    found = scenarios(folder)
    for path in found:
        yield str(path.relative_to(folder)), [path]
    if not found:
        yield "defaults", ()


def problems(
    folder: Path, values: Sequence[Values], namespace: str, without: Container[str] = ()
) -> Iterator[Problem]:
    """Yield what is wrong with a chart, rendered with these values."""
    try:
        release = renderer.render(folder, values, release="release-name", namespace=namespace)
    except renderer.HelmError as error:
        yield Problem(RENDER, error.message)
        return
    schemas = schema.schemas(renderer.newest_kubernetes(), Checkout.own().root / "schemas")
    foreign = [each for each in release if schemas.foreign(each)]
    for each in foreign:
        what = f"{each.ref} is not looked at: no schema of {each.api_version}"
        yield Problem(NOTE, f"{each.source}: {what}")
    release = replace(release, manifests=tuple(m for m in release if m not in foreign))
    rendered = ExternalObjects.load(folder).around(release, values)
    yield from (Problem(*found) for found in invariants.problems(rendered, without))
