"""Read Grafana's data source provisioning files as Grafana itself does.

Grafana expands variables in two passes (pkg/services/provisioning/values, pkg/setting/expanders,
read at v12): the text is split at ``$$``; in each part ``${NAME}`` and ``$__env{NAME}`` are
replaced first, ``$__file{path}`` next, and then Go's ``os.ExpandEnv`` runs over the *result*; the
parts are joined with one ``$``. So a password that itself holds ``$x`` is mangled, in Grafana as
here: that is a fault the proof must show, not smooth over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

from stackproof.errors import StackproofError

_EXPANDER = re.compile(r"\$(|__\w+)\{([^}]+)\}")
# os.Expand: ${name}, $name, one special character or digit. A `${` that is not closed, or is
# empty, is eaten; a dollar before any other character stays.
_GO_VARIABLE = re.compile(
    r"\$(?:\{(?P<braced>[^}]*)\}|(?P<open>\{)|(?P<plain>[A-Za-z_][A-Za-z0-9_]*|[*#$@!?0-9-]))"
)


def expand(text: str, environment: Mapping[str, str]) -> str:
    """Return `text` with the variables of `environment` put in; unknown ones become empty."""
    return "$".join(_expand_part(part, environment) for part in text.split("$$"))


def _expand_part(text: str, environment: Mapping[str, str]) -> str:
    expanded = _apply(text, ("", "__env"), lambda name: environment.get(name, ""))
    expanded = _apply(expanded, ("__file",), _read_file)
    return _GO_VARIABLE.sub(
        lambda found: environment.get(found["braced"] or found["plain"] or "", ""), expanded
    )


def _apply(text: str, kinds: tuple[str, ...], value: Callable[[str], str]) -> str:
    # One replacement for each match of the unexpanded text, as Grafana does.
    for found in list(_EXPANDER.finditer(text)):
        if found[1] in kinds:
            text = text.replace(found[0], value(found[2]), 1)
    return text


def _read_file(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise StackproofError(
            f"cannot read the file of $__file{{{path}}}: {error.strerror}",
            where="Grafana provisioning",
            todo="Mount it, or use an environment variable.",
        ) from error


def _expand_all(value: object, environment: Mapping[str, str]) -> object:
    if isinstance(value, str):
        return expand(value, environment)
    if isinstance(value, Mapping):
        return {key: _expand_all(inner, environment) for key, inner in value.items()}
    if isinstance(value, list):
        return [_expand_all(inner, environment) for inner in value]
    return value


def read(
    text: str, environment: Mapping[str, str], *, where: str = "Grafana provisioning"
) -> tuple[Mapping[str, object], ...]:
    """Return the expanded records under `datasources:` of one provisioning file.

    `environment` is that of the Grafana container, nothing of ours. A file without the list, or
    with records that are no mappings, is a StackproofError that names `where`.
    """
    try:
        document = yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise StackproofError(f"not valid YAML: {error}", where=where) from error
    records = document.get("datasources") if isinstance(document, Mapping) else None
    if not isinstance(records, list) or not all(isinstance(each, Mapping) for each in records):
        raise StackproofError(
            "no list of data sources found",
            where=where,
            todo="The file needs `apiVersion: 1` and a list `datasources:`.",
        )
    expanded = (_expand_all(record, environment) for record in records)
    return tuple(record for record in expanded if isinstance(record, Mapping))
