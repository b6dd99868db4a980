"""What Flux' controllers do, done by the packages that they are made of: `tools/flux`.

The program lives as long as this process, and answers one request a line (docs/adr/0002-renderer.md
says why such a program; this one is its smaller sister). It fetches nothing and writes nothing.
"""

from __future__ import annotations

import atexit
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from stackproof.errors import StackproofError
from stackproof.helm.manifests import Manifest, thaw
from stackproof.toolchain import programs
from stackproof.toolchain.conversation import Conversation, EndedError


@dataclass(frozen=True)
class Built:
    """What became of a Flux Kustomization.

    Args:
        objects: What it applies.
        read: The files that were read, relative to the root.
        undefined: Variables that have neither a value nor a default.
    """

    objects: tuple[Manifest, ...]
    read: frozenset[str]
    undefined: tuple[str, ...] = ()


@cache
def _program() -> Conversation:
    made = Conversation(programs.find("flux"))
    atexit.register(made.close)
    return made


def _ask(where: str | None = None, **request: Any) -> dict[str, Any]:
    """Return the answer to a request about `where`.

    Raises:
        StackproofError: It is refused, in the words of Flux and kustomize; or the program ended
            over it, as kustomize does on some odd files.
    """
    try:
        (answer,) = _program().ask([json.dumps(thaw(request))], json.loads)
    except EndedError as error:
        said = str(error).partition("\n")[0]
        raise StackproofError(f"kustomize ended over it: {said}", where) from None
    if message := answer.get("error"):
        if not answer.get("fetched"):
            raise StackproofError(message, where)
        raise StackproofError(
            f"something is fetched at every build: {message}",
            where,
            "Make it a source of its own, pinned to one version.",
        )
    return dict(answer)


def close() -> None:
    """End the program; the next question starts it anew."""
    _program().close()


def build(
    root: Path,
    kustomization: Mapping[str, Any],
    variables: Mapping[str, str] | None = None,
    *,
    ignore: str | None = None,
) -> Built:
    """Do what kustomize-controller does with a Flux Kustomization, short of applying it.

    Args:
        root: The folder that Flux fetches.
        kustomization: The Flux object; its `spec.path` is below the root.
        variables: What post-build substitution takes from elsewhere.
        ignore: The source's own `spec.ignore`.

    Raises:
        StackproofError: It does not build; in the words of Flux and kustomize.
    """
    where = str((kustomization.get("spec") or {}).get("path") or ".").removeprefix("./")
    answer = _ask(
        where,
        op="build",
        root=str(root),
        ignore=ignore,
        kustomization=kustomization,
        variables=variables or {},
    )
    objects = tuple(
        Manifest.of(data, where, n) for n, data in enumerate(answer.get("objects") or ())
    )
    for each in objects:
        if not isinstance(each.metadata.get("namespace") or "", str):
            raise StackproofError(f"{each.ref}: metadata.namespace is no text", where=where)
    return Built(objects, frozenset(answer.get("read") or ()), tuple(answer.get("undefined") or ()))


def post_rendered(
    objects: Sequence[Mapping[str, Any]], renderers: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Do what helm-controller's post-renderers do to a chart's objects.

    Raises:
        StackproofError: kustomize refuses a patch.
    """
    answer = _ask(op="render", objects=list(objects), post_renderers=list(renderers))
    return list(answer.get("objects") or ())


def merged(references: Sequence[Mapping[str, Any]], values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a HelmRelease's values with those that it takes from elsewhere.

    Args:
        references: In order, each either `values`, or a `text` for a `path` (`literal` if it is
            taken as it is).
        values: Its own.

    Raises:
        StackproofError: A path is none, or a text cannot stand there.
    """
    answer = _ask(op="merge", values_from=list(references), values=values)
    made: Mapping[str, Any] = answer.get("values") or {}
    return made


def accepted(policy: Mapping[str, Any], tags: Collection[str]) -> tuple[str, ...]:
    """Return those of some tags that an ImagePolicy chooses from.

    Args:
        policy: Its spec: `policy` (semver, alphabetical or numerical) and `filterTags`.
        tags: Tags of the image.

    Raises:
        StackproofError: The range or the pattern is none.
    """
    answer = _ask(op="accepted", policy=policy, files=sorted(tags))
    return tuple(answer.get("accepted") or ())


def ignored(root: Path, files: Sequence[str], *, ignore: str | None = None) -> tuple[str, ...]:
    """Return those of some files below a root that Flux does not fetch (`.sourceignore`)."""
    answer = _ask(str(root), op="ignored", root=str(root), files=list(files), ignore=ignore)
    return tuple(answer.get("ignored") or ())
