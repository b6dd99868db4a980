"""Every number that the command line takes is one that can be reckoned with."""

from __future__ import annotations

import argparse

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
