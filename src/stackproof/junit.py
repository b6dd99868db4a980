"""Results as JUnit XML, which CI systems show as tests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from stackproof.errors import writing

#: What XML 1.0 cannot hold, not even escaped: answers of others may have it.
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that was looked at.

    Args:
        group: What it belongs to, with dots, as classes of tests have them.
        name: Of the thing.
        failures: What is not as it must be.
        undecided: Why it could not be told.
        seconds: How long it took.
    """

    group: str
    name: str
    failures: Sequence[str] = ()
    undecided: Sequence[str] = ()
    seconds: float = 0.0


def write(path: Path, suite: str, cases: Sequence[Case]) -> None:
    """Write a file with one suite.

    Raises:
        StackproofError: It cannot be written.
    """
    attributes = {
        "name": suite,
        "tests": str(len(cases)),
        "failures": str(sum(bool(each.failures) for each in cases)),
        "errors": str(sum(bool(each.undecided and not each.failures) for each in cases)),
        "skipped": "0",
        "time": f"{sum(each.seconds for each in cases):.3f}",
    }
    root = ET.Element("testsuites")
    parent = ET.SubElement(root, "testsuite", attributes)
    for case in cases:
        names = {"classname": _text(case.group), "name": _text(case.name)}
        element = ET.SubElement(parent, "testcase", {**names, "time": f"{case.seconds:.3f}"})
        kind, told = ("failure", case.failures) if case.failures else ("error", case.undecided)
        if told:
            message = _text(told[0].splitlines()[0] if told[0] else "")
            ET.SubElement(element, kind, {"message": message}).text = _text("\n".join(told))
    ET.indent(root)
    with writing(path.parent, "--junitxml"):
        ET.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _text(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
