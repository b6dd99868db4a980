"""What depends on a backend's version: one row a fact, with the versions and the source.

Expectations ask here and nowhere else, so that the suite holds for what is deployed and for what is
built here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from stackproof.model import Backend
from stackproof.repo.versions import version_key


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that holds for some versions of a backend.

    Args:
        backend: Whose behaviour it is.
        says: The fact, in a sentence.
        source: Where it is known from.
        since: The first version for which it holds.
    """

    backend: Backend
    says: str
    source: str
    since: str

    def holds(self, versions: Mapping[str, str]) -> bool:
        """Tell whether it holds for the programs that run.

        Args:
            versions: Version of each program; one that is not known is taken for the newest.
        """
        running = version_key(versions.get(self.backend, ""))
        return not running or running >= version_key(self.since)


TEMPO_CHECKS_TENANTS: Final = Fact(
    Backend.TEMPO,
    says="Tempo refuses a write whose tenant is a list, empty, or no valid name",
    source="github.com/grafana/tempo/pull/5786, in the changelog of 2.10.0",
    since="2.10",
)
