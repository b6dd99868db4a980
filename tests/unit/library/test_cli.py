"""What the command line refuses, and what each way to end tells by its code."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.ran import ran

from stackproof import cli
from stackproof.attacks import ATTACKS
from stackproof.bench import BENCHMARKS
from stackproof.commands import tenants
from stackproof.errors import ExitCode, StackproofError, UsageError
from stackproof.options import check_names
from stackproof.repo.checkout import Checkout

#: Each names something that there is not, and what is said of it.
MISTAKES = {
    "prov": "invalid choice",
    "prove --nope": "unrecognized arguments",
    "prove --stack foo": "no stack is called foo",
    "prove --tenants soev": "nobody to keep soev apart from",
    "prove --tenants soev,soev": "nobody to keep soev apart from",
    "prove --tenants ,": "is not a list of names",
    "prove --apis mimir.qury": "Did you mean mimir.query",
    "prove --apis ,": "is not a list of names",
    "prove --synthetic 3 --stack kind": "no synthetic tenants",
    "prove --gateway-url here": "is not a URL",
    "prove --deadline 1e12": "is not a number from 0.001 to 86400",
    "prove --stack local --context here": "--context: means nothing on the stack 'local'",
    "prove --stack local --gateway-url http://here": "--gateway-url: means nothing on the stack",
    "prove --context here --keep": "Leave it out, or choose --stack local or docker or kind",
    "prove --targets here --keep": "--targets --keep: the file says where everything is",
    "prove --targets here --kubeconfig there": "--targets --kubeconfig: the file says",
    "lint charts/lgtm charts/lgtm": "several charts are called lgtm",
    "coverage charts/lgtm ./charts/lgtm": "several charts are called lgtm",
    "prove --gateway-url http://here": "STACKPROOF_PASSWORD_SOEV",
    "twins everybody-is-soew": "Did you mean everybody-is-soev",
    "attacks typo": "no attack is called typo",
    "bench typo": "no benchmark is called typo",
    "tools typo": "no program is called typo",
    "coverage charts/nope": "there is no chart in charts/nope",
    "coverage charts": "there is no chart in charts",
    "mutants charts/nope": "there is no chart",
    "mutants --only typo": "no file that can be changed has 'typo' in its path",
    "mutants --only typo --since HEAD": "no file that can be changed has 'typo' in its path",
    "flux diff HEAD --fail-on typo": "is neither none nor a list of refused and data-loss",
    "flux diff HEAD --fail-on none,refused": "is neither none nor a list of refused and data-loss",
    "migrate values values.yaml --namespace nobodys": "no tenant has the namespace nobodys",
}


def _run(words: str) -> int:
    """Return the exit code, however the command ends."""
    try:
        return cli.main(words.split())
    except SystemExit as ended:
        return int(ended.code or 0)


@pytest.fixture(autouse=True)
def _in_the_checkout(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout.root)
    for name in [name for name in os.environ if name.startswith("STACKPROOF_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("words", MISTAKES)
def test_a_wrong_name_is_no_answer(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor does anything begin: what is printed is one message."""
    assert _run(words) == ExitCode.USAGE
    said = capsys.readouterr()
    assert MISTAKES[words] in said.err
    assert said.out == ""
    assert "Traceback" not in said.err


def test_no_cluster_is_deleted_by_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deleted: list[Checkout] = []
    monkeypatch.setattr("stackproof.stack.kind.down", deleted.append)
    assert _run("kind down --flux") == ExitCode.USAGE
    assert "only `kind up` has options" in capsys.readouterr().err
    assert not deleted


def _raise(error: Exception) -> Callable[[object], int]:
    def run(_: object) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("no", todo="Say yes."), ExitCode.USAGE, "stackproof: no. Say yes.\n"),
        (StackproofError("gone", where="loki"), ExitCode.UNAVAILABLE, "stackproof: loki: gone\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/full"),
            ExitCode.UNAVAILABLE,
            "stackproof: /full: No space left on device\n",
        ),
        (
            ModuleNotFoundError("No module named 'docker.errors'", name="docker.errors"),
            ExitCode.UNAVAILABLE,
            "pip install 'stackproof[docker]'",
        ),
        (ModuleNotFoundError("No module named 'x'", name="x"), ExitCode.INTERNAL, "report it"),
        (KeyError("logs"), ExitCode.INTERNAL, "internal error: KeyError: 'logs' (test_cli.py:"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), ExitCode.INTERNAL, "report it"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("debug", ["", "1"])
def test_how_an_error_ends(
    error: Exception,
    code: ExitCode,
    said: str,
    debug: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No error ends as a verdict does, and only who asks for it sees where it comes from."""
    monkeypatch.setattr(tenants, "run", _raise(error))
    monkeypatch.setenv(cli.DEBUG, debug)
    assert _run("tenants") == code
    told = capsys.readouterr().err
    assert said in told
    assert ("Traceback" in told) is bool(debug)


def test_an_answer_and_an_error_share_no_code() -> None:
    answers = {ExitCode.GOOD, ExitCode.BAD, ExitCode.UNDECIDED}
    assert sorted(answers) == [0, 1, 2]
    assert min(set(ExitCode) - answers) == 64


def test_the_codes_are_documented(checkout: Checkout) -> None:
    text = (checkout.root / "docs" / "results.md").read_text()
    told = re.findall(r"^\| (\d+) \| (\w+) \|", text, re.MULTILINE)
    assert told == [(str(int(code)), code.name) for code in ExitCode]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("ignored", [False, True], ids=["usual", "nohup"])
def test_a_signal_is_no_answer(name: str, ignored: bool, checkout: Checkout) -> None:
    """A process of its own, told to end by itself: the handler must be the command's."""
    number = signal.Signals[name]
    script = (
        "import os, signal, sys; from stackproof import cli; from stackproof.commands import "
        f"tenants; tenants.run = lambda _: os.kill(os.getpid(), {number}) or 0; "
        # These tests may run under nohup themselves.
        f"signal.signal({number}, signal.{'SIG_IGN' if ignored else 'SIG_DFL'}); "
        "sys.exit(cli.main(['tenants']))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=checkout.root, check=False)
    assert done.returncode == (ExitCode.GOOD if ignored else ExitCode(128 + number))


_PIPED = """
import sys
from stackproof import cli
from stackproof.commands import tenants
tenants.run = lambda _: print("leaking") or 1
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("words", ["tenants", "--help", "prove --help", "--print-completion bash"])
def test_an_answer_that_nobody_reads_is_none(words: str, checkout: Checkout) -> None:
    """A pipe that closes early makes no verdict good, and no traceback."""
    reads, writes = os.pipe()
    os.close(reads)
    # Without a buffer argparse itself swallows what goes wrong.
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-c", _PIPED, *words.split()],
        cwd=checkout.root,
        env=buffered,
        stdout=writes,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writes)
    assert (done.returncode, done.stderr) == (ExitCode.UNREAD, "")


@pytest.mark.parametrize("words", ["tenants --json", "prove --tenants nobody"])
def test_an_error_that_nobody_reads_is_no_verdict(words: str, checkout: Checkout) -> None:
    """Both streams go into a pipe that closes early, as in `2>&1 | head`."""
    reads, writes = os.pipe()
    os.close(reads)
    argv = [sys.executable, "-m", "stackproof.cli", *words.split()]
    done = subprocess.run(argv, cwd=checkout.root, stdout=writes, stderr=writes, check=False)
    os.close(writes)
    assert done.returncode == ExitCode.UNREAD


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("tenants >&-", ExitCode.GOOD),
        ("tenants >&- 2>&-", ExitCode.GOOD),
        ("prove --tenants nobody 2>&-", ExitCode.USAGE),
        ("targets init --from - <&-", ExitCode.UNAVAILABLE),
    ],
)
def test_a_stream_may_be_closed(words: str, code: ExitCode, checkout: Checkout) -> None:
    """As cron and daemons start programs. What is for one stream goes to no other."""
    done = ran(
        ["sh", "-c", f"{shlex.quote(sys.executable)} -m stackproof.cli {words}"], cwd=checkout.root
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert "internal error" not in done.stderr


_ODD = "lüttich \u2714 \U0001f600 \udcff"
_TOLD = f"""
import sys
from stackproof import cli, terminal
from stackproof.commands import tenants
def run(args):
    terminal.console(args).print({_ODD!a})
    terminal.answer(args, {{"name": {_ODD!a}}})
    return 0
tenants.run = run
sys.exit(cli.main(["tenants", "--json"]))
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_character_is_too_odd_to_be_told(encoding: str, checkout: Checkout) -> None:
    """The answer is the same wherever it is read: an old locale, a file name that is no text."""
    done = subprocess.run(
        [sys.executable, "-c", _TOLD],
        cwd=checkout.root,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, json.loads(done.stdout)) == (ExitCode.GOOD, {"name": _ODD})
    assert done.stderr.decode(encoding).startswith("l")


@pytest.mark.parametrize("known", [["ab"], [f"name-{n}" for n in range(99)]], ids=["few", "many"])
def test_unknown_names_are_told_with_those_that_there_are(known: list[str]) -> None:
    check_names("thing", known, known)
    with pytest.raises(UsageError, match="There are") as refused:
        check_names("thing", ["xyz", known[0]], known)
    assert len(str(refused.value)) < 100


def test_without_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run("tenants") == ExitCode.UNAVAILABLE


def test_a_deployment_needs_no_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run("demo --targets nowhere.yaml") == ExitCode.UNAVAILABLE
    assert capsys.readouterr() == (
        "",
        "stackproof: nowhere.yaml: cannot be read: No such file or directory\n",
    )


@pytest.mark.parametrize(
    ("words", "told"), [("tools", "STACKPROOF_CACHE"), ("targets init", "--kubeconfig")]
)
def test_a_user_without_a_home(
    words: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a container that runs as any number."""

    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    assert _run(words) == ExitCode.UNAVAILABLE
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ("twins --list everybody-is-soev", 1),
        ("attacks --list", len(ATTACKS)),
        ("bench --list", len(BENCHMARKS)),
    ],
)
def test_what_there_is_to_choose_from_is_listed(
    words: str, lines: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(words) == ExitCode.GOOD
    said = capsys.readouterr().out.splitlines()
    assert len(said) == lines
    assert all(re.match(r"[a-z0-9-]+ +\S", line) for line in said)
