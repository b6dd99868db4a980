"""The dashboards that Grafana is provisioned with: sound in themselves, whoever the tenants are."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from stackproof.backends.grafana import sources
from stackproof.checks import dashboards
from stackproof.checks.dashboards import STACK_SOURCE, Dashboard, metrics, problems
from stackproof.flux.deployment import Deployment
from stackproof.helm.manifests import Release
from stackproof.otlp.app_metrics import EMITTED, busy
from stackproof.repo.checkout import Checkout
from stackproof.stack import provisioning

Judge = Callable[[Sequence[Dashboard]], list[str]]


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


@pytest.fixture(scope="module")
def judge(checkout: Checkout, release: Release, uids: list[str]) -> Judge:
    """Return what is wrong with some dashboards of the deployment."""
    names = Deployment.load(checkout).registry.names
    return lambda some: problems(some, uids, names, dashboards.kept(release))


def test_they_are_sound(provisioned: tuple[Dashboard, ...], judge: Judge) -> None:
    assert judge(provisioned) == []


def _query(record: dict[str, Any], text: str, source: str = "") -> None:
    target = record["panels"][0]["targets"][0]
    target["expr"] = text
    if source:
        target["datasource"]["uid"] = source


def _sum_lines(record: dict[str, Any], lines: str) -> None:
    _query(record, f"sum(rate({lines} [5m]))", "${loki}")
    record["panels"][0]["targets"][0]["datasource"]["type"] = "loki"
    record["templating"]["list"].append({"name": "loki", "query": "loki"})


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no uid": (lambda r: r.pop("uid"), "has no uid"),
    "taken uid": (lambda r: r.update(uid="logs"), "its uid logs is taken"),
    "tenant": (lambda r: r.update(title="Users of soev"), "names the tenant soev"),
    "same id": (lambda r: r["panels"][1].update(id=1), "two panels have the same id"),
    "unknown metric": (
        lambda r: _query(r, "sum(rate(http_requests_total[5m]))"),
        "nothing emits the metric http_requests_total",
    ),
    "broken by a line": (
        lambda r: _sum_lines(r, '{service_name=~".+"} | json'),
        "one line that says it has an __error__ is an error",
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
    "a metric that the monitor drops": (
        lambda r: _query(r, "go_threads", STACK_SOURCE),
        "nothing emits the metric go_threads",
    ),
    "unknown source": (
        lambda r: _query(r, "webui_users_total", "prometheus"),
        "there is no data source prometheus",
    ),
    "unknown source variable": (
        lambda r: _query(r, "webui_users_total", "${mimir}"),
        "no data source ${mimir}",
    ),
}


@pytest.mark.parametrize(("spoil", "expected"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_found(
    spoil: Callable[[dict[str, Any]], Any],
    expected: str,
    provisioned: tuple[Dashboard, ...],
    judge: Judge,
) -> None:
    others = [each for each in provisioned if each.uid != "open-webui"]
    (own,) = (each for each in provisioned if each.uid == "open-webui")
    record = copy.deepcopy(dict(own.record))
    spoil(record)
    (found,) = judge([*others, Dashboard("open-webui.json", record)])
    assert expected in found


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
