"""A cluster of its own, with production's release of before in it: `make rehearsal`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from tests.rehearsal.production import Production, choices

from stackproof.errors import StackproofError
from stackproof.flux.deployment import Deployment
from stackproof.kube import diagnostics
from stackproof.pytest_plugin import provider
from stackproof.repo.checkout import Checkout
from stackproof.stack.kind import KindCluster, cluster_name
from stackproof.toolchain.images import Images
from stackproof.toolchain.postgresql import When

_TIMEOUT_S = 3600


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """It takes a cluster that nothing of this repository is in yet."""
    for item in items:
        if "/rehearsal/" not in str(item.path):
            continue
        item.add_marker(pytest.mark.timeout(_TIMEOUT_S))
        if "production" in getattr(item, "fixturenames", ()) and provider(config) != "kind":
            item.add_marker(pytest.mark.skip("only a cluster of its own shows it: make rehearsal"))


def say(text: str) -> None:
    """Note what was measured, in build/rehearsal.log."""
    log = Checkout.find().root / "build" / "rehearsal.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{datetime.now(UTC):%H:%M:%S} {text}\n")


@pytest.fixture(scope="session")
def production(pytestconfig: pytest.Config, checkout: Checkout) -> Iterator[Production]:
    """The cluster, with 0.1.0 and users' data in it."""
    kind = KindCluster(checkout, cluster_name())
    reuse = pytestconfig.getoption("stackproof_reuse") and kind.exists()
    if reuse:
        kind.adopt()
    else:
        kind.make()
    made = Production(kind, Deployment.load(checkout))
    try:
        images = Images(checkout)
        before = {
            "open-webui": images.real("open-webui", When.BEFORE),
            "postgres": images.real("postgres", When.BEFORE),
            "weaviate": images.real("weaviate", When.BEFORE),
            "rest": images.root("the-rest"),
        }
        merged = choices(checkout, When.BEFORE)
        now = choices(checkout, When.NOW)["open-webui"]
        chosen = (*before.values(), *merged.values(), now)
        kind.load(sorted({choice.reference for choice in chosen}))
        made.kube.rolled_out(["kube-system"], within_s=600)
        made.with_images(merged)
        if reuse:
            made.adopt()
        else:
            made.install_old({name: choice.reference for name, choice in before.items()})
            say("0.1.0 runs")
            made.fill()
            (kind.path / "password").write_text(made.password)
        yield made
    finally:
        spaces = [made.namespace, "external-secrets", "flux-system"]
        target = checkout.root / "build" / "evidence" / "rehearsal.tar.gz"
        try:
            diagnostics.of_cluster(made.kube, spaces, target)
        except StackproofError as error:
            say(f"no evidence: {error}")
        made.kube.close()
        if not (reuse or pytestconfig.getoption("stackproof_keep")):
            kind.delete()
