"""Dumps of databases: what the checks say where several jobs and databases are side by side."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from stackproof.checks import backups
from stackproof.checks.deployment import RenderedDeployment
from stackproof.helm.manifests import Manifest, Release

Objects = list[dict[str, Any]]


def _object(kind: str, name: str, **content: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": name, "namespace": "web"}, **content}


def _database(name: str) -> Objects:
    container = {"name": "postgres", "env": [{"name": "POSTGRES_DB", "value": "web"}]}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
    return [
        _object("Service", name, spec={"selector": {"app": name}, "ports": [{"port": 5432}]}),
        _object("StatefulSet", name, spec={"template": template}),
    ]


def _dump(
    name: str, host: str, claim: str = "dumps", schedule: str = "17 2 * * *", **spec: Any
) -> dict[str, Any]:
    volume = {"name": "dumps", "persistentVolumeClaim": {"claimName": claim}}
    container = {"name": "dump", "env": [{"name": "PGHOST", "value": host}]}
    pod = {"spec": {"containers": [container], "volumes": [volume]}}
    job = {"spec": {"template": pod}}
    return _object("CronJob", name, spec={"schedule": schedule, "jobTemplate": job, **spec})


def _deployed(*objects: dict[str, Any]) -> RenderedDeployment:
    made = tuple(Manifest.of(each, "web.yaml", n) for n, each in enumerate(objects))
    release = Release("web", "web", "1.37.0", made)
    return cast("RenderedDeployment", SimpleNamespace(releases=[release]))


@pytest.mark.parametrize(
    ("objects", "told"),
    [
        ([_dump("daily", "postgres")], ""),
        ([_dump("daily", "postgres", suspend=True)], "is suspended"),
        (
            [
                _dump("daily", "postgres", suspend=True),
                _dump("weekly", "postgres", schedule="17 2 * * 0"),
            ],
            "is not dumped daily: 17 2 * * 0",
        ),
        ([_dump("daily", "my-postgres")], "nothing dumps StatefulSet/postgres in web"),
    ],
    ids=["daily", "suspended", "daily one suspended", "of another database"],
)
def test_a_database_is_dumped_daily(objects: Objects, told: str) -> None:
    found = list(backups.every_database_is_dumped(_deployed(*_database("postgres"), *objects)))
    assert len(found) == bool(told)
    assert all(told in each for each in found)


@pytest.mark.parametrize("claim", ["dumps", "dumps.of-web"])
def test_a_claim_that_helm_deletes_is_told_whatever_its_name(claim: str) -> None:
    made = _object("PersistentVolumeClaim", claim, spec={})
    job = _dump("daily", "postgres", claim=claim)
    (found,) = backups.dumps_outlive_the_database(_deployed(*_database("postgres"), job, made))
    assert found.endswith(f"writes to {claim}, which Helm deletes with the release")
