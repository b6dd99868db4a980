"""Prove that a multi-tenant observability stack does what its charts, values and Flux tree say."""

from importlib.metadata import version

__version__ = version("stackproof")
