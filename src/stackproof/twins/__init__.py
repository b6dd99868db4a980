"""Every known fault, put back one at a time: `TWINS` is the registry, `run` tries one."""

from __future__ import annotations

from stackproof.twins.accounts import ACCOUNTS
from stackproof.twins.application import APPLICATION
from stackproof.twins.backups import BACKUPS
from stackproof.twins.base import CHECKS, Edit, Layer, Outcome, Twin, run
from stackproof.twins.cluster import CLUSTER
from stackproof.twins.flux import FLUX
from stackproof.twins.limits import LIMITS
from stackproof.twins.local import LOCAL
from stackproof.twins.migration import MIGRATION
from stackproof.twins.network import NETWORK
from stackproof.twins.rendered import RENDERED
from stackproof.twins.rights import DELIVERED
from stackproof.twins.sizes import SIZES
from stackproof.twins.table import markdown

#: Those that this machine can try.
TWINS: tuple[Twin, ...] = (
    *RENDERED,
    *ACCOUNTS,
    *APPLICATION,
    *BACKUPS,
    *LIMITS,
    *FLUX,
    *DELIVERED,
    *MIGRATION,
    *NETWORK,
    *SIZES,
    *LOCAL,
)

__all__ = [
    "ACCOUNTS",
    "BACKUPS",
    "CHECKS",
    "CLUSTER",
    "DELIVERED",
    "FLUX",
    "LIMITS",
    "LOCAL",
    "MIGRATION",
    "NETWORK",
    "RENDERED",
    "SIZES",
    "TWINS",
    "Edit",
    "Layer",
    "Outcome",
    "Twin",
    "markdown",
    "run",
]
