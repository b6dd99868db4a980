"""Telemetry: what an application sends, and how it is sent."""
