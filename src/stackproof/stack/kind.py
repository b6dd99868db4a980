"""The deployment in a cluster of its own, which kind makes in Docker.

Helm or Flux installs it. Images are loaded into the node; nothing is pulled by the cluster. A
cluster that was there before is used only if one asks for it, and is never deleted.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Self

import pytest_kind
import yaml

from stackproof.errors import StackproofError
from stackproof.flux.deployment import Deployment
from stackproof.kube import diagnostics
from stackproof.kube.client import Kube
from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Versions
from stackproof.toolchain import programs
from stackproof.toolchain.images import ImageChoice, Images, connect

from .cluster import ClusterStack, Collector
from .gitops import Flux
from .install import COMPONENTS, CONTROLLERS, OPERATORS, Installer, objects
from .pod_events import PodEvents
from .rollout import RollEvent

DEFAULT_NAME = "stackproof"

_READY_S = 180.0
_ROLLED_OUT_S = 240.0

#: Says in a cluster that this suite made it: only such a one is deleted.
_OURS: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "made-by-stackproof", "namespace": "kube-system"},
}


def cluster_name() -> str:
    """Return the name of the cluster: $KIND_CLUSTER, else `stackproof`."""
    return os.environ.get("KIND_CLUSTER") or DEFAULT_NAME


class KindCluster(pytest_kind.KindCluster):  # type: ignore[misc]
    """pytest-kind's cluster, made by the kind that tools/ pins, with its files in build/kind."""

    def __init__(self, checkout: Checkout, name: str) -> None:
        # Not the base class's own: that makes a folder in the working directory.
        self.name = name
        self.path = checkout.root / "build" / "kind" / name
        self.kubeconfig_path = self.path / "kubeconfig"
        self.kind_path = programs.find("kind", checkout)
        node = Versions.load(checkout).kubernetes.kind_node
        self.image = os.environ.get("KIND_NODE_IMAGE") or node

    def ensure_kubectl(self) -> None:
        """Refuse: the API is asked directly."""
        raise NotImplementedError("kubectl is not needed")

    @property
    def _which(self) -> tuple[str, str]:
        return f"--name={self.name}", f"--kubeconfig={self.kubeconfig_path}"

    @property
    def context(self) -> str:
        """The context in the kubeconfig."""
        return f"kind-{self.name}"

    def exists(self) -> bool:
        """Tell whether there is a cluster of this name."""
        connect().close()  # whose words are plainer than kind's where no Docker answers
        return self.name in self.kind("get", "clusters").split()

    def make(self) -> None:
        """Make the cluster, and mark it as ours.

        Raises:
            StackproofError: kind cannot; with its own words.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        config = self.path / "kind.yaml"
        config.write_text(yaml.safe_dump(objects("kind")[0]), encoding="utf-8")
        try:
            how = (f"--image={self.image}", f"--config={config}")
            self.kind("create", "cluster", *self._which, *how)
        except StackproofError as error:
            # After what it tells of each step; with --quiet it does not say what is wrong.
            raise StackproofError(
                error.what.partition("ERROR: ")[2] or error.what,
                where=error.where,
                todo="Does Docker run, with the image of the node? KIND_NODE_IMAGE names another.",
            ) from error
        self.kube().apply_all([_OURS])

    def adopt(self) -> None:
        """Write the kubeconfig of a cluster that is there."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.kind("export", "kubeconfig", *self._which)

    def kube(self) -> Kube:
        """Return a client."""
        return Kube(self.context, self.kubeconfig_path)

    def is_ours(self) -> bool:
        """Tell whether this suite made the cluster."""
        metadata = _OURS["metadata"]
        found = self.kube().find("v1", "ConfigMap", metadata["name"], metadata["namespace"])
        return found is not None

    def delete(self) -> None:
        """Delete the cluster."""
        self.kind("delete", "cluster", *self._which)

    def load(self, references: Sequence[str]) -> None:
        """Load images from Docker into the node; those that it has cost nothing."""
        self.kind("load", "docker-image", f"--name={self.name}", *references)

    def kind(self, *arguments: str) -> str:
        """Run kind, return what it printed.

        Raises:
            StackproofError: It failed.
        """
        done = subprocess.run(
            [self.kind_path, *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = done.stderr.strip() or done.stdout.strip()
            raise StackproofError(said, where=f"kind {' '.join(arguments[:2])}")
        return done.stdout


class KindStack(ClusterStack):
    """A `Stack` in a kind cluster. Entering it makes the cluster and installs the deployment.

    Args:
        deployment: What is installed.
        keep: Leave the cluster when it ends.
        reuse: Use the cluster of that name if there is one; it is then left as well.
        flux: Let Flux install the repository's tree; else Helm installs the charts.
        say: Is told what is being done.
    """

    provider = "kind"
    disposable = True
    # Each new connection is a port that is forwarded anew, and a pod has the processors of its
    # limit: a Tempo with one does not search what many senders leave behind in the time of a proof.
    pace_s = 1.0

    def __init__(
        self,
        deployment: Deployment,
        *,
        keep: bool = False,
        reuse: bool = False,
        flux: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.deployment = deployment
        self.events: list[RollEvent] = []
        self.keep = keep
        self.reuse = reuse
        self.flux = flux
        self.steps: dict[str, float] = {}
        """Seconds of each step of entering."""
        self._say = say
        self._made = False
        self._choices: dict[str, ImageChoice] = {}
        # Not the deployment's checkout: that may be of an earlier revision, and go.
        self._home = Checkout.find()
        self.cluster = KindCluster(self._home, cluster_name())
        self._installer: Installer | None = None

    # --- life ---

    def __enter__(self) -> Self:
        try:
            with self._step("cluster"):
                self._cluster()
            super().__init__(self.cluster.kube())
            self.install()
            return self
        except BaseException:
            self._rescue_evidence()
            self._end()
            raise

    def __exit__(self, *_: object) -> None:
        self._end()

    def _cluster(self) -> None:
        if not self.cluster.exists():
            self.cluster.make()
            self._made = True
        elif self.reuse:
            self.cluster.adopt()
        else:
            raise StackproofError(
                "there is a kind cluster of this name already",
                where=self.cluster.name,
                todo="Use it with --reuse, delete it with `stackproof kind down`, or name another "
                "with KIND_CLUSTER.",
            )

    def install(self) -> None:
        """Load the images, install the releases and wait until all of their pods are ready."""
        with self._step("images"):
            self._choices = choose(self.deployment.checkout, flux=self.flux)
        with self._step("images loaded"):
            self.cluster.load(sorted({each.reference for each in self._choices.values()}))
        installer = Installer(
            self.kube, self.cluster.kubeconfig_path, self.deployment, self._choices
        )
        self._installer = installer
        with self._step("operators ready"):
            self.kube.rolled_out(["kube-system"], within_s=_READY_S)
            installer.prerequisites()
        with self._step("releases installed"):
            if self.flux:
                self.gitops.take_over()
            else:
                if not self._made:  # one that was left may have Flux in it
                    self.gitops.rest()
                installer.helm()
            installer.synced()
        with self._step("pods ready"):
            self.kube.rolled_out(installer.namespaces, within_s=_ROLLED_OUT_S)
        self.find()

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        self._say(f"{name} …")
        yield
        self.steps[name] = time.monotonic() - began
        self._say(f"{name}: {self.steps[name]:.1f} s")

    def _rescue_evidence(self) -> None:
        """Keep what there is to see of an installation that failed, before it is gone."""
        if self._installer is None:
            return
        target = self._home.root / "build" / "evidence" / "install.tar.gz"
        try:
            diagnostics.of_cluster(self.kube, self._installer.namespaces, target)
            self._say(f"evidence: {target}")
        except StackproofError as error:
            self._say(f"no evidence: {error}")

    def _end(self) -> None:
        if hasattr(self, "kube"):
            self.close()
        if "gitops" in vars(self):
            self.gitops.close()
        if self._made and not self.keep:
            self.cluster.delete()

    # --- what differs from somebody else's cluster ---

    @property
    def installer(self) -> Installer:
        """What installed it, to upgrade it or to rotate secrets."""
        assert self._installer is not None
        return self._installer

    @contextmanager
    def by_flux(self) -> Iterator[Flux]:
        """Let Flux deploy for as long as a block lasts, where Helm did before."""
        self._choices |= choose(self.deployment.checkout, flux=True)
        self.cluster.load([self._choices[name].reference for name in CONTROLLERS])
        self.installer.choices = self._choices
        self.gitops.take_over()
        try:
            yield self.gitops
        finally:
            self.gitops.rest()

    @cached_property
    def gitops(self) -> Flux:
        """Flux, and the repository that it follows."""
        return Flux(self.installer)

    def roll(self, deployment: Deployment) -> tuple[str, ...]:
        """See `Rollable.roll`: by a commit that Flux fetches."""
        self.deployment = deployment
        self._choices = choose(deployment.checkout, flux=True)
        self.cluster.load(sorted({each.reference for each in self._choices.values()}))
        kubeconfig = self.cluster.kubeconfig_path
        self._installer = Installer(self.kube, kubeconfig, deployment, self._choices)
        self._installer.fill_store()
        watched = PodEvents(self.kube, self._installer.of_releases)
        with watched.seen():
            self.gitops.follow(self._installer, "What takes over")
            self.kube.rolled_out(self._installer.namespaces, within_s=_ROLLED_OUT_S)
        self.events += watched.events
        self.find()
        return watched.changed

    @property
    def choices(self) -> Mapping[str, ImageChoice]:
        """The image of each component, and how it was had."""
        return self._choices

    def in_order(self, found: Sequence[Collector]) -> Sequence[Collector]:
        """The registry's order."""
        of = {each.tenant: each for each in found}
        return [of[name] for name in self.deployment.registry.names if name in of]


def choose(checkout: Checkout, *, flux: bool = False) -> dict[str, ImageChoice]:
    """Return the image of every component of a cluster, which Docker then has."""
    images = Images(checkout)
    found = {name: images.choose(name) for name in COMPONENTS}
    for name in (*OPERATORS, *(CONTROLLERS if flux else ())):
        found[name] = images.built(name, name)
    found["standin"] = images.stand_in("nothing")
    return found


def down(checkout: Checkout) -> bool:
    """Delete the cluster if this suite made it; return whether there was one.

    Raises:
        StackproofError: Somebody else made it.
    """
    cluster = KindCluster(checkout, cluster_name())
    if not cluster.exists():
        return False
    cluster.adopt()
    if not cluster.is_ours():
        raise StackproofError(
            "this cluster was not made by stackproof, so it is not deleted",
            where=cluster.name,
            todo=f"`kind delete cluster --name {cluster.name}` deletes it.",
        )
    cluster.delete()
    return True
