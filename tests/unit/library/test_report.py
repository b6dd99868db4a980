"""The report, on proofs of recorded shape: small and large, sound and with faults."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import jsonschema_rs
import pytest
from rich.console import Console
from tests.recorded import OF, PROOFS, THOUSAND, THREE, make_proof, recorded

from stackproof import report
from stackproof.backends import PROVABLE
from stackproof.errors import StackproofError
from stackproof.isolation import Proof
from stackproof.isolation.verdict import Finding, Violation, ViolationKind
from stackproof.model import Signal
from stackproof.repo import results
from stackproof.repo.results import Provenance
from stackproof.report import Extras
from stackproof.report.data import ALL_CELLS
from stackproof.report.picture import Rectangle, State, coarser, merge, panels, ticks

SCHEMA: Mapping[str, object] = {
    "type": "object",
    "additionalProperties": False,
    "required": [
        *("run_id", "started", "duration_s", "target", "stack", "tenants", "signals", "summary"),
        *("cells", "attacks", "verdict"),
    ],
    "properties": {
        "run_id": {"type": "string", "minLength": 8},
        "started": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\+00:00$"},
        "duration_s": {"type": "number", "exclusiveMinimum": 0},
        "target": {"type": "string", "minLength": 1},
        "stack": {
            "type": "object",
            "additionalProperties": False,
            "required": ["provider", "versions"],
            "properties": {
                "provider": {"enum": ["local", "docker", "kind", "cluster"]},
                "versions": {"type": "object", "additionalProperties": {"type": "string"}},
            },
        },
        "tenants": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "signals": {"type": "array", "items": {"enum": ["traces", "metrics", "logs"]}},
        "summary": {
            "type": "object",
            "additionalProperties": {"type": "integer", "minimum": 0},
            "required": ["checked", "visible", "hidden", "leaks", "missing"],
            "maxProperties": 5,
        },
        "cells": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["reader", "owner", "signal", "expected", "observed", "latency_ms"],
                "properties": {
                    "reader": {"type": "string"},
                    "owner": {"type": "string"},
                    "signal": {"enum": ["traces", "metrics", "logs"]},
                    "expected": {"enum": ["visible", "hidden"]},
                    "observed": {"enum": ["visible", "hidden", "unknown"]},
                    "latency_ms": {"type": ["number", "null"], "minimum": 0},
                },
            },
        },
        "attacks": {"type": "array", "items": {"type": "object"}},
        "verdict": {"enum": ["isolated", "leaking", "incomplete"]},
    },
}


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta", "rect", "path", "circle", "use", "br", "input"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in {"rect", "path", "circle", "use"}:
            return
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", PROOFS)
def test_isolation_json_keeps_its_contract(name: str) -> None:
    proof = recorded(name)
    document = json.loads(json.dumps(report.isolation_json(proof)))
    jsonschema_rs.validator_for(dict(SCHEMA)).validate(document)
    assert document["verdict"] == name.split("-")[0]
    counts = document["summary"]
    assert counts["checked"] == len(proof.tenants) ** 2 * 3
    assert counts["checked"] == sum(counts[key] for key in counts if key != "checked")


def test_every_cell_is_listed_for_few_tenants_and_only_the_odd_ones_for_many() -> None:
    few = report.isolation_json(make_proof(THOUSAND[:ALL_CELLS]))
    assert len(few["cells"]) == ALL_CELLS**2 * 3
    many = report.isolation_json(make_proof(THOUSAND[: ALL_CELLS + 1]))
    assert many["cells"] == []
    cells = report.isolation_json(recorded("leaking-1000"))["cells"]
    leaks = [
        cell for cell in cells if (cell["expected"], cell["observed"]) == ("hidden", "visible")
    ]
    assert [(cell["reader"], cell["owner"], cell["signal"]) for cell in leaks] == [
        (THOUSAND[700], THOUSAND[123], "metrics")
    ]


@pytest.mark.parametrize("name", PROOFS)
def test_the_page_is_well_formed_and_needs_nothing_else(name: str) -> None:
    text = report.page(recorded(name), Extras(), OF)
    page = Page(text)
    assert page.open == []
    for tag, attributes in page.elements:
        assert tag not in {"link", "img", "iframe", "object", "embed"}
        for key in ("src", "href", "xlink:href", "action"):
            assert (attributes.get(key) or "#").startswith("#"), (tag, attributes)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert len(text) < 500_000


def test_the_page_says_that_nothing_has_rolled(tmp_path: Path) -> None:
    report.write_unchanged("HEAD~1", tmp_path, OF)
    text = report.page(recorded("isolated"), report.read_extras(tmp_path, OF), OF)
    assert "<strong>unchanged</strong>, nothing rolls" in text


def test_the_verdict_comes_first() -> None:
    for name in PROOFS:
        heading = re.search(r"<h1>(.*?)</h1>", report.page(recorded(name), Extras(), OF))
        assert heading
        assert heading[1] == name.split("-")[0]


def test_what_ran_instead_of_the_deployed_stands_at_the_head(tmp_path: Path) -> None:
    proof = recorded("isolated")
    said = "mimir 3.0.5 (deployed: 3.0.9)"
    head = report.page(proof, Extras(), OF).partition("</header>")[0]
    assert f"with {said}" in head
    assert f"Not what is deployed: {said}: no later Mimir is served as a Go module" in head
    assert "loki" not in head
    report.write(proof, tmp_path, OF)
    versions = json.loads((tmp_path / "isolation.json").read_text())["stack"]["versions"]
    assert versions == {"loki": "3.7.8", "mimir": "3.0.5 (deployed: 3.0.9)"}
    _, mimir = json.loads((tmp_path / "evidence.json").read_text())["programs"]
    assert mimir["differs"]
    assert mimir["reason"] == "no later Mimir is served as a Go module"
    same = replace(proof, programs=proof.programs[:1])
    assert "deployed" not in report.page(same, Extras(), OF).partition("</header>")[0]


def test_every_cell_of_a_small_matrix_says_what_it_is_and_one_is_in_the_tab_order() -> None:
    page = Page(report.page(recorded("leaking"), Extras(), OF))
    cells = [attributes for _, attributes in page.elements if "data-cell" in attributes]
    assert len(cells) == 27
    labels = [attributes["aria-label"] or "" for attributes in cells]
    assert sum("LEAK" in label for label in labels) == 1
    assert next(label for label in labels if "LEAK" in label).startswith(
        "enterprise-a reading soev's logs"
    )
    # One stop for each of the three matrices; the arrow keys do the rest.
    assert sum(attributes["tabindex"] == "0" for attributes in cells) == 3


def test_a_leak_links_to_what_was_asked_and_how_to_ask_again() -> None:
    text = report.page(recorded("leaking"), Extras(), OF)
    page = Page(text)
    link = next(
        attributes["href"] for tag, attributes in page.elements if tag == "a" and attributes["href"]
    )
    assert any(attributes.get("id") == link[1:] for _, attributes in page.elements)
    assert "enterprise-a reads soev&#39;s logs through loki.query-range" in text
    assert "enterprise-a:$PASSWORD" in text


def test_what_came_from_outside_is_escaped() -> None:
    nasty = "<script>alert(1)</script>\"'&"
    fault = Violation(
        kind=ViolationKind.NOT_REFUSED,
        api="mimir.query",
        reader=nasty,
        owners=(nasty,),
        message=nasty,
        signal=Signal.METRICS,
        request=nasty,
        curl=nasty,
        answer=nasty,
    )
    proof = make_proof(
        (nasty, "soev"),
        faults=[fault],
        checks=[Finding(nasty, nasty, nasty, ViolationKind.LEAK)],
        health=[nasty],
    )
    extras = Extras(
        attacks=[{"name": nasty}],
        twins=[{"name": nasty, "caught_by": None}],
        mutants={"killed": 1, "survivors": [nasty]},
        coverage={"charts": {nasty: {"branches": 2, "covered": 1}}},
    )
    text = report.page(proof, extras, OF)
    assert "alert(1)" in text
    assert "<script>alert" not in text
    page = Page(text)
    assert page.open == []
    assert sum(tag == "script" for tag, _ in page.elements) == 1


def test_results_of_other_commands_appear_when_they_are_there(tmp_path: Path) -> None:
    without = report.write(recorded("isolated"), tmp_path, OF).read_text(encoding="utf-8")
    assert 'id="twins"' not in without
    results.write(tmp_path, "twins", {"twins": [{"name": "fixed-tenant", "caught_by": "e2e"}]}, OF)
    results.write(tmp_path, "mutants", {"killed": 41, "survived": 0, "equivalent": 2}, OF)
    figures = {"charts": {"lgtm": {"branches": 225, "covered": 224}}}
    results.write(tmp_path, "coverage", figures, OF)
    text = report.write(recorded("isolated"), tmp_path, OF).read_text(encoding="utf-8")
    assert "fixed-tenant" in text
    assert "41 noticed" in text
    assert "99.5 %" in text
    assert "100 %" not in text
    assert 'class="stale"' not in text
    assert json.loads((tmp_path / "evidence.json").read_text())["entry_point"] == "alloy-grpc"


@pytest.mark.parametrize(
    "other",
    [
        replace(OF, commit="f" * 40),
        replace(OF, digests={"charts/lgtm": "sha256:1"}),
        replace(OF, commit=None),
    ],
    ids=["commit", "charts", "unknown"],
)
def test_results_of_other_files_count_for_nothing(other: Provenance, tmp_path: Path) -> None:
    """They are greyed out, say of what they are, and neither blame nor praise this proof."""
    results.write(tmp_path, "attacks", {"attacks": [{"name": "x", "ok": False}]}, other)
    results.write(tmp_path, "twins", {"twins": [{"name": "y", "caught_by": None}]}, other)
    text = report.write(recorded("isolated"), tmp_path, OF).read_text(encoding="utf-8")
    header = text.partition("</header>")[0]
    assert "not as it must be" not in header
    assert "caught by nothing" not in header
    assert text.count('class="stale"') == 2
    assert f"({other.source}, of 2026-01-31)" in text
    assert json.loads((tmp_path / "isolation.json").read_text())["attacks"] == []
    results.write(tmp_path, "attacks", {"attacks": [{"name": "x", "ok": False}]}, OF)
    report.write(recorded("isolated"), tmp_path, OF)
    assert json.loads((tmp_path / "isolation.json").read_text())["attacks"] != []


def test_a_part_never_replaces_the_whole(tmp_path: Path) -> None:
    report.write(recorded("isolated"), tmp_path, OF)
    results.write(tmp_path, "twins", {"twins": [{"name": "a"}, {"name": "b"}]}, OF)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    part = results.write(tmp_path, "twins", {"twins": [{"name": "a"}]}, OF, whole=False)
    page = report.write(make_proof(THREE[:2]), tmp_path, OF, whole=False)
    assert {part.parent, page.parent} == {tmp_path / "partial"}
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert after == before
    text = page.read_text(encoding="utf-8")
    assert "A part only: 2 tenants through 4 of" in text
    assert 'id="twins"' not in text


def test_what_a_whole_proof_is() -> None:
    proof = recorded("isolated")
    assert not report.is_whole(proof, proof.tenants), "recorded with four read APIs"
    every = tuple(replace(proof.apis[0], api=api.id) for api in PROVABLE)
    whole = replace(proof, apis=every)
    assert report.is_whole(whole, proof.tenants)
    assert not report.is_whole(whole, (*proof.tenants, "acme"))


def test_the_header_says_of_what_and_when() -> None:
    proof = recorded("leaking")
    for dirty, said in ((False, "commit 012345678901<"), (True, "commit 012345678901, changed")):
        of = replace(OF, dirty=dirty)
        header = report.page(proof, Extras(), of).partition("</header>")[0]
        when = proof.started.strftime("%-d %B %Y, %H:%M UTC")
        assert f"{proof.provider} ({proof.stack}), {when}, {said}" in header


def test_every_result_says_of_what_it_is(tmp_path: Path) -> None:
    report.write(recorded("isolated"), tmp_path, OF)
    for name in ("isolation", "evidence"):
        document = json.loads((tmp_path / f"{name}.json").read_text())
        assert (document["schema"], document["whole"]) == (results.SCHEMA, True)
        assert document["provenance"]["commit"] == OF.commit


def test_a_broken_result_of_another_command_is_named(tmp_path: Path) -> None:
    (tmp_path / "twins.json").write_text("{")
    with pytest.raises(StackproofError, match=r"twins\.json: not valid JSON"):
        report.write(recorded("isolated"), tmp_path, OF)


@pytest.mark.parametrize("text", ["[]", "{}", '{"schema": 0, "twins": [{"name": "old"}]}'])
def test_results_of_another_schema_are_not_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "twins.json").write_text(text)
    assert 'id="twins"' not in report.write(recorded("isolated"), tmp_path, OF).read_text()


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StackproofError, match="cannot be written: Not a directory"):
        report.write(recorded("isolated"), tmp_path / "file" / "report", OF)


def test_the_large_picture_shows_one_leak_among_a_million_cells() -> None:
    drawn = {panel.signal: panel for panel in panels(recorded("leaking-1000").matrix)}
    metrics = drawn[Signal.METRICS]
    assert metrics.rectangles == (Rectangle(123, 700, 1, 1, State.LEAK),)
    assert metrics.rings == ((123, 700),)
    # Twenty tenants that saw nothing: their rows and columns prove nothing.
    logs = drawn[Signal.LOGS]
    assert sum(each.width * each.height for each in logs.rectangles) == 20 * 1000 + 980 * 20
    assert drawn[Signal.TRACES].rectangles == ()


def test_when_everything_leaks_the_picture_stays_small() -> None:
    names = THOUSAND[:60]
    leaks = [
        ("mimir.query", reader, owner)
        for index, reader in enumerate(names)
        for owner in names
        if reader != owner and (index + int(owner[-2:])) % 2
    ]
    metrics = {panel.signal: panel for panel in panels(make_proof(names, leaks=leaks).matrix)}[
        Signal.METRICS
    ]
    assert metrics.block == 1
    assert len(metrics.rectangles) == len(leaks)
    rows = {y: dict.fromkeys(range(y % 2, 200, 2), State.LEAK) for y in range(200)}
    assert len(merge(coarser(rows, 2))) == 1


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ({}, []),
        ({0: {0: State.LEAK}}, [Rectangle(0, 0, 1, 1, State.LEAK)]),
        (
            {0: {1: State.LEAK, 2: State.LEAK}, 1: {1: State.LEAK, 2: State.LEAK}},
            [Rectangle(1, 0, 2, 2, State.LEAK)],
        ),
        (
            {0: {1: State.LEAK}, 2: {1: State.LEAK}},
            [Rectangle(1, 0, 1, 1, State.LEAK), Rectangle(1, 2, 1, 1, State.LEAK)],
        ),
        (
            {0: {1: State.LEAK, 2: State.UNKNOWN}},
            [Rectangle(1, 0, 1, 1, State.LEAK), Rectangle(2, 0, 1, 1, State.UNKNOWN)],
        ),
    ],
)
def test_neighbours_are_merged(
    rows: dict[int, dict[int, State]], expected: list[Rectangle]
) -> None:
    assert sorted(merge(rows), key=lambda each: (each.y, each.x)) == expected


def test_a_block_shows_the_worst_of_its_cells() -> None:
    rows = {0: {0: State.UNKNOWN, 1: State.LEAK}, 1: {1: State.MISSING}}
    assert coarser(rows, 2) == {0: {0: State.LEAK}}


def test_an_axis_names_few_tenants() -> None:
    assert ticks(THREE) == list(enumerate(THREE))
    assert len(ticks(THOUSAND)) == 5
    assert ticks(("a-tenant-with-a-long-name",)) == [(0, "a-ten…g-name")]


def _terminal(proof: Proof) -> str:
    output = io.StringIO()
    report.show(proof, Console(file=output, width=200))
    return output.getvalue()


def test_the_terminal_says_the_same_in_short() -> None:
    text = _terminal(recorded("isolated"))
    assert text.startswith("✔ isolated  3 tenants by 3 signals: 18 pairs proven apart")
    assert re.search(r"^soev +● ● ● +· · · +· · ·", text, re.MULTILINE)
    leaking = _terminal(recorded("leaking"))
    assert leaking.startswith("◆ leaking")
    assert "leak: enterprise-a reads soev's logs through loki.query-range" in leaking
    dead = _terminal(recorded("incomplete"))
    assert dead.startswith("? incomplete")
    assert "not well: mimir: exited with signal 9" in dead
    assert "\x1b[" not in text + leaking + dead
