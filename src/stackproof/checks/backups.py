"""What must hold for backups: each database is dumped, to where its loss is not the dumps' loss."""

from __future__ import annotations

import re
from collections.abc import Iterator

from stackproof.helm.manifests import Manifest, Release, containers, pod_labels, pod_spec

from .deployment import RenderedDeployment


def every_database_is_dumped(deployed: RenderedDeployment) -> Iterator[str]:
    """A CronJob dumps each PostgreSQL of a tenant at least once a day.

    A day's loss is accepted (docs/operations.md).
    """
    for release in deployed.releases:
        jobs = [one for one in release if one.kind == "CronJob"]
        for database in _databases(release):
            mine = [job for job in jobs if _asks(release, job, database)]
            if not mine:
                yield f"nothing dumps {database.ref} in {database.namespace}"
                continue
            schedules = [
                str(job["spec"]["schedule"]) for job in mine if not job["spec"].get("suspend")
            ]
            if not schedules:
                yield f"what dumps {database.ref} in {database.namespace} is suspended"
            elif not any(map(_daily, schedules)):
                told = ", ".join(schedules)
                yield f"{database.ref} in {database.namespace} is not dumped daily: {told}"


def dumps_outlive_the_database(deployed: RenderedDeployment) -> Iterator[str]:
    """Dumps are on a claim that nothing else mounts and that Helm does not delete.

    Beside the data they go with its disk; in an emptyDir they go with the pod.
    """
    for release in deployed.releases:
        for database in _databases(release):
            for job in (one for one in release if one.kind == "CronJob"):
                if _asks(release, job, database):
                    yield from _lost_with(release, job)


def _databases(release: Release) -> Iterator[Manifest]:
    for one in release.workloads():
        variables = {env["name"] for part in containers(one) for env in part.get("env") or ()}
        if one.kind == "StatefulSet" and "POSTGRES_DB" in variables:
            yield one


def _asks(release: Release, job: Manifest, database: Manifest) -> bool:
    """Tell whether a variable of a job names the database's Service."""
    labels = pod_labels(database).items()
    services = [s.name for s in release.services() if s["spec"]["selector"].items() <= labels]
    values = [str(e.get("value")) for part in containers(job) for e in part.get("env") or ()]
    hosts = [re.compile(rf"(?<![\w.-]){re.escape(name)}(\.|:|/|$)") for name in services]
    return any(host.search(value) for host in hosts for value in values)


def _daily(schedule: str) -> bool:
    """Tell whether a cron schedule has an entry for every day: the last three fields are stars."""
    if schedule in {"@daily", "@midnight", "@hourly"}:
        return True
    return re.fullmatch(r"\S+ \S+ (\*|\*/1) (\*|\*/1) (\*|\*/1|0-6|0-7)", schedule) is not None


def _lost_with(release: Release, job: Manifest) -> Iterator[str]:
    where = f"{job.ref} in {job.namespace}"
    claims = set(_mounted(job))
    if not claims:
        yield f"{where} writes to no claim: its dumps go with its pod"
    for other in release.workloads():
        if other.ref != job.ref:
            for name in claims:
                if name in _mounted(other) or _makes(other, name):
                    yield f"{where} writes to {name}, which {other.ref} mounts: one disk for both"
    for name in claims:
        made = release.find("PersistentVolumeClaim", name)
        if made and made.annotations.get("helm.sh/resource-policy") != "keep":
            yield f"{where} writes to {name}, which Helm deletes with the release"


def _mounted(workload: Manifest) -> Iterator[str]:
    """Yield the claims that a workload's pods name."""
    for volume in pod_spec(workload).get("volumes") or ():
        if "persistentVolumeClaim" in volume:
            yield volume["persistentVolumeClaim"]["claimName"]


def _makes(workload: Manifest, claim: str) -> bool:
    """Tell whether a claim is one that a StatefulSet makes for its pods."""
    names = [one["metadata"]["name"] for one in workload["spec"].get("volumeClaimTemplates") or ()]
    return any(
        re.fullmatch(rf"{re.escape(f'{name}-{workload.name}')}-\d+", claim) for name in names
    )
