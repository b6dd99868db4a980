"""Where the repository's files are.

Whatever reads a chart, a values file or a pin takes a `Checkout`, so that a broken twin is nothing
but the `Checkout` of a changed copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stackproof.errors import StackproofError

# What only this repository's root has: others have a folder of charts, and one of tools, too.
_MARKS = ("versions.yaml", "charts", "tools/render")


@dataclass(frozen=True, slots=True)
class Checkout:
    """A tree of the repository's files.

    Args:
        root: The folder that holds versions.yaml, charts/, observability/, flux/ and tools/.
    """

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Checkout:
        """Return the checkout that `start` (else the working directory) lies in.

        Raises:
            StackproofError: Neither `start` nor a folder above it is one.
        """
        start = (start or Path.cwd()).resolve()
        for folder in (start, *start.parents):
            if all((folder / mark).exists() for mark in _MARKS):
                return cls(folder)
        raise StackproofError(
            f"no stackproof repository here or above (none has {', '.join(_MARKS)})",
            where=str(start),
            todo="Run this in a clone of the repository.",
        )

    @classmethod
    def own(cls) -> Checkout:
        """Return the checkout here, else what the package itself has of it.

        An installed wheel carries the pins, the schemas and the Go sources of the renderer and of
        the Flux builder (pyproject.toml, force-include); an editable one lies in its checkout.
        """
        try:
            return cls.find()
        except StackproofError:
            carried = Path(__file__).parents[1] / "carried"
            return cls(carried if carried.is_dir() else Path(__file__).parents[3])

    @classmethod
    def report_folder(cls) -> Path:
        """Return where results are kept: build/report of the checkout here, or of this folder."""
        try:
            root = cls.find().root
        except StackproofError:
            root = Path.cwd()
        return root / "build" / "report"

    @property
    def charts(self) -> Path:
        """The Helm charts, one folder each."""
        return self.root / "charts"

    @property
    def observability(self) -> Path:
        """The values that the deployment uses, and the list of tenants."""
        return self.root / "observability"

    @property
    def flux(self) -> Path:
        """The tree that Flux applies."""
        return self.root / "flux"

    @property
    def tools(self) -> Path:
        """The pins of the Go programs, one folder each."""
        return self.root / "tools"

    @property
    def tenants_file(self) -> Path:
        """The one list of tenants."""
        return self.observability / "tenants.yaml"

    @property
    def versions_file(self) -> Path:
        """The pins of Kubernetes and of the container images."""
        return self.root / "versions.yaml"

    def show(self, path: Path) -> str:
        """Return `path` as a message names it: relative to the root where it lies in it."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)
