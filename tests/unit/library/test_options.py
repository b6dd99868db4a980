"""What is typed is taken, or refused at once: numbers, names, and options that exclude others."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import pytest
from tests import parsers

from stackproof import cli
from stackproof.backends.capacity import Load, distributed, one_node
from stackproof.errors import ExitCode
from stackproof.options import MOST

ODD = ("nan", "inf", "-inf", "1e400", "-1", "1e300", "9" * 400, "", "x", "0x10", "1,5")


def _takes_a_number(action: argparse.Action) -> bool:
    try:
        return callable(action.type) and isinstance(action.type("7"), int | float)
    except argparse.ArgumentTypeError:
        return False


#: Each option of each command that takes a number, with its place.
NUMBERS = {
    " ".join((*words, *action.option_strings)): action
    for words, parser in parsers.every(cli.parser())
    for action in parser._actions
    if _takes_a_number(action)
}


def test_all_numbers_are_known() -> None:
    assert {"capacity --series", "prove --deadline", "mutants --sample"} <= NUMBERS.keys()


@pytest.mark.parametrize("option", NUMBERS)
@pytest.mark.parametrize("text", ODD, ids=lambda text: text[:8] or "empty")
def test_odd_numbers_are_refused(option: str, text: str) -> None:
    kind = NUMBERS[option].type
    assert callable(kind)
    with pytest.raises(argparse.ArgumentTypeError, match="number from"):
        kind(text)


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "1e400", "0"])
def test_capacity_says_it_before_it_prints(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["capacity", "--tenants", "3", "--series", text])
    assert ended.value.code == ExitCode.USAGE
    shown = capsys.readouterr()
    assert "argument --series" in shown.err
    assert not shown.out


def test_the_largest_numbers_can_be_reckoned_with() -> None:
    load = Load(int(MOST), MOST, MOST, MOST, 1e-3, MOST, MOST)
    assert all(need.replicas > 0 for need in (*one_node(load), *distributed(load)))


# --- names ---

#: Each option and argument of each command that takes any text, with its place.
TEXTS = {
    " ".join((*words, *(action.option_strings or [action.dest]))): action
    for words, parser in parsers.every(cli.parser())
    for action in parser._actions
    if action.nargs != 0
    and not action.choices
    and action.type is not Path
    and not isinstance(action, argparse._HelpAction | argparse._VersionAction)
}


def _told(command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Return the exit code of a command line, and what it says last."""
    try:
        code = cli.main(shlex.split(command))
    except SystemExit as ended:
        code = int(ended.code or 0)
    shown = capsys.readouterr()
    assert not shown.out
    return code, shown.err.splitlines()[-1]


@pytest.mark.parametrize("place", TEXTS)
def test_what_a_shell_makes_of_an_unset_variable_is_refused(place: str) -> None:
    """Taken for an option that is not there, `--gateway-url "$URL"` would prove something else."""
    kind = TEXTS[place].type
    assert callable(kind), "it takes anything"
    with pytest.raises(argparse.ArgumentTypeError):
        kind("")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("lint charts/lgtm --namespace BAD_NAME", "'BAD_NAME' cannot be the name of a namespace"),
        (f"lint charts/lgtm --namespace {'a' * 64}", "at most 63"),
        ("migrate check --context c --namespace a.b", "cannot be the name of a namespace"),
        ("migrate check --context c --release Web", "cannot be the name of a Helm release"),
        (f"migrate check --context c --release {'a' * 54}", "at most 53"),
        ("migrate values old.yaml --release -a", "expected one argument"),
        ("migrate values old.yaml --tenant a.b", "cannot be the name of a tenant"),
        ("tenant add acme --namespace Acme", "cannot be the name of a namespace"),
        ("tenant add acme --host 'a b'", "cannot be the name of a host"),
        ("tenant add acme --admin-email nobody", "is not an e-mail address"),
        ("tenant add Acme --host acme.test", "name 'Acme' does not match"),
        ("tenant add acme --secret-prefix 'A B'", "secretPrefix 'A B' does not match"),
        ("tenant remove nobody", "no tenant 'nobody'"),
        ("up --tenant nobody", "no tenant is called nobody"),
        ("prove --tenants soev,nobody", "no tenant is called nobody"),
        ("prove --metrics-as nobody", "no tenant is called nobody"),
        ("flux --cluster nowhere build", "there is no cluster 'nowhere'"),
        ("flux --cluster nowhere check", "there is no cluster 'nowhere'"),
        ("flux diff nothing", "git has no revision 'nothing'"),
        ("upgrade --from nothing", "no revision 'nothing'"),
        ("mutants --since nothing", "bad revision 'nothing'"),
        ("prove --deadline 1h", "is not a number"),
    ],
)
def test_a_bad_name_is_wrong_usage(
    command: str, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said in one line, before anything is started."""

    def started(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("stackproof.stack.providers.prepare", started)
    code, said = _told(command, capsys)
    assert (code, told in said) == (ExitCode.USAGE, True), said


@pytest.mark.parametrize("command", ["evidence", "migrate check", "targets init", "prove"])
def test_a_context_that_there_is_not(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config"
    config.write_text(
        "{apiVersion: v1, kind: Config, users: [{name: u, user: {}}], clusters: [{name: c, "
        "cluster: {server: 'https://127.0.0.1:1'}}], contexts: [{name: here, context: "
        "{cluster: c, user: u}}], current-context: here}"
    )
    code, said = _told(f"{command} --kubeconfig {config} --context nowhere", capsys)
    assert (code, "there is no context 'nowhere'" in said) == (ExitCode.USAGE, True), said


# --- options that exclude others ---


@pytest.mark.parametrize(
    ("command", "both"),
    [
        ("attacks --list --junitxml a.xml", "--list --junitxml"),
        ("twins --list --report build", "--list --report"),
        ("bench --list --record", "--list --record"),
        ("twins --docs everybody-is-soev", "--docs NAME"),
        ("twins --docs --json", "--docs --json"),
        ("tools --local loki", "--local NAME"),
        ("mutants --all --sample 5", "--all --sample"),
        ("mutants --all --seed 0", "--all --seed"),
        ("migrate check --old-manifest a.yaml --kubeconfig b", "--old-manifest --kubeconfig"),
        ("migrate check --context a --old-values b.yaml", "--context --old-values"),
        (
            "migrate check --old-manifest a.yaml --values b.yaml --cluster production",
            "--values --cluster",
        ),
        ("prove --in-cluster --context a", "--in-cluster --context"),
        ("prove --in-cluster --kubeconfig a", "--in-cluster --kubeconfig"),
        ("prove --targets a.yaml --stack local", "--targets --stack"),
        ("prove --reuse", "--reuse"),
        ("flux --cluster production check flux/clusters/production", "--cluster production"),
        ("targets init --from a.yaml --kubeconfig b --output -", "--from --kubeconfig"),
    ],
)
def test_an_option_that_means_nothing_there_is_refused(
    command: str, both: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = _told(command, capsys)
    assert (code, said.startswith(f"stackproof: {both}: ")) == (ExitCode.USAGE, True), said


def test_a_path_beside_a_cluster_names_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    _, said = _told("flux --cluster nowhere check flux/clusters", capsys)
    assert said.endswith("there are: flux/clusters/production.")
