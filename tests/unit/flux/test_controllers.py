"""Kustomizations and HelmReleases become what Flux' controllers would make of them."""

from __future__ import annotations

import hashlib
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.copies import edit, written

from stackproof.beside import beside
from stackproof.errors import StackproofError
from stackproof.flux import controllers, objects
from stackproof.flux.releases import release_name
from stackproof.flux.tree import Tree, build
from stackproof.helm.manifests import Manifest
from stackproof.repo.checkout import Checkout

CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\n"


def built(root: Path, path: str = "./apps", **spec: Any) -> controllers.Built:
    return controllers.build(root, {"spec": {"path": path, **spec}})


def names(root: Path, path: str = "./apps") -> list[str]:
    return [m.name for m in built(root, path).objects]


# --- Post-build substitution ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("${A}", "one"),
        ("x-${A}-${B}", "x-one-two"),
        ("${NONE:=default}", "default"),
        ("${NONE:-default}", "default"),
        ("${E:=default}", "default"),
        ("${A:=default}", "one"),
        ("$${A}", "${A}"),
        ("a$$b", "a$b"),
        ("$A", "$A"),
        ("'{{ $x }}'", "{{ $x }}"),
        ("${NUMBER}", 5),
        ('"${NUMBER}"', 5),  # kustomize writes it without the quotes
        ("${A^^}", "ONE"),
        ("${A/o/0}", "0ne"),
        ("${#A}", 3),
        ("${A:0:2}", True),  # "on", which to YAML 1.1 is no text
        ("${B:0:2}", "tw"),
        ("${LINES}", "firstsecond"),
    ],
)
def test_substitution(tmp_path: Path, text: str, becomes: Any) -> None:
    written(tmp_path, {"apps/a.yaml": CONFIG_MAP % "a" + f"spec:\n  v: {text}\n"})
    given = {"A": "one", "B": "two", "E": "", "NUMBER": "5", "LINES": "first\nsecond\n"}
    found = built(tmp_path, postBuild={"substitute": given})
    assert found.objects[0]["spec"]["v"] == becomes
    assert not found.undefined


@pytest.mark.parametrize(
    ("text", "undefined"),
    [("a${NONE}b", ("NONE",)), ("${X}${NONE}${X}", ("NONE", "X")), ("${NONE:-x}", ())],
)
def test_substitution_of_what_nobody_defines(
    tmp_path: Path, text: str, undefined: tuple[str, ...]
) -> None:
    written(tmp_path, {"apps/a.yaml": CONFIG_MAP % "a" + f"spec: 'a {text}'\n"})
    assert built(tmp_path, postBuild={"substitute": {"A": "1"}}).undefined == undefined


@pytest.mark.parametrize("where", ["labels", "annotations"])
def test_substitution_can_be_switched_off(tmp_path: Path, where: str) -> None:
    data = yaml.safe_load(CONFIG_MAP % "a") | {"spec": "${A}"}
    data["metadata"][where] = {"kustomize.toolkit.fluxcd.io/substitute": "disabled"}
    written(tmp_path, {"apps/a.yaml": yaml.safe_dump(data)})
    (made,) = built(tmp_path, postBuild={"substitute": {"A": "one"}}).objects
    assert made["spec"] == "${A}"


def test_nothing_is_substituted_where_nothing_is_given(tmp_path: Path) -> None:
    """As in Flux: a default alone starts no substitution."""
    written(tmp_path, {"apps/a.yaml": CONFIG_MAP % "a" + "spec: '${A:=one}'\n"})
    (plain,) = built(tmp_path).objects
    (empty,) = built(tmp_path, postBuild={}).objects
    assert plain["spec"] == empty["spec"] == "${A:=one}"
    (made,) = built(tmp_path, postBuild={"substituteStrategy": "Always"}).objects
    assert made["spec"] == "one"


@pytest.mark.parametrize(
    ("substitute", "message"),
    [({"YEAR": 2026}, "YEAR|expected string"), ({"a-b": "x"}, "'a-b' var name is invalid")],
)
def test_variables_that_flux_refuses(
    tmp_path: Path, substitute: dict[str, Any], message: str
) -> None:
    written(tmp_path, {"apps/a.yaml": CONFIG_MAP % "a" + "spec: '${A}'\n"})
    with pytest.raises(StackproofError, match=message):
        built(tmp_path, postBuild={"substitute": substitute})


# --- Kustomizations -------------------------------------------------------------------------------


def test_folder_without_a_kustomization(tmp_path: Path) -> None:
    """As Flux does: every manifest, and a folder below only through its own kustomization."""
    written(
        tmp_path,
        {
            "apps/a.yaml": CONFIG_MAP % "a",
            "apps/notes.txt": "no manifest",
            "apps/.sops.yaml": "creation_rules: []\n",
            "apps/plain/b.yml": CONFIG_MAP % "b",
            "apps/own/kustomization.yaml": "resources: [c.yaml]\n",
            "apps/own/c.yaml": CONFIG_MAP % "c",
            "apps/own/unused.yaml": CONFIG_MAP % "unused",
        },
    )
    found = built(tmp_path)
    assert sorted(one.name for one in found.objects) == ["a", "b", "c"]
    assert found.read == {
        "apps/a.yaml",
        "apps/plain/b.yml",
        "apps/own/kustomization.yaml",
        "apps/own/c.yaml",
    }
    assert not list((tmp_path / "apps").glob("kustomization*")), "the folder itself is left alone"


PATCH = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: '1'}\n"
COMPONENT = "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nnamePrefix: part-\n"
JSON_PATCH = "- {op: add, path: /data, value: {x: '1'}}\n"
INLINE = (
    """\
apiVersion: builtin
kind: PatchTransformer
metadata: {name: fix}
target: {kind: ConfigMap}
patch: |
  - {op: add, path: /data, value: {x: '1'}}
"""
    + "# a long text that is no name of a file\n" * 10
)


@pytest.mark.parametrize(
    ("field", "file", "text"),
    [
        ("patches: [{path: p.yaml}]", "p.yaml", PATCH),
        ("patchesStrategicMerge: [p.yaml]", "p.yaml", PATCH),
        (
            "patchesJson6902: [{path: p.yaml, target: {version: v1, kind: ConfigMap, name: a}}]",
            "p.yaml",
            JSON_PATCH,
        ),
        ("components: [../part]", "../part/kustomization.yaml", COMPONENT),
        ("transformers: [p.yaml]", "p.yaml", INLINE),
        ("configMapGenerator: [{name: b, files: [key=p.txt]}]", "p.txt", "x"),
        ("configMapGenerator: [{name: b, envs: [p.env]}]", "p.env", "x=1"),
        ("configMapGenerator: [{name: b, env: p.env}]", "p.env", "x=1"),
        ("bases: [../base]", "../base/kustomization.yaml", "resources: [b.yaml]"),
        (
            "replacements: [{path: p.yaml}]",
            "p.yaml",
            "source: {kind: ConfigMap, name: a, fieldPath: metadata.name}\n"
            "targets: [{select: {kind: ConfigMap}, fieldPaths: [metadata.name]}]\n",
        ),
        ("openapi: {path: p.json}", "p.json", '{"definitions": {}}'),
        ("crds: [p.json]", "p.json", "{}"),
        (
            "generators: [p.yaml]",
            "p.yaml",
            "apiVersion: builtin\nkind: ConfigMapGenerator\nmetadata: {name: g}\nliterals: [a=b]\n",
        ),
    ],
)
def test_every_file_that_is_read_is_known(tmp_path: Path, field: str, file: str, text: str) -> None:
    written(
        tmp_path,
        {
            "apps/kustomization.yaml": f"resources: [a.yaml]\n{field}\n",
            "apps/a.yaml": CONFIG_MAP % "a",
            "base/b.yaml": CONFIG_MAP % "b",
            f"apps/{file}": text,
        },
    )
    path = (tmp_path / "apps" / file).resolve().relative_to(tmp_path.resolve())
    assert str(path) in built(tmp_path).read


def test_text_within_a_kustomization(tmp_path: Path) -> None:
    """An inline transformer of many characters is no name of a file."""
    text = yaml.safe_dump({"resources": ["a.yaml"], "transformers": [INLINE]})
    written(tmp_path, {"apps/kustomization.yaml": text, "apps/a.yaml": CONFIG_MAP % "a"})
    (made,) = built(tmp_path).objects
    assert made["data"] == {"x": "1"}


@pytest.mark.parametrize("name", ["a+b", "a b", "(copy)", "ü", "a@b", "a,b"])
def test_folders_of_any_name(tmp_path: Path, name: str) -> None:
    for path in (f"{name}/apps", f"{name}/{name}"):
        written(tmp_path, {f"{path}/a.yaml": CONFIG_MAP % "a"})
        assert names(tmp_path / name, path.removeprefix(f"{name}/")) == ["a"]


def test_files_beside_the_folder(tmp_path: Path) -> None:
    """kustomize-controller has no load restrictor, but the repository ends what can be read."""
    written(
        tmp_path,
        {
            "repository/apps/kustomization.yaml": "resources: [../x.yaml]\n",
            "repository/x.yaml": CONFIG_MAP % "x",
            "repository/out/kustomization.yaml": "resources: [../../secret.yaml]\n",
            "secret.yaml": CONFIG_MAP % "secret",
        },
    )
    root = tmp_path / "repository"
    assert names(root) == ["x"]
    with pytest.raises(StackproofError, match="secret"):
        names(root, "out")
    assert names(root, "/../../apps") == ["x"], "as securejoin: a path stays in the repository"


@pytest.mark.parametrize(
    ("spec", "becomes"),
    [
        ({"namePrefix": "x-"}, ("x-a", None)),
        ({"nameSuffix": "-x"}, ("a-x", None)),
        ({"targetNamespace": "there"}, ("a", "there")),
        ({"components": ["../part"]}, ("part-a", None)),
        ({"components": ["../no"], "ignoreMissingComponents": True}, ("a", None)),
    ],
)
def test_what_a_kustomization_changes(
    tmp_path: Path, spec: dict[str, Any], becomes: tuple[str, str | None]
) -> None:
    files = {"apps/a.yaml": CONFIG_MAP % "a", "part/kustomization.yaml": COMPONENT}
    (made,) = built(written(tmp_path, files), **spec).objects
    assert (made.name, made.namespace or None) == becomes


def test_images_patches_and_metadata_of_a_kustomization(tmp_path: Path) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "labels": {"a": "1"}},
        "spec": {"containers": [{"name": "c", "image": "caddy:2"}]},
    }
    written(tmp_path, {"apps/a.yaml": yaml.safe_dump(pod)})
    patch = "- {op: add, path: /spec/nodeName, value: one}"
    (made,) = built(
        tmp_path,
        images=[{"name": "caddy", "newTag": "3"}],
        patches=[{"patch": patch, "target": {"kind": "Pod"}}],
        commonMetadata={"labels": {"b": "2"}, "annotations": {"c": "3"}},
    ).objects
    assert made["spec"]["containers"][0]["image"] == "caddy:3"
    assert made["spec"]["nodeName"] == "one"
    assert made.labels == {"a": "1", "b": "2"}
    assert made.annotations == {"c": "3"}


@pytest.mark.parametrize(
    ("files", "spec", "message"),
    [
        ({"apps/kustomization.yaml": "resources: [missing.yaml]\n"}, {}, r"missing\.yaml"),
        ({"apps/a.yaml": CONFIG_MAP % "a"}, {"path": "./nowhere"}, "there is no such folder"),
        ({"apps/a.yaml": CONFIG_MAP % "a"}, {"components": ["../nothere"]}, "nothere"),
        (
            {"apps/kustomization.yaml": "resources: ['https://example.test/x.yaml']\n"},
            {},
            "is fetched at every build",
        ),
        (
            {"apps/kustomization.yaml": "resources: ['https://github.com/a/b//c?ref=main']\n"},
            {},
            "is fetched at every build",
        ),
        ({"apps/a.yaml": "- a\n- b\n"}, {}, r"a\.yaml"),
        ({"apps/a.yaml": "metadata: null\nkind: X\n"}, {}, r"a\.yaml"),
        ({"apps/a.yaml": "\tx: 1\n"}, {}, r"a\.yaml"),
        (
            {"apps/a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: 7\n"},
            {},
            r"a\.yaml|metadata",
        ),
    ],
)
def test_what_does_not_build(
    tmp_path: Path, files: dict[str, str], spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(StackproofError, match=message):
        built(written(tmp_path, files), **spec)


# --- What Flux does not fetch ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ignore", "there"),
    [
        ("", ["a", "b"]),
        ("/apps/b.yaml\n", ["a"]),
        ("b.yaml\n", ["a"]),
        ("/apps/*\n!/apps/b.yaml\n", ["b"]),
        ("# /apps/b.yaml\n", ["a", "b"]),
    ],
)
def test_a_scanned_folder_has_what_is_not_ignored(
    tmp_path: Path, ignore: str, there: list[str]
) -> None:
    files = {"apps/a.yaml": CONFIG_MAP % "a", "apps/b.yaml": CONFIG_MAP % "b"}
    assert names(written(tmp_path, {**files, ".sourceignore": ignore})) == there
    assert controllers.ignored(tmp_path, list(files)) == tuple(
        f"apps/{name}.yaml" for name in "ab" if name not in there
    )


def test_a_named_file_that_is_ignored_is_missing(tmp_path: Path) -> None:
    files = {
        "apps/kustomization.yaml": "resources: [a.yaml]\n",
        "apps/a.yaml": CONFIG_MAP % "a",
        ".sourceignore": "/apps/a.yaml\n",
    }
    with pytest.raises(StackproofError, match=r"a\.yaml \(Flux does not fetch it"):
        names(written(tmp_path, files))
    (tmp_path / ".sourceignore").unlink()
    with pytest.raises(StackproofError, match="Flux does not fetch it"):
        controllers.build(tmp_path, {"spec": {"path": "apps"}}, ignore="a.yaml")


@pytest.mark.parametrize(
    ("file", "ignore", "hidden"),
    [
        ("logo.png", None, True),
        (".github/logo.yaml", None, True),
        ("logo.png", "/docs", False),
        (".github/logo.yaml", "/docs", False),
        ("logo.png", "# nothing", True),
        (".gitattributes", "/docs", True),
        (".gitattributes", "/docs\n!.gitattributes", False),
    ],
)
def test_whoever_says_what_to_leave_out_says_all_of_it(
    tmp_path: Path, file: str, ignore: str | None, hidden: bool
) -> None:
    """By default Flux leaves out pictures, archives and files of CI systems."""
    there = (file,) if hidden else ()
    written(tmp_path, {file: "x"})
    assert controllers.ignored(tmp_path, [file], ignore=ignore) == there
    written(tmp_path, {".sourceignore": ignore or ""})
    assert controllers.ignored(tmp_path, [file]) == there


def test_folders_that_come_and_go_are_no_part_of_it(tmp_path: Path) -> None:
    """Another program's, such as a cache: they are listed, and gone when they are looked into."""
    written(tmp_path, {"apps/a.yaml": CONFIG_MAP % "a"})
    ended = threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            for number in range(100):
                (tmp_path / "cache" / str(number)).mkdir(parents=True)
            shutil.rmtree(tmp_path / "cache")

    with beside([come_and_go], end=ended.set):
        for _ in range(200):
            assert controllers.ignored(tmp_path, ["apps/a.yaml"]) == ()


@pytest.mark.parametrize(
    ("link", "target"),
    [("apps/b.yaml", "real.yaml"), ("apps/b.yaml", "../other/c.yaml"), ("apps/b", "../other")],
)
def test_links_are_not_fetched(tmp_path: Path, link: str, target: str) -> None:
    files = {
        "apps/a.yaml": CONFIG_MAP % "a",
        "other/c.yaml": CONFIG_MAP % "c",
        "other/kustomization.yaml": "resources: [c.yaml]\n",
    }
    (written(tmp_path, files) / link).symlink_to(target)
    assert names(tmp_path) == ["a"]
    assert controllers.ignored(tmp_path, [link]) == (link,)


@pytest.mark.parametrize("resource", ["linked.yaml", "../linked", "../linked/c.yaml"])
def test_a_link_that_is_named_is_missing(tmp_path: Path, resource: str) -> None:
    files = {
        "apps/kustomization.yaml": f"resources: [{resource}]\n",
        "other/c.yaml": CONFIG_MAP % "c",
        "other/kustomization.yaml": "resources: [c.yaml]\n",
    }
    written(tmp_path, files)
    (tmp_path / "apps/linked.yaml").symlink_to("../other/c.yaml")
    (tmp_path / "linked").symlink_to("other")
    with pytest.raises(StackproofError, match="Flux does not fetch it"):
        names(tmp_path)


def test_a_kustomization_is_no_link(tmp_path: Path) -> None:
    """Nor its folder: Flux would take all that is in there, or nothing."""
    files = {"other/a.yaml": CONFIG_MAP % "a", "other/kustomization.yaml": "resources: [a.yaml]\n"}
    (written(tmp_path, files) / "apps").symlink_to("other")
    with pytest.raises(StackproofError, match="there is no such folder"):
        names(tmp_path)
    (tmp_path / "other/kustomization.yaml").rename(tmp_path / "kustomization.yaml")
    (tmp_path / "other/kustomization.yaml").symlink_to("../kustomization.yaml")
    with pytest.raises(StackproofError, match=r"kustomization\.yaml \(Flux does not fetch it"):
        names(tmp_path, "other")


def test_packages_are_those_of_the_controllers(checkout: Checkout) -> None:
    def versions(name: str) -> dict[str, str]:
        text = (checkout.tools / name / "go.mod").read_text(encoding="utf-8")
        return dict(re.findall(r"(github\.com/fluxcd/pkg/\S+|sigs\S+/kustomize/\S+) (v\S+)", text))

    ours, theirs = versions("flux"), versions("kustomize-controller")
    assert "github.com/fluxcd/pkg/envsubst" in ours
    assert {name: theirs.get(name) for name in ours} == ours


# --- HelmReleases ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ({}, "lgtm"),
        ({"releaseName": "own"}, "own"),
        ({"targetNamespace": "observability"}, "observability-lgtm"),
        ({"targetNamespace": "observability", "releaseName": "own"}, "own"),
        ({"releaseName": "x" * 54}, "x" * 40 + "-" + hashlib.sha256(b"x" * 54).hexdigest()[:12]),
    ],
)
def test_release_name(spec: dict[str, str], name: str) -> None:
    made = Manifest.of({"kind": "HelmRelease", "metadata": {"name": "lgtm"}, "spec": spec}, "test")
    assert release_name(made) == name


SOME = {"values": {"l": [{"a": 1}, {"a": 2}], "a": {"z": 1}}}
OWN = {"a": {"b": "own", "c": 1}, "top": "own"}
#: What is taken from elsewhere, a HelmRelease's own values, and what fluxcd/pkg/chartutil v1.27.2
#: makes of both (ChartValuesFromReferences, asked with the same).
VALUES: list[tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]] = [
    ([{"path": "a.b", "text": "1"}], {}, {"a": {"b": 1}}),
    ([{"path": "a.b", "text": "'1'"}], {}, {"a": {"b": "1"}}),
    ([{"path": "a[0].b", "text": "x"}], {}, {"a": [{"b": "x"}]}),
    ([{"path": r"a.example\.com/x", "text": "x"}], {}, {"a": {"example.com/x": "x"}}),
    ([{"path": "a.b", "text": "null"}], {"a": {"b": 1}}, {"a": {"b": None}}),
    ([{"path": "a", "text": "x,b=c"}], {}, {"a": "x", "b": "c"}),
    ([{"path": "a", "text": "x,b=c", "literal": True}], {}, {"a": "x,b=c"}),
    ([{"path": "a", "text": '{"b": [1,2]}', "literal": True}], {}, {"a": '{"b": [1,2]}'}),
    ([{"path": "a", "text": "'007'", "literal": True}], {}, {"a": "'007'"}),
    ([{"path": "a", "text": "C:\\dir", "literal": True}], {}, {"a": "C:\\dir"}),
    (
        [SOME, {"path": "l[1].b", "text": "9"}],
        {},
        {**SOME["values"], "l": [{"a": 1}, {"a": 2, "b": 9}]},
    ),
    ([{"path": "l[0].b", "text": "9"}], {"l": [{"a": 1}]}, {"l": [{"a": 1, "b": 9}]}),
    # What no reference had before, one changes in the HelmRelease's own values.
    ([{"path": "a.b", "text": "x"}], OWN, {"a": {"b": "x", "c": 1}, "top": "own"}),
    ([{"path": "top", "text": "x"}], OWN, OWN),
    (
        [SOME, {"path": "a.b", "text": "x"}],
        OWN,
        {**SOME["values"], "a": {"b": "own", "c": 1, "z": 1}, "top": "own"},
    ),
]


@pytest.mark.parametrize(("references", "own", "values"), VALUES)
def test_values_from_elsewhere(
    references: list[dict[str, Any]], own: dict[str, Any], values: dict[str, Any]
) -> None:
    assert controllers.merged(references, own) == values


def test_post_renderers() -> None:
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {"template": {"spec": {"containers": [{"name": "c", "image": "caddy:2.11"}]}}},
    }
    renderers: list[dict[str, Any]] = [
        {"kustomize": {"images": [{"name": "caddy", "newTag": "latest"}]}},
        {
            "kustomize": {
                "patches": [
                    {
                        "target": {"kind": "Deployment"},
                        "patch": "- {op: add, path: /spec/replicas, value: 3}",
                    }
                ]
            }
        },
    ]
    (made,) = controllers.post_rendered([deployment], renderers)
    assert made["spec"]["replicas"] == 3
    assert made["spec"]["template"]["spec"]["containers"][0]["image"] == "caddy:latest"


# --- Trees ----------------------------------------------------------------------------------------

#: Where the steps of the cluster are written.
APPS = "flux/clusters/production/apps.yaml"


def step(
    name: str = "apps",
    namespace: str = "flux-system",
    source: str = "GitRepository/flux-system",
    more: str = "",
) -> str:
    """Return a Kustomization of the folder ./apps, with a line more in its spec."""
    kind, _, of = source.partition("/")
    return f"""\
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  interval: 10m
  prune: true
  path: ./apps
  sourceRef: {{kind: {kind}, name: {of}, namespace: flux-system}}
  {more}
"""


def tree_of(root: Path, *documents: str, **files: str) -> Tree:
    """Build the tree with these documents in the cluster's file, beside other files."""
    files = {"apps/a.yaml": CONFIG_MAP % "a", APPS: "---\n".join(documents), **files}
    return build(Checkout(written(root, files)))


def test_one_name_in_two_namespaces(tmp_path: Path) -> None:
    other = step(namespace="team", more="dependsOn: [{name: apps, namespace: flux-system}]")
    tree = tree_of(tmp_path, step(), other)
    assert [step.name for step in tree.steps] == ["flux-system", "apps", "team/apps"]
    assert tree.by_name["team/apps"].depends_on == ("apps",)
    assert not tree.failures


@pytest.mark.parametrize("kind", ["GitRepository", "OCIRepository", "Bucket", "ExternalArtifact"])
def test_a_source_that_is_not_here(tmp_path: Path, kind: str) -> None:
    tree = tree_of(tmp_path, step(source=f"{kind}/elsewhere"))
    assert not tree.failures
    assert not tree.by_name["apps"].objects
    assert tree.notes == (
        f"step apps is built from {kind}/elsewhere, which is not here: not looked at",
    )


def test_the_same_repository_under_another_name(tmp_path: Path) -> None:
    source = """\
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: %s, namespace: flux-system}
spec: {interval: 1m, url: '%s', ref: {branch: %s}}
"""
    tree = tree_of(
        tmp_path,
        source % ("flux-system", "ssh://git@github.com/a/b", "main"),
        source % ("same", "https://github.com/A/b.git", "main"),
        source % ("old", "https://github.com/a/b.git", "old"),
        step("same", source="GitRepository/same"),
        step("old", source="GitRepository/old"),
    )
    found = tree.by_name
    assert [m.name for m in found["same"].objects] == ["a"]
    assert found["old"].elsewhere


def test_a_suspended_step_is_looked_at_and_told(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, step(more="suspend: true"))
    assert tree.by_name["apps"].objects
    assert tree.notes == ("step apps is suspended: it applies nothing until it is resumed",)


@pytest.mark.parametrize(
    ("mark", "value"), [("reconcile", "disabled"), ("ssa", "Ignore"), ("ssa", "Merge")]
)
def test_objects_that_flux_leaves_alone(tmp_path: Path, mark: str, value: str) -> None:
    text = CONFIG_MAP % f"a, annotations: {{kustomize.toolkit.fluxcd.io/{mark}: {value}}}"
    found = tree_of(tmp_path, step(), **{"apps/a.yaml": text}).by_name["apps"]
    assert len(found.objects) == (value == "Merge")
    assert len(found.untouched) == (value != "Merge")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("retryInterval: 30s", None),
        ("timeout: 1h30m", None),
        ("timeout: 1.5h", None),
        ("timeout: 90", "timeout"),
        ("postBuild: {substitute: {YEAR: 2026}}", r"postBuild\.substitute\.YEAR.*2026"),
        ("patches: none", "patches"),
        ("postBuild: {substituteFrom: [{kind: Secret, name: no}]}", "no earlier step makes"),
        ("postBuild: {substituteFrom: [{kind: Secret, name: no, optional: true}]}", None),
    ],
)
def test_kustomizations_that_the_api_server_refuses(
    tmp_path: Path, spec: str, message: str | None
) -> None:
    tree = tree_of(tmp_path, step(more=spec))
    if message is None:
        assert not tree.failures
    else:
        ((_, problem),) = tree.failures
        assert re.search(message, problem)


@pytest.mark.parametrize("name", ["flux-system", "cluster"])
def test_what_bootstrap_has_written_is_no_step_of_its_own(tmp_path: Path, name: str) -> None:
    """Under any name: it builds the folder that it lies in, and applies itself."""
    own = step(name).replace("apps", "flux/clusters/production")
    apps = step(more=f"dependsOn: [{{name: {name}}}]")
    tree = tree_of(tmp_path, apps, **{"flux/clusters/production/gotk-sync.yaml": own})
    assert [step.name for step in tree.steps] == [name, "apps"]
    assert not tree.failures
    assert not tree.circle


def test_a_kustomization_that_two_steps_apply_is_one_step(tmp_path: Path) -> None:
    more = step("more").replace("./apps", "./more")
    tree = tree_of(tmp_path, step(), more, **{"more/apps.yaml": step()})
    assert [step.name for step in tree.steps] == ["flux-system", "apps", "more"]
    assert not tree.failures
    edit(tmp_path / "more/apps.yaml", "10m", "20m")
    ((who, problem),) = build(Checkout(tmp_path)).failures
    assert (who, problem) == ("step apps", "there are several Kustomizations apps")


SECRET = "metadata: {name: made, namespace: flux-system}\n"
#: What an operator makes a Secret `vars` of, and whether its keys are known.
MAKERS = [
    ("external-secrets.io/v1", "ExternalSecret", "{target: {name: vars}, data: [%s]}", True),
    ("external-secrets.io/v1beta1", "ExternalSecret", "{target: {name: vars}, data: [%s]}", True),
    ("external-secrets.io/v1", "ExternalSecret", "{target: {name: vars}, dataFrom: [{}]}", False),
    (
        "external-secrets.io/v1",
        "ClusterExternalSecret",
        "{externalSecretName: vars, externalSecretSpec: {data: [%s]}}",
        True,
    ),
    (
        "external-secrets.io/v1",
        "ClusterExternalSecret",
        "{externalSecretSpec: {target: {name: vars, template: {data: {HOST: x}}}, dataFrom: [1]}}",
        True,
    ),
    (
        "bitnami.com/v1alpha1",
        "SealedSecret",
        "{encryptedData: {HOST: x}, template: {metadata: {name: vars}}}",
        True,
    ),
]


@pytest.mark.parametrize(("version", "kind", "spec", "known"), MAKERS)
def test_variables_of_a_secret_that_an_operator_makes(
    tmp_path: Path, version: str, kind: str, spec: str, known: bool
) -> None:
    entry = "{secretKey: HOST, remoteRef: {key: k}}"
    made = f"apiVersion: {version}\nkind: {kind}\n{SECRET}spec: {spec.replace('%s', entry)}\n"
    taking = "postBuild: {substituteFrom: [{kind: Secret, name: %s}]}"
    uses = CONFIG_MAP % "a" + "data: {host: 'x${HOST}', other: 'x${OTHER}'}\n"
    tree = tree_of(tmp_path, step(more=taking % "vars"), made, **{"apps/a.yaml": uses})
    problems = [text for _, text in tree.failures if "no earlier step makes" in text]
    assert not problems
    assert tree.by_name["apps"].undefined == (("OTHER",) if known else ())
    # What makes another is no maker of this one.
    ((_, problem),) = tree_of(tmp_path, step(more=taking % "other"), made).failures
    assert "no earlier step makes" in problem


def test_another_operators_older_version_is_no_fault_of_the_step(tmp_path: Path) -> None:
    old = f"apiVersion: external-secrets.io/v1beta1\nkind: ExternalSecret\n{SECRET}spec: 7\n"
    assert not tree_of(tmp_path, step(), **{"apps/b.yaml": old}).failures
    older = "apiVersion: helm.toolkit.fluxcd.io/v2beta1\nkind: HelmRelease\n"
    (tmp_path / "apps/b.yaml").write_text(f"{older}{SECRET}spec: {{}}\n")
    ((_, problem),) = build(Checkout(tmp_path)).failures
    assert "helm.toolkit.fluxcd.io/v2beta1 HelmRelease" in problem, "which this Flux does not serve"


def test_whatever_flux_follows_has_a_schema(checkout: Checkout) -> None:
    """Else each such object would be refused: a HelmChart was."""
    there = {path.stem for path in checkout.root.glob("schemas/*/*/*.json")}
    assert {*objects._FOLLOWED} <= there


def test_a_chart_by_way_of_a_helmchart(tmp_path: Path) -> None:
    text = """\
apiVersion: source.toolkit.fluxcd.io/v1
kind: HelmChart
metadata: {name: own, namespace: flux-system}
spec:
  interval: 1h
  chart: %s
  sourceRef: {kind: GitRepository, name: flux-system}
---
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {name: own, namespace: flux-system}
spec:
  interval: 1h
  chartRef: {kind: HelmChart, name: own}
"""
    files = {
        "charts/own/Chart.yaml": "apiVersion: v2\nname: own\nversion: 0.1.0\n",
        "charts/own/templates/a.yaml": CONFIG_MAP % "made",
    }
    written(tmp_path, files)
    # As Flux finds it: a path that leaves the repository begins there again.
    for chart in ("charts/own", "./charts/own/", "/charts/own", "../../charts/own"):
        found = tree_of(tmp_path, text % chart)
        assert not found.failures, chart
        assert found.find("HelmRelease", "flux-system", "own")
        assert [one.manifest.name for one in found.applied if one.release] == ["made"]
    for chart in ("charts", "charts/none", "charts/own/Chart.yaml"):
        found = tree_of(tmp_path, text % chart)
        ((_, problem),) = found.failures
        assert f"there is no chart {chart} in the repository" in problem
