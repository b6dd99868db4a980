"""A cluster as production is before the merge: a release of chart 0.1.0 with users' data in it.

What is real: PostgreSQL (16.2 before, 16.14 after), open-webui (0.6.43 before, the pinned version
after), Weaviate (1.28.4), Helm, Flux, External Secrets, volumes whose group the kubelet changes.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tests.rehearsal.users import Asker, Users

from stackproof.errors import StackproofError
from stackproof.flux.deployment import TENANT_RELEASE, Deployment
from stackproof.kube import probes
from stackproof.kube.client import Kube
from stackproof.repo.checkout import Checkout
from stackproof.stack.forward import Forward
from stackproof.stack.install import CONTROLLERS, OPERATORS, Installer, objects
from stackproof.stack.install import values as image_values
from stackproof.stack.kind import KindCluster
from stackproof.toolchain.images import ImageChoice, Images
from stackproof.toolchain.postgresql import When

TENANT = "soev"
CHART = Path(__file__).parents[1] / "earlier" / "open-webui-stack-0.1.0"

#: A busy machine starts the real application in minutes.
ROLLED_S = 600.0


def choices(
    checkout: Checkout, when: When, *, vectors: When = When.BEFORE
) -> dict[str, ImageChoice]:
    """Return the image of each component, which Docker then has.

    Args:
        checkout: Whose pins count.
        when: Which application: production's, or the version that is deployed.
        vectors: Which Weaviate: production's stays through the merge.
    """
    images = Images(checkout)
    found = {name: images.choose(name) for name in ("mimir", "loki", "tempo", "gateway", "alloy")}
    found |= {name: images.stand_in(name) for name in ("grafana", "searxng")}
    found["weaviate"] = images.real("weaviate", vectors)
    found["postgres"] = images.real("postgres")
    found["open-webui"] = images.real("open-webui", when)
    for name in (*OPERATORS, *CONTROLLERS):
        found[name] = images.built(name, name)
    found["standin"] = images.stand_in("nothing")
    return found


@dataclass
class Downtime:
    """When nobody could use the application."""

    seconds: float = 0.0
    asked: int = 0
    away: str = ""
    """Why nobody is answered now."""


@dataclass
class Production(Users):
    """The cluster.

    Args:
        kind: The cluster.
        deployment: What is merged onto it.
        tenant: Whose release is looked at.
    """

    kind: KindCluster
    deployment: Deployment
    tenant: str = TENANT
    kube: Kube = field(init=False)
    password: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    old_secrets: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.kube = self.kind.kube()
        entry = self.deployment.registry.get(self.tenant)
        self.namespace, self.prefix = entry.namespace, entry.secret_prefix
        self._deployed: dict[str, ImageChoice] = {}
        self.installer = self.with_images({})

    # --- what is installed ---

    def with_images(self, choices: Mapping[str, ImageChoice]) -> Installer:
        """Return what installs the merge with these images."""
        made = Installer(self.kube, self.kind.kubeconfig_path, self.deployment, choices)
        if hasattr(self, "installer"):
            made.store = self.installer.store
        self.installer = made
        return made

    def install_old(self, images: Mapping[str, str]) -> None:
        """Install 0.1.0 as its owners did: by hand, into a namespace without pod security."""
        keys = yaml.safe_load((CHART / "values.yaml").read_text())["secrets"]
        self.old_secrets = {key: secrets.token_hex(16) for key in keys}
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        self.kube.apply_all([*objects("storage-class"), space])
        values = self.kind.path / "old-values.yaml"
        values.write_text(yaml.safe_dump({"images": dict(images), "secrets": self.old_secrets}))
        self.installer.run_helm(
            *("upgrade", "--install", TENANT_RELEASE, str(CHART), "--namespace", self.namespace),
            *("--values", str(values)),
        )
        self.ready()

    def install_earlier(self, chart: Path, values: Path) -> None:
        """Install an earlier release of the chart, as a tenant of this cluster."""
        own = self.kind.path / "earlier-values.yaml"
        _, images = image_values(self.installer.choices)
        keys = {"externalSecrets": {"keyPrefix": self.prefix}}
        own.write_text(yaml.safe_dump(images) + yaml.safe_dump(keys))
        self.installer.run_helm(
            *("upgrade", "--install", TENANT_RELEASE, str(chart), "--namespace", self.namespace),
            *("--values", str(values), "--values", str(own)),
        )
        self.installer.synced()
        self.ready()

    def adopt(self) -> None:
        """Read from a cluster that was left what it was made with."""
        values = yaml.safe_load((self.kind.path / "old-values.yaml").read_text())
        self.old_secrets = values["secrets"]
        self.password = (self.kind.path / "password").read_text()

    def keep_secrets(self) -> None:
        """Put the present values into the store, as docs/migration.md has it done."""
        for key, value in self.old_secrets.items():
            self.installer.store.preset(f"{self.prefix}-{key}", value)

    def merge(self) -> None:
        """Deploy the merge with `helm upgrade`."""
        self.installer.upgrade(TENANT_RELEASE, self.tenant, "--server-side=false")
        self.installer.synced()
        self.ready()

    def ready(self) -> None:
        """Wait until all pods of the tenant are there, and none of before."""
        self.kube.rolled_out([self.namespace], within_s=ROLLED_S)
        self.kube.until(
            lambda: not self._leaving(), within_s=ROLLED_S, what="the pods of before are gone",
            seen=lambda: ", ".join(self._leaving()),
        )  # fmt: skip

    def _leaving(self) -> list[str]:
        pods = self.kube.listed("v1", "Pod", self.namespace)
        return [p["metadata"]["name"] for p in pods if "deletionTimestamp" in p["metadata"]]

    # --- users' data ---

    def execute(self, component: str, argv: Sequence[str]) -> str:
        """Run a program in the container of a component's pod."""
        pod = probes.component(self.kube, self.namespace, component)["metadata"]["name"]
        return self.kube.execute(pod, self.namespace, component, argv)

    def vectors(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the vector store, through the API server."""
        pod = probes.component(self.kube, self.namespace, "weaviate")["metadata"]["name"]
        proxy = f"/api/v1/namespaces/{self.namespace}/pods/{pod}:8080/proxy"
        return self.kube.request(method, f"{proxy}{path}", body)

    @contextmanager
    def application(self) -> Iterator[Asker]:
        """The application, through a forwarded port."""
        pod = probes.component(self.kube, self.namespace, "open-webui")["metadata"]["name"]
        forward = Forward(self.kube, self.namespace, 8080, lambda: str(pod))
        try:
            yield Asker(f"http://127.0.0.1:{forward.local_port}")
        finally:
            forward.close()

    # --- claims ---

    def claims(self) -> dict[str, str]:
        """Return each claim with its volume."""
        found = self.kube.listed("v1", "PersistentVolumeClaim", self.namespace)
        return {
            c["metadata"]["name"]: f"{c['metadata']['uid']} {c['spec'].get('volumeName')}"
            for c in found
            if "deletionTimestamp" not in c["metadata"]
        }

    def orphans(self) -> set[str]:
        """Return the claims that have a volume which no pod mounts."""
        mounted = {
            volume["persistentVolumeClaim"]["claimName"]
            for pod in self.kube.pods(self.namespace)
            for volume in pod["spec"]["volumes"]
            if "persistentVolumeClaim" in volume
        }
        bound = {name for name, of in self.claims().items() if not of.endswith("None")}
        # The dumps': it is mounted for as long as one is made.
        return {name for name in bound - mounted if not name.endswith("-backup")}

    def pods(self) -> dict[str, str]:
        """Return the uid of each pod, by component: what a change would replace."""
        return {
            f"{p['metadata']['labels']['app.kubernetes.io/component']} {p['metadata']['uid']}": p[
                "spec"
            ]["containers"][0]["image"]
            for p in self.kube.pods(self.namespace)
            if "app.kubernetes.io/component" in p["metadata"].get("labels", {})
        }

    @contextmanager
    def downtime(self) -> Iterator[Downtime]:
        """Ask the Service behind the Ingress twice a second, as users would."""
        found, over = Downtime(), threading.Event()
        # A client of its own: connections are not shared between threads.
        watcher = threading.Thread(target=self._watch, args=(self.kind.kube(), found, over))
        watcher.start()
        try:
            yield found
        finally:
            over.set()
            watcher.join()

    def _watch(self, kube: Kube, found: Downtime, over: threading.Event) -> None:
        before = time.monotonic()
        # To the end of an outage, though all pods are said to be ready.
        while not over.is_set() or (found.away and found.seconds < ROLLED_S):
            time.sleep(0.5)
            found.asked += 1
            try:
                _health(kube, self.namespace)
            except (StackproofError, LookupError, ValueError) as error:
                found.away = str(error)
            else:
                found.away = ""
            now = time.monotonic()
            found.seconds += (now - before) if found.away else 0
            before = now


def _health(kube: Kube, namespace: str) -> None:
    """Ask as the Ingress would, what only the database can answer.

    Raises:
        StackproofError: Nobody answers.
    """
    ingresses = kube.listed("networking.k8s.io/v1", "Ingress", namespace)
    paths = [each["spec"]["rules"][0]["http"]["paths"][0] for each in ingresses]
    service = paths[0]["backend"]["service"]["name"] if paths else "open-webui"
    kube.text("GET", f"/api/v1/namespaces/{namespace}/services/{service}:http/proxy/health/db")
