"""The code of a page of docs/, run as somebody would who types it in."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.ran import ran

# What the pages import is what their tests depend on (tests/unchanged.py).
from stackproof import attacks, backends, isolation, twins  # noqa: F401
from stackproof.repo.checkout import Checkout

ROOT = Checkout.find().root
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part == "build" for part in path.relative_to(ROOT).parts)
)


def code(page: Path, language: str = "python") -> str:
    """Return the page's blocks of a language, one after another."""
    block = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    blocks = block.findall(page.read_text(encoding="utf-8"))
    assert blocks, f"{page} has no code"
    return "\n".join(blocks)


def run(page: Path, root: Path) -> None:
    """Run the code in a process of its own: it registers checks, which are this process's too."""
    done = ran([sys.executable, "-c", code(page)], cwd=root)
    assert done.returncode == 0, done.stderr
