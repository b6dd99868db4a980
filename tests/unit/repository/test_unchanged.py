"""A test is answered only while nothing that it depends on has changed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests import unchanged
from tests.ran import ran
from tests.unchanged import Inputs

TEST = "tests/e2e/test_one.py"
FILES = {
    "conftest.py": 'pytest_plugins = ["unchanged"]\n',
    "pyproject.toml": "[tool.pytest.ini_options]\npythonpath = ['.']\n",
    "tests/used.py": "from .deeper import WORD as WORD\n",
    "tests/deeper.py": "WORD = 'x'\n",
    "tests/other.py": "",
    "charts/values.yaml": "a: 1\n",
    "docs/page.md": "",
    TEST: "from tests.used import WORD\n\n\ndef test_word():\n    assert WORD == 'x'\n",
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A small repository whose suite has the plugin."""
    root = tmp_path / "repository"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    shutil.copy(unchanged.__file__, root / "unchanged.py")
    subprocess.run(["git", "init", "-q", root], check=True)
    (root / ".gitignore").write_text("__pycache__\n")
    return root


@pytest.mark.parametrize(
    ("changed", "matters"),
    [
        (TEST, True),
        ("tests/used.py", True),
        ("tests/deeper.py", True),
        ("tests/__init__.py", True),
        ("tests/e2e/conftest.py", True),
        ("tests/other.py", False),
        ("conftest.py", True),
        ("charts/values.yaml", True),
        ("charts/new.yaml", True),
        ("docs/page.md", False),
    ],
)
def test_what_an_end_to_end_test_depends_on(repository: Path, changed: str, matters: bool) -> None:
    before = Inputs(repository).key(TEST)
    with (repository / changed).open("a") as file:
        file.write("# changed\n")
    assert (Inputs(repository).key(TEST) != before) is matters


@pytest.mark.parametrize(
    ("test", "matters"),
    [
        ("def test_word(stack):\n    pass\n", True),
        ("def test_word(request):\n    request.getfixturevalue('stack')\n", True),
        ("def test_word(request):\n    request.getfixturevalue('st' + 'ack')\n", True),
        ("@pytest.fixture\ndef other(stack):\n    pass\n", True),
        ("def test_word(tmp_path):\n    stack = tmp_path\n", False),
        ("def a_helper(stack):\n    pass\n", False),
        ("TEXT = 'stack'\n", False),
    ],
    ids=["parameter", "name", "computed", "fixture's parameter", "not", "helper", "text"],
)
def test_who_takes_the_plugins_fixtures_depends_on_them(
    repository: Path, test: str, matters: bool
) -> None:
    package = repository / "src" / "stackproof" / "pytest_plugin"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "fixtures.py").write_text(
        "import pytest\nfrom stackproof import used\n@pytest.fixture\ndef stack(): ...\n"
    )
    (package.parent / "used.py").write_text("")
    (repository / TEST).write_text(test)
    before = Inputs(repository).key(TEST)
    (package.parent / "used.py").write_text("# changed\n")
    assert (Inputs(repository).key(TEST) != before) is matters
    before = Inputs(repository).key(TEST)
    (package / "__init__.py").write_text("# its options are all tests'\n")
    assert Inputs(repository).key(TEST) != before


@pytest.mark.parametrize(
    ("test", "content", "matters"),
    [
        ("tests/unit/library/test_two.py", "PAGE = 'page.md'", True),
        ("tests/unit/library/test_two.py", "from tests.names import PAGE", True),
        ("tests/unit/library/test_two.py", "PAGE = 'pages.md'", False),
        ("tests/unit/repository/test_two.py", "", True),
    ],
)
def test_documents_matter_to_those_who_name_them(
    repository: Path, test: str, content: str, matters: bool
) -> None:
    (repository / test).parent.mkdir(parents=True)
    (repository / test).write_text(content)
    (repository / "tests/names.py").write_text("PAGE = 'docs/page.md'")
    assert ("docs/page.md" in Inputs(repository).of(test)) is matters


def test_data_of_a_package_matters_to_those_who_import_it(repository: Path) -> None:
    package = repository / "src" / "stackproof" / "shown"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "page.html").touch()
    assert "src/stackproof/shown/page.html" not in Inputs(repository).of(TEST)
    (repository / TEST).write_text("from stackproof import shown")
    assert "src/stackproof/shown/page.html" in Inputs(repository).of(TEST)


def test_commands_matter_to_those_who_import_their_interface(repository: Path) -> None:
    commands = repository / "src" / "stackproof" / "commands"
    commands.mkdir(parents=True)
    (commands / "one.py").write_text("from stackproof import used")
    (commands.parent / "used.py").touch()
    (commands.parent / "cli.py").touch()
    (repository / TEST).write_text("from stackproof import cli")
    inputs = Inputs(repository).of(TEST)
    assert {"src/stackproof/commands/one.py", "src/stackproof/used.py"} <= inputs


def test_variables_matter(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Inputs(repository).key(TEST)
    monkeypatch.setenv("STACKPROOF_TEMPO", "/another/tempo")
    assert Inputs(repository).key(TEST) != before


def test_it_is_answered_until_something_changes(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STACKPROOF_CACHE", str(repository.parent / "cache"))
    assert "1 passed" in _run(repository)
    assert "1 unchanged" in _run(repository)
    assert "1 passed" in _run(repository, "check")
    (repository / "tests/deeper.py").write_text("WORD = 'y'\n")
    assert "1 failed" in _run(repository)
    assert "1 failed" in _run(repository), "only what passed is kept"


@pytest.mark.parametrize(
    "opens",
    ["open('tests/other.py').close()", "import importlib; importlib.import_module('tests.other')"],
    ids=["as a file", "by its name"],
)
def test_what_it_opens_beside_its_inputs_is_an_error(
    repository: Path, opens: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STACKPROOF_CACHE", str(repository.parent / "cache"))
    (repository / TEST).write_text(f"def test_word():\n    {opens}\n")
    told = _run(repository, "check")
    assert "1 failed" in told
    assert "opens tests/other.py, which" in told


def _run(repository: Path, mode: str = "answer") -> str:
    options = ["-q", f"--unchanged={mode}", "-p", "no:cacheprovider", "-p", "no:pytest-kind"]
    done = ran([sys.executable, "-m", "pytest", *options], cwd=repository)
    return done.stdout + done.stderr
