"""Collect the evidence of a cluster that failed, without its secrets.

Objects, events, logs (with those before a restart), Helm's and Flux' status, and configurations.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from stackproof.options import add_kubeconfig, word
from stackproof.repo.checkout import Checkout


def configure(parser: argparse.ArgumentParser) -> None:
    """Add which cluster, and where the archive goes."""
    parser.add_argument(
        "--context",
        type=word,
        metavar="NAME",
        help="the cluster's context (default: the kind cluster)",
    )
    add_kubeconfig(parser)
    parser.add_argument(
        "--evidence-dir", type=Path, metavar="DIR", help="where it goes (default: build/evidence)"
    )


def run(args: argparse.Namespace) -> int:
    """Write the archive and say where it is."""
    import time

    from stackproof.kube import diagnostics
    from stackproof.kube.client import Kube
    from stackproof.repo.tenants import OBSERVABILITY_NAMESPACE, load_registry

    checkout = Checkout.find()
    registry = load_registry(checkout)
    if args.context or args.kubeconfig:
        kube = Kube(args.context, args.kubeconfig)
    else:
        from stackproof.stack.kind import KindCluster, cluster_name

        cluster = KindCluster(checkout, cluster_name())
        cluster.adopt()
        kube = cluster.kube()
    folder = args.evidence_dir or checkout.root / "build" / "evidence"
    namespaces = [
        "flux-system",
        "external-secrets",
        OBSERVABILITY_NAMESPACE,
        *(tenant.namespace for tenant in registry),
    ]
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}.tar.gz"
    diagnostics.of_cluster(kube, namespaces, path, users=[*registry.names, "admin"])
    print(path)
    return 0
