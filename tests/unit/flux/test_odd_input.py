"""Whatever stands in a file of the Flux tree: an answer with its reason, never a traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.copies import copied

from stackproof.errors import StackproofError
from stackproof.flux import controllers, diff
from stackproof.flux.checks import Subject, problems
from stackproof.flux.tree import Tree
from stackproof.helm.manifests import Manifest
from stackproof.repo.checkout import Checkout

#: Files of each kind that Flux follows, or that others of the tree are made of.
FILES = (
    "flux/base/open-webui/helmrelease.yaml",
    "flux/base/open-webui/kustomization.yaml",
    "flux/base/open-webui/rbac.yaml",
    "flux/clusters/production/cluster.yaml",
    "flux/clusters/production/tenants.yaml",
    "flux/flux-system/image-automation.yaml",
    "flux/flux-system/secrets.yaml",
    "flux/infrastructure/external-secrets.yaml",
    "flux/observability/helmrelease.yaml",
    "flux/secret-store/tenant-secrets.yaml",
)

#: Whole files that are no manifests, or odd ones.
TEXTS = [
    b"",
    b"null\n",
    b"7\n",
    b"text\n",
    b"- a\n- b\n",
    b"a: b\n",
    b"{}\n",
    b"\ta: 1\n",
    b"a: 1\na: 2\n",
    b"a: &x [*x]\n",
    b"a: &x {b: 1}\nc: *x\n<<: *x\n",
    b"\xff\xfe\x00a",
    b"a: \xe9\n",
    b"---\n---\n...\n",
    b"kind: List\napiVersion: v1\nitems: [7, null, {}]\n",
    b"kind: List\napiVersion: v1\nitems: none\n",
    b"apiVersion: v1\nkind: ConfigMap\n",
    b"apiVersion: v1\nkind: ConfigMap\nmetadata: null\n",
    b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: 7}\n",
    b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, labels: [a]}\n",
    b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: [1]}\n",
    b"apiVersion: v1\nkind: [ConfigMap]\nmetadata: {name: x}\n",
    b"!!python/object/apply:os.system [true]\n",
    b"a: " + b"[" * 200 + b"]" * 200 + b"\n",
    b"a: " + b"x" * 200_000 + b"\n",
]


@pytest.fixture(scope="module")
def plain(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A copy whose files a test may change, and puts back."""
    return copied(checkout, tmp_path_factory.mktemp("tree"))


def _looked_at(copy: Checkout, tree: Tree, file: str, content: bytes) -> list[str]:
    """Return what the check and the diff say of the tree with a file of this content."""
    path = copy.root / file
    kept = path.read_bytes()
    path.write_bytes(content)
    try:
        subject = Subject.load(copy)
        entries, data = diff.diff(tree, subject.tree), diff.lost(tree, subject.tree)
        failed = diff.failures(tree, subject.tree, "tree")
        diff.as_markdown(entries, "tree", failed, data=data)
        told = [message for _, message in problems(subject)]
        return told or [f"{entry.change} {entry.title}" for entry in entries]
    except StackproofError as error:
        return [str(error)]
    finally:
        path.write_bytes(kept)


@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_whole_files(plain: Checkout, tree: Tree, number: int) -> None:
    assert _looked_at(plain, tree, FILES[number % len(FILES)], TEXTS[number])


_SIMPLE = [None, 7, -1, 1.5, True, "", "text", "é", "9" * 300]
_NESTED = [[], [1], [None], [[]], {}, {"a": 1}, {"name": None}]
ODD: st.SearchStrategy[Any] = st.sampled_from([*_SIMPLE, *_NESTED])


@pytest.mark.parametrize("file", FILES)
@settings(max_examples=3)
@given(data=st.data())
def test_odd_values_at_any_place(
    plain: Checkout, tree: Tree, file: str, data: st.DataObject
) -> None:
    documents = list(yaml.safe_load_all((plain.root / file).read_bytes()))
    places = [(n, place) for n, one in enumerate(documents) for place in _places(one)]
    number, (*above, last) = data.draw(st.sampled_from(places))
    parent = documents[number]
    for key in above:
        parent = parent[key]
    if data.draw(st.booleans()):
        parent[last] = data.draw(ODD)
    else:
        del parent[last]
    text = yaml.safe_dump_all(documents, allow_unicode=True).encode()
    _looked_at(plain, tree, file, text)  # and nothing is raised


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all that is in a value."""
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list):
        parts = enumerate(value)
    return [place for key, part in parts for place in [(*path, key), *_places(part, (*path, key))]]


@pytest.mark.parametrize(
    "ask",
    [
        lambda root: controllers.build(root, {"spec": {"path": 7}}),
        lambda root: controllers.build(root, {"spec": {"path": "x", "patches": [7]}}),
        lambda root: controllers.build(root / "nowhere", {"spec": {}}),
        lambda root: controllers.accepted({"policy": {"semver": {"range": ">=x.y"}}}, ["1"]),  # noqa: ARG005
        lambda root: controllers.post_rendered(  # noqa: ARG005
            [{"kind": "X"}], [{"kustomize": {"patches": [{"patch": "- x"}]}}]
        ),
        lambda root: controllers.merged([{"path": "a[", "text": "x"}], {}),  # noqa: ARG005
    ],
)
def test_odd_questions(tmp_path: Path, ask: Callable[[Path], object]) -> None:
    with pytest.raises(StackproofError):
        ask(tmp_path)


def test_the_program_is_started_again(tmp_path: Path) -> None:
    """Whatever ends it: the next question is answered."""
    (tmp_path / "a.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")
    for _ in range(2):
        assert controllers.build(tmp_path, {"spec": {"path": "."}}).objects == (
            Manifest.of({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}, "."),
        )
        controllers.close()
