"""Every known fault, put back one at a time: `TWINS` is the registry, `run` tries one."""

from __future__ import annotations

from .accounts import ACCOUNTS
from .application import APPLICATION
from .backups import BACKUPS
from .base import CHECKS, REGISTRIES, Edit, Layer, Twin, run
from .charts import CHARTS
from .cluster import CLUSTER
from .flux import FLUX
from .limits import LIMITS
from .local import LOCAL
from .migration import MIGRATION
from .network import NETWORK
from .rendered import RENDERED
from .rights import DELIVERED
from .sizes import SIZES
from .table import markdown
from .upgrade import UPGRADE

#: Those that this machine can try.
TWINS: tuple[Twin, ...] = (
    *RENDERED,
    *CHARTS,
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
    *UPGRADE,
)

__all__ = [
    "CHECKS",
    "CLUSTER",
    "MIGRATION",
    "REGISTRIES",
    "SIZES",
    "TWINS",
    "Edit",
    "Layer",
    "Twin",
    "markdown",
    "run",
]
