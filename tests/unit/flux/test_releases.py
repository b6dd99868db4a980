"""What becomes of a HelmRelease, in trees of all kinds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.flux.trees import CLUSTER, CONFIG_MAP, release, step, tree

from stackproof.flux.checks import Subject, problems
from stackproof.flux.tree import Tree


def only(made: Tree) -> Any:
    """Return the one release of a tree, which has no fault."""
    assert not made.failures
    (found,) = made.releases.values()
    return found


def values(made: Tree) -> Any:
    """Return the values which the chart was rendered with."""
    (found,) = [one.manifest for one in made.applied if one.manifest.name == "made"]
    return json.loads(found["data"]["v"])


# --- Values ---------------------------------------------------------------------------------------

FILES = {"charts/x/values-a.yaml": "a: 1\nb: 1\n", "charts/x/values-b.yaml": "b: 2\n"}


@pytest.mark.parametrize(
    ("files", "given"),
    [
        ("values.yaml, charts/x/values-a.yaml", {"own": 1, "a": 1, "b": 1}),
        ("values-a.yaml, charts/x/values-b.yaml", {"a": 1, "b": 2}),
        ("values-a.yaml", {"a": 1, "b": 1}),
        ("values-b.yaml, charts/x/values.yaml", {"own": 1, "b": 2}),
    ],
)
def test_values_files_replace_the_charts_own(
    tmp_path: Path, files: str, given: dict[str, int]
) -> None:
    chart = f"      valuesFiles: [charts/x/{files}]\n"
    made = tree(tmp_path, release(chart=chart), dict(FILES))
    only(made)
    assert values(made) == given


def test_values_are_put_where_a_path_says(tmp_path: Path) -> None:
    """Into what is there by then; `literal` takes a text as it is."""
    source = CONFIG_MAP % "v" + "data: {values.yaml: 'l: [{a: 1}, {a: 2}]', k: '9', t: 'a,b=c'}\n"
    more = """\
  valuesFrom:
    - {kind: ConfigMap, name: v}
    - {kind: ConfigMap, name: v, valuesKey: k, targetPath: 'l[1].b'}
    - {kind: ConfigMap, name: v, valuesKey: t, targetPath: text, literal: true}
"""
    given = values(tree(tmp_path, source + release(more=more)))
    assert given == {"own": 1, "l": [{"a": 1}, {"a": 2, "b": 9}], "text": "a,b=c"}


ENCRYPTED = "'ENC[AES256_GCM,data:Tr7o,iv:1=,tag:k=,type:str]'"
SECRET = """\
---
apiVersion: v1
kind: Secret
metadata: {name: v, namespace: flux-system}
%s
sops: {version: 3.9.0}
"""
EXTERNAL = """\
---
apiVersion: external-secrets.io/v1
kind: ExternalSecret
metadata: {name: v, namespace: flux-system}
spec: {secretStoreRef: {name: s}, data: [{secretKey: k, remoteRef: {key: q}}]}
"""
#: Secrets with a key `k` that nobody can read in Git.
UNREADABLE = [
    SECRET % f"stringData: {{k: {ENCRYPTED}}}",
    SECRET % f"data: {{k: {ENCRYPTED}}}",
    EXTERNAL,
]


@pytest.mark.parametrize("secret", UNREADABLE)
def test_values_that_cannot_be_read(tmp_path: Path, secret: str) -> None:
    """A text for one path has a name instead; of other values nothing is known."""
    files: dict[str, str | None] = {}

    def made(more: str) -> Tree:
        files["apps/a.yaml"] = secret + release(
            more=f"  valuesFrom: [{{kind: Secret, name: v, {more}}}]\n"
        )
        return tree(tmp_path, step("apps", "  decryption: {provider: sops}\n"), files)

    assert values(made("valuesKey: k, targetPath: a.b")) == {"own": 1, "a": {"b": "secret-k"}}
    found = only(made("valuesKey: k"))
    assert found.rendered is None
    assert found.note == "takes values of Secret/v, which cannot be read here: not looked at"
    ((_, problem),) = made("valuesKey: other").failures
    assert "Secret/v, which has no key other" in problem
    assert values(made("valuesKey: other, optional: true")) == {"own": 1}


def test_a_secret_that_stays_encrypted(tmp_path: Path) -> None:
    """The step does not build, and says nothing of what was in it: Flux applies nothing of it."""
    secret = SECRET % f"data: {{k: {ENCRYPTED}}}"
    ((_, problem),) = tree(tmp_path, step("apps"), {"apps/a.yaml": secret}).failures
    assert "Secret/v is encrypted by SOPS" in problem


WRONG_SECRET = (
    "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData:\n  pin: a: b: HIDDEN\n"
)
NO_PASSWORD = '{"properties": {"password": {"type": "string", "pattern": "^z"}}}'
#: Where what is wrong has a secret in it: files, what a release says, and what is told.
WRONG: list[tuple[dict[str, str | None], str, str]] = [
    ({"charts/x/templates/s.yaml": WRONG_SECRET}, "", "mapping values are not allowed"),
    (
        {"charts/x/templates/s.yaml": WRONG_SECRET.replace("Secret", "X").replace("pin", "token")},
        "",
        "mapping values are not allowed",
    ),
    (
        {"charts/x/values.schema.json": NO_PASSWORD},
        "  values: {password: HIDDEN}\n",
        "does not match pattern",
    ),
]


@pytest.mark.parametrize(("files", "more", "told"), WRONG)
def test_what_is_wrong_is_told_without_secrets(
    tmp_path: Path, files: dict[str, str | None], more: str, told: str
) -> None:
    ((_, problem),) = tree(tmp_path, release(more=more), files).failures
    assert told in problem
    assert "HIDDEN" not in problem


def test_a_number_in_a_secret_is_refused_and_not_shown(tmp_path: Path) -> None:
    secret = SECRET.partition("sops")[0] % "stringData: {pin: 271828}"
    made = tree(tmp_path, step("apps"), {"apps/a.yaml": secret})
    text = step("apps", "  postBuild: {substitute: {PASSWORD: 271828}}\n")
    ((_, refused),) = tree(tmp_path / "other", text, {"apps/a.yaml": CONFIG_MAP % "a"}).failures
    found = [text for _, text in problems(Subject(made), ["kinds-served"])]
    for told in (*found, refused):
        assert "its value is not of type" in told
        assert "271828" not in told
    assert found


def test_variables_that_cannot_be_read(tmp_path: Path) -> None:
    post = "  postBuild: {substituteFrom: [{kind: Secret, name: v}]}\n"
    files: dict[str, str | None] = {
        "vars/a.yaml": UNREADABLE[1],
        "apps/a.yaml": CONFIG_MAP % "a" + "data: {host: 'x.${k}'}\n",
    }
    steps = step("vars", "  decryption: {provider: sops}\n") + step(
        "apps", f"  dependsOn: [{{name: vars}}]\n{post}"
    )
    found = tree(tmp_path, steps, files).find("ConfigMap", "flux-system", "a")
    assert found
    assert found["data"]["host"] == "x.secret-k"


# --- The chart ------------------------------------------------------------------------------------

DEPENDENT = """\
apiVersion: v2
name: x
version: 0.1.0
dependencies: [{name: part, version: 0.1.0, repository: '%s'}]
"""
PART: dict[str, str | None] = {
    "charts/part/Chart.yaml": "apiVersion: v2\nname: part\nversion: 0.1.0\n",
    "charts/part/templates/a.yaml": CONFIG_MAP % "of-part",
}


def test_a_chart_beside_that_it_depends_on(tmp_path: Path) -> None:
    """Flux puts it into the package; nobody runs `helm dependency build` and commits it."""
    files = {"charts/x/Chart.yaml": DEPENDENT % "file://../part", **PART}
    made = tree(tmp_path, release(), files)
    assert [one.name for one in only(made).rendered] == ["of-part", "made"]
    gone = {**files, "charts/part/Chart.yaml": None}
    ((_, problem),) = tree(tmp_path, release(), gone).failures
    assert "missing in charts/ directory: part" in problem


@pytest.mark.parametrize(
    "repository", ["https://charts.example.test", "oci://example.test/a", "@a"]
)
def test_a_chart_from_elsewhere_that_it_depends_on(tmp_path: Path, repository: str) -> None:
    """Flux fetches it: that is no fault, but what it makes is not known here."""
    files: dict[str, str | None] = {"charts/x/Chart.yaml": DEPENDENT % repository}
    found = only(tree(tmp_path, release(), files))
    assert found.note == f"takes the chart part from {repository}: not looked at"
    assert found.rendered is None
    files["charts/x/charts/part/Chart.yaml"] = PART["charts/part/Chart.yaml"]
    assert only(tree(tmp_path, release(), files)).rendered


#: The version that is asked for of the chart beside, by the chart or by its lock; what is told.
VERSIONS = [
    ("0.1.0", None, None),
    ("0.x.x", None, None),
    ("^1.0.0", None, "the chart part beside it has version 0.1.0, and ^1.0.0 is asked for"),
    ("0.x.x", "0.0.9", "has version 0.1.0, and 0.0.9 is asked for"),
]


@pytest.mark.parametrize(("wanted", "locked", "told"), VERSIONS)
def test_the_version_of_a_chart_beside(
    tmp_path: Path, wanted: str, locked: str | None, told: str | None
) -> None:
    text = DEPENDENT.replace("0.1.0, repository", f"'{wanted}', repository") % "file://../part"
    files: dict[str, str | None] = {"charts/x/Chart.yaml": text, **PART}
    if locked:
        dependency = f"{{name: part, version: {locked}, repository: 'file://../part'}}"
        files["charts/x/Chart.lock"] = f"dependencies: [{dependency}]\n"
    found = tree(tmp_path, release(), files).failures
    assert len(found) == bool(told)
    assert told is None or told in found[0][1]


def test_the_dependencies_of_an_older_chart(tmp_path: Path) -> None:
    """They stand in a file of their own."""
    about, _, dependencies = DEPENDENT.partition("dependencies")
    files = {
        "charts/x/Chart.yaml": about.replace("v2", "v1"),
        "charts/x/requirements.yaml": f"dependencies{dependencies % 'file://../part'}",
        **PART,
    }
    made = only(tree(tmp_path, release(), files)).rendered
    assert [one.name for one in made] == ["of-part", "made"]


READS_A_FILE = CONFIG_MAP % "file" + 'data: {text: {{ .Files.Get "files/a.png" | quote }}}\n'
#: A file, what is left out by .sourceignore and by .helmignore of the chart beside, what is told.
LEFT_OUT = [
    ("charts/x/templates/sub/a.yaml", "/charts/x/templates/sub/", "", "templates/sub/a.yaml"),
    (
        "charts/x/charts/b/templates/a.yaml",
        "/charts/x/charts/b/templates",
        "",
        "b/templates/a.yaml",
    ),
    ("charts/part/templates/b.yaml", "/charts/part/templates/b.yaml", "", None),
    ("charts/part/templates/b.yaml", "", "templates/b.yaml", None),
    ("charts/part/templates/b.yaml", "/charts/part/", "", "missing in charts/ directory: part"),
]


@pytest.mark.parametrize(("file", "ignored", "by_helm", "told"), LEFT_OUT)
def test_a_part_of_a_chart_is_left_out(
    tmp_path: Path, file: str, ignored: str, by_helm: str, told: str | None
) -> None:
    files: dict[str, str | None] = {"charts/x/Chart.yaml": DEPENDENT % "file://../part", **PART}
    files |= {file: CONFIG_MAP % "more", ".sourceignore": ignored}
    files["charts/part/.helmignore"] = by_helm
    made = tree(tmp_path, release(), files)
    if told:
        ((_, problem),) = made.failures
        assert told in problem
    else:
        assert [one.name for one in only(made).rendered] == ["of-part", "made"]


def test_a_file_that_a_template_reads_and_flux_does_not_fetch(tmp_path: Path) -> None:
    """By default pictures are left out: the template reads nothing."""
    files: dict[str, str | None] = {"charts/x/files/a.png": "picture"}
    files["charts/x/templates/file.yaml"] = READS_A_FILE
    for ignore, text in ((None, ""), ("/docs", "picture")):
        files[".sourceignore"] = ignore
        found = only(tree(tmp_path, release(), files)).rendered
        assert found.get("ConfigMap", "file")["data"]["text"] == text


@pytest.mark.parametrize("actions", [(), ("install",), ("upgrade",), ("install", "upgrade")])
def test_values_that_the_schema_refuses(tmp_path: Path, actions: tuple[str, ...]) -> None:
    """They are taken where neither an install nor an upgrade asks the schema."""
    more = "  values: {bad: 1}\n"
    more += "".join(f"  {action}: {{disableSchemaValidation: true}}\n" for action in actions)
    schema = '{"properties": {"bad": false}}'
    found = tree(tmp_path, release(more=more), {"charts/x/values.schema.json": schema})
    assert len(found.failures) == (len(actions) < 2)
    assert len(actions) < 2 or values(found) == {"own": 1, "bad": 1}


def test_a_dependency_of_an_odd_name(tmp_path: Path) -> None:
    """Helm's message, and no file is written outside for it."""
    odd = (DEPENDENT % "file:///").replace("name: part", "name: ../../../part")
    ((_, problem),) = tree(tmp_path, release(), {"charts/x/Chart.yaml": odd, **PART}).failures
    assert "missing in charts/ directory" in problem


PATCHES = [
    "- {op: remove, path: /metadata/annotations}",
    "- {op: add, path: /metadata/annotations, value: {z: w}}",
    "{kind: ConfigMap, metadata: {name: made, annotations: {$patch: replace, z: w}}}",
]


@pytest.mark.parametrize("patch", PATCHES)
def test_a_post_renderer_may_take_the_annotations(tmp_path: Path, patch: str) -> None:
    more = f"""\
  postRenderers:
    - kustomize:
        patches:
          - target: {{kind: ConfigMap}}
            patch: |
              {patch}
"""
    chart = CONFIG_MAP.replace("{name", "{annotations: {q: r}, name") % "made"
    found = only(tree(tmp_path, release(more=more), {"charts/x/templates/made.yaml": chart}))
    (made,) = found.rendered
    assert made.annotations == ({} if "remove" in patch else {"z": "w"})
    assert made.source == "x/templates/made.yaml"


NAMED = CONFIG_MAP.removeprefix("---\n")
LIST = "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Secret, metadata: {name: %s}}]\n"
HOOK = CONFIG_MAP.replace("{name", "{annotations: {helm.sh/hook: pre-install}, name") % "hook"
#: What a chart renders beside its object `made`, and what Flux says of it.
RENDERED = [
    (LIST % "a" + "---\n" + LIST % "b", None),
    ("apiVersion: example.test/v1\nkind: AllowList\nmetadata: {name: a}\nspec: {b: c}\n", None),
    (LIST % "a" + "---\n" + LIST % "a", "renders Secret/a 2 times"),
    (NAMED % "made", "renders ConfigMap/made 2 times"),
    (NAMED % "other" + "---\n" + NAMED.replace("namespace: flux-system", "a: b") % "other", None),
    (HOOK + HOOK.replace("pre-install", "pre-upgrade"), "renders ConfigMap/hook 2 times"),
    ("apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: a}\n", "without metadata.name"),
    ("apiVersion: v1\nkind: List\nitems: [a]\n", "List: holds what is no object"),
]


@pytest.mark.parametrize(("text", "told"), RENDERED)
def test_objects_are_told_apart(tmp_path: Path, text: str, told: str | None) -> None:
    """Without any post-renderer of the release's own: helm-controller always has one."""
    made = tree(tmp_path, release(), {"charts/x/templates/more.yaml": text})
    if told is None:
        assert "List" not in {one.kind for one in only(made).rendered}
    else:
        ((_, problem),) = made.failures
        assert told in problem


@pytest.mark.parametrize(
    ("strategy", "changed"),
    [(None, True), ("combined", True), ("separate", True), ("nohooks", False)],
)
def test_hooks_go_through_a_post_renderer(
    tmp_path: Path, strategy: str | None, changed: bool
) -> None:
    """If `postRenderStrategy` lets them; beside what a patch leaves alone, they keep their name."""
    more = f"  postRenderStrategy: {strategy}\n" if strategy else ""
    more += "  commonMetadata: {labels: {a: b}}\n"
    hook = {"charts/x/templates/hook.yaml": HOOK.replace("name: hook", "name: made")}
    apart = strategy in {"separate", "nohooks"}
    if not apart:
        hook = {"charts/x/templates/hook.yaml": HOOK}
    found = only(tree(tmp_path, release(more=more), {**hook})).rendered
    assert [(one.is_hook, bool(one.labels)) for one in found] == [(False, True), (True, changed)]


#: What the releases x and y depend on, and what is told of it.
DEPENDENCIES = [
    ("{name: y}", "{name: x}", "depend on each other in a circle"),
    ("{name: x}", "", "depend on each other in a circle"),
    ("{name: z}", "", "x: depends on flux-system/z, and there is no such HelmRelease"),
    ("{name: y, namespace: n}", "", "x: depends on n/y, and there is no such HelmRelease"),
    ("{name: y}", "", None),
]


@pytest.mark.parametrize(("of_x", "of_y", "told"), DEPENDENCIES)
def test_releases_that_wait_for_ever(
    tmp_path: Path, of_x: str, of_y: str, told: str | None
) -> None:
    named = {"x": of_x, "y": of_y}
    text = "".join(release(name, f"  dependsOn: [{on}]\n") for name, on in named.items())
    found = [text for _, text in problems(Subject(tree(tmp_path, text)), ["dependencies-resolve"])]
    assert len(found) == bool(told)
    assert told is None or told in found[0]
    # It may be in what is not here.
    far = step("far").replace("name: flux-system}", "name: elsewhere}")
    unsure = [*problems(Subject(tree(tmp_path, text + far)), ["dependencies-resolve"])]
    assert len(unsure) == bool(told and "circle" in told)


#: Two releases of other objects: what else they say, and whether Helm takes them for one.
ONE_RELEASE = [
    ("releaseName: same", "releaseName: same", True),
    ("releaseName: n-y", "targetNamespace: n", True),
    ("releaseName: same", "releaseName: other", False),
    ("releaseName: same", "releaseName: same\n  storageNamespace: n", False),
]


@pytest.mark.parametrize(("of_x", "of_y", "told"), ONE_RELEASE)
def test_two_releases_that_are_one(tmp_path: Path, of_x: str, of_y: str, told: bool) -> None:
    chart = {"charts/x/templates/made.yaml": CONFIG_MAP.replace("%s", "'{{ .Values.n }}'")}
    both = {"x": of_x, "y": of_y}
    text = "".join(release(n, f"  {of}\n  values: {{n: of-{n}}}\n") for n, of in both.items())
    made = tree(tmp_path, text, {**chart})
    found = [text for _, text in problems(Subject(made), ["objects-have-one-owner"])]
    assert len(found) == told
    assert not told or "HelmRelease/x in flux-system and of HelmRelease/y" in found[0]


def test_a_release_that_every_commit_upgrades_is_told(tmp_path: Path) -> None:
    made = tree(tmp_path, release(chart="      reconcileStrategy: Revision\n"))
    (note,) = made.notes
    assert "HelmRelease flux-system/x: is upgraded at every commit" in note


# --- The source -----------------------------------------------------------------------------------

OTHER = """\
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: other, namespace: flux-system}
spec: {interval: 1m, url: 'https://github.com/a/b', ref: {branch: main}, %s}
"""
#: What such a source of the same repository says, and whether its files are those here.
SOURCES = [
    ("ignore: /apps/b.yaml", True),
    ("recurseSubmodules: true", True),
    ("sparseCheckout: [apps]", False),
    ("include: [{repository: {name: third}, toPath: apps/third}]", False),
]


@pytest.mark.parametrize(("field", "here"), SOURCES)
def test_another_source_of_the_same_repository(tmp_path: Path, field: str, here: bool) -> None:
    text = OTHER % field + step("apps").replace("name: flux-system}", "name: other}")
    assert text.count("name: other}") == 1
    files: dict[str, str | None] = {f"apps/{one}.yaml": CONFIG_MAP % one for one in "ab"}
    found = next(one for one in tree(tmp_path, text, files).steps if one.name == "apps")
    assert found.elsewhere is not here
    names = [one.name for one in found.objects]
    assert names == ((["a"] if "ignore" in field else ["a", "b"]) if here else [])


#: What the source that Flux starts from checks out, and what of the tree is not there.
SPARSE = [
    ("[flux, ./apps, charts]", []),
    ("[flux, charts]", ["apps/a.yaml"]),
    (
        "[flux, apps]",
        ["charts/x/Chart.yaml", "charts/x/templates/made.yaml", "charts/x/values.yaml"],
    ),
]


@pytest.mark.parametrize(("folders", "missing"), SPARSE)
def test_what_is_not_checked_out(tmp_path: Path, folders: str, missing: list[str]) -> None:
    source = OTHER.replace("other", "flux-system") % f"sparseCheckout: {folders}"
    files: dict[str, str | None] = {f"{CLUSTER}/source.yaml": source, "apps/a.yaml": NAMED % "a"}
    told = [text for _, text in tree(tmp_path, step("apps") + release(), files).failures]
    assert len(told) == len(missing)
    assert all(name in text for name, text in zip(missing, told, strict=True))


@pytest.mark.parametrize("kind", ["ResourceSet", "FluxInstance"])
def test_objects_that_become_others_in_the_cluster(tmp_path: Path, kind: str) -> None:
    text = f"apiVersion: fluxcd.controlplane.io/v1\nkind: {kind}\n"
    text += "metadata: {name: r, namespace: n}\n"
    made = tree(tmp_path, text, {f"{CLUSTER}/b.yaml": CONFIG_MAP % "b"})
    assert made.notes == (f"{kind}/r in n makes objects of its own: not looked at",)


#: Kinds that stand alone in the cluster, and whether it is known that another needs a namespace.
SCOPES = [
    ("gateway.networking.k8s.io/v1", "GatewayClass", False),
    ("storage.k8s.io/v1", "CSIDriver", False),
    ("flowcontrol.apiserver.k8s.io/v1", "FlowSchema", False),
    ("snapshot.storage.k8s.io/v1", "VolumeSnapshotClass", False),
    ("cert-manager.io/v1", "ClusterIssuer", False),
    ("networking.k8s.io/v1", "NetworkPolicy", True),
    ("v1", "ConfigMap", True),
]


@pytest.mark.parametrize(("version", "kind", "told"), SCOPES)
def test_what_needs_no_namespace(tmp_path: Path, version: str, kind: str, told: bool) -> None:
    text = f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n"
    found = [*problems(Subject(tree(tmp_path, text)), ["namespaces-first"])]
    assert bool(found) is told
