"""No secret gets into an archive, in whatever form it is written down."""

from __future__ import annotations

import base64
import json
import tarfile
from pathlib import Path
from urllib.parse import quote

import pytest

from stackproof.errors import StackproofError
from stackproof.kube.diagnostics import MASK, Archive, _bare, condition

SECRET = 'p/ss"w+rd&1'
HASHED = "$2a$10$abcdefghijklmnopqrstuv"


def _archived(path: Path, text: str) -> str:
    archive = Archive(path, [SECRET, f"admin {HASHED}\n", "", "8080"], ["soev"])
    archive.add("it.txt", text)
    archive.close()
    with tarfile.open(path) as tar:
        file = tar.extractfile("it.txt")
        assert file
        return file.read().decode()


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        json.dumps(SECRET),
        quote(SECRET, safe=""),
        base64.b64encode(SECRET.encode()).decode(),
        f"Authorization: Basic {base64.b64encode(f'soev:{SECRET}'.encode()).decode()}",
        f"admin {HASHED}",
    ],
)
def test_a_secret_is_masked_in_every_form(form: str, tmp_path: Path) -> None:
    found = _archived(tmp_path / "a" / "evidence.tar.gz", f"before {form} after")
    assert form not in found
    assert MASK in found
    assert found.startswith("before ") and found.endswith(" after")


def test_a_place_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    """So that a test's failure is told, and not that of its evidence."""
    (tmp_path / "file").touch()
    with pytest.raises(StackproofError, match="cannot be written"):
        Archive(tmp_path / "file" / "evidence.tar.gz", [])


def test_what_is_no_secret_stays(tmp_path: Path) -> None:
    text = "listening on 8080, as admin"
    assert _archived(tmp_path / "evidence.tar.gz", text) == text


def test_a_secret_object_keeps_its_keys() -> None:
    found = _bare(
        {
            "kind": "Secret",
            "metadata": {"name": "s", "managedFields": [{"fieldsV1": {}}]},
            "data": {"password": "eA=="},
        }
    )
    assert found["data"] == {"password": MASK}
    assert "managedFields" not in found["metadata"]


def test_a_condition_is_one_line() -> None:
    ready = {"type": "Ready", "status": "False", "reason": "Failed", "message": "too late"}
    assert condition({"status": {"conditions": [ready]}}) == "False Failed: too late"
    assert condition({}) == "no such condition"
