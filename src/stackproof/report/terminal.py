"""The proof in short, for a terminal; plain text where the output is none."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from stackproof.isolation import Proof
from stackproof.isolation.verdict import Verdict
from stackproof.wording import counted

from .picture import State, state
from .wording import groups, headline

#: More tenants than this do not fit side by side.
_MOST_COLUMNS = 8
_MOST_VIOLATIONS = 8
_LONGEST = 300  # characters of a log line

_SYMBOL = {
    State.OWN: ("●", "bold blue"),
    State.HIDDEN: ("·", "dim"),
    State.LEAK: ("◆", "bold red"),
    State.MISSING: ("✕", "bold yellow"),
    State.UNKNOWN: ("?", "yellow"),
}
_VERDICT = {
    Verdict.ISOLATED: ("✔", "bold green"),
    Verdict.LEAKING: ("◆", "bold red"),
    Verdict.INCOMPLETE: ("?", "bold yellow"),
}


def matrix(proof: Proof) -> Table:
    """Return the matrix: a row a reader, a column an owner, a sign a signal."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("reader \\ owner", style="dim", no_wrap=True)
    for owner in proof.tenants:
        table.add_column(Text(owner), no_wrap=True)
    for reader in proof.tenants:
        row: list[RenderableType] = [Text(reader)]
        for owner in proof.tenants:
            signs = Text()
            for signal in proof.signals:
                sign, style = _SYMBOL[state(proof.matrix.cell(reader, owner, signal))]
                signs.append(sign, style).append(" ")
            row.append(signs)
        table.add_row(*row)
    return table


def summary(proof: Proof) -> Group:
    """Return what the terminal shows: verdict, matrix, what is wrong, and the figures."""
    sign, style = _VERDICT[proof.verdict]
    parts: list[RenderableType] = [
        Text.assemble((f"{sign} {proof.verdict}", style), "  ", headline(proof))
    ]
    parts += [Text(f"  not well: {problem}", "bold yellow") for problem in proof.health]
    if len(proof.tenants) <= _MOST_COLUMNS:
        parts += [Text(), matrix(proof), Text(_legend(proof), "dim")]
    if proof.violations:
        parts.append(Text())
        grouped = groups(proof.violations)
        for first, *others in grouped[:_MOST_VIOLATIONS]:
            parts.append(Text(str(first)))
            if others:
                parts.append(Text(f"  and {len(others)} more of the kind", "dim"))
        more = len(grouped) - _MOST_VIOLATIONS
        if more > 0:
            parts.append(Text(f"… and {counted(more, 'other kind')} in the report", "dim"))
    parts += [Text(f"note: {note}", "dim") for note in proof.notes]
    if proof.log_errors:
        parts.append(Text("\nWhat the components' logs say:"))
        parts += [Text(f"  {line[:_LONGEST]}", "dim") for line in proof.log_errors]
    return Group(*parts)


def _legend(proof: Proof) -> str:
    signals = ", ".join(proof.signals)
    return f"({signals})  ● sees its own  · hidden  ◆ leak  ✕ does not see its own  ? unproven"


def show(proof: Proof, console: Console) -> None:
    """Print the summary."""
    console.print(summary(proof), soft_wrap=True)
