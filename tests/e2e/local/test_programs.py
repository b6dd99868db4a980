"""The programs that were built are the pinned versions; those of our own pass their own tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from stackproof.errors import StackproofError
from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Versions
from stackproof.stack.kind import KindCluster
from stackproof.toolchain import golang, postgresql, programs


@pytest.mark.parametrize("name", ["alloy", "caddy", "helm", "loki", "mimir", "tempo"])
def test_it_says_its_pinned_version(checkout: Checkout, name: str) -> None:
    program = programs.locate(name, checkout)
    ask = programs.RECIPES[name].ask
    assert program.path
    assert ask
    done = subprocess.run([program.path, *ask], capture_output=True, text=True, check=True)
    assert program.version in done.stdout + done.stderr


def test_postgresql_is_the_version_that_is_said(checkout: Checkout) -> None:
    said = Versions.load(checkout).differences[postgresql.NAME].runs
    assert postgresql.version(postgresql.locate(checkout)) == said


#: What is written here, and has no version but that of its source.
OURS = [
    name
    for name in sorted(programs.RECIPES)
    if programs.locate(name, build=False).version.startswith("source ")
]


def test_there_are_programs_of_our_own() -> None:
    assert {"render", "standin"} <= set(OURS)


@pytest.mark.parametrize("name", OURS)
def test_its_own_tests_pass(checkout: Checkout, name: str) -> None:
    go = golang.find_go(checkout, golang.OLDEST, print)
    assert golang.check(go, checkout.tools / name) == ""


def test_a_program_that_is_wrong_is_told(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text("module wrong\n\ngo 1.26\n")
    (tmp_path / "main.go").write_text('package main\n\nfunc main() { println("%d") }\n')
    test = 'package main\n\nimport "testing"\n\nfunc TestIt(t *testing.T) { t.Error("it fails") }\n'
    (tmp_path / "main_test.go").write_text(test)
    go = golang.find_go(checkout, golang.OLDEST, print)
    assert "it fails" in golang.check(go, tmp_path)
    (tmp_path / "main_test.go").write_text(test.replace("t.Error(", 't.Errorf("%d", '))
    assert "wrong type string" in golang.check(go, tmp_path)


def test_kind_says_itself_why_it_makes_no_cluster(
    checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")  # where nobody listens
    cluster = KindCluster(checkout, "none")
    cluster.path = tmp_path
    with pytest.raises(StackproofError, match=r"^kind create cluster: failed to .*docker"):
        cluster.make()
