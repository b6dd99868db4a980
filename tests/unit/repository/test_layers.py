"""The package's layers: a module imports only from layers below its own."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import stackproof
from stackproof.repo.checkout import Checkout


def _layers() -> list[str]:
    """Return the layers from the bottom: the last column of the table in CONTRIBUTING.md."""
    text = (Checkout.find().root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = text.partition("| to change | open |")[2].partition("\n\n")[0].splitlines()[2:]
    return [name for row in rows for name in re.findall(r"`([a-z_]+)`", row.rsplit(" | ", 1)[1])]


LAYERS = _layers()
LEVEL = {name: level for level, name in enumerate(LAYERS)}
ROOT = Path(stackproof.__file__).parent
MODULES = sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem[0] != "_")


def _layer(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def _imports(path: Path) -> Iterator[str]:
    """Yield the layers that a module imports from, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "stackproof":
            names = [f"stackproof.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            if first == "stackproof" and rest and not rest.startswith("_"):
                yield rest.split(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    own = _layer(path)
    assert own in LEVEL, f"{own} is in no layer: put it into CONTRIBUTING.md, as high as it can be"
    for other in _imports(path):
        assert other == own or LEVEL[other] < LEVEL[own], f"{own} must not know {other}"


def test_layers_name_modules_only_once() -> None:
    assert len(LAYERS) == len(LEVEL) == len({_layer(path) for path in MODULES})
