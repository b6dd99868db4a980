"""The registry of twins as a page of the documentation."""

from __future__ import annotations

from collections.abc import Iterable

from .base import Layer, Twin

_HEAD = """\
# What catches which fault

Made by `stackproof twins --docs` from the registry in `src/stackproof/twins`; a test says when it
is stale. Each row is the correct deployment with one fault put back. The named check must fail on
it, for the stated reason, and must hold without it. # is the row in [faults](faults.md).

The headings say where a fault is caught: when the charts are rendered (schema), in what is rendered
(unit), by the real programs (local e2e), or in a cluster. `make twins` tries all but the last and
shows the seconds; the tests in `tests/e2e/cluster` try the last.
"""


def markdown(twins: Iterable[Twin]) -> str:
    """Return the page: a table for each layer, cheapest first."""
    twins = list(twins)
    parts = [_HEAD]
    for layer in Layer:
        rows = [twin for twin in twins if twin.layer is layer]
        if rows:
            parts.append(f"## {layer.value.capitalize()} ({len(rows)})\n")
            parts.append("| twin | # | fault | caught by |\n|---|---|---|---|")
            parts += [_row(twin) for twin in rows]
            parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _row(twin: Twin) -> str:
    fault = twin.fault.replace("|", r"\|")
    return f"| {twin.name} | {twin.number or ''} | {fault} | `{twin.caught_by}` |"
