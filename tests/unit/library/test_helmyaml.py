"""Values files mean to this package what they mean to Helm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stackproof.errors import StackproofError
from stackproof.helm import renderer
from stackproof.helm.externals import read_values

WORDS = """
    y Y n N yes Yes YES yEs no NO on On oN off OFF true True TRUE tRUE false False t f
    ~ null Null NULL nULL none None
    0 00 1 -1 +1 017 0o17 0O17 -017 018 08 0x1F 0X1f 0x 0b11 0b 1_000 _1 1__0 0_7 0x_f
    9223372036854775807 12345678901234567890
    1e3 1E3 1e+3 1e-3 1.5e3 1.e3 .5 -.5 +.5 5. 1.0 -0 -0.0 1_0.5 1e 1e3x 0e0 0x1p4
    2026-01-01 2026-1-1 2001-13-45 2026-01-01T10:00:00Z 2026-01-01T10:00:00.5+02:00
    10:30 190:20:30 190:20:30.15 1:2 12:00 0:0
    1.2.3 v1 1Gi 10m 100% = . .. ... - <a 0.1.0 a_1 1a 192.168.0.1 169.254.20.10/32
""".split()  # noqa: SIM905  # a list of them would be a page


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("charts") / "echo"
    (root / "templates").mkdir(parents=True)
    (root / "Chart.yaml").write_text("apiVersion: v2\nname: echo\nversion: 0.1.0\n")
    (root / "templates" / "a.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n"
        "  said: {{ .Values | toJson | quote }}\n"
    )
    return root


def _by_helm(chart: Path, file: Path) -> Any:
    release = renderer.render(chart, [file], release="a", namespace="b")
    return _plain(release.manifests[0]["data"]["said"])


def _plain(text: str) -> Any:
    """Return JSON as data; it knows one kind of number."""
    return json.loads(text, parse_int=float)


@pytest.mark.parametrize("word", WORDS)
def test_a_word_means_what_helm_says(word: str, chart: Path, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(f"a: {word}\nb: [{word}]\nc: {{{word}x: 1}}\n")
    try:
        wanted = _by_helm(chart, file)
    except renderer.HelmError:
        with pytest.raises(StackproofError):
            read_values(file)
        return
    found = read_values(file)
    assert _plain(json.dumps(found)) == wanted
    assert [type(found["a"]) is bool, found["a"] is None] == [
        type(wanted["a"]) is bool,
        wanted["a"] is None,
    ]


@pytest.mark.parametrize("word", [".nan", ".NaN", ".inf", "-.inf", "+.Inf"])
def test_what_json_lacks_is_refused_by_both(word: str, chart: Path, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(f"ok: 1\na: {word}\n")
    with pytest.raises(renderer.HelmError):
        _by_helm(chart, file)
    with pytest.raises(StackproofError, match=r"not a number that JSON has[^$]*line 2"):
        read_values(file)
