"""Values that do nothing: keys at a wrong place, and keys that no template reads.

A leaf of a values file is in force if the chart renders something else without it, or if it says
what the chart's default says anyway, or if a later file says the same key again. Everything else is
a mistake: of the place, of the name, or a switch beside it is off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackproof import helm
from stackproof.helm import HelmError, Render, Values, ValueUse
from stackproof.manifests import Release
from stackproof.permutations import Keys, value_at
from stackproof.surroundings import as_mapping, merged, read_values


@dataclass(frozen=True)
class Idle:
    """A leaf of a values file that does nothing."""

    file: str
    path: Keys
    value: Any

    def __str__(self) -> str:
        return f"{self.file}: {'.'.join(self.path)} = {self.value!r} changes nothing"


def leaves(values: Mapping[str, Any], path: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """Yield every value that is no map with keys, with the keys that lead to it."""
    for key, below in values.items():
        if isinstance(below, Mapping) and below:
            yield from leaves(below, (*path, key))
        else:
            yield (*path, key), below


def without(values: Mapping[str, Any], path: Keys) -> dict[str, Any]:
    """Return values without one leaf; maps that it leaves empty stay."""
    first, *rest = path
    kept = dict(values)
    if rest:
        kept[first] = without(values[first], tuple(rest))
    else:
        del kept[first]
    return kept


def idle(chart: Path, values: Sequence[Values], audited: int, where: str) -> list[Idle]:
    """Return the leaves of one of several values files that do nothing.

    Args:
        chart: The chart's folder.
        values: What the chart is given, in Helm's order.
        audited: Which of them is audited.
        where: How messages call it.

    Raises:
        HelmError: The chart does not render with these values.
    """
    own = as_mapping(values[audited])
    defaults = read_values(chart / "values.yaml")
    given = [as_mapping(part) for part in values]
    later = merged(*given[audited + 1 :])
    asked = [
        (path, value)
        for path, value in leaves(own)
        if value_at(defaults, path) != value and value_at(later, path) is None
    ]
    requests = [_request(chart, given)]
    for path, _ in asked:
        requests.append(
            _request(chart, [*given[:audited], without(own, path), *given[audited + 1 :]])
        )
    whole, *others = helm.render_many(requests)
    if isinstance(whole, HelmError):
        raise whole
    return [
        Idle(where, path, value)
        for (path, value), outcome in zip(asked, others, strict=True)
        if isinstance(outcome, Release) and _same(whole, outcome)
    ]


def _request(chart: Path, values: Sequence[Mapping[str, Any]]) -> Render:
    return Render(
        chart=chart,
        values=values,
        release="one",
        namespace="here",
        kube_version=helm.newest_kubernetes(),
    )


def _same(one: Release, other: Release) -> bool:
    return [m.digest for m in one] == [m.digest for m in other] and one.notes == other.notes


def unread(chart: Path) -> list[str]:
    """Return the keys of a chart's values.yaml that no template reads, as dotted paths."""
    uses = helm.renderer().values_used(chart)
    # A template that is called by a name which it computes cannot be followed: there, words count.
    words = "\n".join(
        path.read_text(encoding="utf-8") for path in sorted((chart / "templates").rglob("*.*"))
    )
    return [
        ".".join(path)
        for path, _ in leaves(read_values(chart / "values.yaml"))
        if not any(_covers(use, path) for use in uses) and f".Values.{'.'.join(path)}" not in words
    ]


def _covers(use: ValueUse, path: Keys) -> bool:
    """Tell whether a use reads a value: it itself, or a map with all that is in it."""
    reach = len(use.path)
    alike = all(a in {b, "*"} for a, b in zip(use.path, path, strict=False))
    return alike and (reach == len(path) or (reach < len(path) and use.how == "read"))
