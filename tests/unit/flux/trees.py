"""Small trees: a chart, and what a folder that Flux starts from has of it."""

from __future__ import annotations

from pathlib import Path

from stackproof.flux.tree import Tree, build
from stackproof.repo.checkout import Checkout

#: The folder that Flux starts from.
CLUSTER = "flux/clusters/production"
CONFIG_MAP = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: flux-system}\n"
_CHART = {
    "charts/x/Chart.yaml": "apiVersion: v2\nname: x\nversion: 0.1.0\n",
    "charts/x/values.yaml": "own: 1\n",
    "charts/x/templates/made.yaml": CONFIG_MAP % "made"
    + "data: {v: {{ toJson .Values | quote }}}\n",
}
_SOURCE = """\
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: flux-system, namespace: flux-system}
spec: {interval: 1m, url: 'https://github.com/a/b', ref: {branch: main}}
"""
_STEP = """\
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: %s, namespace: flux-system}
spec:
  interval: 10m
  prune: true
  path: ./%s
  sourceRef: {kind: GitRepository, name: flux-system}
"""
_RELEASE = """\
---
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: %s, namespace: flux-system}
spec:
  interval: 1h
  chart:
    spec:
      chart: charts/x
      sourceRef: {kind: GitRepository, name: flux-system}
"""


def step(name: str, more: str = "") -> str:
    """Return a Kustomization of the folder of its name; `more` are further lines of its spec."""
    return _STEP % (name, name) + more


def release(name: str = "x", more: str = "", *, chart: str = "") -> str:
    """Return a HelmRelease of the chart; further lines of its spec, and of its chart's."""
    return _RELEASE % name + chart + more


def tree(root: Path, text: str, files: dict[str, str | None] | None = None) -> Tree:
    """Build the tree of a cluster with these objects, and more files; None removes a file."""
    written = {**_CHART, f"{CLUSTER}/source.yaml": _SOURCE, f"{CLUSTER}/a.yaml": text}
    for name, content in {**written, **(files or {})}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(content, encoding="utf-8")
    return build(Checkout(root))
