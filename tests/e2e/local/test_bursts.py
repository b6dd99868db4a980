"""What a tenant may send at once is taken, whole and in one stream; more is refused, and said so.

Pushed to the gateway as promtail and others do: an Alloy makes small batches of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from stackproof.backends import Client
from stackproof.flux.deployment import Deployment
from stackproof.otlp import senders
from stackproof.repo.checkout import Checkout
from stackproof.stack.local import LocalStack
from stackproof.waiting import until

pytestmark = pytest.mark.xdist_group("bursts")

DEPLOYMENT = Deployment.load(Checkout.find()).with_synthetic(2)
PLAIN, LARGE, _, *ONCE = DEPLOYMENT.registry.names
#: Of the first the default's burst, which is soon there again; of the second much; of the last
#: ones the default's burst once, however long it takes to send it.
LIMITS: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    PLAIN: {"logs": {"megabytesPerSecond": 4, "megabytesBurst": 8}},
    LARGE: {"logs": {"megabytesPerSecond": 50, "megabytesBurst": 100}},
    **{one: {"logs": {"megabytesPerSecond": 0.001, "megabytesBurst": 8}} for one in ONCE},
}
BURST = 8 * 2**20
#: What a burst that is given back at 1 kB/s is larger by, should all take a minute.
REFILL = 60_000


@pytest.fixture(scope="module")
def running() -> Iterator[LocalStack]:
    tenants = tuple(replace(one, limits=LIMITS.get(one.name, {})) for one in DEPLOYMENT.registry)
    registry = replace(DEPLOYMENT.registry, tenants=tenants)
    with LocalStack(replace(DEPLOYMENT, registry=registry), alloys=False) as stack:
        yield stack


#: Loki unpacks 1 MiB of one push.
PIECE = 900_000


def _push(stack: LocalStack, client: Client, tenant: str, count: int, size: int) -> tuple[int, str]:
    """Push lines of one stream, in several requests; return what the last of them is answered."""
    now = time.time_ns()
    lines = [[str(now + number), f"{number} ".ljust(size, "x")] for number in range(count)]
    for first in range(0, count, PIECE // size):
        some = lines[first : first + PIECE // size]
        answer = client.pool.request(
            "POST",
            f"{stack.gateway_url}/loki/api/v1/push",
            json={"streams": [{"stream": {"service_name": "burst"}, "values": some}]},
            headers=senders.basic_auth(stack.reader(tenant).auth),
            retries=False,
            timeout=60,
        )
        if answer.status != 204:
            break
    return answer.status, answer.data.decode(errors="replace")


@pytest.mark.parametrize("count", [4_000, 4_080, 8_000])
def test_up_to_the_burst_all_is_taken(count: int, running: LocalStack, client: Client) -> None:
    """Of the default's 8 MiB."""
    answer = until(
        lambda: _push(running, client, PLAIN, count, 1_000),
        lambda answer: answer[0] != 429,
        within_s=60,
        every_s=3,  # the bytes of the pushes before are given back at 4 MB/s
    )
    assert answer[0] == 204, answer


@pytest.mark.parametrize(("tenant", "size"), [(ONCE[0], 1_000), (ONCE[1], 100_000)])
def test_above_the_burst_it_is_refused_as_too_much(
    tenant: str, size: int, running: LocalStack, client: Client
) -> None:
    status, said = _push(running, client, tenant, (BURST + REFILL) // size + 1, size)
    assert 400 <= status < 500, (status, said)
    assert "rate limit" in said


def test_one_stream_takes_what_the_tenant_may_send(running: LocalStack, client: Client) -> None:
    """A stream's own limit, 15 MB by default, would end it after five."""
    answers = [_push(running, client, LARGE, 30, 100_000) for _ in range(25)]
    assert {status for status, _ in answers} == {204}, answers[-1]
