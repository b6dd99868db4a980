"""Print the results of a run as Markdown, for the page of a workflow run.

python tools/summary.py build/report
"""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path


def lines(folder: Path) -> Iterator[str]:
    """Yield the summary, line by line; a result that is not there is said to be missing."""
    yield "| result | |"
    yield "|---|---|"
    whole, part = folder / "isolation.json", folder / "partial" / "isolation.json"
    if whole.is_file() or part.is_file():
        what = "proof" if whole.is_file() else "proof of some tenants or read APIs only"
        report = json.loads((whole if whole.is_file() else part).read_bytes())
        numbers = ", ".join(f"{value} {key}" for key, value in report["summary"].items())
        yield f"| {what} | **{report['verdict']}**: {numbers} |"
        of = report["provenance"]
        changed = ", with changes" if of["dirty"] else ""
        source = f"commit {of['commit']}{changed}" if of["commit"] else f"file {of['file']}"
        yield f"| of | {report['stack']['provider']}, {source}, {of['made']} |"
    else:
        yield "| proof | did not get so far |"
    twins = folder / "twins.json"
    if twins.is_file():
        records = json.loads(twins.read_bytes())["twins"]
        missed = [record["name"] for record in records if record["caught_by"] is None]
        said = f"**uncaught: {', '.join(missed)}**" if missed else "all caught"
        yield f"| {len(records)} known faults put back | {said} |"
    for path in sorted(folder.glob("*.xml")):
        suites = list(ET.parse(path).getroot().iter("testsuite"))  # noqa: S314 (our own pytest wrote it)
        total = {
            key: sum(int(suite.get(key, 0)) for suite in suites)
            for key in ("tests", "failures", "errors", "skipped")
        }
        yield f"| tests, {path.stem} | {', '.join(f'{n} {key}' for key, n in total.items())} |"


if __name__ == "__main__":
    print("\n".join(lines(Path(sys.argv[1]))))
