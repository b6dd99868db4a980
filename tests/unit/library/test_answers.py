"""Answers for programs: --json on standard output, and JUnit XML."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from tests.recorded import THREE, make_proof, recorded

from stackproof import cli, junit, report, terminal
from stackproof.attacks import ATTACKS
from stackproof.errors import ExitCode
from stackproof.isolation.verdict import Finding, Violation, ViolationKind
from stackproof.junit import Case
from stackproof.repo.checkout import Checkout

CHART = "Chart.yaml", "{apiVersion: v2, name: web, version: 1.0.0}"
SERVICE = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Values.name | quote }}}
"""


@pytest.fixture(autouse=True)
def _in_the_checkout(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout.root)


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    folder = tmp_path / "web"
    (folder / "templates").mkdir(parents=True)
    (folder / CHART[0]).write_text(CHART[1])
    (folder / "values.yaml").write_text("name: web\n")
    (folder / "templates" / "config.yaml").write_text(SERVICE)
    return folder


def _json(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[Any, str, int]:
    """Return the answer, what people are told, and the exit code."""
    code = cli.main([*words, "--json"])
    said = capsys.readouterr()
    return json.loads(said.out), said.err, code


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("tenants", "tenants"),
        ("tools", "programs"),
        ("capacity --tenants 3", "one_node"),
        ("flux check", "checks"),
        ("flux check flux/clusters/production", "checks"),
        ("flux diff HEAD --fail-on none", "changes"),
        ("twins everybody-is-soev", "twins"),
        ("twins --list", "everybody-is-soev"),
        ("attacks --list", ATTACKS[0].name),
        ("migrate check --old-manifest tests/earlier/open-webui-0.1.0.yaml", "objects"),
    ],
)
def test_the_answer_alone_is_on_standard_output(
    words: str, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, said, _ = _json(capsys, *words.split())
    assert key in found
    assert said or "list" in words or words == "tools"


def test_of_charts(chart: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, said, code = _json(capsys, "lint", str(chart))
    problem = found["charts"]["web"]["problems"][0]
    assert (problem["rule"], problem["renders"]) == ("labels-consistent", ["defaults"])
    assert problem["text"] in said and code == ExitCode.BAD
    assert list(found["provenance"]["digests"]) == ["web"]
    found, said, code = _json(capsys, "coverage", str(chart), "--report", str(tmp_path))
    assert "0 of 0 branches" in said and code == ExitCode.GOOD
    assert found == json.loads((tmp_path / "partial" / "coverage.json").read_text())


def test_brackets_are_no_markup(
    chart: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What charts and folders are called, and what stands in templates, is shown as it is."""
    odd = chart.rename(tmp_path / "[bold]web")
    condition = 'regexMatch "^[a-z]+[/y]$" .Values.name'
    (odd / "templates" / "config.yaml").write_text(f"{{{{ if {condition} }}}}\n{{{{ end }}}}\n")
    assert cli.main(["coverage", str(odd), "--report", str(tmp_path / "r[/z]")]) == ExitCode.BAD
    said = capsys.readouterr().out
    assert "✘ [bold]web: " in said and f"  if {condition}" in said
    assert f"report: {tmp_path}/r[/z]/" in said
    with terminal.console(force_terminal=True).status("rendering [/x]"):
        pass
    assert "rendering [/x]" in capsys.readouterr().out


def _suite(path: Path) -> dict[str, ET.Element]:
    (suite,) = ET.parse(path).getroot()  # noqa: S314 (our own file)
    cases = {case.attrib["name"]: case for case in suite}
    assert len(cases) == len(suite) == int(suite.attrib["tests"])
    assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure"))
    assert int(suite.attrib["errors"]) == len(suite.findall("testcase/error"))
    return cases


def test_invariants_as_junit(chart: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "lint.xml"
    assert cli.main(["lint", str(chart), "--junitxml", str(path)]) == ExitCode.BAD
    cases = _suite(path)
    failed = {name for name, case in cases.items() if len(case)}
    assert failed == {"labels-consistent", "nothing-is-made-in-vain"}
    assert cases["labels-consistent"].attrib["classname"] == "lint.web"
    assert "ConfigMap/web" in (cases["labels-consistent"].findtext("failure") or "")


def test_a_chart_that_does_not_render_is_an_error(chart: Path, tmp_path: Path) -> None:
    (chart / "templates" / "config.yaml").write_text("{{ .Values.a.b }}")
    path = tmp_path / "lint.xml"
    assert cli.main(["lint", str(chart), "--junitxml", str(path)]) == ExitCode.UNDECIDED
    assert "nil pointer" in (_suite(path)["render"].findtext("error") or "")


def test_checks_of_a_tree_as_junit(tmp_path: Path) -> None:
    """One that needs what there is not, and then one whose step does not build at all."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "step").mkdir()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "step.yaml").write_text(
        "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\n"
        "metadata: {name: step, namespace: flux-system}\n"
        "spec: {path: ./step, interval: 1m, prune: true, dependsOn: [{name: nobody}], "
        "sourceRef: {kind: GitRepository, name: flux-system}}\n"
    )
    path = tmp_path / "flux.xml"
    argv = ["flux", "check", str(tmp_path / "tree"), "--junitxml", str(path)]
    assert cli.main(argv) == ExitCode.BAD
    failure = _suite(path)["dependencies-resolve"].findtext("failure")
    assert failure and "nobody" in failure
    (tmp_path / "step").rmdir()
    assert cli.main(argv) == ExitCode.UNDECIDED
    assert "no such folder" in (_suite(path)["builds"].findtext("error") or "")


def test_twins_as_junit(tmp_path: Path) -> None:
    path = tmp_path / "twins.xml"
    assert cli.main(["twins", "everybody-is-soev", "--junitxml", str(path)]) == ExitCode.GOOD
    case = _suite(path)["everybody-is-soev"]
    assert case.attrib["classname"].startswith("twins.") and not len(case)
    assert float(case.attrib["time"]) > 0


@pytest.mark.parametrize(
    ("proof", "kind"), [("isolated", None), ("leaking", "failure"), ("incomplete", "error")]
)
def test_a_proof_as_junit(proof: str, kind: str | None, tmp_path: Path) -> None:
    path = tmp_path / "proof.xml"
    junit.write(path, "stackproof", list(report.cases(recorded(proof))))
    assert [element.tag for element in _suite(path)["verdict"]] == ([kind] if kind else [])


@pytest.mark.parametrize("known", [(), *((kind,) for kind in ViolationKind)], ids=str)
@pytest.mark.parametrize("kind", ViolationKind)
def test_a_proof_as_junit_says_what_its_exit_code_says(
    kind: ViolationKind, known: Sequence[ViolationKind], tmp_path: Path
) -> None:
    """What has not been answered has let nobody in: it is an error, not a failure."""
    kinds = list(dict.fromkeys([kind, *known]))
    proof = make_proof(
        THREE,
        faults=[
            Violation(kind=each, api="mimir.query", reader="soev", owners=("soev",), message="m")
            for each in kinds
        ],
        checks=[Finding(f"check {each}", "about", "detail", each) for each in kinds],
    )
    path = tmp_path / "proof.xml"
    junit.write(path, "stackproof", list(report.cases(proof)))
    told = {child.tag for case in _suite(path).values() for child in case}
    leaking = {"failure"} if any(each.leaking for each in kinds) else set()
    unproven = {"error"} if not all(each.leaking for each in kinds) else set()
    assert told == leaking | unproven
    assert proof.verdict.exit_code == (ExitCode.BAD if leaking else ExitCode.UNDECIDED)


def test_what_xml_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "odd.xml"
    told = "<a> & \x00\x1b[31m\ud800 ]]>\nmore"
    junit.write(path, "odd", [Case("a.b", "c\x07", [told]), Case("a.b", "d", (), ["why"])])
    cases = _suite(path)
    failure = cases["c\ufffd"].find("failure")
    assert failure is not None and failure.text
    assert failure.text.startswith("<a> & \ufffd\ufffd[31m\ufffd ]]>")
    assert failure.attrib["message"].endswith("]]>")


def test_a_file_that_cannot_be_written_is_one_message(
    chart: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = chart / CHART[0] / "lint.xml"
    assert cli.main(["lint", str(chart), "--junitxml", str(path)]) == ExitCode.UNAVAILABLE
    said = capsys.readouterr().err
    assert "cannot be written" in said and "another place: --junitxml" in said
    assert cli.main(["flux", "diff", "HEAD", "--markdown", str(path)]) == ExitCode.UNAVAILABLE
    said = capsys.readouterr().err
    assert "cannot be written" in said and "another place: --markdown" in said
    with pytest.raises(SystemExit, match=str(int(ExitCode.USAGE))):
        cli.main(["lint", str(chart), "--junitxml", str(chart)])
    assert "is a folder, or nothing" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["prove", "twins", "attacks", "mutants"])
@pytest.mark.parametrize("option", ["--report", "--junitxml"])
def test_a_place_that_cannot_be_written_is_told_before_anything_starts(
    command: str,
    option: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if (command, option) == ("mutants", "--junitxml"):
        pytest.skip("it writes none")

    def start(_: argparse.Namespace) -> int:
        raise AssertionError("it started")

    monkeypatch.setattr(f"stackproof.commands.{command}.run", start)
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "report"
    assert cli.main([command, option, str(place)]) == ExitCode.UNAVAILABLE
    said = capsys.readouterr().err
    assert "cannot be written: " in said and f"Choose another place: {option}." in said
