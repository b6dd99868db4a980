"""Unit tests reach no network: a socket other than a Unix one raises.

Tests that render permutations record which renders they checked; the sum of all workers is written
to build/report/renders.json.
"""

from __future__ import annotations

import pytest
from pytest_socket import disable_socket

from stackproof.repo import results
from stackproof.repo.checkout import Checkout
from stackproof.repo.results import Provenance

RENDERS = "renders"


@pytest.fixture(autouse=True)
def _no_network() -> None:
    disable_socket(allow_unix_socket=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many different renders were checked, and how long that kept one core each busy."""
    config = terminalreporter.config
    passed = [
        report
        for report in terminalreporter.getreports("passed")
        if any(name == RENDERS for name, _ in report.user_properties)
    ]
    if not passed:
        return
    distinct = {one for r in passed for name, ones in r.user_properties for one in ones}
    workers = int(getattr(config.option, "numprocesses", None) or 1)
    seconds = sum(report.duration for report in passed) / workers
    checkout = Checkout.find(config.rootpath)
    figures = {"distinct": len(distinct), "seconds": round(seconds, 1), "workers": workers}
    results.write(checkout.root / "build" / "report", "renders", figures, Provenance.of(checkout))
    terminalreporter.write_line(
        f"{len(distinct):,} different renders broke no invariant, in {seconds:.1f} s "
        f"on {workers} worker(s)"
    )
