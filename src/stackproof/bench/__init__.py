"""Measure what users wait for, and what many tenants cost: figures by name, one page with plots."""

from __future__ import annotations

from . import loads, local, rendering, scale
from .history import History, Recorded
from .page import page
from .registry import BENCHMARKS, Figures, about, quantile, read, write

__all__ = [
    "BENCHMARKS",
    "Figures",
    "History",
    "Recorded",
    "about",
    "loads",
    "local",
    "page",
    "quantile",
    "read",
    "rendering",
    "scale",
    "write",
]
