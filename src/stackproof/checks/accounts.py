"""The gateway's accounts: where each comes from, and that one cannot harm another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from stackproof.helm.manifests import Manifest, Release, at, pod_spec
from stackproof.repo.tenants import go_duration

from .alloy import Alloy

USERS = "users"
"""The gateway's volume with a file for each account."""


def remote_keys(lgtm: Release) -> dict[str, str | None]:
    """Return each account of the gateway with the remote key of its password.

    None where no ExternalSecret of the release makes the Secret that is mounted.
    """
    made = {
        external["spec"]["target"]["name"]: external["spec"]["data"][0]["remoteRef"]["key"]
        for external in lgtm.of_kind("ExternalSecret")
        if "user" in _templates(external)
    }
    return {item["path"]: made.get(source["name"]) for source, item in _mounted(lgtm)}


def _templates(external: Manifest) -> Mapping[str, str]:
    return at(external, "spec.target.template.data") or {}


def _mounted(lgtm: Release) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Yield each projected Secret of the gateway's users with the file that it becomes."""
    gateway = lgtm.find("Deployment", "gateway")
    for volume in pod_spec(gateway)["volumes"] if gateway else ():
        for part in at(volume, "projected.sources") or ():
            if volume["name"] == USERS:
                yield from ((part["secret"], item) for item in part["secret"]["items"])


def fetched(release: Release) -> Iterator[Mapping[str, Any]]:
    """Yield what the ExternalSecrets of a release fetch: entries of `spec.data`."""
    for external in release.of_kind("ExternalSecret"):
        yield from external["spec"].get("data") or ()


def endangered(lgtm: Release) -> Iterator[str]:
    """Yield accounts whose Secret, missing or badly made, would keep others out."""
    shared: dict[str, str] = {}
    for source, item in _mounted(lgtm):
        account, name = item["path"], source["name"]
        if not source.get("optional"):
            yield f"the gateway does not start without {account}'s Secret {name}"
        if name in shared:
            yield f"{shared[name]} and {account} are in one Secret, {name}"
        shared[name] = account
    for external in lgtm.of_kind("ExternalSecret"):
        if "user" in _templates(external) and len(external["spec"]["data"]) != 1:
            yield f"{external.ref}: a key that is missing keeps others' passwords from rotating"


_MOUNTED = timedelta(minutes=2)
"""Until a kubelet has written a changed Secret into a pod's volume: its sync period of a minute,
jitter, and its cache (kubernetes.io, "Mounted Secrets are updated automatically")."""


def longest_rotation(lgtm: Release, tenant: Release) -> timedelta:
    """Return how long the gateway and a tenant's Alloy may know different passwords."""
    refreshed = (
        external["spec"]["refreshInterval"]
        for release in (lgtm, tenant)
        for external in release.of_kind("ExternalSecret")
        if any(e["remoteRef"]["key"].endswith("-password") for e in external["spec"]["data"])
    )
    return max(map(go_duration, refreshed), default=timedelta()) + _MOUNTED


def patience(alloy: Alloy) -> Iterator[tuple[str, timedelta]]:
    """Yield each exporter of an Alloy with the time after which it drops what is not taken."""
    for name in sorted(alloy.components("otelcol.exporter.otlphttp")):
        text = alloy.value(f"{name}.retry_on_failure.max_elapsed_time") or "5m"
        yield name, go_duration(text)
    for name in sorted(alloy.components("loki.write")):
        # Ten tries by default, after 0.5 s that double each time up to 5 minutes; 0 is for ever.
        tries = int(alloy.settings.get(f"{name}.endpoint.max_backoff_retries", "10"))
        most = go_duration(alloy.value(f"{name}.endpoint.max_backoff_period") or "5m")
        waits = (min(timedelta(seconds=0.5 * 2 ** min(n, 20)), most) for n in range(tries))
        yield name, sum(waits, timedelta()) if tries else timedelta.max
