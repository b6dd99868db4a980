"""Show a proof: machine-readable files, one self-contained page, and a summary in the terminal."""

from __future__ import annotations

from pathlib import Path

from stackproof.errors import StackproofError
from stackproof.isolation import Proof

from .data import Extras, evidence_json, isolation_json, read_extras, write_json
from .metrics import send_metrics
from .page import page
from .terminal import show

__all__ = [
    "Extras",
    "evidence_json",
    "isolation_json",
    "page",
    "read_extras",
    "send_metrics",
    "show",
    "write",
]


def write(proof: Proof, directory: Path, extras: Extras | None = None) -> Path:
    """Write `isolation.json`, `evidence.json` and `index.html`; return the path of the page.

    `extras` default to what other commands left in the directory (twins, mutants, coverage).
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        extras = extras or read_extras(directory)
        write_json(directory / "isolation.json", isolation_json(proof, extras.attacks))
        write_json(directory / "evidence.json", evidence_json(proof))
        target = directory / "index.html"
        target.write_text(page(proof, extras), encoding="utf-8")
    except OSError as error:
        raise StackproofError(
            f"cannot write the report: {error.strerror}",
            where=str(error.filename or directory),
            todo="free some space there, or choose another directory",
        ) from error
    return target
