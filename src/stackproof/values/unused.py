"""What does nothing: values at a wrong place or that no template reads, changes that roll no pod.

A leaf of a values file is in force if the chart renders something else without it, or if it says
what the chart's default says anyway, or if a later file says the same key again. Everything else is
a mistake: of the place, of the name, or a switch beside it is off.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stackproof.helm import renderer
from stackproof.helm.externals import as_mapping, merged, read_values
from stackproof.helm.manifests import Release, pod_template
from stackproof.helm.renderer import Render, Values, ValueUse
from stackproof.helm.uses import uses

from .combinations import Keys, value_at


@dataclass(frozen=True)
class Unused:
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


def find(chart: Path, values: Sequence[Values], audited: int, where: str) -> list[Unused]:
    """Return the leaves of one of several values files that do nothing.

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
    whole = renderer.renderer().render(_request(chart, given))
    others = renderer.render_many(
        _request(chart, [*given[:audited], without(own, path), *given[audited + 1 :]])
        for path, _ in asked
    )
    return [
        Unused(where, path, value)
        for (path, value), outcome in zip(asked, others, strict=True)
        if isinstance(outcome, Release) and _same(whole, outcome)
    ]


def _request(chart: Path, values: Sequence[Mapping[str, Any]]) -> Render:
    return Render(chart=chart, values=values, release="one", namespace="here")


def _same(one: Release, other: Release) -> bool:
    return [m.digest for m in one] == [m.digest for m in other] and one.notes == other.notes


def unread(chart: Path) -> list[str]:
    """Return the keys of a chart's values.yaml that no template reads, as dotted paths."""
    uses = renderer.renderer().values_used(chart)
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


# --- Changes that must reach running pods -------------------------------------------------------

#: Files that their program reads again by itself (limits of tenants, dashboards).
RELOADED = re.compile(r"overrides\.yaml|dashboards\.yaml|.*\.json")
#: Secrets that a pod must not follow at once: PostgreSQL reads its own only when its directory is
#: empty, and a new key of the sessions logs everybody out and loses stored credentials.
STAYS = frozenset({"webui-secret-key", "postgres-password"})


def unrolled(
    chart: Path, values: Sequence[Values], overlay: Mapping[str, str] | None = None
) -> list[str]:
    """Return the changes of a ConfigMap or Secret after which a pod would run with the old one.

    Each is tried: a line of a configuration is changed in its template, a secret in the values; the
    pods that use it must get another template, or else must stay.

    Args:
        chart: The chart's folder.
        values: What the chart is given, in Helm's order.
        overlay: Files of the chart with other texts.

    Raises:
        HelmError: The chart does not render with these values.
    """
    first = replace(_request(chart, [as_mapping(v) for v in values]), overlay=overlay or {})
    before = renderer.renderer().render(first)
    tries = [*_touched(chart, first, before), *_rotated(first, before)]
    outcomes = renderer.render_many(request for _, _, request in tries)
    return [
        f"{what}: {name} goes on with the old one"
        if stays is False
        else f"{what}: {name} is rolled, and must not be"
        for (what, stays, _), after in zip(tries, outcomes, strict=True)
        if isinstance(after, Release)
        for name in _wrong(before, after, stays)
    ]


def _touched(chart: Path, first: Render, before: Release) -> Iterator[tuple[str, bool, Render]]:
    """Yield a change of one line of each configuration, in the template that it comes from."""
    for made in before.of_kind("ConfigMap"):
        file = made.source.partition("/")[2]
        text = first.overlay.get(file) or (chart / file).read_text(encoding="utf-8")
        for key, value in (made.get("data") or {}).items():
            lines = (
                value.splitlines() if "\n" in value else [f"{key}: {value}", f'{key}: "{value}"']
            )
            line = next((n for n in map(str.strip, lines) if n[:1] and text.count(n) == 1), None)
            if line and not RELOADED.fullmatch(key):
                changed = text.replace(line, f'{line[:-1]}x"' if line[-1] == '"' else f"{line}x")
                overlay = {**first.overlay, file: changed}
                yield f"{made.ref}, {key}: {line}", False, replace(first, overlay=overlay)


def _rotated(first: Render, before: Release) -> Iterator[tuple[str, bool, Render]]:
    """Yield a change of each secret that the values give, and whether pods must stay."""
    given = merged(*(as_mapping(part) for part in first.values))
    for made in before.of_kind("Secret"):
        keys = made.get("stringData") or {}
        for key in keys:
            camel = re.sub(r"-(\w)", lambda one: one[1].upper(), key)
            here = given.get("secrets") or {}
            part = {"extra": {key: "new"}} if key in (here.get("extra") or {}) else {camel: "new"}
            values = [*first.values, {"secrets": part}]
            yield f"{made.ref}, {key}", bool(STAYS & set(keys)), replace(first, values=values)


def _wrong(before: Release, after: Release, stays: bool) -> Iterator[str]:
    """Yield the workloads that use what changed and are as before, or changed though they stay."""
    old = {(m.kind, m.name): m.digest for m in before}
    changed = {key for m in after if old.get(key := (m.kind, m.name)) != m.digest}
    for m in after.workloads():
        template, then = pod_template(m), before.find(m.kind, m.name)
        rolled = then is None or pod_template(then) != template
        # What is mounted of a Secret its program reads again.
        at_start = {
            (one.kind, one.name) for one in uses(m) if one.kind == "ConfigMap" or not one.mounted
        }
        if m.kind != "Job" and rolled is stays and changed & at_start:
            yield m.ref
