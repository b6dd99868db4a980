"""The distributed backends of observability/scale-out in a test cluster, as its README orders it.

They are deployed as they would be, with two exceptions that a cluster of one node makes: no pod
asks for more than a sliver of it, and pods that must not share a node may. Google's store of
objects and its metadata server are stood in for (stack/objects/object-store.yaml).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from tests import charts_from_elsewhere

from stackproof.backends import Client
from stackproof.checks.scale_out import Install, installs, limit_values
from stackproof.flux.deployment import LGTM_RELEASE, Deployment
from stackproof.helm.manifests import Release, containers
from stackproof.helm.renderer import render
from stackproof.kube.client import Object
from stackproof.stack.cluster import ClusterStack
from stackproof.stack.install import Installer, objects
from stackproof.stack.kind import KindStack
from stackproof.toolchain.images import ImageChoice, Images
from stackproof.values.combinations import value_at

#: What each backend calls the bucket that it stores everything in.
BUCKETS: Mapping[str, tuple[str, ...]] = {
    "mimir": ("mimir", "structuredConfig", "blocks_storage", "gcs", "bucket_name"),
    "loki": ("loki", "storage", "bucketNames", "chunks"),
    "tempo": ("storage", "trace", "gcs", "bucket_name"),
}
STORE = "object-store"
STORE_HOST = f"{STORE}.{STORE}.svc:4443"
#: Where Google's own libraries look for what they speak to.
_GOOGLE = [
    {"name": "STORAGE_EMULATOR_HOST", "value": f"http://{STORE_HOST}"},
    {"name": "GCE_METADATA_HOST", "value": f"{STORE}.{STORE}.svc:8080"},
]
_SLIVER = {"requests": {"cpu": "10m", "memory": "128Mi"}}
#: Of all pods of the three charts: Mimir's end 90 s after they are told to.
READY_S = 900.0
_ROLLED_S = 240.0


class ScaledOut(ClusterStack):
    """The deployment with its backends elsewhere, where `scaled_out` has put them."""

    def __init__(self, kind: KindStack, charts: Mapping[str, Path]) -> None:
        super().__init__(kind.kube)
        self.kind = kind
        self.pace_s = kind.pace_s
        self._checkout = kind.deployment.checkout
        self._releases = installs(self._checkout)
        self._charts = charts
        self.folder = self._checkout.observability / "scale-out"
        self.choices: dict[str, ImageChoice] = {}
        (self.space,) = {install.namespace for install in self._releases.values()}

    @property
    def versions(self) -> Mapping[str, str]:
        """What runs; the tags of images that were made here would say something else."""
        made = {name: choice.tag for name, choice in self.choices.items() if name in self._releases}
        return {**super().versions, **made}

    def values(self, backend: str) -> dict[str, Any]:
        """Return the values that the README names."""
        found: dict[str, Any] = yaml.safe_load(self._values_file(backend).read_bytes())
        return found

    def bucket(self, backend: str) -> str:
        """Return the bucket of a backend."""
        return str(value_at(self.values(backend), BUCKETS[backend]))

    def _values_file(self, backend: str) -> Path:
        return self.folder / f"{backend}-values.yaml"

    def _unhealthy(self) -> Iterator[str]:
        yield from super()._unhealthy()
        yield from self.kube.waiting([self.space])

    # --- there and back ---

    def install(self, work: Path) -> None:
        """Follow the README's order, but for the last step."""
        self._store()
        self.kube.apply_all(yaml.safe_load_all((self.folder / "namespace.yaml").read_bytes()))
        layers = {name: self._layers(name, work) for name in self._releases}
        self._images(layers)
        for name, files in layers.items():
            values = [part for file in files for part in ("-f", str(file))]
            install = self._releases[name]
            chart = str(self._charts[name])
            self.kind.installer.run_helm(
                "upgrade", "--install", name, chart, "-n", install.namespace, *values
            )
        self.kube.rolled_out([self.space], within_s=READY_S)
        self._point_gateway(yaml.safe_load((self.folder / "gateway-values.yaml").read_bytes()))

    def uninstall(self) -> None:
        """Let the cluster be as it was."""
        self._point_gateway({})
        for name, install in self._releases.items():
            self.kind.installer.run_helm(
                "uninstall", name, "-n", install.namespace, "--ignore-not-found"
            )
        for space in (self.space, STORE):
            found: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}}
            self.kube.delete(found)
            self.kube.until(
                lambda: self.kube.find("v1", "Namespace", space) is None,  # noqa: B023
                within_s=READY_S,
                what=f"the namespace {space} is gone",
            )

    def _point_gateway(self, values: Mapping[str, Any]) -> None:
        kind = self.kind
        deployment = kind.installer.deployment.with_values(lgtm=[values])
        Installer(kind.kube, kind.cluster.kubeconfig_path, deployment, {}).upgrade(LGTM_RELEASE)
        kind.installer.synced()
        kind.kube.rolled_out(kind.installer.namespaces, within_s=_ROLLED_S)

    def _store(self) -> None:
        images = Images(self._checkout)
        store = images.built("fake-gcs-server", "fake-gcs-server").reference
        self.kind.cluster.load([store])
        standin = self.kind.choices["standin"].reference
        made = objects(STORE, FAKE_GCS_SERVER=store, STANDIN=standin)
        (pod,) = (one["spec"]["template"]["spec"] for one in made if one["kind"] == "Deployment")
        buckets = [self.bucket(name) for name in self._releases]
        pod["volumes"] = [{"name": "empty", "emptyDir": {}}]
        pod["containers"][0]["volumeMounts"] = [
            {"name": "empty", "mountPath": f"/data/{bucket}"} for bucket in buckets
        ]
        self.kube.apply_all(made)
        self.kube.rolled_out([STORE], within_s=_ROLLED_S)

    def _layers(self, backend: str, work: Path) -> list[Path]:
        limits, node = work / f"{backend}-limits.yaml", work / f"{backend}-one-node.yaml"
        deployment = Deployment.load(self._checkout)
        limits.write_text(yaml.safe_dump(limit_values(deployment, backend)))
        chart = yaml.safe_load((self._charts[backend] / "values.yaml").read_bytes())
        node.write_text(yaml.safe_dump({**one_node(chart), "global": {"extraEnv": _GOOGLE}}))
        return [self._values_file(backend), limits, node]

    def _images(self, layers: Mapping[str, list[Path]]) -> None:
        """Load every image that the charts name."""
        names = {
            str(container["image"])
            for backend, files in layers.items()
            for workload in self._rendered(backend, files).workloads()
            for container in containers(workload)
        }
        images = Images(self._checkout)
        for name in sorted(names):
            choice = images.of_chart(name)
            self.choices[choice.component] = choice
            print(f"{name}: {choice.how}, {choice.reference}")
        self.kind.cluster.load(sorted(names))

    def _rendered(self, backend: str, files: list[Path]) -> Release:
        namespace = self._releases[backend].namespace
        return render(self._charts[backend], files, release=backend, namespace=namespace)

    # --- what is in the store ---

    def stored(self, client: Client, backend: str) -> dict[str, int]:
        """Return how many objects of each tenant are in a backend's bucket."""
        url = f"http://{self.address(STORE, STORE, 4443)}/storage/v1/b/{self.bucket(backend)}/o"
        answer = client.pool.request("GET", url, headers={"Host": STORE_HOST}, timeout=10)
        found: dict[str, int] = {}
        for each in answer.json().get("items") or ():
            owner = each["name"].partition("/")[0]
            found[owner] = found.get(owner, 0) + 1
        return found


def one_node(chart: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with which all pods of a chart fit one small node."""
    found: dict[str, Any] = {}
    for key, part in chart.items():
        if isinstance(part, dict):
            if "resources" in part:
                found.setdefault(key, {})["resources"] = _SLIVER
            if part.get("affinity"):
                found.setdefault(key, {})["affinity"] = None
    return found


@contextmanager
def scaled_out(kind: KindStack, work: Path) -> Iterator[ScaledOut]:
    """Put the backends elsewhere for as long as a block lasts; skip where there are no charts."""
    releases: Mapping[str, Install] = installs(kind.deployment.checkout)
    charts = {name: charts_from_elsewhere.unpacked(one, work) for name, one in releases.items()}
    before = _there(kind)
    stack = ScaledOut(kind, charts)
    try:
        stack.install(work)
        with stack:
            yield stack
    finally:
        stack.close()
        stack.uninstall()
        kind.close()
        kind.find()
    assert _there(kind) == before


def _there(kind: KindStack) -> set[str]:
    """Name what runs, where it is kept, and who may speak to it."""
    kinds = [
        ("apps/v1", "Deployment"),
        ("apps/v1", "StatefulSet"),
        ("v1", "PersistentVolumeClaim"),
        ("v1", "Namespace"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ]
    return {
        f"{each} {found['metadata'].get('namespace', '')}/{found['metadata']['name']}"
        for version, each in kinds
        for found in kind.kube.listed(version, each)
    }
