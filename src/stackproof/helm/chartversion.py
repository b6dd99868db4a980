"""The version of a chart, whose build metadata is a digest of what Helm reads of it: `0.2.0+3f9a…`.

source-controller builds a chart of a GitRepository anew where its version is another one, to the
letter (`internal/helm/chart/builder_local.go`), and helm-controller upgrades a release on the same
condition (`VerifyRelease`). So a chart is deployed when its content changes, and only then.
docs/adr/0009-what-a-merge-deploys.md says why.

    python -m stackproof.helm.chartversion CHART…
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from stackproof.errors import StackproofError

_VERSION = re.compile(r"^version: (?P<plain>[^\s+]+)(?:\+(?P<digest>\S*))?$", re.MULTILINE)
_LENGTH = 12


def version(chart: Path) -> str:
    """Return the version that a chart's Chart.yaml must have: `0.2.0+` and twelve hex digits.

    Raises:
        StackproofError: Chart.yaml has no line `version: …`.
    """
    found = _line(chart)
    sums = hashlib.sha256()
    for path in read_by_helm(chart):
        content = path.read_bytes()
        if path.name == "Chart.yaml" and path.parent == chart:
            content = _VERSION.sub(rf"version: {found['plain']}", content.decode()).encode()
        name = path.relative_to(chart).as_posix().encode()
        sums.update(b"%d %b %d %b" % (len(name), name, len(content), content))
    return f"{found['plain']}+{sums.hexdigest()[:_LENGTH]}"


def stale(chart: Path) -> str | None:
    """Say that a chart was changed and its version was not: a merge would not deploy it."""
    wanted, found = version(chart), _line(chart)[0].removeprefix("version: ")
    if found == wanted:
        return None
    return (
        f"{chart.name}/Chart.yaml: version is {found}, that of its content is {wanted}: "
        "the chart was changed and nothing of it would be deployed; run `make charts`"
    )


def write(chart: Path) -> None:
    """Give a chart the version of its content."""
    file = chart / "Chart.yaml"
    wanted = f"version: {version(chart)}"
    file.write_text(_VERSION.sub(wanted, file.read_text(encoding="utf-8")), encoding="utf-8")


def _line(chart: Path) -> re.Match[str]:
    file = chart / "Chart.yaml"
    found = _VERSION.search(file.read_text(encoding="utf-8"))
    if found is None:
        raise StackproofError("has no version", where=str(file), todo="Add `version: 0.1.0`.")
    return found


def read_by_helm(chart: Path) -> Iterator[Path]:
    """Yield a chart's files but those that .helmignore leaves out: plain names and globs."""
    ignore = chart / ".helmignore"
    lines = ignore.read_text(encoding="utf-8").split() if ignore.is_file() else []
    for path in sorted(path for path in chart.rglob("*") if path.is_file()):
        below = path.relative_to(chart)
        names = [part.as_posix() for part in (below, *below.parents)]
        if not any(fnmatch(name, line.rstrip("/")) for name in names for line in lines):
            yield path


if __name__ == "__main__":
    for each in sys.argv[1:]:
        write(Path(each))
