"""Build the documentation as a site: `make docs`.

The Markdown files are written to be read where they lie, on GitHub too. So they are copied first:
a link to a file that is no page of the site becomes a link to that file in the repository.
"""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from stackproof.errors import StackproofError
from stackproof.repo.checkout import Checkout

REPOSITORY = "https://github.com/Gradient-DS/stackproof"

#: Documents that have their place elsewhere in the repository, and where they are in the site.
ELSEWHERE = {
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/reporting.md",
    "charts/lgtm/README.md": "deployment/lgtm.md",
    "charts/open-webui-stack/README.md": "deployment/open-webui-stack.md",
    "flux/README.md": "deployment/flux.md",
    "observability/README.md": "deployment/observability.md",
    "observability/scale-out/README.md": "deployment/scale-out.md",
}
#: A bar in code in a table: GitHub wants the backslash before it, the site's Markdown shows it.
_BARS = re.compile(r"`([^`\n]*\\\|[^`\n]*)`")
#: A link or an image whose target is a path; its anchor apart.
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)(?=[)#])")


def pages(root: Path) -> dict[Path, Path]:
    """Return what is part of the site: a file of the repository to its place in the site."""
    own = {
        path.relative_to(root): path.relative_to(root / "docs")
        for path in sorted((root / "docs").rglob("*"))
        if path.is_file()
    }
    return own | {Path(source): Path(place) for source, place in ELSEWHERE.items()}


def rewrite(text: str, source: Path, places: dict[Path, Path], root: Path) -> str:
    """Return a page with links that are right from its place in the site.

    Raises:
        StackproofError: A link leads to nothing.
    """

    def target(link: re.Match[str]) -> str:
        path = Path(os.path.normpath(source.parent / link[1]))
        if not (root / path).exists():
            raise StackproofError(f"a link leads to nothing: {link[1]}", where=str(source))
        for page in (path, path / "README.md"):
            if page in places:
                return os.path.relpath(places[page], places[source].parent)
        kind = "tree" if (root / path).is_dir() else "blob"
        return f"{REPOSITORY}/{kind}/main/{path}"

    return _BARS.sub(_code, _LINK.sub(target, text))


def _code(bars: re.Match[str]) -> str:
    return f"<code>{html.escape(bars[1]).replace(chr(92) + '|', '&#124;')}</code>"


def stage(root: Path, folder: Path) -> None:
    """Copy all pages and pictures to a folder."""
    places = pages(root)
    for source, place in places.items():
        file = folder / place
        file.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            text = (root / source).read_text(encoding="utf-8")
            file.write_text(rewrite(text, source, places, root), encoding="utf-8")
        else:
            shutil.copy(root / source, file)


def build(root: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """Copy the pages to `output`/source and build the site in `output`/site, strictly."""
    shutil.rmtree(output, ignore_errors=True)
    stage(root, output / "source")
    # Its paths are relative to itself.
    shutil.copy(root / "mkdocs.yml", output)
    program = Path(sys.executable).parent / "zensical"
    return subprocess.run(
        [program, "build", "--strict"], cwd=output, capture_output=True, text=True, check=False
    )


def main(output: Path) -> int:
    """Build the site, and show what is wrong with it."""
    done = build(Checkout.find().root, output)
    # Its last words are a traceback, which says no more than that there were warnings.
    print(done.stdout, done.stderr.partition("Traceback")[0], sep="", end="")
    if not done.returncode:
        print(f"{output / 'site' / 'index.html'}")
    return done.returncode


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1]).resolve()))
    except StackproofError as error:
        sys.exit(f"docs: {error}")
