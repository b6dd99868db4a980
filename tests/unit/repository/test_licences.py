"""No code of the AGPL programs is in ours: they are run, as they are, as programs of their own."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stackproof.repo.checkout import Checkout

ROOT = Checkout.find().root

#: Mimir, Loki, Tempo and Grafana: whatever is in their modules, though some of it is Apache-2.0.
_PROGRAMS = ("mimir", "loki", "tempo", "grafana")
_MODULE = re.compile(rf"github\.com/grafana/({'|'.join(_PROGRAMS)})(/|$)")
_PYTHON = re.compile(rf"({'|'.join(_PROGRAMS)})(_|$)")

#: Programs that are pinned here and have no line of ours.
_RUN_ONLY = ("mimir", "loki", "tempo")
#: Alloy, under Apache-2.0, itself requires Loki's clients; nothing of ours calls them.
_REQUIRES_INDIRECTLY = {"tools/alloy/go.mod"}


def _ours(pattern: str) -> list[Path]:
    """Return the files of that kind that git knows."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", pattern]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in found.split("\0") if name]


def go_imports(text: str) -> Iterator[str]:
    """Yield the packages that a Go file imports from those programs."""
    head = re.split(r"^(?:func|type|var|const) ", text, maxsplit=1, flags=re.MULTILINE)[0]
    for path in re.findall(r'^\s*(?:import\s+)?(?:[\w.]+\s+)?"([^"]+)"', head, re.MULTILINE):
        if _MODULE.match(path):
            yield path


def python_imports(text: str) -> Iterator[str]:
    """Yield the packages that a Python file imports from those programs."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        else:
            continue
        yield from (name for name in names if _PYTHON.match(name.split(".")[0].lower()))


def requirements(name: str, text: str) -> Iterator[str]:
    """Yield what a go.mod beside Go files of ours would link from those programs."""
    for line in text.splitlines():
        module = re.sub(r"^(?:require|replace|tool)\s+", "", line.strip())
        allowed = name in _REQUIRES_INDIRECTLY and line.endswith("// indirect")
        if any(_MODULE.match(part) for part in module.split()) and not allowed:
            yield line.strip()


@pytest.mark.parametrize("path", _ours("*.go"), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_go_file_imports_them(path: Path) -> None:
    assert list(go_imports(path.read_text())) == []


def test_no_python_file_imports_them() -> None:
    found = {path: list(python_imports(path.read_text())) for path in _ours("*.py")}
    assert {path: names for path, names in found.items() if names} == {}


def test_no_module_with_go_files_of_ours_links_them() -> None:
    modules = [path for path in _ours("*go.mod") if list(path.parent.glob("*.go"))]
    assert len(modules) >= 4
    for path in modules:
        assert list(requirements(str(path.relative_to(ROOT)), path.read_text())) == [], path


@pytest.mark.parametrize("name", _RUN_ONLY)
def test_they_are_pinned_as_they_were_released(name: str) -> None:
    folder = ROOT / "tools" / name
    assert {path.name for path in folder.iterdir()} == {"go.mod", "go.sum"}
    replaced = re.findall(r"^replace\s+(\S+)", (folder / "go.mod").read_text(), re.MULTILINE)
    assert not [module for module in replaced if _MODULE.match(module)]


def test_notice_names_each_program() -> None:
    text = (ROOT / "NOTICE").read_text()
    for program in _PROGRAMS:
        assert re.search(rf"^{program}\b.*AGPL-3\.0-only", text, re.MULTILINE | re.IGNORECASE)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('import "github.com/grafana/tempo/pkg/tempopb"', ["github.com/grafana/tempo/pkg/tempopb"]),
        (
            'import (\n\tl "github.com/grafana/loki/v3/pkg/push"\n)',
            ["github.com/grafana/loki/v3/pkg/push"],
        ),
        ('import _ "github.com/grafana/mimir"', ["github.com/grafana/mimir"]),
        ('import "github.com/grafana/alloy/flowcmd"', []),
        ('import "github.com/grafana/tempo-operator/api"', []),
        ('import "os"\n\nvar x = "github.com/grafana/loki/v3"\n', []),
    ],
)
def test_an_import_in_go_is_found(text: str, found: list[str]) -> None:
    assert list(go_imports(f"package main\n\n{text}\n")) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import grafana_client.model", ["grafana_client.model"]),
        ("def f():\n    from tempo import query", ["tempo"]),
        ("from .tempo import API\nfrom stackproof.backends import loki\nimport temporal", []),
    ],
)
def test_an_import_in_python_is_found(text: str, found: list[str]) -> None:
    assert list(python_imports(text)) == found


@pytest.mark.parametrize(
    ("name", "line", "refused"),
    [
        ("tools/render/go.mod", "require github.com/grafana/loki/v3 v3.7.8", True),
        ("tools/render/go.mod", "\tgithub.com/grafana/loki/v3 v3.7.8 // indirect", True),
        ("tools/render/go.mod", "replace example.org/x => github.com/grafana/mimir v1.0.0", True),
        ("tools/render/go.mod", "tool github.com/grafana/tempo/cmd/tempo", True),
        ("tools/alloy/go.mod", "\tgithub.com/grafana/loki/v3 v3.7.5 // indirect", False),
        ("tools/alloy/go.mod", "\tgithub.com/grafana/loki/v3 v3.7.5", True),
        ("tools/render/go.mod", "require github.com/grafana/dskit v0.1.0", False),
    ],
)
def test_a_requirement_is_found(name: str, line: str, refused: bool) -> None:
    assert bool(list(requirements(name, f"module x\n\n{line}\n"))) is refused
