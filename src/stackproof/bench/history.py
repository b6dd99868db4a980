"""Figures of earlier runs, a line of JSON each, and how today's compare with the latest of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from stackproof.errors import StackproofError
from stackproof.repo.checkout import Checkout

from .registry import Figures

_YARDSTICK = "yardstick_s"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One run: when (UTC), of which commit, and its figures."""

    date: str
    commit: str
    figures: Figures


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure now and then; `ratio` is None where they cannot be compared.

    Times and rates are in the measure of each run's yardstick, so that a faster machine is no
    progress: 1.1 is a tenth slower, or a tenth more memory, than before.
    """

    name: str
    now: float
    then: float | None
    ratio: float | None


@dataclass(frozen=True, slots=True)
class History:
    """The file of earlier runs."""

    path: Path

    @classmethod
    def of(cls, checkout: Checkout) -> History:
        """Return the checkout's own, which is committed."""
        return cls(checkout.root / "docs" / "bench-history.jsonl")

    def runs(self) -> list[Recorded]:
        """Return all runs, the oldest first.

        Raises:
            StackproofError: A line is not what `record` writes.
        """
        if not self.path.exists():
            return []
        runs = []
        for number, line in enumerate(self.path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                runs.append(Recorded(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise StackproofError(
                    f"is not a recorded run: {error}",
                    where=f"{self.path}:{number}",
                    todo="Take the line out.",
                ) from error
        return runs

    def record(self, figures: Mapping[str, float]) -> Recorded:
        """Add a run with these figures, of the commit that is checked out."""
        run = Recorded(
            datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ"), _commit(self.path.parent), dict(figures)
        )
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(run), sort_keys=True) + "\n")
        return run


def _commit(folder: Path) -> str:
    """Return the commit of a folder, in short; empty where it is in no repository."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def compare(now: Figures, then: Figures) -> list[Compared]:
    """Compare each figure of now with the same of then."""
    speed = now.get(_YARDSTICK, 0) / then[_YARDSTICK] if then.get(_YARDSTICK) else 0
    return [
        Compared(name, value, then.get(name), _ratio(name, value, then.get(name), speed))
        for name, value in sorted(now.items())
    ]


def _ratio(name: str, now: float, then: float | None, speed: float) -> float | None:
    if not now or not then or name == _YARDSTICK:
        return None
    if name.endswith("_per_s"):
        return then / now / speed if speed else None
    if name.endswith(("_s", "_ms")):
        return now / then / speed if speed else None
    return now / then if name.endswith("_mb") else None
