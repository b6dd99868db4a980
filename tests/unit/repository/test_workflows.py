"""What the workflows may do, and that what they run is there to be run at a desk."""

from __future__ import annotations

import copy
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.edits import DELETE, edit
from tests.ran import ran

from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Versions
from stackproof.toolchain import programs

WORKFLOWS = ("ci", "nightly-e2e", "release", "weekly")
#: Whatever runs other people's actions.
USING = (
    *(f".github/workflows/{name}.yaml" for name in WORKFLOWS),
    ".github/actions/prepare/action.yaml",
    "action.yml",
    "actions/flux-diff/action.yml",
)
Workflow = dict[str, Any]
_PINNED = re.compile(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+\n")
#: What a job may write, and why nothing else.
_WRITES = {
    ("ci", "comment"): {"pull-requests"},
    ("nightly-e2e", "issue"): {"issues"},
    ("weekly", "issue"): {"issues"},
    ("release", "publish"): {"contents", "packages"},
}


def _path(checkout: Checkout, name: str) -> Path:
    return checkout.root / ".github" / "workflows" / f"{name}.yaml"


def _load(path: Path) -> Workflow:
    # YAML 1.1 reads the key `on` as true.
    data: Workflow = yaml.load(path.read_bytes(), Loader=yaml.BaseLoader)  # noqa: S506 (makes only text)
    return data


@pytest.fixture(params=WORKFLOWS)
def workflow(request: pytest.FixtureRequest, checkout: Checkout) -> tuple[str, Workflow]:
    return request.param, _load(_path(checkout, request.param))


def _steps(workflow: Workflow) -> Iterator[Mapping[str, Any]]:
    for job in workflow["jobs"].values():
        yield from job["steps"]


def not_a_target(workflow: Workflow) -> list[str]:
    """Return the run steps that are no single `make TARGET`."""
    wanted = re.compile(r"make [a-z0-9-]+( \w+=(\S+|\"[^\"]*\"))*")
    return [s["run"] for s in _steps(workflow) if "run" in s and not wanted.fullmatch(s["run"])]


def too_much_power(name: str, workflow: Workflow) -> list[str]:
    """Return the permissions that no job needs."""
    found = [f"{key}: {value}" for key, value in workflow["permissions"].items() if value != "read"]
    for job_name, job in workflow["jobs"].items():
        for key, value in (job.get("permissions") or {}).items():
            if value != "read" and key not in _WRITES.get((name, job_name), set()):
                found.append(f"{job_name}: {key}: {value}")
    return found


def without_a_limit(workflow: Workflow) -> list[str]:
    """Return the jobs that may run for hours."""
    return [name for name, job in workflow["jobs"].items() if "timeout-minutes" not in job]


def leaves_credentials(workflow: Workflow) -> list[str]:
    """Return the checkouts that leave a token on the disk."""
    return [
        step["uses"]
        for step in _steps(workflow)
        if step.get("uses", "").startswith("actions/checkout@")
        and (step.get("with") or {}).get("persist-credentials") != "false"
    ]


def takes_input(workflow: Workflow) -> list[str]:
    """Return the run steps into which GitHub would paste somebody's text."""
    return [step["run"] for step in _steps(workflow) if "${{" in step.get("run", "")]


def test_run_steps_are_targets(workflow: tuple[str, Workflow], checkout: Checkout) -> None:
    assert not not_a_target(workflow[1])
    for step in _steps(workflow[1]):
        if "run" in step:
            done = ran(
                ["make", "--dry-run", *step["run"].split()[1:2], "PYTHON=python3"],
                cwd=checkout.root,
            )
            assert done.returncode == 0, done.stderr


def test_least_permissions(workflow: tuple[str, Workflow]) -> None:
    assert not too_much_power(*workflow)
    assert not leaves_credentials(workflow[1])
    assert not takes_input(workflow[1])


def test_limits(workflow: tuple[str, Workflow]) -> None:
    assert not without_a_limit(workflow[1])
    assert workflow[1]["concurrency"]["group"]


@pytest.mark.parametrize("name", USING)
def test_actions_are_pinned(name: str, checkout: Checkout) -> None:
    text = (checkout.root / name).read_text()
    uses = [line for line in text.splitlines(keepends=True) if "uses:" in line]
    assert uses
    loose = [u.strip() for u in uses if not _PINNED.search(u) and "uses: ./" not in u]
    assert not loose


def test_one_version_of_each_action(checkout: Checkout) -> None:
    text = "".join((checkout.root / name).read_text() for name in USING)
    found = set(re.findall(r"uses: ([\w/-]+)@([0-9a-f]{40} # \S+)", text))
    assert len({action for action, _ in found}) == len(found)


def test_gate_waits_for_all_that_must_pass(checkout: Checkout) -> None:
    jobs = _load(_path(checkout, "ci"))["jobs"]
    assert set(jobs["gate"]["needs"]) == set(jobs) - {"gate", "comment"}
    assert jobs["gate"]["if"] == "always()", "a skipped job counts as passed to GitHub"


@pytest.mark.parametrize(
    ("results", "passes"),
    [
        ("success success", True),
        ("success failure", False),
        ("success cancelled", False),
        ("success skipped", False),
        ("", False),
    ],
)
def test_gate(results: str, passes: bool, checkout: Checkout) -> None:
    done = subprocess.run(
        ["make", "--silent", "ci-gate", f"RESULTS={results}"],
        cwd=checkout.root,
        capture_output=True,
        check=False,
    )
    assert (done.returncode == 0) is passes


def test_clusters_of_the_night(checkout: Checkout) -> None:
    include = _load(_path(checkout, "nightly-e2e"))["jobs"]["kind"]["strategy"]["matrix"]["include"]
    assert include[0]["image"] == Versions.load(checkout).kubernetes.kind_node
    for entry in include:
        pinned = rf"kindest/node:v{re.escape(entry['kubernetes'])}\.\d+@sha256:[0-9a-f]{{64}}"
        assert re.fullmatch(pinned, entry["image"])


def _actionlint(folder: Path, *files: Path) -> subprocess.CompletedProcess[str]:
    return ran([programs.find("actionlint"), "-shellcheck=", "-pyflakes=", *files], cwd=folder)


def test_actionlint(checkout: Checkout) -> None:
    done = _actionlint(checkout.root)
    assert done.returncode == 0, done.stdout


def test_actionlint_notices(checkout: Checkout, tmp_path: Path) -> None:
    broken = tmp_path / "ci.yaml"
    broken.write_text(_path(checkout, "ci").read_text().replace("needs: flux\n", "needs: fluks\n"))
    done = _actionlint(checkout.root, broken)
    assert done.returncode == 1
    assert "fluks" in done.stdout


#: Where something is put into the workflow `ci`, what, and what notices.
FAULTS: list[tuple[str, Any, Callable[[Workflow], list[str]]]] = [
    ("jobs|lint|steps|-1|run", "ruff check .", not_a_target),
    ("jobs|lint|steps|-1|run", "make lint && curl example.test", not_a_target),
    ("permissions", {"contents": "write"}, lambda ci: too_much_power("ci", ci)),
    ("jobs|unit|permissions", {"pull-requests": "write"}, lambda ci: too_much_power("ci", ci)),
    ("jobs|unit|timeout-minutes", DELETE, without_a_limit),
    ("jobs|unit|steps|0|with", {}, leaves_credentials),
    ("jobs|lint|steps|-1|run", "make lint ARGS=${{ github.event.issue.title }}", takes_input),
]


@pytest.mark.parametrize(("place", "value", "check"), FAULTS)
def test_fault_is_noticed(
    place: str, value: Any, check: Callable[[Workflow], list[str]], checkout: Checkout
) -> None:
    right = _load(_path(checkout, "ci"))
    broken = copy.deepcopy(right)
    edit(broken, place, value)
    assert check(broken)
    assert not check(right)
