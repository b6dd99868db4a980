"""Answer the tests whose inputs are what they were when they passed: `--unchanged=answer`.

The inputs of a test are the Python files that its own imports, however deeply, all other files of
the repository, the installed packages, the interpreter and the STACKPROOF_* variables; of a test
that takes a fixture of stackproof.pytest_plugin, what that imports as well. A document counts for
those alone whose Python files name it, and a file in a package of src for those that import the
package. A file of the repository that a test opens and that is not among its inputs is an error of
that test: `--unchanged=check`, which answers nothing, proves that the answers of other runs are
right.

Only what passed is kept, in the user's cache and for a week: a test may depend on the date.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from stackproof.toolchain.cache import cache_root

_KEPT_S = 7 * 86_400
#: Where the modules of a name lie.
_ROOTS = {"stackproof": "src/stackproof", "tests": "tests"}
_PLUGIN = "src/stackproof/pytest_plugin/__init__.py"
#: Where the plugin's fixtures are, which are taken by name and not imported.
_FIXTURES = "src/stackproof/pytest_plugin/fixtures.py"
_CLI = "src/stackproof/cli.py"
#: They are imported by their names.
_COMMANDS = "src/stackproof/commands/"
_OF_REPOSITORY = "tests/unit/repository/"
_UNCHANGED = "unchanged"
#: So many calls lie between who wants a file and its opening: pathlib, io.
_NEAR = 6
_COMPILED = re.compile(r"__pycache__/([^/.]+)\.[^/]*$")


class Inputs:
    """What the tests of a repository depend on.

    Args:
        root: The repository: a git working tree.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        listed = subprocess.run(
            ["git", "-C", root, "ls-files", "-co", "--exclude-standard", "-z"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split("\0")
        self.files = {
            name: hashlib.sha256((root / name).read_bytes()).hexdigest()
            for name in sorted(filter(None, listed))
            if (root / name).is_file()
        }
        self._imports: dict[str, set[str]] = {}
        self._named: dict[str, set[str]] = {}

    def of(self, test: str) -> set[str]:
        """Return the files that a test file's tests depend on, by their paths in the repository."""
        # Tests of the repository read all of it.
        if test.startswith(_OF_REPOSITORY):
            return set(self.files)
        code = self._code(test)
        named = set().union(*(self._named[name] for name in code))
        return code | {data for data in self._data if self._counts(data, code, named)}

    def _counts(self, data: str, code: set[str], named: set[str]) -> bool:
        """Tell whether a file that is no Python is an input of what has this code."""
        if data in self._documents:
            return data in named
        if not data.startswith("src/"):
            return True
        above = (f"{folder}/__init__.py" for folder in Path(data).parents)
        package = next((name for name in above if name in self.files), None)
        return package is None or package in code

    @cached_property
    def _data(self) -> set[str]:
        return {name for name in self.files if not name.endswith(".py")}

    @cached_property
    def _documents(self) -> set[str]:
        return {name for name in self._data if _is_document(name)}

    def key(self, test: str) -> str:
        """Return what changes whenever an input of a test file does."""
        here = [platform.python_version(), platform.machine(), *_variables()]
        ours = [f"{name} {self.files[name]}" for name in sorted(self.of(test))]
        return hashlib.sha256("\n".join([*here, *ours]).encode()).hexdigest()

    def _code(self, test: str) -> set[str]:
        conftests = {
            name
            for name in self.files
            if Path(name).name == "conftest.py" and Path(name).parent in Path(test).parents
        }
        found: set[str] = set()
        waiting = [test, *conftests, *({_PLUGIN} & self.files.keys())]
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            found.add(name)
            waiting.extend(self._imported(name))
        return found

    def _imported(self, name: str) -> set[str]:
        if name not in self._imports:
            text = (self.root / name).read_text(encoding="utf-8")
            tree = ast.parse(text)
            modules = {part for each in _modules(tree, name) for part in _parts(each)}
            if '"stackproof.cli"' in text:
                modules.add("stackproof.cli")
            self._imports[name] = {found for each in modules if (found := self._file(each))}
            self._named[name] = {each for each in self._documents if Path(each).name in text}
            if name == _CLI:
                self._imports[name] |= {each for each in self.files if each.startswith(_COMMANDS)}
            if name.startswith("tests/") and self._takes_fixture(tree):
                self._imports[name].add(_FIXTURES)
        return self._imports[name]

    @cached_property
    def _fixtures(self) -> set[str]:
        """The names of the plugin's fixtures."""
        if _FIXTURES not in self.files:
            return set()
        tree = ast.parse((self.root / _FIXTURES).read_text(encoding="utf-8"))
        functions = (node for node in tree.body if isinstance(node, ast.FunctionDef))
        return {each.name for each in functions if each.decorator_list}

    def _takes_fixture(self, tree: ast.Module) -> bool:
        """Tell whether a test or fixture takes one of the plugin, or one whose name is computed."""
        taken = set(_taken(tree))
        return None in taken or not taken.isdisjoint(self._fixtures)

    def _file(self, module: str) -> str | None:
        first, *rest = module.split(".")
        if first not in _ROOTS:
            return None
        path = "/".join([_ROOTS[first], *rest])
        return next((p for p in (f"{path}.py", f"{path}/__init__.py") if p in self.files), None)


def _is_test(name: str) -> bool:
    return name.startswith("tests/") and Path(name).name.startswith("test_")


def _file(item: pytest.Item) -> str:
    return item.nodeid.split("::")[0]


def _is_document(name: str) -> bool:
    return name.startswith("docs/") or ("/" not in name and name.endswith((".md", "mkdocs.yml")))


def _variables() -> list[str]:
    """A place where programs are kept says nothing of what they are."""
    own = {k: v for k, v in os.environ.items() if k.startswith("STACKPROOF_")}
    own.pop("STACKPROOF_CACHE", None)
    return [f"{key}={value}" for key, value in sorted(own.items())]


def _modules(tree: ast.Module, name: str) -> Iterator[str]:
    """Yield the modules that a file may import, wherever in it."""
    package = name.removeprefix("src/").split("/")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _taken(tree: ast.Module) -> Iterator[str | None]:
    """Yield the names of the fixtures that a file takes; None for one that is computed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and (
            node.name.startswith("test")
            or any("fixture" in ast.dump(each) for each in node.decorator_list)
        ):
            yield from (each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg))
        elif isinstance(node, ast.Call) and _called(node) in {"getfixturevalue", "usefixtures"}:
            for each in node.args:
                yield str(each.value) if isinstance(each, ast.Constant) else None


def _called(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def _parts(module: str) -> Iterator[str]:
    """Yield a module and the packages that it is in, which are imported before it."""
    while module:
        yield module
        module = module.rpartition(".")[0]


class _Kept:
    """The tests of a file that passed with the same inputs."""

    def __init__(self, key: str) -> None:
        self._path = cache_root() / "passed" / f"{key}.json"

    def read(self) -> frozenset[str]:
        try:
            if time.time() - self._path.stat().st_mtime > _KEPT_S:
                return frozenset()
            return frozenset(json.loads(self._path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return frozenset()

    def add(self, tests: Iterable[str]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_suffix(f".{os.getpid()}")
        beside.write_text(json.dumps(sorted(self.read() | set(tests))), encoding="utf-8")
        beside.replace(self._path)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("stackproof").addoption(
        "--unchanged",
        choices=("answer", "check"),
        help="answer tests from the cache whose inputs are what they were when they passed; "
        "check: run them all, and see that they open nothing but their inputs",
    )


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("unchanged"):
        return
    keys = getattr(config, "workerinput", {}).get(_UNCHANGED)
    if keys is None:
        # Taken now: a file that is changed meanwhile is not what was tested.
        inputs = Inputs(config.rootpath)
        keys = {name: inputs.key(name) for name in inputs.files if _is_test(name)}
        config.pluginmanager.register(_Keeper(keys), "unchanged-keeper")
    answering = config.getoption("unchanged") == "answer"
    config.pluginmanager.register(_Worker(config.rootpath, keys, answering), "unchanged-worker")


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    if report.when == "call" and (_UNCHANGED, True) in report.user_properties:
        return _UNCHANGED, "u", _UNCHANGED.upper()
    return None


class _Keeper:
    """Keeps what passed, where the reports of all workers come together."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._keys = keys
        self._outcomes: dict[str, dict[str, set[str]]] = {}

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker of xdist."""
        node.workerinput[_UNCHANGED] = self._keys

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        file = report.nodeid.split("::")[0]
        outcomes = self._outcomes.setdefault(file, {}).setdefault(report.nodeid, set())
        outcomes.add(report.outcome)

    def pytest_sessionfinish(self) -> None:
        for file, outcomes in self._outcomes.items():
            passed = [test for test, seen in outcomes.items() if seen == {"passed"}]
            if passed and file in self._keys:
                _Kept(self._keys[file]).add(passed)


class _Worker:
    """Answers what passed, runs the rest, and sees what that opens."""

    def __init__(self, root: Path, keys: Mapping[str, str], answering: bool) -> None:
        self._root = root
        self._answering = answering
        self._keys = keys
        self._opened: set[str] | None = None
        sys.addaudithook(self._opens)

    @cached_property
    def _inputs(self) -> Inputs:
        return Inputs(self._root)

    @cache  # noqa: B019 - there is one worker in a process
    def _known(self, file: str) -> frozenset[str]:
        key = self._keys.get(file)
        return _Kept(key).read() if key and self._answering else frozenset()

    @cache  # noqa: B019
    def _allowed(self, file: str) -> frozenset[str]:
        return frozenset(self._inputs.of(file))

    def _opens(self, event: str, args: tuple[object, ...]) -> None:
        if event != "open" or self._opened is None or not isinstance(args[0], str | Path):
            return
        if not _by_hypothesis():
            self._opened.add(os.path.abspath(args[0]))  # noqa: PTH100 - links stay as they are

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool | None:
        if item.nodeid not in self._known(_file(item)):
            return None
        hook = item.ihook
        hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        # What an earlier test has set up must go before a test that does not need it.
        torn = pytest.CallInfo.from_call(
            lambda: item.session._setupstate.teardown_exact(nextitem), "teardown"
        )
        hook.pytest_runtest_logreport(report=_answered(item))
        if torn.excinfo:
            hook.pytest_runtest_logreport(report=pytest.TestReport.from_item_and_call(item, torn))
        hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        self._opened = set()
        try:
            yield
        finally:
            opened, self._opened = self._opened, None
        undeclared = sorted(self._ours(opened) - self._allowed(_file(item)))
        if undeclared:
            pytest.fail(
                f"opens {', '.join(undeclared)}, which tests/unchanged.py does not take for an "
                "input of it: import what is needed of it, or move the test to tests/unit",
                pytrace=False,
            )

    def _ours(self, opened: Iterable[str]) -> set[str]:
        root = f"{self._root}/"
        inside = (path.removeprefix(root) for path in opened if path.startswith(root))
        return {_COMPILED.sub(r"\1.py", path) for path in inside} & self._inputs.files.keys()


def _by_hypothesis() -> bool:
    """Tell whether Hypothesis opens it: it takes examples from the constants of loaded modules."""
    frame: FrameType | None = sys._getframe(2)
    for _ in range(_NEAR):
        if frame is None:
            break
        if frame.f_globals.get("__name__") == "hypothesis.internal.constants_ast":
            return True
        frame = frame.f_back
    return False


def _answered(item: pytest.Item) -> pytest.TestReport:
    return pytest.TestReport(
        item.nodeid,
        item.location,
        dict.fromkeys(item.keywords, 1),
        "passed",
        None,
        "call",
        user_properties=[(_UNCHANGED, True)],
    )
