"""Show a proof: machine-readable files, one self-contained page, and a summary in the terminal."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path

from stackproof.backends import PROVABLE
from stackproof.errors import writing
from stackproof.isolation import Proof
from stackproof.repo import results
from stackproof.repo.results import Provenance

from .data import Extras, cases, evidence_json, isolation_json, read_extras
from .metrics import send_metrics
from .page import page
from .terminal import show
from .upgrade import show_upgrade, upgrade_json, write_unchanged, write_upgrade

__all__ = [
    "Extras",
    "cases",
    "evidence_json",
    "is_whole",
    "isolation_json",
    "page",
    "read_extras",
    "send_metrics",
    "show",
    "show_upgrade",
    "upgrade_json",
    "write",
    "write_unchanged",
    "write_upgrade",
]


def is_whole(proof: Proof, deployed: Sequence[str], absent: Container[str] = ()) -> bool:
    """Tell whether all tenants were proven apart through all read APIs that are not `absent`."""
    asked = {api.api for api in proof.apis}
    every = all(api.id in asked or api.id in absent for api in PROVABLE)
    return every and set(proof.tenants) == set(deployed)


def write(proof: Proof, directory: Path, of: Provenance, *, whole: bool = True) -> Path:
    """Write `isolation.json`, `evidence.json` and `index.html`; return the path of the page.

    Of a whole proof the page shows as well what other commands left in the directory (attacks,
    twins, mutants, coverage). That of a part goes to the folder `partial`.
    """
    extras = read_extras(directory, of) if whole else Extras()
    # What was tried on other files says nothing of this proof.
    attacks = () if "attacks" in extras.stale else extras.attacks
    results.write(directory, "isolation", isolation_json(proof, attacks), of, whole=whole)
    made = results.write(directory, "evidence", evidence_json(proof), of, whole=whole)
    target = made.with_name("index.html")
    with writing(target.parent):
        target.write_text(page(proof, extras, of, whole=whole), encoding="utf-8")
    return target
