"""What must hold for backups: each database is dumped, to where its loss is not the dumps' loss."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta

from stackproof.helm.manifests import Manifest, Release, containers, pod_labels, pod_spec

from .deployment import RenderedDeployment

#: A day's loss is accepted (docs/operations.md); a dump takes its time as well.
_AT_LEAST_EVERY = timedelta(days=1)


def every_database_is_dumped(deployed: RenderedDeployment) -> Iterator[str]:
    """A CronJob dumps each PostgreSQL of a tenant at least once a day."""
    for release in deployed.releases:
        jobs = [one for one in release if one.kind == "CronJob"]
        for database in _databases(release):
            mine = [job for job in jobs if _asks(release, job, database)]
            if not mine:
                yield f"nothing dumps {database.ref} in {database.namespace}"
            elif all(job["spec"].get("suspend") for job in mine):
                yield f"what dumps {database.ref} in {database.namespace} is suspended"
            elif not any(_daily(str(job["spec"]["schedule"])) for job in mine):
                schedules = ", ".join(str(job["spec"]["schedule"]) for job in mine)
                yield f"{database.ref} in {database.namespace} is not dumped daily: {schedules}"


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
    return any(re.search(rf"\b{name}(\.|:|/|$)", value) for name in services for value in values)


def _daily(schedule: str) -> bool:
    """Tell whether a cron schedule has an entry for every day: the last three fields are stars."""
    if schedule in {"@daily", "@midnight", "@hourly"}:
        return True
    return re.fullmatch(r"\S+ \S+ (\*|\*/1) (\*|\*/1) (\*|\*/1|0-6|0-7)", schedule) is not None


def _lost_with(release: Release, job: Manifest) -> Iterator[str]:
    where = f"{job.ref} in {job.namespace}"
    claims = set(_claims(job))
    if not claims:
        yield f"{where} writes to no claim: its dumps go with its pod"
    for other in release.workloads():
        if other.ref != job.ref:
            for name in claims:
                if any(re.fullmatch(pattern, name) for pattern in _claims(other)):
                    yield f"{where} writes to {name}, which {other.ref} mounts: one disk for both"
    for name in claims:
        made = release.find("PersistentVolumeClaim", name)
        if made and made.annotations.get("helm.sh/resource-policy") != "keep":
            yield f"{where} writes to {name}, which Helm deletes with the release"


def _claims(workload: Manifest) -> Iterator[str]:
    """Yield the names of the claims of a workload's pods, as patterns."""
    for volume in pod_spec(workload).get("volumes") or ():
        if "persistentVolumeClaim" in volume:
            yield re.escape(volume["persistentVolumeClaim"]["claimName"]).replace(r"\-", "-")
    for template in workload["spec"].get("volumeClaimTemplates") or ():
        yield rf"{template['metadata']['name']}-{workload.name}-\d+"
