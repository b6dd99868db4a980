"""Finding the repository, and the text of an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackproof.errors import StackproofError
from stackproof.repo.checkout import Checkout


def test_it_is_found_from_a_folder_inside(checkout: Checkout) -> None:
    assert Checkout.find(checkout.charts / "lgtm") == checkout
    assert checkout.versions_file.is_file()


def test_outside_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StackproofError, match=r"no stackproof repository .* Run this in a clone"):
        Checkout.find(tmp_path)


def test_another_repository_with_charts_and_tools_is_none(tmp_path: Path) -> None:
    for name in ("charts", "tools"):
        (tmp_path / name).mkdir()
    (tmp_path / "versions.yaml").touch()
    with pytest.raises(StackproofError, match="no stackproof repository here"):
        Checkout.find(tmp_path)


def test_paths_are_shown_from_its_root(checkout: Checkout, tmp_path: Path) -> None:
    assert checkout.show(checkout.tenants_file) == "observability/tenants.yaml"
    assert checkout.show(tmp_path) == str(tmp_path)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (StackproofError("it broke"), "it broke"),
        (StackproofError("it broke", where="f.yaml:3:1"), "f.yaml:3:1: it broke"),
        (StackproofError("it broke", todo="Mend it."), "it broke. Mend it."),
        (StackproofError("a\nb", where="f", todo="Mend it."), "f: a\nb\nMend it."),
    ],
)
def test_an_error_reads_where_what_todo(error: StackproofError, text: str) -> None:
    assert str(error) == text
