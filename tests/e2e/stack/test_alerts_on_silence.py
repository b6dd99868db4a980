"""Alerts on what came and comes no more: dumps, as the CronJob tells of them, and applications."""

from __future__ import annotations

import json
import re
import time
from functools import partial
from urllib.parse import urlencode

import pytest
import urllib3

from stackproof.backends import PROVABLE, Client, grafana
from stackproof.backends.base import Request
from stackproof.checks import alerts
from stackproof.flux.deployment import Deployment
from stackproof.helm.manifests import containers
from stackproof.model import EntryPoint, Signal
from stackproof.otlp import app_metrics
from stackproof.repo.checkout import Checkout
from stackproof.stack.base import Stack
from stackproof.stack.local import LocalStack
from stackproof.waiting import until

pytestmark = pytest.mark.xdist_group("stack")

DEPLOYMENT = Deployment.load(Checkout.find())
RULES = {rule.uid: rule for rule in alerts.read(DEPLOYMENT.lgtm())}
PATIENCE_S = 60
_HOUR_S = 3600


def _told(tenant: str) -> bytes:
    """Return what the tenant's CronJob posts after a good dump of 4096 bytes, now."""
    (job,) = (each for each in DEPLOYMENT.tenant(tenant) if each.kind == "CronJob")
    (container,) = containers(job.content)
    (found,) = re.findall(r"--post-data '(.*)' \"\$METRICS_URL\"", container["command"][2])
    size, now = """'"$size"'""", """'"$(date +%s)"'"""
    body = found.replace(size, "4096").replace(now, str(int(time.time())))
    json.loads(body)
    return str(body).encode()


def _missing(stack: LocalStack, client: Client, uid: str, hours: float) -> list[str]:
    """Return the tenants for whom a rule fires so many hours from now."""
    rule = RULES[uid]
    (source,) = (s for s in grafana.sources(stack.data_sources()) if s.uid == rule.source)
    params = urlencode({"query": rule.expr, "time": int(time.time() + hours * _HOUR_S)})
    url = f"{source.access.urls[source.backend]}/api/v1/query?{params}"
    answer = client.send(PROVABLE[0], source.access, Request("GET", url, source.access.headers))
    assert answer.status == 200, answer.describe()
    result = json.loads(answer.body)["data"]["result"]
    return sorted(each["metric"]["tenant_id"] for each in result)


@pytest.fixture
def local(stack: Stack) -> LocalStack:
    if not isinstance(stack, LocalStack):
        pytest.skip("a cluster's own dumps and applications come at their own time")
    return stack


def test_a_dump_that_does_not_come_is_an_alert(local: LocalStack, client: Client) -> None:
    tenant, *_ = local.tenants
    missing = partial(_missing, local, client, "dump-is-missing")
    assert missing(27) == []  # Nobody has told of a dump yet.
    url = f"{local.otlp_http(tenant)}/v1/metrics"
    headers = {"Content-Type": "application/json"}
    answer = urllib3.request("POST", url, body=_told(tenant), headers=headers, retries=False)
    assert answer.status == 200, answer.data
    assert until(lambda: missing(27), within_s=PATIENCE_S) == [tenant]
    assert missing(25) == []


def test_an_application_that_falls_silent_is_an_alert(local: LocalStack, client: Client) -> None:
    """For a day: whoever has been taken away is not missed for ever."""
    tenant, *_ = local.tenants
    missing = partial(_missing, local, client, "application-is-silent")
    with local.sender(tenant, EntryPoint.GATEWAY, client) as exporter:
        exporter.send(Signal.METRICS, app_metrics.busy(tenant))
    assert tenant in until(lambda: missing(0.5), lambda found: tenant in found, within_s=PATIENCE_S)
    assert tenant not in missing(0)
    assert tenant not in missing(26)
