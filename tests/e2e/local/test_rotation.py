"""A tenant's password is rotated while it sends: nothing is lost, nothing is there twice.

The Secrets are mounted as a kubelet mounts them, and each side gets the new one at another time:
the gateway first, or Alloy first. Nobody restarts anything.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator

import pytest
import urllib3
from tests.e2e.counted import all_there, faults_of

from stackproof.backends import Client
from stackproof.backends.base import poll
from stackproof.errors import StackproofError
from stackproof.flux.deployment import Deployment
from stackproof.isolation.delivery import sending
from stackproof.otlp import senders
from stackproof.repo.checkout import Checkout
from stackproof.repo.tenants import OBSERVABILITY_NAMESPACE, load_registry
from stackproof.stack.local import LocalStack
from stackproof.twins import Edit, Layer, Twin

pytestmark = [pytest.mark.needs_restart, pytest.mark.xdist_group("resilience")]

REGISTRY = load_registry(Checkout.find())
TENANTS = REGISTRY.names
VICTIM = REGISTRY.get(TENANTS[1])
KEY = f"{VICTIM.secret_prefix}-gateway-password"
SIDES = (OBSERVABILITY_NAMESPACE, VICTIM.namespace)
#: For so long one side has the new password and the other the old one. Alloy tries again after 1 s,
#: and after 5 s once it has been told so.
APART_S = 8.0
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def running() -> Iterator[LocalStack]:
    with LocalStack(Deployment.load(Checkout.find())) as stack:
        yield stack


def _status(stack: LocalStack, client: Client, password: str, path: str, method: str) -> int:
    url = f"{stack.gateway_url}{path}"
    # It may hang up while it reads its users again.
    headers = {**senders.basic_auth((VICTIM.name, password)), "Connection": "close"}
    again = urllib3.Retry(3, allowed_methods=None)
    answer = client.pool.request(method, url, headers=headers, timeout=10, retries=again)
    return int(answer.status)


def _rotate(stack: LocalStack, client: Client, first: str, second: str) -> None:
    """Give the key a new value, and let one side know it `APART_S` before the other."""
    value = secrets.token_hex(16)
    stack.write_secret(KEY, value)
    assert stack.sync(first) == {}
    time.sleep(APART_S)
    assert stack.sync(second) == {}

    def known() -> tuple[bool | None, str]:
        status = _status(stack, client, value, "/prometheus/api/v1/query?query=1", "GET")
        return status == 200 or None, str(status)

    poll(known, PATIENCE_S, "the gateway knows the new password")


@pytest.mark.parametrize("first", SIDES, ids=["gateway-first", "alloy-first"])
def test_a_rotation_loses_nothing(first: str, running: LocalStack, client: Client) -> None:
    (second,) = {*SIDES} - {first}
    before = {name: running.process(name).pid for name in running.components}
    with sending(running, client, TENANTS) as sources:
        time.sleep(1)
        _rotate(running, client, first, second)
        time.sleep(1)
    all_there(running, client, sources)
    assert {name: running.process(name).pid for name in running.components} == before
    assert running.health() == []


def test_the_old_password_is_over(running: LocalStack, client: Client) -> None:
    old = running.reader(VICTIM.name).auth
    assert old is not None
    _rotate(running, client, *SIDES)
    assert _status(running, client, old[1], "/otlp/v1/logs", "POST") == 503
    assert _status(running, client, old[1], "/loki/api/v1/labels", "GET") == 401


#: What was there before, put back one at a time: each loses what is sent while the sides differ.
TWINS = (
    Twin(
        name="rotation-is-refused",
        fault="a tenant's old password is answered with 401 while Alloy does not know the new one",
        layer=Layer.LOCAL,
        caught_by="isolation",
        reason="lost",
        edits=[Edit("charts/lgtm/templates/gateway.yaml", "err.status_code} 401", "account} x")],
    ),
    Twin(
        name="password-in-the-environment",
        fault="Alloy keeps the password that it started with",
        layer=Layer.LOCAL,
        caught_by="isolation",
        reason="lost",
        edits=[
            Edit(
                "charts/open-webui-stack/templates/alloy.yaml",
                'password_file = sys.env("GATEWAY_PASSWORD_FILE")',
                "password      = local.file.once.content",
            ),
            Edit(
                "charts/open-webui-stack/templates/alloy.yaml",
                "  otelcol.auth.basic ",
                '  local.file "once" {\n'
                '  \tfilename       = sys.env("GATEWAY_PASSWORD_FILE")\n'
                '  \tdetector       = "poll"\n'
                '  \tpoll_frequency = "1h"\n'
                "  \tis_secret      = true\n"
                "  }\n\n"
                "  otelcol.auth.basic ",
            ),
        ],
    ),
)


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.name)
def test_the_twins_lose_what_is_sent_meanwhile(twin: Twin, client: Client) -> None:
    with twin.deployment(Checkout.find()) as deployment, LocalStack(deployment) as stack:
        with sending(stack, client, [VICTIM.name]) as sources:
            time.sleep(1)
            _rotate(stack, client, *SIDES)
            time.sleep(1)
        source = sources[VICTIM.name]
        with pytest.raises(StackproofError, match=r"lost \[\d+"):
            poll(
                lambda: (None, "\n".join(faults_of(stack, client, source))),
                10,
                twin.name,
                interval_s=1,
            )
