"""Measure what users wait for, and what many tenants cost: figures by name, one page with plots."""

from __future__ import annotations

from . import loads, local, peers, rendering, scale
from .history import History, Recorded
from .page import page
from .registry import BENCHMARKS, WITH, Figures, about, quantile, read, write

__all__ = [
    "BENCHMARKS",
    "WITH",
    "Figures",
    "History",
    "Recorded",
    "about",
    "loads",
    "local",
    "page",
    "peers",
    "quantile",
    "read",
    "rendering",
    "scale",
    "write",
]
