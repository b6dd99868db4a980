"""Telemetry of before an upgrade is there after it: what an earlier chart wrote, this one reads."""

import secrets
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import pytest
from tests.copies import added

from stackproof.backends import PROVABLE, Client, ReadApi, poll
from stackproof.flux.deployment import Deployment
from stackproof.flux.diff import revision
from stackproof.isolation import Marks, prove, question
from stackproof.isolation.verdict import Verdict
from stackproof.model import EntryPoint
from stackproof.otlp import senders, synthetic
from stackproof.otlp.senders import HttpSender
from stackproof.otlp.synthetic import Emission
from stackproof.repo.checkout import Checkout
from stackproof.stack.local import LocalStack

pytestmark = [pytest.mark.needs_restart, pytest.mark.xdist_group("upgrade")]

CHECKOUT = Checkout.find()
EARLIER = sorted((CHECKOUT.charts / "lgtm" / "ci" / "upgrade-from").glob("*.yaml"))
KEPT = [api for api in PROVABLE if not api.volatile and api.shows != "label name"]
PATIENCE_S = 60


@pytest.mark.parametrize("values", EARLIER, ids=lambda values: values.stem)
def test_what_was_sent_before_is_read_after(values: Path, client: Client) -> None:
    now = Deployment.load(CHECKOUT)
    passwords = {one.name: secrets.token_hex(8) for one in now.registry.tenants}
    with revision(CHECKOUT, added(values)) as files:
        stack = LocalStack(Deployment.load(files), alloys=False)
        for one in now.registry.tenants:
            stack.write_secret(f"{one.secret_prefix}-gateway-password", passwords[one.name])
        with stack:
            run = synthetic.new_run()
            sent = {}
            for auth in passwords.items():
                sender = HttpSender(f"{stack.gateway_url}/otlp", auth=auth, pool=client.pool)
                sent[auth[0]] = senders.emit(sender, auth[0], run)
            stack.upgrade(now)
            for tenant, api in product(sent, KEPT):
                assert _shown(stack, tenant, api, sent, client) == {tenant}
            found = prove(stack, apis=KEPT, entry_point=EntryPoint.GATEWAY)
            assert found.verdict is Verdict.ISOLATED


def _shown(
    stack: LocalStack, tenant: str, api: ReadApi, sent: Mapping[str, Emission], client: Client
) -> set[str]:
    """Return whose telemetry the tenant sees, as soon as it sees any."""
    marks = Marks(sent)

    def look() -> tuple[set[str] | None, str]:
        answer = client.ask(api, stack.reader(tenant), question(sent[tenant]))
        owners = {owner for owner, _ in marks.find(answer.body, api.mark).values()}
        return owners or None, answer.describe()

    return poll(look, PATIENCE_S, f"{api.id} as {tenant}")
