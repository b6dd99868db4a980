"""Mutants: what each operator makes of a line, and what becomes of mutants of a small chart."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.copies import commit, copied, written
from tests.foreground import usual_signals

from stackproof import mutants
from stackproof.checks.invariants import INVARIANTS
from stackproof.errors import ExitCode, StackproofError
from stackproof.helm.externals import Rendered
from stackproof.helm.manifests import Manifest, Release
from stackproof.mutants import Judge, Mutant, MutantFate, operators
from stackproof.mutants.judge import Fingerprint, MutantResult, alike, fingerprint
from stackproof.mutants.run import MutantRecord, Summary, allowed, generate
from stackproof.repo.checkout import Checkout
from stackproof.rules import Rule

TEMPLATE = """\
{{- /* A comment: false */ -}}
apiVersion: v1
kind: Service
metadata:
  name: web
  labels:
    app.kubernetes.io/name: web
    app.kubernetes.io/instance: {{ .Release.Name }}
    app.kubernetes.io/component: web
    app.kubernetes.io/managed-by: Helm
spec:
  type: ExternalName
  # Not seen by any check.
  externalName: web.example
  ports:
    - name: http
      port: 80
      targetPort: http
      protocol: TCP
"""


@pytest.mark.parametrize(
    ("operator", "line", "wanted"),
    [
        (operators.flip, "  enabled: true", "  enabled: false"),
        (operators.flip, "  name: truth", None),
        (operators.negate, "{{- if .Values.a }}", "{{- if not (.Values.a) }}"),
        (operators.negate, "{{- else if eq .a 1 }}", "{{- else if not (eq .a 1) }}"),
        (operators.negate, "{{- with .a }}", "{{- with .a }}"),
        (operators.number, "  port: 8080", "  port: 8081"),
        (operators.number, "  every: 30s", "  every: 31s"),
        (operators.number, "  {{- if gt 1 2 }}", None),
        (operators.rename_key, "  - name: a", "  - names: a"),
        (operators.rename_key, '  "X-Scope-OrgID": a', '  "X-Scope-OrgIDs": a'),
        (operators.reword, "  path: /ready", "  path: /readyx"),
        (operators.reword, "    - run", "    - runx"),
        (operators.reword, "  enabled: true", None),
        (operators.swap, "  url: http://mimir:9009", "  url: http://loki:9009"),
        (operators.swap, "  methods: [GET]", "  methods: [POST]"),
        (operators.indent, "  key: value", "    key: value"),
        (operators.indent, "  {{ .a }}", None),
    ],
)
def test_what_an_operator_makes(operator: operators.Change, line: str, wanted: str | None) -> None:
    assert operator(line) == wanted


def test_comments_are_left_alone_and_blocks_go_whole() -> None:
    text = "# port: 1\n{{/* on: true\nport: 2 */}}\n{{- if .a }}\nkey: 1\n{{- end }}\n"
    found = list(operators.mutants("a.yaml", text))
    assert {mutant.line for mutant in found} == {4, 5}
    (block,) = (mutant for mutant in found if mutant.operator == "drop-block")
    assert block.old == ("{{- if .a }}", "key: 1", "{{- end }}")
    assert block.apply(text) == "# port: 1\n{{/* on: true\nport: 2 */}}\n"
    assert block.diff() == "a.yaml:4 (drop-block)\n-{{- if .a }}\n-key: 1\n-{{- end }}"


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    files = {
        "Chart.yaml": "apiVersion: v2\nname: small\nversion: 0.1.0\n",
        "values.yaml": "unused: 1\n",
        "templates/a.yaml": TEMPLATE,
    }
    return written(tmp_path / "small", files)


def find(of: list[Mutant], operator: str, line: str) -> Mutant:
    return next(m for m in of if m.operator == operator and m.old[0].strip() == line)


def test_what_becomes_of_mutants_of_any_chart(chart: Path, tmp_path: Path) -> None:
    judge = Judge(chart, tmp_path / "work")
    every = generate(chart)
    for operator, line, verdict, by in (
        ("rename-key", "kind: Service", MutantFate.KILLED, "schema-valid"),
        ("drop-line", "app.kubernetes.io/managed-by: Helm", MutantFate.KILLED, "labels-consistent"),
        ("indent", "kind: Service", MutantFate.KILLED, "render"),
        ("reword", "externalName: web.example", MutantFate.SURVIVED, ""),
        ("number", "unused: 1", MutantFate.EQUIVALENT, ""),
        ("drop-line", "protocol: TCP", MutantFate.EQUIVALENT, ""),
    ):
        found = judge.judge(find(every, operator, line))
        assert (found.verdict, found.by) == (verdict, by), line
        assert bool(found.seen_in) is (verdict is MutantFate.SURVIVED)
    # The copy is as it was.
    assert (tmp_path / "work" / "small" / "templates" / "a.yaml").read_text() == TEMPLATE


def _judged(chart: Path, tmp_path: Path, operator: str, line: str) -> tuple[Judge, MutantResult]:
    judge = Judge(chart, tmp_path / "work")
    return judge, judge.judge(find(generate(chart), operator, line))


@pytest.mark.parametrize(
    ("already", "operator", "line"),
    [
        # Of other people's charts, each with what fails on it as it is.
        (("protocol: TCP", "protocl: TCP"), "rename-key", "kind: Service"),
        (
            ("instance: {{ .Release.Name }}", "instance: me"),
            "drop-line",
            "app.kubernetes.io/component: web",
        ),
    ],
)
def test_a_check_that_fails_already_notices_nothing(
    already: tuple[str, str], operator: str, line: str, chart: Path, tmp_path: Path
) -> None:
    template = chart / "templates" / "a.yaml"
    template.write_text(TEMPLATE.replace(*already))
    judge, judged = _judged(chart, tmp_path, operator, line)
    assert judge.deaf
    assert judged.by not in judge.deaf
    assert judged.verdict is MutantFate.SURVIVED


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("monitoring.coreos.com/v1", "ServiceMonitor"),
        ("autoscaling.k8s.io/v1", "VerticalPodAutoscaler"),
        ("snapshot.storage.k8s.io/v1", "VolumeSnapshotClass"),
    ],
)
def test_a_kind_without_a_schema_keeps_no_other_from_being_looked_at(
    version: str, kind: str, chart: Path, tmp_path: Path
) -> None:
    """In the charts of others, whose pods a mutant then broke in silence."""
    monitor = TEMPLATE.replace("apiVersion: v1", f"apiVersion: {version}")
    monitor = monitor.replace("kind: Service", f"kind: {kind}")
    (chart / "templates" / "b.yaml").write_text(monitor)
    judge, judged = _judged(chart, tmp_path, "rename-key", "protocol: TCP")
    assert "schema-valid" not in judge.deaf
    assert (judged.verdict, judged.by) == (MutantFate.KILLED, "schema-valid")


def test_what_is_not_valid_is_told_before_a_check_crashes_over_it(
    chart: Path, tmp_path: Path
) -> None:
    """As volumes without a name, ports without a number and texts that became maps elsewhere."""
    (chart / "templates" / "b.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  a.yaml: |\n    b: {c: d}\n"
    )
    _, judged = _judged(chart, tmp_path, "drop-line", "a.yaml: |")
    assert (judged.verdict, judged.by) == (MutantFate.KILLED, "schema-valid")


def test_a_check_that_crashes_has_noticed_nothing(
    chart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot_cope(rendered: Rendered) -> Iterator[str]:
        yield from (m["spec"]["externalName"] for m in rendered.release if not m["spec"])
        assert rendered.release.manifests[0]["spec"]["externalName"] == "web.example"

    monkeypatch.setitem(INVARIANTS._rules, "cannot-cope", Rule("cannot-cope", "", cannot_cope))
    judge, judged = _judged(chart, tmp_path, "reword", "externalName: web.example")
    assert not judge.deaf
    assert judged.verdict is MutantFate.CRASHED
    assert judged.by.startswith("cannot_cope (test_mutants.py:")
    summary = Summary((MutantRecord(generate(chart)[0], judged),), {})
    assert summary.share == 0


def test_a_chart_that_renders_with_nothing_is_refused(chart: Path, tmp_path: Path) -> None:
    (chart / "templates" / "a.yaml").write_text('{{ required "a host is needed" .Values.host }}')
    with pytest.raises(StackproofError, match=r"none of its scenarios.*a host is needed"):
        Judge(chart, tmp_path / "work")


def test_without_any_change_nothing_is_said_of_the_share() -> None:
    assert Summary((), {}).share is None


def test_a_configuration_written_otherwise_is_the_same() -> None:
    def prints(text: str, checksum: str) -> Fingerprint:
        annotations = {"checksum/config": checksum * 64}
        contents = (
            {"kind": "ConfigMap", "data": {"a.yaml": text}},
            {"kind": "Deployment", "metadata": {"annotations": annotations}},
        )
        made = tuple(Manifest.of(one, "a") for one in contents)
        return fingerprint(Release("one", "here", "1.37.0", made))

    before = prints("a:\n  b: 1\n", "a")
    assert alike(before, before)
    assert alike(before, prints("a:\n    b: 1\n", "b"))
    assert not alike(before, prints("a:\n  b: 2\n", "b"))
    assert not alike(before, prints("a:\n  b: 1\n", "b"))  # rolls pods for nothing
    assert not alike(before, None)


def test_samples_are_fixed_by_their_seed(chart: Path) -> None:
    every = generate(chart)
    assert mutants.sample(every, 5, 1) == mutants.sample(every, 5, 1)
    assert mutants.sample(every, 5, 1) != mutants.sample(every, 5, 2)
    assert mutants.sample(every, len(every) + 1) == every
    without = [one for one in every if one.line != every[0].line]
    kept = [one for one in mutants.sample(every, 5, 1) if one in without]
    assert set(kept) <= set(mutants.sample(without, 5, 1))


def test_only_changed_lines_are_mutated(chart: Path) -> None:
    commit(chart)
    template = chart / "templates" / "a.yaml"
    template.write_text(TEMPLATE.replace("port: 80", "port: 81"))
    found = mutants.since(generate(chart), chart, "HEAD")
    assert {mutant.line for mutant in found} == {17}
    with pytest.raises(StackproofError, match="no-such-revision"):
        mutants.since(found, chart, "no-such-revision")


def test_an_explanation_needs_all_its_parts(chart: Path) -> None:
    name = "ci/stackproof/mutants-allowed.yaml"
    written(chart, {name: "- {file: a.yaml, operator: number, line: 'a: 1', reason: because}\n"})
    assert allowed(chart) == {"a.yaml: number: a: 1": "because"}
    written(chart, {name: "- {file: a.yaml, operator: number}\n"})
    with pytest.raises(StackproofError, match="lacks line, reason"):
        allowed(chart)


def test_a_checkout_that_is_wrong_already_is_refused(tmp_path: Path) -> None:
    """Else a check that never holds would seem to kill every mutant."""
    root = tmp_path / "copy"
    copied(Checkout.find(), root)
    values = root / "observability" / "gateway-values.yaml"
    values.write_text(values.read_text().replace("refreshInterval: 15m", "refreshInterval: 9h"))
    with pytest.raises(StackproofError, match=r"copy: a-rotation-is-shorter-than-the-senders-p"):
        Judge(root, tmp_path / "work")


def test_an_explanation_of_what_is_noticed_is_stale(chart: Path) -> None:
    every = generate(chart)
    one, two, three = every[:3]
    judged = {
        one: MutantResult(MutantFate.SURVIVED),
        two: MutantResult(MutantFate.KILLED),
        three: MutantResult(MutantFate.SURVIVED),
    }
    results = [MutantRecord(mutant, judgement) for mutant, judgement in judged.items()]
    reasons = {one.id: "drawn", two.id: "noticed", three.id: "not drawn", "gone": "no more"}
    summary = Summary(tuple(results[:2]), reasons, tuple(results[2:]))
    assert summary.stale == tuple(sorted(["gone", two.id]))
    assert summary.unexplained == ()
    assert summary.share == 0.5


def test_every_explained_mutant_is_there() -> None:
    """That it survives, `make mutants` sees."""
    root = Checkout.find().root
    known = {mutant.id for mutant in generate(root)}
    assert [name for name in allowed(root) if name not in known] == []
    assert all(len(reason) > 20 for reason in allowed(root).values())


# --- the end of a run ---


def _children(pid: int) -> list[int]:
    """Return the processes that judge: those that a run has spawned."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            command = path.with_name("cmdline").read_bytes()
        except (OSError, ProcessLookupError):
            continue
        if parent == pid and b"spawn_main" in command:
            found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize(
    ("whom", "number", "code"),
    [
        ("the run", signal.SIGTERM, ExitCode.TERMINATED),
        ("the run", signal.SIGINT, ExitCode.INTERRUPTED),
        ("one that judges", signal.SIGKILL, ExitCode.UNAVAILABLE),
    ],
)
def test_a_run_that_is_told_to_end_ends(
    whom: str, number: int, code: ExitCode, chart: Path, checkout: Checkout, tmp_path: Path
) -> None:
    """At once, though its processes are amid batches of work, and it leaves nothing behind."""
    for n in range(60):
        (chart / "templates" / f"{n}.yaml").write_text(TEMPLATE.replace("name: web", f"name: w{n}"))
    workplace = tmp_path / "temporary"
    workplace.mkdir()
    run = subprocess.Popen(
        [sys.executable, "-m", "stackproof.cli", "mutants", chart, "--all", "--jobs", "2"],
        cwd=checkout.root,
        env={**os.environ, "TMPDIR": str(workplace)},
        preexec_fn=usual_signals,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    judging: list[int] = []
    try:
        ends = time.monotonic() + 60
        # Its own copy of the chart, and one of each process that judges.
        while len(list(workplace.glob("*/*"))) < 3:
            assert time.monotonic() < ends, "no batch has begun"
            assert run.poll() is None
            time.sleep(0.05)
        judging = _children(run.pid)
        assert len(judging) == 2
        if whom == "the run":
            for pid in judging:
                os.kill(pid, signal.SIGSTOP)  # as if the batch took for ever
        os.kill(run.pid if whom == "the run" else judging[0], number)
        _, said = run.communicate(timeout=20)
    finally:
        run.kill()
        run.wait()
        for pid in judging:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    assert run.returncode == code, said
    assert "Traceback" not in said
    if code is ExitCode.UNAVAILABLE:
        assert "was killed" in said
    assert not [pid for pid in judging if Path("/proc", str(pid)).exists()]
    assert list(workplace.iterdir()) == []
