"""Prove that a multi-tenant observability stack does what its charts, values and Flux tree say."""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("stackproof")
