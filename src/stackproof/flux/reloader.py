"""Reloader: whoever asks to be replaced when a Secret changes is, and nobody else is watched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stackproof.helm.manifests import WORKLOAD_KINDS, Manifest, pod_template

from .subject import FLUX, Subject, at, dig, leaves, of, own, releases_of

CHART = "reloader"
#: Keys of its chart that may be set here (its values.yaml, 2.2.16): it ignores any other.
_KNOWN = frozenset(
    {
        "image.repository",
        "image.tag",
        "reloader.namespaceSelector",
        "reloader.ignoreConfigMaps",
        "reloader.ignoreJobs",
        "reloader.ignoreCronJobs",
        "reloader.ignoreSecrets",
        "reloader.reloadStrategy",
        "reloader.readOnlyRootFileSystem",
        "reloader.deployment.containerSecurityContext",
        "reloader.deployment.resources",
    }
)
_ASKS = ".reloader.stakater.com/reload"


@FLUX.register
def whoever_asks_is_reloaded(subject: Subject) -> Iterator[str]:
    """Each workload that asks to be replaced with a Secret is where a Reloader looks."""
    watched = {
        name: release
        for _, release in releases_of(subject, CHART)
        for name in _namespaces(subject, _settings(release))
    }
    for applied in subject.tree.applied:
        m = applied.manifest
        for kind in _asks(m):
            release = watched.get(str(m.namespace))
            if release is None:
                yield f"{at(applied)}: asks to be reloaded, and no Reloader watches {m.namespace}"
            elif _settings(release).get({"secret": "ignoreSecrets"}.get(kind, "ignoreConfigMaps")):
                yield f"{at(applied)}: asks to be reloaded with a {kind}, which Reloader ignores"


@FLUX.register
def reloader_does_no_more_than_it_must(subject: Subject) -> Iterator[str]:
    """Reloader looks where it must, meets pod security, and what it does is no drift to Flux."""
    for step, release in releases_of(subject, CHART):
        values = release["spec"].get("values") or {}
        for key in sorted({*leaves(values, _KNOWN)} - _KNOWN):
            yield f"{of(step, release)}: values: the chart has no key {key}"
        if not (values.get("image") or {}).get("tag"):
            yield f"{of(step, release)}: runs whatever image its chart names (image.tag)"
        if not _settings(release).get("namespaceSelector"):
            yield f"{of(step, release)}: watches the Secrets of every namespace (namespaceSelector)"
        if _settings(release).get("reloadStrategy") != "annotations":
            # Its other strategy adds a variable to the container.
            yield f"{of(step, release)}: changes what Flux corrects (reloadStrategy)"
        deployment = dig(_settings(release), "deployment")
        security = dig(deployment, "containerSecurityContext")
        dropped = dig(security, "capabilities").get("drop") or ()
        if security.get("allowPrivilegeEscalation") is not False or "ALL" not in dropped:
            yield f"{of(step, release)}: its pod is refused (pod security restricted)"
        resources = dig(deployment, "resources")
        if {*(resources.get("requests") or ())} != {"cpu", "memory"} or not resources.get("limits"):
            yield f"{of(step, release)}: its resources lack a request or the limit"


def _settings(release: Manifest) -> Mapping[str, Any]:
    return dig(release["spec"], "values", "reloader")


def _namespaces(subject: Subject, settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield the namespaces that have the labels of a selector `key=value,…`."""
    selector = str(settings.get("namespaceSelector") or "")
    wanted = dict(part.partition("=")[::2] for part in selector.split(",") if part)
    for _, namespace in own(subject, "Namespace"):
        if wanted.items() <= namespace.labels.items():
            yield namespace.name


def _asks(m: Manifest) -> Iterator[str]:
    """Yield `secret` or `configmap` for each annotation of a workload, or of its pods."""
    if m.kind in WORKLOAD_KINDS:
        pods = (pod_template(m).get("metadata") or {}).get("annotations") or {}
        for name, value in {**m.annotations, **pods}.items():
            if name.endswith(_ASKS) and value:
                yield name.removesuffix(_ASKS)
