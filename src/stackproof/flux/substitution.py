"""Flux' post-build substitution: `${NAME}` in what kustomize built becomes the cluster's value."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from stackproof.manifests import Manifest, thaw

from .kustomize import manifest as as_manifest

_DISABLED = "kustomize.toolkit.fluxcd.io/substitute"
# $${NAME} is a literal ${NAME}; ${NAME:=text} and ${NAME:-text} have a default.
_VARIABLE = re.compile(r"\$(\$)?\{([_A-Za-z]\w*)(?::[=-]([^}]*))?\}")


def substitute(
    manifest: Manifest, variables: Mapping[str, str]
) -> tuple[Manifest, tuple[str, ...]]:
    """Return an object with its variables replaced, and the names that nobody defines.

    As in Flux, this works on the object's YAML, so a value may become a number; and a name that
    nobody defines becomes nothing.
    """
    marks = {**manifest.labels, **manifest.annotations}
    if marks.get(_DISABLED) == "disabled":
        return manifest, ()
    missing: list[str] = []

    def value(found: re.Match[str]) -> str:
        escaped, name, default = found.groups()
        if escaped:
            return found[0][1:]
        if name not in variables and default is None:
            missing.append(name)
        return variables.get(name, default or "")

    content = thaw(manifest.content)
    if "${" not in json.dumps(content):  # most objects: spares writing and comparing YAML
        return manifest, ()
    text = yaml.dump(content, Dumper=yaml.CSafeDumper, width=10**6)
    changed = _VARIABLE.sub(value, text)
    if changed == text:
        return manifest, ()
    data: dict[str, Any] = yaml.load(changed, Loader=yaml.CSafeLoader)
    return as_manifest(data, manifest.source, manifest.index), tuple(missing)
