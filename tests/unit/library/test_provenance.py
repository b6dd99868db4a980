"""Of what a result says that it is, and what makes it another."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.copies import commit, copied

from stackproof.repo import results
from stackproof.repo.checkout import Checkout
from stackproof.repo.results import Provenance
from stackproof.wording import percent


@pytest.fixture
def repository(checkout: Checkout, tmp_path: Path) -> Checkout:
    """A Git repository with this checkout's charts and values, committed."""
    made = copied(checkout, tmp_path / "clone", ("charts", "flux", "observability"))
    commit(made.root)
    return made


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", root, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_it_names_commit_charts_values_and_images(repository: Checkout) -> None:
    of = Provenance.of(repository)
    assert of.commit == _git(repository.root, "rev-parse", "HEAD")
    assert of.dirty is False
    assert of.digests is not None
    assert of.digests.keys() == {"charts/lgtm", "charts/open-webui-stack", "observability", "flux"}
    assert of.images is not None
    assert {"mimir", "loki", "tempo", "open-webui"} <= of.images.keys()
    assert of.same_source(Provenance.of(repository))


def _edit(root: Path) -> None:
    with (root / "charts" / "lgtm" / "values.yaml").open("a") as file:
        file.write("# changed\n")


def _rename(root: Path) -> None:
    (root / "observability" / "loki-values.yaml").rename(root / "observability" / "other.yaml")


def _add(root: Path) -> None:
    (root / "flux" / "new.yaml").write_text("")


def _commit(root: Path) -> None:
    who = ("-c", "user.name=t", "-c", "user.email=t@t")
    _git(root, *who, "commit", "--allow-empty", "--quiet", "-m", "t")


@pytest.mark.parametrize(
    ("change", "dirty"), [(_edit, True), (_rename, True), (_add, True), (_commit, False)]
)
def test_other_files_are_another_source(
    change: Callable[[Path], None], dirty: bool, repository: Checkout
) -> None:
    before = Provenance.of(repository)
    change(repository.root)
    after = Provenance.of(repository)
    assert not after.same_source(before)
    assert after.dirty is dirty


def test_without_a_repository_the_digests_remain(repository: Checkout) -> None:
    shutil.rmtree(repository.root / ".git")
    of = Provenance.of(repository)
    assert (of.commit, of.dirty, of.source) == (None, None, "no commit")
    assert of.digests


def test_the_repository_around_a_checkout_is_not_its_own(repository: Checkout) -> None:
    """A copy in somebody's other repository has nothing to do with that one's commits."""
    below = repository.root / "below"
    shutil.copytree(repository.root, below, ignore=shutil.ignore_patterns(".git", "below"))
    assert Provenance.of(Checkout(below)).commit is None


def test_what_is_written_is_read_again(repository: Checkout, tmp_path: Path) -> None:
    of = Provenance.of(repository)
    results.write(tmp_path, "twins", {"twins": [1]}, of)
    back = results.read(tmp_path / "twins.json")
    assert back is not None
    assert back.of == of
    assert back.found == {"whole": True, "twins": [1]}


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [
        (224, 225, "99.5 %"),
        (1999, 2000, "99.9 %"),
        (1_999_999, 2_000_000, "99.9 %"),
        (225, 225, "100 %"),
        (0, 3, "0 %"),
        (0, 0, "-"),
        (97.99, 100, "97.9 %"),
    ],
)
def test_a_share_is_rounded_down(part: float, whole: float, said: str) -> None:
    assert percent(part, whole) == said
