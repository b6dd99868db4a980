"""Work that stackproof and another program both can do: made ready once, then done by each.

Each time begins anew: the program is started, the schemas are compiled.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stackproof.errors import StackproofError
from stackproof.flux.tree import build_from
from stackproof.helm import renderer
from stackproof.helm.manifests import Manifest, Release, thaw
from stackproof.helm.renderer import Render, Renderer
from stackproof.helm.schema import Schemas
from stackproof.repo.checkout import Checkout
from stackproof.toolchain import programs
from stackproof.values.combinations import scenarios

CLUSTER = Path("flux", "clusters", "production")


@dataclass(frozen=True, slots=True)
class Side:
    """One side's work.

    Args:
        do: The work, which is timed.
        found: What its answer says: the same on both sides.
    """

    do: Callable[[], Any]
    found: Callable[[Any], object] = lambda answer: answer


def run(*command: str | Path, cwd: Path | None = None, good: Sequence[int] = (0,)) -> str:
    """Run a program, with the helm program that is pinned here, and return what it prints.

    Raises:
        StackproofError: It ends with another code than a good one.
    """
    path = f"{programs.find('helm').parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in good:
        said = (done.stderr + done.stdout)[-1500:]
        raise StackproofError(f"ends with {done.returncode}:\n{said}", where=str(command[0]))
    return done.stdout


# --- charts: each scenario rendered, and every object's template, place and name asserted ---


def _asked(charts: Path) -> list[Render]:
    return [
        Render(chart=file.parent, values=[values], release="one", namespace="here")
        for file in sorted(charts.glob("*/Chart.yaml"))
        for values in scenarios(file.parent)
    ]


def _names(release: Release) -> list[tuple[str, int, str]]:
    return [(each.source.partition("/")[2], each.index, each.name) for each in release]


def _render(path: Path, asked: Sequence[Render]) -> list[Release]:
    made = Renderer(path)
    try:
        outcomes = made.render_many(asked)
    finally:
        made.close()
    return [outcome for outcome in outcomes if isinstance(outcome, Release)]


def charts(checkout: Checkout, folder: Path) -> tuple[Side, Side]:
    """Return the work as helm-unittest does it, and as stackproof does."""
    program, asked = programs.find("render"), _asked(checkout.charts)
    wanted = [_names(release) for release in _render(program, asked)]
    tests: dict[Path, list[dict[str, Any]]] = {}
    for one, names in zip(asked, wanted, strict=True):
        tests.setdefault(one.chart, []).append(_test(one, names))
    for chart, these in tests.items():
        suite = shutil.copytree(chart, folder / chart.name) / "tests" / "peers_test.yaml"
        suite.parent.mkdir()
        suite.write_text(json.dumps({"suite": chart.name, "tests": these}), encoding="utf-8")

    def ours() -> int:
        made = [_names(release) for release in _render(program, asked)]
        return sum(names == expected for names, expected in zip(made, wanted, strict=True))

    return (
        Side(
            lambda: run("helm-unittest", *(folder / chart.name for chart in tests)),
            lambda said: int(re.findall(r"Tests: +(\d+) passed", said)[0]),
        ),
        Side(ours),
    )


def _test(one: Render, names: Iterable[tuple[str, int, str]]) -> dict[str, Any]:
    """Return a test of helm-unittest that asserts what `_names` returns."""
    (values,) = one.values
    assert isinstance(values, Path)
    major, minor = one.kube_version.split(".")[:2]
    asserts: list[dict[str, Any]] = [
        {"template": t, "documentIndex": i, "equal": {"path": "metadata.name", "value": name}}
        for t, i, name in names
    ]
    counted = Counter(template for template, _, _ in names)
    return {
        "it": values.name,
        "values": [f"../ci/{values.name}"],
        "release": {"name": one.release, "namespace": one.namespace},
        "capabilities": {"majorVersion": major, "minorVersion": minor},
        "asserts": asserts
        + [{"template": t, "hasDocuments": {"count": count}} for t, count in counted.items()],
    }


# --- objects: all of those, and a wrong one, read from files and held against the same schemas ---


def objects(checkout: Checkout, folder: Path) -> tuple[Side, Side]:
    """Return the work as kubeconform does it, and as stackproof does."""
    version, custom = renderer.newest_kubernetes(), checkout.root / "schemas"
    known, schemas, files = Schemas(version, custom), folder / "schemas", folder / "objects"
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"prots": 1}}
    files.mkdir()
    (files / "wrong.yaml").write_text(json.dumps(wrong), encoding="utf-8")
    for number, release in enumerate(_render(programs.find("render"), _asked(checkout.charts))):
        text = "\n---\n".join(json.dumps(thaw(each.content)) for each in release)
        (files / f"{number}.yaml").write_text(text, encoding="utf-8")
        for each in release:
            group, _, short = each.api_version.rpartition("/")
            file = schemas / (group or short) / short / f"{each.kind.lower()}.json"
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(known.standalone(each)), encoding="utf-8")
    location = f"{schemas}/{{{{.Group}}}}/{{{{.ResourceAPIVersion}}}}/{{{{.ResourceKind}}}}.json"
    command = ("kubeconform", "-summary", "-output=json", "-schema-location", location, files)

    def ours() -> tuple[int, int]:
        afresh = Schemas(version, custom)
        texts = [text for file in files.iterdir() for text in file.read_text().split("\n---\n")]
        all_of_them = [Manifest.of(json.loads(text), "") for text in texts]
        bad = sum(bool(afresh.check(each)) for each in all_of_them)
        return len(all_of_them) - bad, bad

    def theirs(said: str) -> tuple[int, int]:
        found = json.loads(said)["summary"]
        return found["valid"], found["invalid"]

    return Side(lambda: run(*command, good=(1,)), theirs), Side(ours)


# --- the Flux tree: every step built, every release rendered, all of it printed ---

_Kinds = Counter[tuple[str, str]]


def flux_tree(checkout: Checkout, folder: Path, *, command: Sequence[str]) -> tuple[Side, Side]:
    """Return the work of a command that builds a tree, and the same by stackproof."""
    _copy_tree(checkout, folder)
    start = build_from(Checkout(folder), folder / CLUSTER).steps[0].objects
    # What lies in the folder that Flux starts from, the peers read and do not print.
    unprinted = {(each.kind, each.name) for each in start}

    def found(said: str) -> _Kinds:
        documents = yaml.load_all(said, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        objects = [(each["kind"], each["metadata"]["name"]) for each in documents if each]
        return Counter(each for each in objects if each not in unprinted)

    return (
        Side(lambda: run(*command, cwd=folder), found),
        Side(lambda: run(_own(), "flux", "build", "--yaml", cwd=folder), found),
    )


def flux_change(
    checkout: Checkout, folder: Path, *, command: Sequence[str], title: str, steps: bool = True
) -> tuple[Side, Side]:
    """Return the work of a command that shows a change of a tree, and the same by stackproof.

    One tenant's host is another: its Ingress changes, its settings, and with them its pod.

    Args:
        checkout: Whose tree it is.
        folder: Where the copy is made.
        command: It prints the differences.
        title: A pattern of the line above an object's differences: its kind and its name.
        steps: Whether it shows what Flux' steps apply, beside what the releases hold.
    """
    _copy_tree(checkout, folder)
    git = ("git", "-C", folder, "-c", "user.name=bench", "-c", "user.email=bench@example.org")
    run(*git, "add", "--all")
    run(*git, "commit", "--quiet", "--message=before")
    tenant = min(folder.glob("flux/tenants/*/tenant.yaml"))
    text = tenant.read_text(encoding="utf-8")
    tenant.write_text(text.replace(" HOST: ", " HOST: chat."), encoding="utf-8")

    def ours(said: str) -> _Kinds:
        changes = json.loads(said)["changes"]
        shown = [one for one in changes if steps or not one["by"].startswith("step ")]
        return Counter((one["kind"], one["name"]) for one in shown)

    return (
        Side(
            lambda: run(*command, cwd=folder),
            lambda said: Counter(re.findall(title, said, re.MULTILINE)),
        ),
        Side(lambda: run(_own(), "flux", "diff", "HEAD", "--json", cwd=folder), ours),
    )


def _own() -> Path:
    return Path(sys.executable).with_name("stackproof")


def _copy_tree(checkout: Checkout, folder: Path) -> None:
    """Copy the tree without the releases whose charts come from elsewhere.

    Those are not looked at here, and the others would ask a network for them.
    """
    for name in ("charts", "flux", "observability"):
        shutil.copytree(checkout.root / name, folder / name)
    for name in ("schemas", "tools", "versions.yaml"):
        (folder / name).symlink_to(checkout.root / name)
    run("git", "init", "--quiet", folder)
    for file in folder.glob("flux/*/kustomization.yaml"):
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        content["resources"] = [
            name
            for name in content["resources"]
            if not (file.parent / name).is_file()
            or "kind: HelmRepository" not in (file.parent / name).read_text(encoding="utf-8")
        ]
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
