"""values.yaml is the one source of a chart's schema and of the tables in its README."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from stackproof.errors import StackproofError
from stackproof.repo.checkout import Checkout
from stackproof.values import docs

CHARTS = ("lgtm", "open-webui-stack")


@pytest.mark.parametrize("chart", CHARTS)
def test_the_chart_is_up_to_date(checkout: Checkout, chart: str) -> None:
    stale = docs.stale(checkout.charts / chart)
    assert stale == [], "run: make charts"


@pytest.mark.parametrize("chart", CHARTS)
def test_every_value_is_described(checkout: Checkout, chart: str) -> None:
    values = docs.load(checkout.charts / chart / "values.yaml")
    rows = [row for _, _, rows in values.sections() for row in rows]
    assert len(rows) > 30
    assert [row.key for row in rows if not row.description] == []


def test_every_mapping_says_what_it_may_hold(checkout: Checkout) -> None:
    """Either its keys are all named, or its comment says what others may be in it."""
    values = docs.load(checkout.charts / "open-webui-stack" / "values.yaml")

    def loose(part: dict[str, Any], path: str) -> list[str]:
        found = []
        if part.get("type") == "object" and not {"additionalProperties", "$ref"} & set(part):
            found.append(path)
        for name, child in part.get("properties", {}).items():
            found += loose(child, f"{path}.{name}")
        return found

    assert loose(values.schema, "") == []


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        (("replicaCount: 1", "replicaCount: 2"), {"README.md", "values.schema.json"}),
        (("{minimum: 1}", "{minimum: 2}"), {"values.schema.json"}),
        (("# Pods.", "# Replicas."), {"README.md", "values.schema.json"}),
    ],
)
def test_a_change_makes_it_stale(tmp_path: Path, change: tuple[str, str], stale: set[str]) -> None:
    chart = make_chart(tmp_path, "# Pods.\n# @schema {minimum: 1}\nreplicaCount: 1\n")
    assert docs.stale(chart) == []
    values = chart / "values.yaml"
    values.write_text(values.read_text().replace(*change))
    assert {path.name for path in docs.stale(chart)} == stale
    assert docs.main(["--check", str(chart)]) == 1
    assert docs.main([str(chart)]) == 0
    assert docs.main(["--check", str(chart)]) == 0


def make_chart(tmp_path: Path, values: str) -> Path:
    chart = tmp_path / "chart"
    chart.mkdir()
    (chart / "values.yaml").write_text(values)
    (chart / "README.md").write_text(f"# Title\n\n{docs.BEGIN}\n{docs.END}\n\nEnd.\n")
    docs.main([str(chart)])
    return chart


def load(tmp_path: Path, text: str) -> docs.ValuesFile:
    path = tmp_path / "values.yaml"
    path.write_text(text)
    return docs.load(path)


def test_the_schema_of_a_file(tmp_path: Path) -> None:
    values = load(
        tmp_path,
        "# Of what it is.\n"
        "# @schema\n"
        "#   $defs:\n"
        "#     count: {minimum: 1, description: How many.}\n"
        "\n"
        "# Not this one.\n"
        "\n"
        "# A part,\n"
        "# in two lines.\n"
        "part:\n"
        '  # @schema {$ref: "#/$defs/count"}\n'
        "  count: 1\n"
        "  # Names | words.\n"
        "  # @schema {items: {type: string}}\n"
        "  names: []\n"
        "on: true\n",
    )
    properties = values.schema["properties"]
    assert values.schema["$defs"]["count"]["minimum"] == 1
    assert values.schema["required"] == ["part", "on"]
    assert values.schema["additionalProperties"] is False
    assert properties["part"]["description"] == "A part, in two lines."
    assert properties["part"]["required"] == ["count", "names"]
    assert properties["part"]["properties"] == {
        "count": {"type": "integer", "$ref": "#/$defs/count", "default": 1},
        "names": {
            "description": "Names | words.",
            "type": "array",
            "items": {"type": "string"},
            "default": [],
        },
    }
    assert properties["on"] == {"type": "boolean", "default": True}
    tables = values.tables()
    assert "| `part.count` | integer | `1` | How many. |" in tables
    assert "| `part.names` | array | `[]` | Names \\| words. |" in tables
    assert "| `on` | boolean | `true` |  |" in tables
    assert "### `part`\n\nA part, in two lines.\n" in tables


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a: 1\nb: []\n", 2, "does not say what its items are"),
        ("a: 1\nb: {}\n", 2, "does not say what may be in it"),
        ("a: 1\nb:\n", 2, "implies no type"),
        ("a: 1\n# @schema {\nb: 1\n", 2, "is not valid YAML"),
        ("a: 1\n# @schema minimum\nb: 1\n", 2, "is not a mapping"),
    ],
)
def test_a_value_that_says_too_little(tmp_path: Path, text: str, line: int, reason: str) -> None:
    with pytest.raises(StackproofError, match=reason) as caught:
        load(tmp_path, text)
    assert caught.value.where == f"{tmp_path / 'values.yaml'}:{line}"


@pytest.mark.parametrize("text", ["a: [\n", "- 1\n", ""])
def test_a_file_that_holds_no_values(tmp_path: Path, text: str) -> None:
    with pytest.raises(StackproofError, match=r"values\.yaml: (is not valid|holds no)"):
        load(tmp_path, text)


def test_a_readme_without_a_place(tmp_path: Path) -> None:
    chart = make_chart(tmp_path, "a: 1\n")
    (chart / "README.md").write_text("# Title\n")
    with pytest.raises(StackproofError, match="no place for the tables"):
        docs.stale(chart)


def test_the_schema_is_the_files(checkout: Checkout, tmp_path: Path) -> None:
    """The schema refuses with and without Helm: here the reader sees the same file as Helm."""
    chart = shutil.copytree(checkout.charts / "open-webui-stack", tmp_path / "chart")
    (chart / "values.schema.json").unlink()
    assert [path.name for path in docs.stale(chart)] == ["values.schema.json"]
    docs.main([str(chart)])
    written = json.loads((chart / "values.schema.json").read_text())
    assert written == docs.load(chart / "values.yaml").schema
