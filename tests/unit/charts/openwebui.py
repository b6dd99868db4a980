"""charts/open-webui-stack, rendered with the least that it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stackproof.helm import renderer
from stackproof.helm.manifests import EnvVar, Release, containers
from stackproof.repo.checkout import Checkout


def render(
    checkout: Checkout,
    *values: Mapping[str, Any],
    tenant: str = "soev",
    release: str = "open-webui",
    namespace: str = "tenant",
    existing: str = "mine",
    admin: str = "admin@example.org",
    overlay: Mapping[str, str] | None = None,
) -> Release:
    """Return the release of a tenant with an administrator, and what values say besides.

    `existing` is the Secret that is there; "" where the values say where secrets come from.
    `overlay` is templates by path, in the place of the chart's own.
    """
    base = {
        "openWebui": {
            "config": {"telemetry": {"otel": {"tenantId": tenant}}},
            "admin": {"email": admin},
        },
        "secrets": {"existingSecret": existing},
    }
    chart = checkout.charts / "open-webui-stack"
    return renderer.render(
        chart, [base, *values], release=release, namespace=namespace, overlay=overlay
    )


def otel(**settings: object) -> dict[str, Any]:
    """Return the values of what the application is told about telemetry."""
    return {"openWebui": {"config": {"telemetry": {"otel": settings}}}}


def container(release: Release, name: str = "open-webui") -> Mapping[str, Any]:
    """Return the one container of a Deployment."""
    (found,) = containers(release.get("Deployment", name))
    return found


def environment(release: Release, name: str = "open-webui") -> Mapping[str, EnvVar]:
    """Return the variables of that container."""
    return release.env(container(release, name))
