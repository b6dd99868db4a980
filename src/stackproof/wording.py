"""How figures are said."""


def percent(part: float, whole: float) -> str:
    """Return a share as `97.3 %`, rounded down: 100 % is said of nothing that lacks something."""
    return f"{int(1000 * part / whole) / 10:g} %" if whole else "-"


def counted(count: float, one: str, many: str = "", figure: str = ",") -> str:
    """Return `1 leak` or `1,234 leaks`; `figure` says how the number is shown."""
    shown = f"{count:{figure}}"
    return f"{shown} {one if shown == '1' else many or one + 's'}"
