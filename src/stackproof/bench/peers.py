"""The same work by other programs and by stackproof, in turns: how long each takes.

A peer is measured where it is on PATH, and left out where it is not: nothing here depends on one.
Both must find the same, or the benchmark fails.
"""

from __future__ import annotations

import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stackproof.errors import StackproofError
from stackproof.repo.checkout import Checkout

from . import peer_work
from .peer_work import Side
from .registry import WITH, Figures, benchmark

_TURNS = 5


@dataclass(frozen=True, slots=True)
class Peer:
    """Another program.

    Args:
        get: How to get it.
        work: By name: makes its side and ours, from the checkout and in a folder for files.
        needs: Other programs that it calls.
    """

    get: str
    work: Mapping[str, Callable[[Checkout, Path], tuple[Side, Side]]]
    needs: tuple[str, ...] = ()


_PATH = f"--path={peer_work.CLUSTER}"
_FLUX_LOCAL_BUILD = ("flux-local", "build", "all", "--enable-helm", str(peer_work.CLUSTER))
_FLUX_LOCAL_DIFF = ("flux-local", "diff", "hr", "--all-namespaces", "--branch-orig=HEAD", _PATH)
#: Without what it keeps on disk from one run to the next.
_UNKEPT = ("--helm-render-cache-mb=0", "--kustomize-render-cache-mb=0", _PATH)
_FLATE_BUILD = ("flate", "build", "all", *_UNKEPT)
#: Left to itself it says nothing of a pod whose checksum of its files is all that changes.
_FLATE_DIFF = ("flate", "diff", "all", *_UNKEPT, "--base=HEAD", "-o=diff", "--strip-attr=none")

#: By the name of its program.
PEERS = {
    "helm-unittest": Peer(
        "https://github.com/helm-unittest/helm-unittest", {"test": peer_work.charts}
    ),
    "kubeconform": Peer(
        "go install github.com/yannh/kubeconform/cmd/kubeconform@latest",
        {"validate": peer_work.objects},
    ),
    "flate": Peer(
        "go install github.com/home-operations/flate/cmd/flate@latest",
        {
            "build": partial(peer_work.flux_tree, command=_FLATE_BUILD),
            "diff": partial(
                peer_work.flux_change, command=_FLATE_DIFF, title=r"^--- (\w+) \S+/(\S+)$"
            ),
        },
    ),
    "flux-local": Peer(
        "pip install flux-local",
        {
            "build": partial(peer_work.flux_tree, command=_FLUX_LOCAL_BUILD),
            "diff": partial(
                peer_work.flux_change,
                command=_FLUX_LOCAL_DIFF,
                title=r"^--- HelmRelease: \S+ (\w+): \S+/(\S+)$",
                steps=False,
            ),
        },
        needs=("flux", "kustomize"),
    ),
}


@benchmark
def peers(checkout: Checkout) -> Figures:
    """Do what other programs do, in turns with those of them that are on PATH."""
    figures: Figures = {}
    for name, peer in PEERS.items():
        for work, sides in peer.work.items() if not _missing(name) else ():
            with tempfile.TemporaryDirectory(prefix="stackproof-bench-") as folder:
                figures |= _in_turns(f"{name} {work}", *sides(checkout, Path(folder)))
    return figures


def _missing(name: str) -> list[str]:
    return [each for each in (name, *PEERS[name].needs) if not shutil.which(each)]


def _in_turns(name: str, theirs: Side, ours: Side) -> Figures:
    """Let both do their work in turns; the ratio is above 1 where stackproof is faster."""
    pairs = []
    for _ in range(_TURNS):
        (they, they_found), (we, we_found) = _timed(theirs), _timed(ours)
        if they_found != we_found:
            raise StackproofError(
                f"found {they_found}, stackproof {we_found}: it is not the same work", where=name
            )
        pairs.append((they, we))
    figure = f"peers_{re.sub('[- ]', '_', name)}"
    return {
        f"{figure}_s": round(statistics.median(they for they, _ in pairs), 3),
        f"{figure}_stackproof_s": round(statistics.median(we for _, we in pairs), 3),
        f"{figure}_ratio": round(statistics.median(they / we for they, we in pairs), 2),
    }


def _timed(side: Side) -> tuple[float, object]:
    began = time.perf_counter()
    answer = side.do()
    return time.perf_counter() - began, side.found(answer)


def _version(name: str) -> str:
    """Return the version that a program's own file tells.

    Go writes the main module into what it builds, and the interpreter of a Python script knows the
    package; what they print themselves is "development", or nothing.
    """
    path = Path(shutil.which(name) or "")
    content = path.read_bytes()
    if content.startswith(b"#!"):
        python = content.splitlines()[0][2:].decode().strip()
        asked = f"import importlib.metadata as m; print(m.version({name!r}))"
        return peer_work.run(python, "-c", asked).strip()
    found = re.search(rb"\nmod\t\S+\t(\S+)", content)
    return found[1].decode() if found else "of unknown version"


def about() -> str:
    """Say which peers are there, in which version, and how to get the others."""
    there = [f"{name} {_version(name)}" for name in PEERS if not _missing(name)]
    missing = [
        f"{name} (not on PATH: {', '.join(_missing(name))}; {PEERS[name].get})"
        for name in PEERS
        if _missing(name)
    ]
    parts = (("peers", there), ("left out", missing))
    return "; ".join(f"{what}: {', '.join(which)}" for what, which in parts if which)


WITH["peers"] = about
