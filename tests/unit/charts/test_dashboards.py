"""The dashboards that Grafana is provisioned with: sound in themselves, whoever the tenants are."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from stackproof.backends.grafana import sources
from stackproof.checks import dashboards
from stackproof.checks.dashboards import Dashboard, metrics, problems
from stackproof.flux.deployment import Deployment
from stackproof.helm.manifests import Release
from stackproof.otlp.app_metrics import EMITTED, busy
from stackproof.repo.checkout import Checkout
from stackproof.stack import provisioning


@pytest.fixture(scope="module")
def release(checkout: Checkout) -> Release:
    return Deployment.load(checkout).lgtm()


@pytest.fixture(scope="module")
def provisioned(release: Release) -> tuple[Dashboard, ...]:
    return dashboards.read(release)


@pytest.fixture(scope="module")
def uids(release: Release) -> list[str]:
    text = release.get("ConfigMap", "grafana-datasources")["data"]["datasources.yaml"]
    urls = {"GATEWAY_URL": "http://gateway"}
    return [source.uid for source in sources(provisioning.read(text, urls))]


def test_grafana_gets_every_file(
    checkout: Checkout, release: Release, provisioned: tuple[Dashboard, ...]
) -> None:
    files = {path.name for path in (checkout.charts / "lgtm/files/dashboards").iterdir()}
    assert {dashboard.name for dashboard in provisioned} == files
    # Helm keeps a release in a Secret, and a ConfigMap holds a mebibyte.
    assert len(json.dumps(release.get("ConfigMap", dashboards.CONFIG_MAP)["data"])) < 2**19


def test_they_are_sound(
    checkout: Checkout, release: Release, provisioned: tuple[Dashboard, ...], uids: list[str]
) -> None:
    names = Deployment.load(checkout).registry.names
    assert problems(provisioned, uids, names, dashboards.drawn(release)) == []


def _query(record: dict[str, Any], text: str) -> None:
    record["panels"][0]["targets"][0]["expr"] = text


def _source(record: dict[str, Any], uid: str) -> None:
    record["panels"][0]["targets"][0]["datasource"]["uid"] = uid


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no uid": (lambda r: r.pop("uid"), "has no uid"),
    "taken uid": (lambda r: r.update(uid="logs"), "its uid logs is taken"),
    "tenant": (lambda r: r.update(title="Users of soev"), "names the tenant soev"),
    "same id": (lambda r: r["panels"][1].update(id=1), "two panels have the same id"),
    "unknown metric": (
        lambda r: _query(r, "sum(rate(http_requests_total[5m]))"),
        "nothing emits the metric http_requests_total",
    ),
    "counted twice": (
        lambda r: _query(r, "sum(rate(http_server_duration_milliseconds_count[5m]))"),
        "http_server_duration_milliseconds_count is there twice, ask for one by http_route",
    ),
    "unknown variable": (
        lambda r: _query(r, 'webui_users_total{job="$job"}'),
        "uses the variable job, which does not exist",
    ),
    "empty": (lambda r: _query(r, ""), "asks nothing"),
    "unknown source": (lambda r: _source(r, "prometheus"), "there is no data source prometheus"),
    "unknown source variable": (lambda r: _source(r, "${mimir}"), "no data source ${mimir}"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(
    fault: str,
    checkout: Checkout,
    release: Release,
    provisioned: tuple[Dashboard, ...],
    uids: list[str],
) -> None:
    spoil, expected = FAULTS[fault]
    others = [each for each in provisioned if each.uid != "open-webui"]
    (own,) = (each for each in provisioned if each.uid == "open-webui")
    record = copy.deepcopy(dict(own.record))
    spoil(record)
    names = Deployment.load(checkout).registry.names
    spoilt = [*others, Dashboard("open-webui.json", record)]
    found = problems(spoilt, uids, names, dashboards.drawn(release))
    assert len(found) == 1
    assert expected in found[0]


def test_what_is_kept_of_the_stack_is_what_its_dashboard_asks(
    checkout: Checkout, release: Release, provisioned: tuple[Dashboard, ...], uids: list[str]
) -> None:
    names = Deployment.load(checkout).registry.names
    stack = dashboards.drawn(release)
    assert problems(provisioned, uids, names, {*stack, "go_threads"}) == [
        "the monitor keeps go_threads, which no panel asks"
    ]
    (missing,) = problems(provisioned, uids, names, stack - {"cortex_ingester_memory_series"})
    assert missing.endswith("nothing emits the metric cortex_ingester_memory_series")


def test_without_the_monitor_its_dashboard_is_not_there(checkout: Checkout) -> None:
    off = {"monitor": {"enabled": False}}
    bare = Deployment.load(checkout).with_values(lgtm=[off]).lgtm()
    assert "stack.json" not in {each.name for each in dashboards.read(bare)}
    assert len(dashboards.read(bare)) == 4
    assert dashboards.kept(bare) == frozenset()
    assert "observability" not in bare.get("ConfigMap", "gateway")["data"]["Caddyfile"]


@pytest.mark.parametrize(
    ("promql", "names"),
    [
        ('sum by (le, job) (rate(a_bucket{x="y z", q=~"b|c"}[5m]))', {"a_bucket"}),
        ("a / on (job) group_left (x) b offset 5m", {"a", "b"}),
        ('label_replace(a, "x", "$1", "y", "z") and b:c > bool 2', {"a", "b:c"}),
        ("topk(10, a) or vector(1e3)", {"a"}),
        ('count({__name__=~".+"})', set()),
    ],
)
def test_names_in_an_expression(promql: str, names: set[str]) -> None:
    assert metrics(promql) == names - {"5m"}


def test_a_busy_application_emits_every_metric_of_the_list() -> None:
    (resource,) = busy("a").resource_metrics
    sent = {m.name: m for part in resource.scope_metrics for m in part.metrics}
    assert set(sent) == {metric.name for metric in EMITTED}
    points = sent["http.server.requests"].sum.data_points
    assert [p.as_double for p in points] == sorted(p.as_double for p in points[:21]) * 2
