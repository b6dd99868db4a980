"""What one wants to see of a deployment that failed, in one archive, without its secrets.

Of a cluster: every object, events, logs (with those of the container before), what Helm and Flux
say, and the configurations as the pods have them. Secrets are masked twice: Secret objects keep
their keys only, and every value that a Secret of these namespaces holds is sought in all the rest,
as it is, in base64 and as its basic-auth header.
"""

from __future__ import annotations

import base64
import io
import json
import re
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from stackproof.errors import StackproofError, writing
from stackproof.wording import counted

from .client import Kube, Object, container_statuses, decoded, why_not

MASK = "«masked»"

#: Shorter ones ("", "admin", "8080") are no secrets, and masking them would hide the evidence.
_SHORTEST = 6

#: Kinds that say nothing about a deployment, or only repeat it.
_SKIPPED = {"Event", "Lease", "EndpointSlice", "Endpoints", "ControllerRevision", "ComponentStatus"}

_HELM_RELEASE = "helm.sh/release.v1"


class Archive:
    """A .tar.gz that grows file by file, with secrets masked in each.

    Args:
        path: Where it goes; its folder is made.
        secrets: Values that must not be in it.
        users: Names that are sent with such a value as a basic-auth header.
    """

    def __init__(self, path: Path, secrets: Iterable[str], users: Iterable[str] = ()) -> None:
        self.path = path
        with writing(path.parent, "--evidence-dir"):
            self._tar = tarfile.open(path, "w:gz")  # noqa: SIM115
        self._masked = _pattern(secrets, users)

    def add(self, name: str, text: str) -> None:
        """Add a file."""
        data = self.mask(text).encode()
        entry = tarfile.TarInfo(name)
        entry.size, entry.mtime = len(data), int(time.time())
        self._tar.addfile(entry, io.BytesIO(data))

    def mask(self, text: str) -> str:
        """Return a text without the secrets."""
        return self._masked.sub(MASK, text) if self._masked else text

    def close(self) -> None:
        """Finish the file."""
        self._tar.close()


def _pattern(secrets: Iterable[str], users: Iterable[str]) -> re.Pattern[str] | None:
    users = list(users)
    forms: set[str] = set()
    for secret in {line for value in secrets for line in (value, *value.splitlines())}:
        if len(secret) >= _SHORTEST:
            raw = [secret, *(f"{user}:{secret}" for user in users)]
            encoded = [base64.b64encode(each.encode()).decode() for each in raw]
            # As JSON and as a URL write it.
            forms |= {secret, json.dumps(secret)[1:-1], quote(secret, safe=""), *encoded}
    # The longest first: one may be part of another.
    ordered = sorted(forms, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None


def of_cluster(
    kube: Kube, namespaces: Iterable[str], path: Path, *, users: Iterable[str] = ()
) -> Path:
    """Write the evidence of a cluster; what cannot be read is said in the archive."""
    spaces = [name for name in dict.fromkeys(namespaces) if kube.find("v1", "Namespace", name)]
    secrets = [found for name in spaces for found in kube.listed("v1", "Secret", name)]
    stores = kube.listed("external-secrets.io/v1", "ClusterSecretStore")
    archive = Archive(path, [*_values(secrets), *_fake_values(stores)], users)
    try:
        for name, text in _cluster_files(kube, spaces):
            archive.add(name, text)
    finally:
        archive.close()
    return path


def _values(secrets: Iterable[Object]) -> Iterator[str]:
    for secret in secrets:
        if secret.get("type") == _HELM_RELEASE:
            continue  # the release itself; what is secret in it is in a Secret, too
        for value in (secret.get("data") or {}).values():
            yield base64.b64decode(value).decode(errors="replace")


def _fake_values(stores: Iterable[Object]) -> Iterator[str]:
    """Yield what External Secrets' Fake provider gives out: the values are in the store itself."""
    for store in stores:
        for entry in store["spec"]["provider"].get("fake", {}).get("data", ()):
            yield entry.get("value", "")


def _cluster_files(kube: Kube, namespaces: list[str]) -> Iterator[tuple[str, str]]:
    yield "summary.txt", "\n".join(_summary(kube, namespaces)) + "\n"
    for namespace in (None, *namespaces):
        for api_version, kind in kinds(kube, namespaced=namespace is not None):
            where = f"objects/{namespace or '_cluster'}/{kind}.yaml"
            yield from _guarded(where, partial(_dump, kube, api_version, kind, namespace))
    for namespace in namespaces:
        yield from _guarded(f"events/{namespace}.txt", partial(_events, kube, namespace))
        yield from _guarded(f"helm/{namespace}.yaml", partial(_helm, kube, namespace))
        for pod in kube.listed("v1", "Pod", namespace):
            yield from _logs(kube, pod)
        for config in kube.listed("v1", "ConfigMap", namespace):
            for key, text in (config.get("data") or {}).items():
                yield f"configs/{namespace}/{config['metadata']['name']}/{key}", text


def _guarded(name: str, text: Any) -> Iterator[tuple[str, str]]:
    try:
        found = text()
    except StackproofError as error:
        found = f"could not be read: {error}\n"
    if found:
        yield name, found


def kinds(kube: Kube, *, namespaced: bool) -> Iterator[tuple[str, str]]:
    """Yield apiVersion and kind of everything that can be listed, in its preferred version."""
    groups = kube.request("GET", "/apis")["groups"]
    versions = ["v1", *(group["preferredVersion"]["groupVersion"] for group in groups)]
    for version in versions:
        for each in kube.kinds(version):
            wanted = "list" in each["verbs"] and each["kind"] not in _SKIPPED
            if wanted and each["namespaced"] is namespaced:
                yield version, each["kind"]


def _dump(kube: Kube, api_version: str, kind: str, namespace: str | None) -> str:
    found = [_bare(each) for each in kube.listed(api_version, kind, namespace)]
    return yaml.dump_all(found, Dumper=yaml.CSafeDumper, sort_keys=False)


def _bare(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object without what nobody reads, and a Secret without its values."""
    metadata = {k: v for k, v in found["metadata"].items() if k != "managedFields"}
    bare = {**found, "metadata": metadata}
    if found["kind"] == "Secret":
        bare["data"] = dict.fromkeys(found.get("data") or {}, MASK)
    return bare


def _summary(kube: Kube, namespaces: list[str]) -> Iterator[str]:
    yield f"{kube.where}, {time.strftime('%Y-%m-%d %H:%M:%S %Z')}"
    for namespace in namespaces:
        yield f"\n{namespace}"
        for pod in kube.listed("v1", "Pod", namespace):
            restarts = sum(s["restartCount"] for s in pod["status"].get("containerStatuses") or ())
            reasons = "; ".join(why_not(pod))
            phase = pod["status"]["phase"]
            restarted = counted(restarts, "restart")
            yield f"  pod {pod['metadata']['name']}: {phase}, {restarted}  {reasons}"
        yield from (f"  waits: {line}" for line in kube.waiting([namespace]))
        for version, kind in (
            ("external-secrets.io/v1", "ExternalSecret"),
            ("source.toolkit.fluxcd.io/v1", "GitRepository"),
            ("kustomize.toolkit.fluxcd.io/v1", "Kustomization"),
            ("helm.toolkit.fluxcd.io/v2", "HelmRelease"),
        ):
            for found in kube.listed(version, kind, namespace):
                yield f"  {kind} {found['metadata']['name']}: {condition(found)}"


def condition(found: Object) -> str:
    """Return the condition Ready of an object as a line: "True Reason: message"."""
    for each in (found.get("status") or {}).get("conditions") or ():
        if each["type"] == "Ready":
            return f"{each['status']} {each.get('reason', '')}: {each.get('message', '')}"
    return "no such condition"


def _events(kube: Kube, namespace: str) -> str:
    events = [
        (each.get("lastTimestamp") or each["metadata"]["creationTimestamp"], each)
        for each in kube.listed("v1", "Event", namespace)
    ]
    return "".join(
        f"{when} {each['type']} {each['involvedObject']['kind']}/{each['involvedObject']['name']} "
        f"{each.get('reason', '')} x{each.get('count', 1)}: {each.get('message', '')}\n"
        for when, each in sorted(events, key=lambda one: one[0])
    )


def _helm(kube: Kube, namespace: str) -> str:
    """Return each release's revisions: status, when, and the values that were given."""
    found = []
    for secret in kube.listed("v1", "Secret", namespace, "owner=helm"):
        release = decoded(secret["data"]["release"])
        info, chart = release["info"], release["chart"]["metadata"]
        found.append(
            {
                "release": release["name"],
                "revision": release["version"],
                "chart": f"{chart['name']} {chart['version']}",
                "status": info["status"],
                "description": info.get("description"),
                "deployed": info.get("last_deployed"),
                "values": release.get("config"),
            }
        )
    return yaml.dump_all(found, Dumper=yaml.CSafeDumper, sort_keys=False)


def _logs(kube: Kube, pod: Object) -> Iterator[tuple[str, str]]:
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    for each in container_statuses(pod):
        container = each["name"]
        for previous in (False, True) if each["restartCount"] else (False,):
            suffix = ".previous" if previous else ""
            yield from _guarded(
                f"logs/{namespace}/{name}.{container}{suffix}.log",
                partial(kube.logs, name, namespace, container, previous=previous),
            )
