"""How figures are written in messages."""

from __future__ import annotations


def percent(part: float, whole: float) -> str:
    """Return a share as `97.3 %`, rounded down, so that only the whole is 100 %."""
    return f"{int(1000 * part / whole) / 10:g} %" if whole else "-"


def counted(count: float, one: str, many: str = "", figure: str = ",") -> str:
    """Return `1 leak` or `1,234 leaks`; `figure` says how the number is shown."""
    shown = f"{count:{figure}}"
    return f"{shown} {one if shown == '1' else many or one + 's'}"
