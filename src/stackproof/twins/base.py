"""Broken twins: the correct deployment with one fault put back, which a named check must catch.

A check that has never failed proves nothing. Each `Twin` is a small edit of a temporary copy of the
repository's charts and values; `run` puts it there and asks the check that is named. A twin that
nothing catches, or that is caught for another reason than the stated one, is a hole in the suite.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from stackproof import isolation, upgrade
from stackproof.backends import Client
from stackproof.checks.application import APPLICATION
from stackproof.checks.arrival import ARRIVAL, running
from stackproof.checks.configs import refused
from stackproof.checks.deployment import DEPLOYMENT, RenderedDeployment
from stackproof.checks.invariants import INVARIANTS
from stackproof.checks.observability import OBSERVABILITY
from stackproof.checks.platform import PLATFORM
from stackproof.checks.settings import SETTINGS
from stackproof.errors import StackproofError
from stackproof.flux.checks import FLUX, Subject
from stackproof.flux.delivered import differing
from stackproof.flux.deployment import TENANT_RELEASE, Deployment
from stackproof.flux.tree import build_tenant
from stackproof.helm import renderer
from stackproof.helm.externals import ExternalObjects, Rendered
from stackproof.helm.renderer import HelmError
from stackproof.isolation.verdict import Verdict
from stackproof.migrate import deployed
from stackproof.migrate.checks import MIGRATION, Change, merged
from stackproof.model import Signal
from stackproof.repo.checkout import Checkout
from stackproof.repo.document import FileError
from stackproof.rules import Rules
from stackproof.stack.local import LocalStack
from stackproof.stack.rolling import RollingStack
from stackproof.stack.scratch import Scratch

#: What a twin is made of; the rest of the repository stays where it is.
_COPIED = (
    "charts",
    "observability",
    "flux",
    "schemas",
    ".github",
    "tests/earlier",
    ".sourceignore",
    "versions.yaml",
)


class Layer(StrEnum):
    """Where a fault is caught, cheapest first."""

    SCHEMA = "schema"
    UNIT = "unit"
    LINT = "lint"
    LOCAL = "local e2e"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of one file: `old`, which must be there, becomes `new`."""

    file: str
    old: str
    new: str

    def apply(self, root: Path) -> None:
        """Change the file under `root`.

        Raises:
            StackproofError: `old` is not in it: the twin is stale.
        """
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        if self.old not in text:
            raise StackproofError(
                f"the text that the twin replaces is not there: {self.old!r}",
                where=self.file,
                todo="Adapt the twin to the file as it is now.",
            )
        path.unlink()  # it may be a link to the original
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


def in_lgtm(template: str, old: str, new: str) -> Edit:
    """Return a change of a template of charts/lgtm."""
    return Edit(f"charts/lgtm/templates/{template}", old, new)


def in_tenant(template: str, old: str, new: str) -> Edit:
    """Return a change of a template of charts/open-webui-stack."""
    return Edit(f"charts/open-webui-stack/templates/{template}", old, new)


def in_flux(file: str, old: str, new: str) -> Edit:
    """Return a change of a file of the Flux tree."""
    return Edit(f"flux/{file}", old, new)


@dataclass(frozen=True, kw_only=True)
class Twin:
    """A fault, and what must catch it."""

    name: str
    fault: str
    """What is wrong, in one sentence."""
    layer: Layer = Layer.UNIT
    caught_by: str
    """One of `CHECKS`: `registry`, `render`, `configs`, `isolation`, `upgrade`,
    `delivered`, or REGISTRY.CHECK."""
    reason: str
    """A regular expression that a message of that check must match."""
    edits: Sequence[Edit] = ()
    lgtm: Mapping[str, Any] = field(default_factory=dict)
    """Values laid over those of charts/lgtm."""
    tenant: Mapping[str, Any] = field(default_factory=dict)
    """Values laid over those of every tenant's release."""
    scenario: str = ""
    """A file of values below charts/CHART/ci: what is rendered instead of the deployment."""
    signals: Sequence[Signal] = tuple(Signal)
    """What the local proof sends."""
    verdict: Verdict = Verdict.LEAKING
    """What the local proof must come to."""
    deadline_s: float = 10.0
    """How long the local proof, or whoever looks for the application's telemetry, waits for what
    may never come."""
    pace_s: float = 1.0
    """Between two looks at a roll: a fault that lasts for seconds needs more of them."""
    replicas: int = 1
    """How many pods of the first tenant's application run, where its telemetry is looked for."""
    number: int | None = None
    """The row of docs/faults.md that this is."""

    @contextmanager
    def deployment(self, checkout: Checkout) -> Iterator[Deployment]:
        """Give the deployment with the fault, in a copy of the checkout."""
        with _copied(checkout.root) as root:
            for edit in self.edits:
                edit.apply(root)
            yield Deployment.load(Checkout(root)).with_values(
                lgtm=[self.lgtm] if self.lgtm else [], tenant=[self.tenant] if self.tenant else []
            )


def edited(name: str, fault: str, caught_by: str, reason: str, *edits: Edit, **more: Any) -> Twin:
    """Return a fault that edits of files make; `more` are further fields of it."""
    return Twin(name=name, fault=fault, caught_by=caught_by, reason=reason, edits=edits, **more)


def invalid(name: str, fault: str, reason: str, **more: Any) -> Twin:
    """Return a fault in the values that a chart's schema refuses; `more` are further fields."""
    return edited(name, fault, "render", reason, layer=Layer.SCHEMA, **more)


@dataclass(frozen=True, slots=True)
class TwinOutcome:
    """What the named check said of a twin."""

    twin: Twin
    messages: Sequence[str]
    seconds: float

    @property
    def reason(self) -> str | None:
        """The first message that gives the stated reason, None where no message does."""
        wanted = re.compile(self.twin.reason)
        return next((text for text in self.messages if wanted.search(text)), None)

    @property
    def caught(self) -> bool:
        """Whether the fault was caught, and for the stated reason."""
        return self.reason is not None

    def record(self) -> dict[str, object]:
        """The outcome as build/report/twins.json has it."""
        return {
            "name": self.twin.name,
            "fault": self.twin.fault,
            "number": self.twin.number,
            "layer": self.twin.layer.value,
            "caught_by": self.twin.caught_by if self.caught else None,
            "reason": self.reason or "; ".join(self.messages[:3]) or "nothing was noticed",
            "seconds": round(self.seconds, 3),
        }


def run(twin: Twin, checkout: Checkout) -> TwinOutcome:
    """Put the fault into a copy of the checkout and return what the named check says of it.

    Raises:
        StackproofError: The twin does not apply to the files as they are.
    """
    began = time.monotonic()
    try:
        with twin.deployment(checkout) as deployment:
            messages = list(_ask(twin, deployment, checkout))
    except FileError as error:
        if twin.caught_by != "registry":
            raise
        messages = [str(error)]
    return TwinOutcome(twin, messages, time.monotonic() - began)


def _ask(twin: Twin, deployment: Deployment, suite: Checkout) -> Iterator[str]:
    registry, _, name = twin.caught_by.partition(".")
    if name:
        for subject in _subjects(registry, twin, deployment, suite):
            yield from REGISTRIES[registry][name].find(subject)
    elif registry == "isolation":
        yield from _prove(twin, deployment)
    elif registry == "upgrade":
        patience_s = twin.deadline_s
        with RollingStack(Deployment.load(suite), pace_s=twin.pace_s) as right:
            found = upgrade.prove(right, deployment, deadline_s=patience_s, patience_s=patience_s)
        yield from found.reasons
    elif registry == "delivered":
        yield from differing(Subject.load(deployment.checkout).tree, deployment)
    elif registry == "configs":
        yield from (message for release in deployment.releases() for message in refused(release))
    elif registry == "render":
        try:
            deployment.releases()
        except HelmError as error:
            yield str(error)


def _subjects(
    registry: str, twin: Twin, deployment: Deployment, suite: Checkout
) -> Iterator[object]:
    """Yield what the rules of a registry look at."""
    if registry == "arrival":
        yield from _applications(twin, deployment)
    elif registry == "migration":
        yield earlier(deployment.checkout)
    elif registry == "flux":
        yield Subject.load(deployment.checkout)
    elif registry == "invariants":
        yield from _surrounded(deployment, suite)
    elif twin.scenario:
        file = deployment.checkout.root / twin.scenario
        yield renderer.render(file.parents[1], [file], release="one", namespace="here")
    elif registry == "application":
        yield from (deployment.tenant(name) for name in deployment.registry.names)
    elif registry == "observability":
        yield deployment.lgtm()
    else:
        yield RenderedDeployment(deployment)


def _surrounded(deployment: Deployment, suite: Checkout) -> Iterator[Rendered]:
    """Yield every release, each among what its chart says is around it."""
    for release, values in zip(deployment.releases(), deployment.all_values(), strict=True):
        chart = deployment.checkout.charts / release.manifests[0].source.split("/")[0]
        yield ExternalObjects.load(chart, suite).around(release, values)


#: Rules that a twin can name, as REGISTRY.RULE.
REGISTRIES: Mapping[str, Rules[Any]] = {
    "application": APPLICATION,
    "arrival": ARRIVAL,
    "deployment": DEPLOYMENT,
    "flux": FLUX,
    "invariants": INVARIANTS,
    "migration": MIGRATION,
    "observability": OBSERVABILITY,
    "platform": PLATFORM,
    "settings": SETTINGS,
}
#: Every check that a twin can name.
CHECKS: frozenset[str] = frozenset(
    {
        "registry",
        "render",
        "configs",
        "isolation",
        "upgrade",
        "delivered",
        *(f"{registry}.{name}" for registry, rules in REGISTRIES.items() for name in rules.names),
    }
)


def earlier(checkout: Checkout) -> Change:
    """Return the merge of a checkout's tree onto the release of chart 0.1.0 in tests/earlier."""
    folder = checkout.root / "tests" / "earlier"
    old = deployed.from_files(
        folder / "open-webui-0.1.0.yaml", release=TENANT_RELEASE, namespace="open-webui"
    )
    new = merged(build_tenant(checkout, "soev"), old.namespace, old.name)
    assert new is not None
    return Change(
        # Whatever Helm applied it with: server-side apply is what refuses more.
        replace(old, store=deployed.read_store(folder / "store.yaml"), server_side=True),
        new.manifests,
        new.level,
        apply=new.apply,
    )


def _prove(twin: Twin, deployment: Deployment) -> Iterator[str]:
    """Run the real programs; a message for each violation if the verdict is the expected one."""
    with LocalStack(deployment) as stack:
        proof = isolation.prove(stack, signals=twin.signals, deadline_s=twin.deadline_s)
    if proof.verdict is twin.verdict:
        yield from (str(violation) for violation in proof.violations)


def _applications(twin: Twin, deployment: Deployment) -> Iterator[object]:
    """Run the real application of the first tenant, and yield what arrives of it."""
    tenant = deployment.registry.names[0]
    with (
        LocalStack(deployment) as stack,
        Client() as client,
        running(
            stack, tenant, client, replicas=twin.replicas, waited_s=twin.deadline_s
        ) as applications,
    ):
        yield applications


#: Copies that nobody uses, by process and by what they are copies of.
_free: dict[tuple[int, Path], list[Scratch]] = {}


@contextmanager
def _copied(root: Path) -> Iterator[Path]:
    """Give a copy of what a twin is made of: one that was used before, as good as new.

    To make one takes longer than most checks take to look at it.
    """
    free = _free.setdefault((os.getpid(), root), [])
    scratch = free.pop() if free else Scratch()
    try:
        for name in _COPIED:
            _update(root / name, scratch.path / name)
        yield scratch.path
    finally:
        free.append(scratch)


@atexit.register
def _remove_copies() -> None:
    for (process, _), copies in _free.items():
        for scratch in copies if process == os.getpid() else ():
            scratch.remove()


def _update(source: Path, target: Path) -> None:
    """Make a copy what its source is; files that are so are left alone."""
    wanted, there = _files(source), _files(target)
    for name in there.keys() - wanted.keys():
        Path(f"{target}{name}").unlink()
    for name, state in wanted.items():
        if there.get(name) != state:
            copy = Path(f"{target}{name}")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(f"{source}{name}", copy)


def _files(path: Path) -> dict[str, tuple[int, int]]:
    """Return the files of a folder, or a file itself, by what follows the path of it.

    With the time of the last change and the size: a copy has those of its source.
    """
    found: dict[str, tuple[int, int]] = {}
    below = [str(path)] if path.is_dir() else []
    if not below and path.exists():
        stat = path.stat()
        found[""] = stat.st_mtime_ns, stat.st_size
    for folder in below:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    below.append(entry.path)
                else:
                    stat = entry.stat()
                    found[entry.path.removeprefix(str(path))] = stat.st_mtime_ns, stat.st_size
    return found
