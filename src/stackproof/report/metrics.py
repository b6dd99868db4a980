"""The verdict as metrics, so that an alert can rest on it.

They are sent as OTLP and come out in Mimir under these names: `stackproof_isolated` is 1 or 0,
`stackproof_verdict{verdict="leaking"}` is 1 for the verdict that it is and 0 for the others,
`stackproof_pairs{state="leaks"}` counts, `stackproof_duration_seconds` is how long it took. Where a
run could not even begin, none is sent: alert on their absence, too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from stackproof.isolation import Proof
from stackproof.isolation.verdict import Verdict
from stackproof.model import Signal
from stackproof.otlp import senders
from stackproof.stack.base import Stack


def figures(proof: Proof) -> Iterator[tuple[str, str, Mapping[str, str], float]]:
    """Yield name, unit, attributes and value of each metric of a proof."""
    yield "stackproof.isolated", "", {}, float(proof.verdict is Verdict.ISOLATED)
    for verdict in Verdict:
        yield "stackproof.verdict", "", {"verdict": verdict.value}, float(proof.verdict is verdict)
    for state, count in proof.matrix.summary().items():
        yield "stackproof.pairs", "", {"state": state}, float(count)
    yield "stackproof.duration", "s", {}, proof.duration_s


def message(proof: Proof) -> ExportMetricsServiceRequest:
    """Return the metrics of a proof as one export request."""
    request = ExportMetricsServiceRequest()
    scope = request.resource_metrics.add()
    scope.resource.attributes.add(key="service.name").value.string_value = "stackproof"
    metrics = scope.scope_metrics.add().metrics
    now = time.time_ns()
    for name, unit, attributes, value in figures(proof):
        metric = metrics.add(name=name, unit=unit)
        point = metric.gauge.data_points.add(as_double=value, time_unix_nano=now)
        for key, text in attributes.items():
            point.attributes.add(key=key).value.string_value = text
    return request


def send_metrics(proof: Proof, stack: Stack, tenant: str) -> None:
    """Send the verdict as a tenant's metrics: through the gateway, else through its Alloy.

    Raises:
        StackproofError: They were not taken.
    """
    access = stack.reader(tenant)
    url = f"{stack.gateway_url}/otlp" if stack.gateway_url else stack.otlp_http(tenant)
    with senders.HttpSender(url, auth=access.auth, headers=access.headers) as sender:
        sender.send(Signal.METRICS, message(proof))
