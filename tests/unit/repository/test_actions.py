"""The actions that other repositories use: their scripts run, and the documented use is right."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from tests.actions import Action
from tests.copies import commit, copied
from tests.ran import ran

from stackproof.repo.checkout import Checkout
from stackproof.toolchain import programs

_USES = re.compile(r"Gradient-DS/stackproof(/[^\s@]+)?@(?:main|v[\d.]+)")


def _examples(checkout: Checkout) -> list[str]:
    """Return the workflows of docs/ci.md that use an action of ours."""
    blocks = re.findall(r"```yaml\n(.*?)```", (checkout.root / "docs/ci.md").read_text(), re.DOTALL)
    return [block for block in blocks if _USES.search(block)]


def _lint(workflow: str, checkout: Checkout, folder: Path) -> str:
    """Return what actionlint says of a workflow that uses the actions where they are."""
    (folder / ".git").mkdir()
    shutil.copy(checkout.root / "action.yml", folder)
    shutil.copytree(checkout.root / "actions", folder / "actions")
    path = folder / ".github" / "workflows" / "example.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(_USES.sub(lambda found: f".{found[1] or '/'}", workflow))
    argv = [str(programs.find("actionlint")), "-shellcheck=", "-pyflakes=", "-no-color"]
    done = ran(argv, cwd=folder)
    return done.stdout + done.stderr


@pytest.mark.parametrize("number", [0, 1])
def test_the_documented_use(number: int, checkout: Checkout, tmp_path: Path) -> None:
    examples = _examples(checkout)
    assert len(examples) == 2
    assert _lint(examples[number], checkout, tmp_path) == ""


@pytest.mark.parametrize(
    ("number", "old", "new", "told"),
    [
        (0, "targets: ", "target: ", 'input "target" is not defined in action'),
        (0, "targets: targets.yaml", "report: here", 'missing input "targets"'),
        (1, "fail-on: ", "fail_on: ", 'input "fail_on" is not defined in action'),
    ],
)
def test_a_wrong_use_is_noticed(
    number: int, old: str, new: str, told: str, checkout: Checkout, tmp_path: Path
) -> None:
    example = _examples(checkout)[number]
    assert old in example
    assert told in _lint(example.replace(old, new), checkout, tmp_path)


@pytest.mark.parametrize("folder", ["", "actions/flux-diff"])
def test_no_input_is_pasted_into_a_script(folder: str, checkout: Checkout) -> None:
    """It is somebody's text, which bash would run: variables carry it."""
    for step in Action(checkout.root / folder).steps:
        assert "${{" not in step["run"]


@pytest.mark.parametrize("folder", ["", "actions/flux-diff"])
def test_it_installs_what_it_is_of(folder: str, checkout: Checkout, tmp_path: Path) -> None:
    """Without the dependencies, which this environment has."""
    place = tmp_path / "installed"
    settings = {"PIP_TARGET": str(place), "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    ran = Action(checkout.root / folder).run(0, {}, tmp_path, settings)
    assert ran.code == 0, ran.said
    assert (place / "stackproof" / "cli.py").is_file()


@pytest.fixture
def deployment(checkout: Checkout, tmp_path: Path) -> Path:
    """A repository that is made from this one, committed."""
    copied(checkout, tmp_path)
    (tmp_path / "tools").symlink_to(checkout.tools)
    commit(tmp_path, "tools\ngithub_*\n")
    return tmp_path


@pytest.mark.parametrize(("fail_on", "code"), [("refused,data-loss", 1), ("none", 0)])
def test_what_a_merge_changes(
    fail_on: str, code: int, deployment: Path, checkout: Checkout
) -> None:
    """A claim that grows in a StatefulSet is refused by Kubernetes."""
    values = deployment / "observability" / "mimir-values.yaml"
    text = values.read_text()
    assert "size: 250Gi" in text
    values.write_text(text.replace("size: 250Gi", "size: 260Gi"))
    action = Action(checkout.root / "actions" / "flux-diff")
    ran = action.run(1, {"since": "HEAD", "fail-on": fail_on}, deployment)
    assert ran.code == code, ran.said
    assert "> [!CAUTION]\n> - StatefulSet/mimir in observability" in ran.summary
    assert (deployment / "stackproof-report" / "flux-diff.md").read_text() == ran.summary


def test_a_diff_that_cannot_be_made_fails(deployment: Path, checkout: Checkout) -> None:
    action = Action(checkout.root / "actions" / "flux-diff")
    ran = action.run(1, {"since": "nowhere"}, deployment)
    assert ran.code == 64 and not ran.summary
    assert "git has no revision 'nowhere'" in ran.said
