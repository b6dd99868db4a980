"""Result files: what each says of its origin, where it goes, and how it is read again.

A result is a JSON object in build/report. Beside what was found it says of what: `schema`,
`whole` and `provenance`. Runs of a part (some twins, some tenants) go to build/report/partial, so
that they never pass for the whole.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stackproof import __version__
from stackproof.errors import StackproofError, writing
from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Versions

#: Raised when what is there changes its meaning; files of another one are not read.
SCHEMA = 1
PARTIAL = "partial"
_SHORT = 12


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a result was found on.

    Args:
        tool: The version of stackproof.
        made: When the run began.
        commit: The checkout's commit; None where there is no Git repository.
        dirty: Whether files differ from that commit.
        digests: Digests of each chart, of all values (observability) and of the Flux tree.
        images: The deployed versions, as versions.yaml pins them.
        file: The charts, or the targets file, if they are outside a checkout.
    """

    tool: str
    made: str
    commit: str | None = None
    dirty: bool | None = None
    digests: Mapping[str, str] | None = None
    images: Mapping[str, str] | None = None
    file: str | None = None

    @classmethod
    def of(cls, checkout: Checkout) -> Provenance:
        """Return the provenance of a checkout as it is now."""
        commit, dirty = _commit(checkout.root)
        pinned = Versions.load(checkout).images.items()
        return cls(
            tool=__version__,
            made=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=commit,
            dirty=dirty,
            digests={name: digest(path) for name, path in _sources(checkout)},
            images={name: image.tag for name, image in pinned},
        )

    @classmethod
    def of_files(cls, *paths: Path) -> Provenance:
        """Return the provenance of what is in no checkout: charts, or a targets file."""
        made = datetime.now(UTC).isoformat(timespec="seconds")
        names = ", ".join(path.name for path in paths)
        return cls(__version__, made, digests={p.name: digest(p) for p in paths}, file=names)

    @property
    def source(self) -> str:
        """The commit in short, and whether files were changed since."""
        if self.commit is None:
            return f"file {self.file}" if self.file else "no commit"
        return f"commit {self.commit[:_SHORT]}{', changed since' if self.dirty else ''}"

    def same_source(self, other: Provenance) -> bool:
        """Tell whether both are of the same files."""
        return (self.commit, self.digests) == (other.commit, other.digests)


def _commit(root: Path) -> tuple[str | None, bool | None]:
    """Return the commit of a work tree whose root this is, and whether files differ from it."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    try:
        top, commit = git("rev-parse", "--show-toplevel", "HEAD").splitlines()
        own = Path(top).resolve() == root.resolve()
        return (commit, bool(git("status", "--porcelain"))) if own else (None, None)
    except (OSError, subprocess.CalledProcessError):
        return None, None


def _sources(checkout: Checkout) -> Iterator[tuple[str, Path]]:
    """Yield the folders that make a deployment what it is: each chart, the values, the tree."""
    charts = sorted(path.parent for path in checkout.charts.glob("*/Chart.yaml"))
    for folder in (*charts, checkout.observability, checkout.flux):
        yield folder.relative_to(checkout.root).as_posix(), folder


def digest(folder: Path) -> str:
    """Return a digest of all files of a folder, their names and what is in them, or of a file."""
    sums = hashlib.sha256()
    files = [path for path in folder.rglob("*") if path.is_file()] or [folder]
    for path in sorted(files):
        name, content = path.relative_to(folder).as_posix().encode(), path.read_bytes()
        sums.update(b"%d %b %d %b" % (len(name), name, len(content), content))
    return f"sha256:{sums.hexdigest()}"


def write(
    folder: Path, name: str, found: Mapping[str, Any], of: Provenance, *, whole: bool = True
) -> Path:
    """Write FOLDER/NAME.json, or FOLDER/partial/NAME.json for a part, and return the path.

    Raises:
        StackproofError: It cannot be written.
    """
    target = (folder if whole else folder / PARTIAL) / f"{name}.json"
    with writing(target.parent):
        write_json(target, content(found, of, whole=whole))
    return target


def content(found: Mapping[str, Any], of: Provenance, *, whole: bool = True) -> dict[str, Any]:
    """Return what was found, with its provenance, as files have it."""
    return {"schema": SCHEMA, "whole": whole, "provenance": asdict(of), **found}


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a file in one step, so that a reader never finds half of it."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


@dataclass(frozen=True, slots=True)
class Result:
    """What a file holds, and its provenance."""

    found: Mapping[str, Any]
    of: Provenance


def read(path: Path) -> Result | None:
    """Return what a file holds; None where there is none, or one of another schema.

    Raises:
        StackproofError: It is not valid JSON.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise StackproofError(
            f"not valid JSON: {error}", where=str(path), todo="Delete it and make it again."
        ) from error
    if not isinstance(value, dict) or value.pop("schema", None) != SCHEMA:
        return None
    return Result(value, Provenance(**value.pop("provenance")))
