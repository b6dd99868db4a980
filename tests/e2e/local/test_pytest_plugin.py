"""The pytest plugin on running deployments: one of anybody's making, and one that leaks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from tests import documented

from stackproof.model import Backend
from stackproof.repo.checkout import Checkout
from stackproof.stack.local import LocalStack
from stackproof.toolchain.cache import cache_root
from stackproof.twins import TWINS

pytestmark = pytest.mark.xdist_group("targets")

#: pytester gives each test another home.
CACHE = cache_root()
#: pytest-kind and pytest-helm-charts define the same option.
OPTIONS = ("-p", "no:pytest-kind", "-p", "no:cacheprovider", "-k", "apart or deletes")


@pytest.fixture
def project(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, checkout: Checkout
) -> pytest.Pytester:
    """Somebody's repository with the documented tests."""
    monkeypatch.setenv("STACKPROOF_CACHE", str(CACHE))
    page = checkout.root / "docs" / "extend" / "pytest.md"
    pytester.makepyfile(test_ours=documented.code(page))
    return pytester


def test_the_documented_tests_pass(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, stack: LocalStack, checkout: Checkout
) -> None:
    urls = {"traces": Backend.TEMPO, "metrics": Backend.MIMIR, "logs": Backend.LOKI}
    tenants = []
    for name in stack.tenants:
        access = stack.reader(name)
        assert access.auth
        variable = f"PASSWORD_{name.upper().replace('-', '_')}"
        monkeypatch.setenv(variable, access.auth[1])
        password = {"env": variable}
        tenants.append({"name": name, "auth": {"basic": {"user": name, "password": password}}})
    targets = {
        "read": {signal: access.urls[backend] for signal, backend in urls.items()},
        "write": {"otlpHttp": f"{stack.gateway_url}/otlp"},
        "tenants": tenants,
    }
    (project.path / "targets.yaml").write_text(yaml.safe_dump(targets))
    page = checkout.root / "docs" / "extend" / "pytest.md"
    project.makepyprojecttoml(documented.code(page, "toml"))
    done = project.runpytest_subprocess(*OPTIONS)
    done.assert_outcomes(passed=2, deselected=2)
    assert "file targets.yaml" in (project.path / "build" / "report" / "index.html").read_text()


def test_a_leak_is_seen(
    project: pytest.Pytester, checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its stack is kept, which is said."""
    monkeypatch.setenv("TMPDIR", str(project.path))
    twin = next(each for each in TWINS if each.name == "loki-asks-nobody-who-it-is")
    with twin.deployment(checkout) as deployment:
        copy = deployment.checkout.root
        (copy / "tools").symlink_to(checkout.tools)
        done = project.runpytest_subprocess(
            *OPTIONS,
            f"--stackproof-checkout={copy}",
            "--stackproof-deadline=10",
            "--stackproof-keep",
        )
    done.assert_outcomes(passed=1, failed=1, deselected=2)
    done.stdout.fnmatch_lines(
        ["E *leak: *through loki.*", "E *'leaking'> == 'isolated'", "kept: *"]
    )
    evidence = (project.path / "build" / "report" / "evidence.json").read_text()
    assert json.loads(evidence)["deadline_s"] == 10
    (kept,) = [line for line in done.outlines if line.startswith("kept: ")]
    assert (Path(kept.removeprefix("kept: ")) / "logs").is_dir()
