"""The client of tools/render: what it returns, caches and says when something is wrong."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.copies import written
from tests.ran import ran

from stackproof.errors import StackproofError
from stackproof.helm.manifests import Release
from stackproof.helm.renderer import (
    HelmError,
    Render,
    Renderer,
    Values,
    chart_digest,
    newest_kubernetes,
    render,
)
from stackproof.toolchain import programs

CONFIG_MAP = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}
data:
  word: {{ .Values.word | quote }}
  kubernetes: {{ .Capabilities.KubeVersion.Version }}
  has: {{ .Capabilities.APIVersions.Has "demo/v1" | quote }}
  upgrade: {{ .Release.IsUpgrade | quote }}
"""
FILES = {
    "Chart.yaml": "apiVersion: v2\nname: demo\nversion: 0.1.0\n",
    "values.yaml": "word: default\n",
    "values.schema.json": '{"properties": {"word": {"type": "string"}}}',
    "templates/a.yaml": CONFIG_MAP,
    "crds/c.yaml": "kind: CustomResourceDefinition\nmetadata: {name: c}\n",
}


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    return written(tmp_path / "demo", FILES)


@pytest.fixture
def renderer() -> Iterator[Renderer]:
    """A renderer with a cache and a process of its own."""
    made = Renderer(programs.find("render"))
    yield made
    made.close()


def asked(chart: Path, **more: object) -> Render:
    given = {"release": "one", "namespace": "here", "kube_version": "1.37.0", **more}
    return Render(chart=chart, **given)  # type: ignore[arg-type]


def word(release: Release) -> str:
    text: str = release.manifests[0]["data"]["word"]
    return text


def test_render_gives_the_objects_that_helm_would(chart: Path, renderer: Renderer) -> None:
    release = renderer.render(
        asked(chart, api_versions=["demo/v1"], is_upgrade=True, include_crds=True)
    )
    crd, config_map = release.manifests
    assert (crd.source, crd.namespace) == ("demo/crds/c.yaml", None)
    assert (config_map.source, config_map.index) == ("demo/templates/a.yaml", 0)
    assert (config_map.name, config_map.namespace) == ("one", "here")
    assert config_map["data"] == {
        "word": "default",
        "kubernetes": "v1.37.0",
        "has": "true",
        "upgrade": "true",
    }


def test_newest_kubernetes_is_the_default(chart: Path) -> None:
    release = render(chart, release="one", namespace="here")
    assert release.kube_version == newest_kubernetes()
    assert release.manifests[0]["data"]["kubernetes"] == f"v{newest_kubernetes()}"


def test_values_come_in_order_and_as_helm_reads_them(chart: Path, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text("word: from a file\nflag: on\n")
    values: list[Values] = [{"word": "first"}, file]
    assert word(render(chart, values, release="one", namespace="here")) == "from a file"
    later: list[Values] = [*values, {"word": "last"}]
    assert word(render(chart, later, release="one", namespace="here")) == "last"
    # Helm reads YAML 1.1, in which `on` is a boolean: here that is no valid word.
    file.write_text("word: on\n")
    with pytest.raises(HelmError, match="got boolean, want string"):
        render(chart, [file], release="one", namespace="here")


def test_equal_requests_give_the_same_release(chart: Path, renderer: Renderer) -> None:
    first = renderer.render(asked(chart, values=[{"word": "x"}]))
    assert renderer.render(asked(chart, values=[{"word": "x"}])) is first
    assert renderer.render(asked(chart, values=[{"word": "y"}])) is not first
    fresh = renderer.render(asked(chart, values=[{"word": "x"}]), fresh=True)
    assert fresh is not first
    assert fresh == first


def test_a_chart_that_is_the_same_elsewhere_is_not_rendered_again(
    chart: Path, renderer: Renderer, tmp_path: Path
) -> None:
    values, copy = tmp_path / "values.yaml", tmp_path / "copy"
    values.write_text("word: x\n")
    first = renderer.render(asked(chart, values=[values]))
    shutil.copytree(chart, copy / chart.name)
    shutil.copy(values, copy)
    again = asked(copy / chart.name, values=[copy / values.name])
    assert renderer.render(again) is first
    (copy / values.name).write_text("word: [\n")
    with pytest.raises(HelmError, match=f"failed to parse {copy / values.name}"):
        renderer.render(again)


def test_a_changed_chart_is_rendered_again_at_once(chart: Path, renderer: Renderer) -> None:
    template = chart / "templates/a.yaml"
    before = renderer.render(asked(chart))
    for digit in "0123456789":  # as long as before, and within one tick of a file system's clock
        template.write_text(CONFIG_MAP.replace(".Values.word", f'"wor{digit}"'))
        assert word(renderer.render(asked(chart))) == f"wor{digit}"
    template.write_text(CONFIG_MAP)
    assert renderer.render(asked(chart)) is before


def test_digest_covers_names_and_contents(chart: Path) -> None:
    digests = {chart_digest(chart)}
    (chart / "templates/a.yaml").rename(chart / "templates/b.yaml")
    digests.add(chart_digest(chart))
    (chart / "templates/b.yaml").write_text("kind: B\n")
    digests.add(chart_digest(chart))
    (chart / "files").mkdir()
    (chart / "files/new").touch()
    digests.add(chart_digest(chart))
    assert len(digests) == 4


def test_overlay_changes_the_render_and_nothing_else(chart: Path, renderer: Renderer) -> None:
    plain = renderer.render(asked(chart))
    overlay = {"templates/a.yaml": None, "templates/b.yaml": "kind: B\nmetadata: {name: b}\n"}
    changed = renderer.render(asked(chart, overlay=overlay))
    assert [m.kind for m in changed.manifests] == ["B"]
    assert renderer.render(asked(chart), fresh=True) == plain
    assert not (chart / "templates/b.yaml").exists()


def test_many_outcomes_come_in_the_order_of_requests(chart: Path, renderer: Renderer) -> None:
    requests = [asked(chart, values=[{"word": 1 if i % 7 == 3 else f"w{i}"}]) for i in range(50)]
    outcomes = renderer.render_many([*requests, *requests[:5]])
    for i, outcome in enumerate(outcomes):
        if i % 50 % 7 == 3:
            assert isinstance(outcome, HelmError)
        else:
            assert not isinstance(outcome, HelmError)
            assert word(outcome) == f"w{i % 50}"


def test_threads_share_a_renderer(chart: Path, renderer: Renderer) -> None:
    found: dict[int, str] = {}

    def work(i: int) -> None:
        found[i] = word(renderer.render(asked(chart, values=[{"word": f"w{i}"}])))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: f"w{i}" for i in range(20)}


def test_schema_errors_name_the_key(chart: Path, renderer: Renderer) -> None:
    with pytest.raises(HelmError) as caught:
        renderer.render(asked(chart, values=[{"word": 1}]))
    assert caught.value.kind == "schema"
    assert [(part.path, part.reason) for part in caught.value.refused] == [
        ("word", "got number, want string")
    ]


def test_template_errors_name_file_and_line(chart: Path, renderer: Renderer) -> None:
    overlay = {"templates/a.yaml": "kind: A\n\nx: {{ .Values.a.b.c }}\n"}
    with pytest.raises(HelmError, match=r"(?s)^demo/templates/a\.yaml:3: .*nil pointer") as caught:
        renderer.render(asked(chart, overlay=overlay))
    assert (caught.value.kind, caught.value.line) == ("template", 3)


def test_duplicate_keys_are_errors(chart: Path, renderer: Renderer) -> None:
    overlay = {"templates/a.yaml": "kind: A\nx: 1\nx: 2\n"}
    with pytest.raises(HelmError, match='key "x" already set') as caught:
        renderer.render(asked(chart, overlay=overlay))
    assert (caught.value.kind, caught.value.template) == ("yaml", "demo/templates/a.yaml")


def test_errors_give_a_command_that_shows_them(chart: Path, renderer: Renderer) -> None:
    overlay = {"templates/a.yaml": CONFIG_MAP + "  no: {{ fail .Values.word }}\n"}
    values = [{"word": "unmistakable"}]
    with pytest.raises(HelmError) as caught:
        renderer.render(asked(chart, values=values, overlay=overlay, api_versions=["a/v1"]))
    command = re.search(r"See it with: (.*)$", str(caught.value))
    assert command
    program, *arguments = shlex.split(command[1])
    assert program == "helm"
    done = ran([programs.find("helm"), *arguments])
    assert done.returncode == 1
    assert "unmistakable" in done.stderr


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("word: [", "failed to parse .*values.yaml"),
        (None, "values.yaml: cannot read the values file"),
    ],
)
def test_bad_values_files_are_named(
    chart: Path, tmp_path: Path, values: str | None, message: str
) -> None:
    file = tmp_path / "values.yaml"
    if values:
        file.write_text(values)
    with pytest.raises(StackproofError, match=message):
        render(chart, [file], release="one", namespace="here")


def test_a_chart_that_is_not_there(tmp_path: Path, renderer: Renderer) -> None:
    with pytest.raises(StackproofError, match="none: cannot read the chart: No such file"):
        renderer.render(asked(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(HelmError, match=r"Chart\.yaml file is missing"):
        renderer.render(asked(tmp_path / "empty"))


def test_bad_names_and_versions_are_refused(chart: Path, renderer: Renderer) -> None:
    with pytest.raises(HelmError, match="release name"):
        renderer.render(asked(chart, release="Not A Name"))
    with pytest.raises(HelmError, match="invalid kube version"):
        renderer.render(asked(chart, kube_version="newest"))


def test_a_dead_process_is_replaced(chart: Path, renderer: Renderer) -> None:
    before = renderer.render(asked(chart))
    assert renderer._program.process
    renderer._program.process.kill()
    renderer._program.process.wait()
    after = renderer.render(asked(chart, values=[{"word": "new"}]))
    assert word(after) == "new"
    assert renderer.render(asked(chart), fresh=True) == before


def test_a_process_that_dies_while_asked_is_an_error(tmp_path: Path, chart: Path) -> None:
    program = tmp_path / "dies"
    program.write_text("#!/bin/sh\nread line\necho 'out of luck' >&2\nexit 3\n")
    program.chmod(0o700)
    dying = Renderer(program)
    with pytest.raises(
        StackproofError, match="dies: the render program died, saying:\nout of luck"
    ):
        dying.render(asked(chart))
    with pytest.raises(StackproofError, match="cannot be started: No such file"):
        Renderer(tmp_path / "none").render(asked(chart))


def test_a_closed_renderer_leaves_no_process(chart: Path) -> None:
    made = Renderer(programs.find("render"))
    made.render(asked(chart))
    assert made._program.process
    pid = made._program.process.pid
    made.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_coverage_tells_the_branches_that_ran(chart: Path, renderer: Renderer) -> None:
    overlay = {"templates/a.yaml": "{{ if .Values.on }}kind: A{{ else }}kind: B{{ end }}\n"}
    listed = renderer.branches(chart, overlay)
    assert [(b.kind, b.line, b.column) for b in listed] == [("if", 1, 1), ("else", 1, 27)]
    ran = {
        on: renderer.render(
            asked(chart, values=[{"on": on}], overlay=overlay, coverage=True)
        ).branches
        for on in (True, False)
    }
    assert ran == {True: {listed[0].id}, False: {listed[1].id}}
    assert not renderer.render(asked(chart, overlay=overlay)).branches


def test_values_used(chart: Path, renderer: Renderer) -> None:
    (use,) = renderer.values_used(chart)
    assert (use.path, use.how, use.template, use.line) == (
        ("word",),
        "read",
        "demo/templates/a.yaml",
        6,
    )
