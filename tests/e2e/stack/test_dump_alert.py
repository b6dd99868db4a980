"""The alert on a dump that did not come, for what the CronJob sends, by the way it sends it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from urllib.parse import urlencode

import pytest
import urllib3

from stackproof.backends import PROVABLE, Client, grafana, poll
from stackproof.backends.base import Request
from stackproof.checks import alerts
from stackproof.flux.deployment import Deployment
from stackproof.helm.manifests import containers
from stackproof.repo.checkout import Checkout
from stackproof.stack.base import Stack
from stackproof.stack.local import LocalStack

pytestmark = pytest.mark.xdist_group("stack")

DEPLOYMENT = Deployment.load(Checkout.find())
(RULE,) = (rule for rule in alerts.read(DEPLOYMENT.lgtm()) if rule.uid == "dump-is-missing")
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


def _missing(stack: LocalStack, client: Client, hours: float) -> list[str]:
    """Return the tenants for whom the rule fires so many hours from now."""
    (source,) = (s for s in grafana.sources(stack.data_sources()) if s.uid == RULE.source)
    params = urlencode({"query": RULE.expr, "time": int(time.time() + hours * _HOUR_S)})
    url = f"{source.access.urls[source.backend]}/api/v1/query?{params}"
    answer = client.send(PROVABLE[0], source.access, Request("GET", url, source.access.headers))
    assert answer.status == 200, answer.describe()
    result = json.loads(answer.body)["data"]["result"]
    return sorted(each["metric"]["tenant_id"] for each in result)


def test_a_dump_that_does_not_come_is_an_alert(stack: Stack, client: Client) -> None:
    if not isinstance(stack, LocalStack):
        pytest.skip("a cluster's own dumps come at their own time")
    tenant, *_ = stack.tenants
    assert _missing(stack, client, 27) == []  # Nobody has told of a dump yet.
    url = f"{stack.otlp_http(tenant)}/v1/metrics"
    headers = {"Content-Type": "application/json"}
    answer = urllib3.request("POST", url, body=_told(tenant), headers=headers, retries=False)
    assert answer.status == 200, answer.data

    def fires(hours: float, wanted: list[str]) -> Callable[[], tuple[bool | None, str]]:
        def look() -> tuple[bool | None, str]:
            found = _missing(stack, client, hours)
            return (True if found == wanted else None), f"fires for {found}, not for {wanted}"

        return look

    poll(fires(27, [tenant]), PATIENCE_S, "27 hours after the dump")
    assert _missing(stack, client, 25) == []
