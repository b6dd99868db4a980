"""The registry of what holds for every render of any chart, and what its rules share."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from functools import wraps
from typing import Any

from stackproof.checks import Rules
from stackproof.helm.externals import Rendered
from stackproof.helm.manifests import Manifest, containers

INVARIANTS: Rules[Rendered] = Rules()


Finder = Callable[[Rendered], Iterator[str]]


def of_each_object(find: Callable[[Manifest], Iterator[str]]) -> Finder:
    """Make a check of a release from one of a single object, whose verdict is kept by content."""
    known: dict[str, tuple[str, ...]] = {}

    @wraps(find)
    def of_release(rendered: Rendered) -> Iterator[str]:
        for manifest in rendered.release:
            found = known.get(manifest.digest)
            if found is None:
                found = known[manifest.digest] = tuple(find(manifest))
            for problem in found:
                yield f"{manifest.source}: {manifest.ref}: {problem}"

    return of_release


def of_each_container(find: Callable[[Mapping[str, Any]], Iterator[str]]) -> Finder:
    """Make a check of a release from one of a single container, init containers included."""

    @wraps(find)
    def of_object(m: Manifest) -> Iterator[str]:
        for container in containers(m):
            yield from find(container)

    return of_each_object(of_object)


LONG_RUNNING = ("Deployment", "StatefulSet", "DaemonSet")


def problems(rendered: Rendered, without: Container[str] = ()) -> Iterator[tuple[str, str]]:
    """Yield what any invariant, but for some, finds: its name and a message.

    Objects that are not valid have no shape that the others could look at: they are told alone.
    """
    for check in INVARIANTS:
        valid = True
        for problem in check.find(rendered) if check.name not in without else ():
            valid = check.name != "schema-valid"
            yield check.name, problem
        if not valid:
            return


def broken(rendered: Rendered) -> tuple[str, str] | None:
    """Return the first invariant that does not hold and its message, None if all do."""
    return next(problems(rendered), None)
