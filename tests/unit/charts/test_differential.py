"""Our render equals that of the helm program, object for object and in the same order."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.copies import written
from tests.ran import ran
from tests.unit.charts.scenarios import CHARTS, CHECKOUT, SCENARIOS, each_scenario

from stackproof.flux.deployment import Deployment
from stackproof.helm import renderer
from stackproof.helm.renderer import HelmError, Render
from stackproof.toolchain import programs

Documents = list[tuple[str, Any]]
"""Template and object, in the order of the output."""


class KubernetesLoader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it: what looks like a date is a string."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own way)
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }


def program(asked: Render, home: Path) -> subprocess.CompletedProcess[str]:
    """Run the helm program on the same chart with the same values."""
    words = ["template", asked.release, str(asked.chart), "--namespace", asked.namespace]
    words += ["--kube-version", asked.kube_version]
    words += [f"--api-versions={api}" for api in asked.api_versions]
    words += [f"--values={values}" for values in asked.values]
    words += ["--is-upgrade"] if asked.is_upgrade else []
    words += ["--include-crds"] if asked.include_crds else []
    return ran([programs.find("helm"), *words], env={"PATH": os.environ["PATH"], "HOME": str(home)})


def helms(asked: Render, home: Path) -> Documents:
    done = program(asked, home)
    assert done.returncode == 0, done.stderr
    found: Documents = []
    for text in re.split(r"(?m)^---$\n(?=# Source: )", done.stdout):
        source = re.match(r"# Source: (.*)\n", text)
        for content in yaml.load_all(text, Loader=KubernetesLoader):
            if content is not None:
                assert source
                found.append((source[1], content))
    return found


def ours(asked: Render) -> Documents:
    return [(m.source, m.content) for m in renderer.renderer().render(asked).manifests]


def scenario(chart: Path, *values: Path, **more: Any) -> Render:
    return Render(chart=chart, values=values, release="one", namespace="here", **more)


def test_there_are_scenarios_of_every_chart() -> None:
    assert CHARTS
    assert {path.parent.parent for path in SCENARIOS} == set(CHARTS)


@each_scenario
def test_scenarios_render_as_helm_renders_them(values: Path, tmp_path: Path) -> None:
    asked = scenario(values.parent.parent, values)
    found = ours(asked)
    assert found
    assert found == helms(asked, tmp_path)


def test_the_deployment_renders_as_helm_renders_it(tmp_path: Path) -> None:
    deployment = Deployment.load(CHECKOUT)
    tenant = deployment.registry.tenants[0]
    for chart, values in (
        ("lgtm", deployment.lgtm_values()),
        ("open-webui-stack", deployment.tenant_values(tenant)),
    ):
        files = [as_file(tmp_path / f"{i}.yaml", part) for i, part in enumerate(values)]
        asked = scenario(CHECKOUT.charts / chart, *files)
        assert ours(asked) == helms(asked, tmp_path)


def as_file(path: Path, values: renderer.Values) -> Path:
    if isinstance(values, Path):
        return values
    path.write_text(json.dumps(values))
    return path


@each_scenario
def test_coverage_changes_no_byte(values: Path) -> None:
    asked = scenario(values.parent.parent, values)
    covered = replace(asked, coverage=True)
    assert renderer.renderer().text(asked) == renderer.renderer().text(covered)
    known = {branch.id for branch in renderer.renderer().branches(asked.chart)}
    ran = renderer.renderer().render(covered).branches
    assert ran
    assert ran <= known


FILES = {
    "Chart.yaml": """\
apiVersion: v2
name: parent
version: 0.1.0
dependencies:
  - {name: child, version: 0.1.0, condition: child.enabled, import-values: [shared]}
  - {name: child, version: 0.1.0, alias: twin, tags: [extra]}
""",
    "values.yaml": """\
word: parent
global: {site: here}
child: {enabled: true}
tags: {extra: true}
""",
    "values.schema.json": '{"properties": {"word": {"type": "string"}}}',
    "crds/things.yaml": "kind: CustomResourceDefinition\nmetadata: {name: things}\n",
    "files/text.txt": "line one\nline two\n",
    "templates/_h.tpl": '{{ define "name" }}{{ .Release.Name }}-{{ .Chart.Name }}{{ end }}',
    "templates/NOTES.txt": "not an object: [",
    "templates/b.yaml": """\
kind: Zebra
metadata: {name: z, annotations: {number: 1}}
---
kind: Service
metadata: {name: {{ include "name" . }}}
---
# nothing but a comment
---
kind: Apple
metadata: {name: a, annotations: {helm.sh/hook: "post-install,pre-upgrade"}}
---
kind: Job
metadata: {name: j, annotations: {helm.sh/hook: pre-install, helm.sh/hook-weight: "5"}}
---
kind: Job
metadata: {name: never, annotations: {helm.sh/hook: no-such-event}}
---
kind: Pod
metadata: {name: t, annotations: {helm.sh/hook: test}}
""",
    "templates/a.yaml": """\
{{- $secret := lookup "v1" "Secret" .Release.Namespace "any" }}
kind: ConfigMap
metadata: {name: {{ include "name" . }}, namespace: {{ .Release.Namespace }}}
data:
  word: {{ tpl "{{ .Values.word }}" . }}
  imported: {{ .Values.imported | quote }}
  file: {{ .Files.Get "files/text.txt" | quote }}
  exists: {{ empty $secret | ternary "no" "yes" | quote }}
  install: {{ printf "%v %v %v" .Release.IsInstall .Release.IsUpgrade .Release.Revision | quote }}
  kubernetes: {{ .Capabilities.KubeVersion.Minor | quote }}
  policy: {{ .Capabilities.APIVersions.Has "policy/v1" | quote }}
  custom: {{ .Capabilities.APIVersions.Has "demo.example/v1" | quote }}
  helm: {{ .Capabilities.HelmVersion.Version | quote }}
  number: {{ .Values.number | quote }}
  missing: "{{ .Values.missing }}"
""",
    "charts/child/Chart.yaml": "apiVersion: v2\nname: child\nversion: 0.1.0\n",
    "charts/child/values.yaml": "word: child\nexports: {shared: {imported: from the child}}\n",
    "charts/child/templates/c.yaml": """\
kind: ConfigMap
metadata: {name: {{ .Chart.Name }}}
data: {word: {{ .Values.word }}, site: {{ .Values.global.site }}}
""",
}
VARIANTS: dict[str, tuple[Sequence[str], Mapping[str, Any]]] = {
    "default": ((), {}),
    "upgrade": ((), {"is_upgrade": True}),
    "crds": ((), {"include_crds": True}),
    "api-versions": ((), {"api_versions": ["demo.example/v1"]}),
    "oldest": ((), {"kube_version": "v1.20"}),
    "files-in-order": (("word: one\nnumber: 1000000\n", "word: two\nchild: {word: three}\n"), {}),
    "null-removes": (("word: null\nglobal: {site: null}\n",), {}),
    "yaml-1.1": (("number: 0o17\nglobal: {site: yes}\n",), {}),
    "child-off": (("child: {enabled: false}\n",), {}),
    "twin-off": (("tags: {extra: false}\n",), {}),
}


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """A chart with all that Helm does besides executing templates."""
    return written(tmp_path / "parent", FILES)


def value_files(folder: Path, texts: Sequence[str]) -> list[Path]:
    files = [folder / f"values-{number}.yaml" for number in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    return files


@pytest.mark.parametrize(("texts", "more"), VARIANTS.values(), ids=VARIANTS)
def test_everything_that_helm_does(
    parent: Path, tmp_path: Path, texts: Sequence[str], more: Mapping[str, Any]
) -> None:
    asked = scenario(parent, *value_files(tmp_path, texts), **more)
    found = ours(asked)
    assert len(found) >= 7
    assert found == helms(asked, tmp_path)


def test_a_difference_would_be_seen(parent: Path, tmp_path: Path) -> None:
    plain = scenario(parent)
    other = scenario(parent, *value_files(tmp_path, ["word: other"]))
    assert ours(plain) != helms(other, tmp_path)


REFUSED: dict[str, tuple[str, Mapping[str, str], str]] = {
    "schema": ("word: 1", {}, "at '/word': got number, want string"),
    "subchart-is-no-map": ("child: 1", {}, "child"),
    "values-file": ("word: [", {}, "line 1: did not find expected node content"),
    "nil": (
        "",
        {"templates/a.yaml": "kind: A\nx: {{ .Values.a.b.c }}\n"},
        'executing "parent/templates/a.yaml" at <.Values.a.b.c>:\n    nil pointer evaluating',
    ),
    "required": (
        "",
        {"templates/a.yaml": 'x: {{ required "the word is missing" .Values.no }}\n'},
        "(parent/templates/a.yaml:1:6): the word is missing",
    ),
    "syntax": (
        "",
        {"templates/a.yaml": "kind: A\nx: {{ if }}\n"},
        "parse error at (parent/templates/a.yaml:2): missing value for if",
    ),
    "yaml": ("", {"templates/a.yaml": "kind: A\nx: [\n"}, "yaml: line 2: did not find expected"),
    "head": (
        "",
        {"templates/a.yaml": "kind: A\nmetadata: [a]\n"},
        "cannot unmarshal array into Go struct field",
    ),
    "library": (
        "",
        {"Chart.yaml": "apiVersion: v2\nname: parent\nversion: 0.1.0\ntype: library\n"},
        "library charts are not installable",
    ),
    "dependency": (
        "",
        {"Chart.yaml": FILES["Chart.yaml"] + "  - {name: absent, version: 0.1.0}\n"},
        "found in Chart.yaml, but missing in charts/ directory: absent",
    ),
    "kubernetes": (
        "",
        {"Chart.yaml": FILES["Chart.yaml"] + 'kubeVersion: "<1.30.0"\n'},
        "chart requires kubeVersion: <1.30.0 which is incompatible with Kubernetes v1.37.0",
    ),
}


@pytest.mark.parametrize(("values", "change", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_helm_refuses_is_refused(
    parent: Path, tmp_path: Path, values: str, change: Mapping[str, str], reason: str
) -> None:
    for name, text in change.items():
        (parent / name).write_text(text)
    asked = scenario(parent, *value_files(tmp_path, [values]), kube_version="1.37.0")
    done = program(asked, tmp_path)
    assert done.returncode == 1
    assert reason in done.stderr
    with pytest.raises(HelmError, match=re.escape(reason)):
        ours(asked)
