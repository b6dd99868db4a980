"""observability/tenants.yaml: what is refused, where, and why; and editing it."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stackproof.errors import StackproofError
from stackproof.flux.deployment import Deployment
from stackproof.repo.checkout import Checkout
from stackproof.repo.document import FileError
from stackproof.repo.tenants import Registry, format_duration, load_registry, parse_duration

GOOD = """\
# The one list.
tenants:
  - name: soev
    namespace: open-webui
    secretPrefix: open-webui
    retention: 744h
    limits:
      metrics: {activeSeries: 1000000}
  # The second one.
  - name: enterprise-a
    namespace: enterprise-a   # its own
    secretPrefix: enterprise-a
# The end.
"""


@pytest.fixture
def copy(checkout: Checkout, tmp_path: Path) -> Checkout:
    """A checkout of nothing but the list and its schema."""
    schema = Path("charts/lgtm/values.schema.json")
    (tmp_path / schema.parent).mkdir(parents=True)
    shutil.copy(checkout.root / schema, tmp_path / schema)
    (tmp_path / "observability").mkdir()
    (tmp_path / "observability" / "tenants.yaml").write_text(GOOD)
    return Checkout(tmp_path)


def load(copy: Checkout, text: str) -> Registry:
    copy.tenants_file.write_text(text)
    return load_registry(copy)


def problems(copy: Checkout, text: str) -> list[str]:
    """Return what is wrong with `text`, as `line:column reason`."""
    with pytest.raises(FileError) as raised:
        load(copy, text)
    return [f"{p.line}:{p.column} {p.reason}" for p in raised.value.problems]


def test_the_repositorys_list(checkout: Checkout) -> None:
    registry = load_registry(checkout)
    assert registry.names[:3] == ("soev", "enterprise-a", "enterprise-b")
    soev = registry.get("soev")
    assert (soev.namespace, soev.secret_prefix) == ("open-webui", "open-webui")
    assert soev.retention == timedelta(days=31)
    assert soev.limits == {}, "the chart's defaults"


def test_its_values_are_the_file(checkout: Checkout) -> None:
    assert load_registry(checkout).values() == yaml.safe_load(checkout.tenants_file.read_bytes())


def test_what_is_left_out_is_the_charts_default(copy: Checkout) -> None:
    tenant = load_registry(copy).get("enterprise-a")
    assert tenant.retention is None
    assert tenant.limits == {}


REFUSED = [
    # line and column of the value (for a key: of the key), and the reason
    ("name: enterprise-a", "name: soev", "10:11 name 'soev' is already taken in line 3"),
    (
        "namespace: enterprise-a ",
        "namespace: open-webui ",
        "11:16 namespace 'open-webui' is already taken in line 4",
    ),
    (
        "secretPrefix: enterprise-a",
        "secretPrefix: open-webui",
        "12:19 secretPrefix 'open-webui' is already taken in line 5",
    ),
    (
        "namespace: open-webui",
        "namespace: observability",
        "4:16 namespace 'observability' cannot be used (a namespace of the platform)",
    ),
    (
        "secretPrefix: open-webui",
        "secretPrefix: lgtm",
        "5:19 secretPrefix 'lgtm' cannot be used (the platform's own keys begin so",
    ),
    ("name: soev", "name: Soev", "3:11 name 'Soev' does not match ^"),
    ("name: soev", "name: so_ev", "3:11 name 'so_ev' does not match ^"),
    ("name: soev", "name: a|b", "3:11 name 'a|b' does not match ^"),
    ("name: soev", "name: -soev", "3:11 name '-soev' does not match ^"),
    ("name: soev", 'name: "soev\\n"', "3:11 name 'soev\\n' does not match ^"),
    ("name: soev", 'name: ""', "3:11 name '' does not match ^"),
    ("name: soev", "name: admin", "3:11 name 'admin' cannot be used (the gateway's administrator)"),
    ("name: soev", "name: fake", "3:11 name 'fake' cannot be used (what Mimir, Loki and Tempo"),
    ("name: soev", "name: anonymous", "3:11 name 'anonymous' cannot be used (what Mimir, Loki"),
    ("name: soev", "name: single-tenant", "3:11 name 'single-tenant' cannot be used (what Mimir"),
    ("name: soev", "name: observability", "3:11 name 'observability' cannot be used (the stack's"),
    ("name: soev", "name: import", "3:11 name 'import' cannot be used (the gateway, Caddy, reads"),
    ("name: soev", "name: index", "3:11 name 'index' cannot be used (Loki keeps the index"),
    ("name: soev", f"name: {'s' * 35}", f"3:11 name '{'s' * 35}' is longer than 34 characters (Gr"),
    ("name: soev", 'name: "on"', "3:11 name 'on' cannot be used (YAML reads it as a truth value"),
    ("name: soev", 'name: "y"', "3:11 name 'y' cannot be used (YAML reads it as a truth value"),
    ("name: soev", 'name: "0o17"', "3:11 name '0o17' cannot be used (YAML reads it as a number"),
    ("name: soev", 'name: "2026-1-1"', "3:11 name '2026-1-1' cannot be used (YAML reads it as a d"),
    (
        "secretPrefix: open-webui",
        "secretPrefix: lgtm-grafana",
        "5:19 secretPrefix 'lgtm-grafana' cannot be used (the platform's own keys begin so",
    ),
    (
        "secretPrefix: enterprise-a",
        "secretPrefix: open-webui-b",
        "12:19 secretPrefix 'open-webui-b' begins with 'open-webui' of line 5, whose tenant could",
    ),
    *(
        ("namespace: open-webui", f"namespace: {name}", f"4:16 namespace '{name}' cannot be used")
        for name in (
            *("kube-system", "kube-x", "gke-managed-cim", "gmp-public", "default"),
            *("flux-system", "external-secrets", "ingress-nginx", "cert-manager", "reloader"),
        )
    ),
    # What Helm reads as something else than a string.
    (
        "name: soev",
        "name: no",
        "3:11 name must be of type string, is False; choose one that is text",
    ),
    ("name: soev", "name: y", "3:11 name must be of type string, is True; choose one that is text"),
    ("name: soev", "name: 12", "3:11 name must be of type string, is 12; choose one that is text"),
    ("name: soev", "name: 1e3", "3:11 name must be of type string, is 1000.0; choose one that"),
    ("name: soev", "name:", "3:10 name must be of type string, is None"),
    ("name: soev", "name: [soev]", "3:11 name must be of type string, is ['soev']"),
    ("retention:", "retentoin:", "6:5 unknown key 'retentoin' (did you mean 'retention'?)"),
    ("retention: 744h", "team: x", "6:5 unknown key 'team' (known: name, namespace"),
    ("secretPrefix: open-webui\n", "\n", "3:5 an entry has no 'secretPrefix'"),
    ("retention: 744h", "retention: 31d", "6:16 retention '31d' does not match ^"),
    ("retention: 744h", "retention: 0h", "6:16 retention '0h' does not match ^"),
    ("retention: 744h", "retention: 744h30s", "6:16 retention '744h30s' does not match ^"),
    ("retention: 744h", "retention: 744", "6:16 retention must be of type string, is 744"),
    ("activeSeries", "activeSerie", "8:17 unknown key 'activeSerie' (did you mean 'activeSeries'"),
    ("metrics:", "metric:", "8:7 unknown key 'metric' (did you mean 'metrics'?)"),
    ("1000000", "0", "8:31 activeSeries: 0 is less than the minimum of 1"),
    ("1000000", "-5", "8:31 activeSeries: -5 is less than the minimum of 1"),
    # What a backend cannot hold: it would start for no tenant.
    ("1000000", "1000000001", "8:31 activeSeries: 1000000001 is greater than the maximum of 100"),
    ("1000000", "99999999999999999999", "8:31 activeSeries: 99999999999999999999 is greater than"),
    (
        "metrics: {activeSeries: 1000000",
        "logs: {megabytesBurst: 1e7",
        "8:30 megabytesBurst: 10000000",
    ),
    (
        "metrics: {activeSeries: 1000000",
        "traces: {burstBytes: 1e19",
        "8:28 burstBytes: 1e+19 is gr",
    ),
    ("retention: 744h", "retention: 2562048h", "6:16 retention '2562048h' does not match ^"),
    ("retention: 744h", "retention: 1h99999999m", "6:16 retention '1h99999999m' does not match ^"),
    ("retention: 744h", "retention: 99999999999h", "6:16 retention '99999999999h' does not match"),
    ("1000000", "1.5", "8:31 activeSeries must be of type integer, is 1.5"),
    ("1000000", "many", "8:31 activeSeries must be of type integer, is 'many'"),
    ("retention: 744h", "namespace: other", "6:5 key 'namespace' is there twice (first in line 4)"),
    ("tenants:", "others: 1\ntenants:", "2:1 unknown key 'others'"),
    ("  - name: soev", "  - 5\n  - name: soev", "3:5 an entry must be of type object, is 5"),
    ("name: soev", "name: &n soev", None),
    ("namespace: enterprise-a ", "namespace: *n ", "11:16 is not valid YAML: alias *n"),
    ("name: soev", "name: [soev", "4:14 is not valid YAML: expected ',' or ']'"),
    ("name: soev", "name: so: ev", "3:13 is not valid YAML: mapping values are not allowed here"),
    ("name: soev", "name: so\x07ev", "3:1 is not valid YAML: special characters are not allowed"),
    # To Helm a date is text.
    ("name: soev", "name: 2001-13-45", "3:11 name '2001-13-45' cannot be used (YAML reads it as a"),
]


@pytest.mark.parametrize(("old", "new", "reason"), REFUSED)
def test_a_bad_entry(copy: Checkout, old: str, new: str, reason: str | None) -> None:
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    if reason is None:
        load(copy, text)
    else:
        found = problems(copy, text)
        assert len(found) == 1, found
        assert found[0].startswith(reason)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "1:1 has no list `tenants:`"),
        ("# nothing\n", "1:1 has no list `tenants:`"),
        ("[]", "1:1 has no list `tenants:`"),
        ("tenants:\n", "1:9 tenants must be of type array, is None"),
        ("tenants: {}\n", "1:10 tenants must be of type array, is {}"),
        ("tenants: []\n---\ntenants: []\n", "2:1 is not valid YAML: but found another document"),
    ],
)
def test_a_file_that_is_no_list(copy: Checkout, text: str, reason: str) -> None:
    assert problems(copy, text) == [reason]


def test_no_tenants_at_all_is_a_list(copy: Checkout) -> None:
    assert load(copy, "tenants: []\n").names == ()


def test_all_problems_are_told_at_once_in_order(copy: Checkout) -> None:
    text = GOOD.replace("name: soev", "name: Soev").replace("744h", "31d")
    text = text.replace("secretPrefix: enterprise-a", "secretPrefix: open-webui\n    x: 1")
    found = problems(copy, text)
    assert [line.split(" ")[0] for line in found] == ["3:11", "6:16", "12:19", "13:5"]


def test_the_message_has_file_line_column_and_the_meaning(copy: Checkout) -> None:
    with pytest.raises(StackproofError) as raised:
        load(copy, GOOD.replace("744h", "31d"))
    message = str(raised.value)
    assert message.startswith("observability/tenants.yaml:6:16: retention '31d' does not match ")
    assert "(A Go duration in hours and minutes: 744h, 36h30m)" in message


def test_a_missing_file(copy: Checkout) -> None:
    copy.tenants_file.unlink()
    with pytest.raises(
        StackproofError, match=r"^observability/tenants.yaml: cannot be read: No su"
    ):
        load_registry(copy)


def test_a_file_of_other_bytes(copy: Checkout) -> None:
    copy.tenants_file.write_bytes(b"tenants: \xff\n")
    with pytest.raises(StackproofError, match="is not UTF-8: invalid start byte at byte 9"):
        load_registry(copy)


def test_a_schema_without_definitions(copy: Checkout) -> None:
    (copy.charts / "lgtm" / "values.schema.json").write_text("{}")
    with pytest.raises(StackproofError, match=r"^charts/lgtm/values.schema.json: has no readable"):
        load_registry(copy)


def test_an_unknown_tenant_names_the_known_ones(copy: Checkout) -> None:
    registry = load_registry(copy)
    known = re.escape("no tenant 'enterprise-b' (there are: soev, enterprise-a)")
    with pytest.raises(StackproofError, match=f"{known}. Did you mean 'enterprise-a'?"):
        registry.get("enterprise-b")


# --- editing ---


def test_add_appends_and_keeps_all_else(copy: Checkout) -> None:
    registry = load_registry(copy).add("acme")
    assert registry == load_registry(copy)
    assert registry.names == ("soev", "enterprise-a", "acme")
    added = "\n  - name: acme\n    namespace: acme\n    secretPrefix: acme\n"
    assert copy.tenants_file.read_text() == GOOD.replace("# The end.\n", added + "# The end.\n")


def test_add_to_an_empty_list(copy: Checkout) -> None:
    registry = load(copy, "# Mine.\ntenants: []  # none yet\n").add("acme", "acme-ns", "acme-key")
    (acme,) = registry
    assert (acme.namespace, acme.secret_prefix) == ("acme-ns", "acme-key")
    assert copy.tenants_file.read_text().startswith("# Mine.\ntenants:\n  - name: acme\n")


@pytest.mark.parametrize(
    "empty",
    [
        '"tenants": []',
        "tenants:\n  []",
        "tenants: [\n]",
        "tenants : []",
        "--- # mine\ntenants: &a []",
    ],
)
def test_add_to_a_list_that_is_empty_in_any_spelling(copy: Checkout, empty: str) -> None:
    registry = load(copy, f"{empty}\n# The end.\n").add("acme")
    assert registry == load_registry(copy)
    assert registry.names == ("acme",)
    assert copy.tenants_file.read_text().endswith("# The end.\n")


def test_lines_end_as_they_did(copy: Checkout) -> None:
    copy.tenants_file.write_bytes(GOOD.replace("\n", "\r\n").encode())
    before = copy.tenants_file.read_bytes()
    registry = load_registry(copy).add("acme")
    assert b"\r\n  - name: acme\r\n" in copy.tenants_file.read_bytes()
    registry.remove("acme")
    assert copy.tenants_file.read_bytes() == before


@pytest.mark.parametrize("name", ["no", "y", "123", "1e3", "0x1f", "2026-01-01", "null"])
def test_add_refuses_what_yaml_reads_otherwise(copy: Checkout, name: str) -> None:
    with pytest.raises(StackproofError, match=f"name '{name}' cannot be used .YAML reads it as a"):
        load_registry(copy).add(name)


@pytest.mark.parametrize("name", ["newco", "yellow", "1e3a"])
def test_add_takes_names_that_only_begin_like_a_boolean_or_number(
    copy: Checkout, name: str
) -> None:
    assert load_registry(copy).add(name).names[-1] == name


def test_add_follows_the_files_indent(copy: Checkout) -> None:
    text = "tenants:\n- name: a\n  namespace: a\n  secretPrefix: a\n"
    assert load(copy, text).add("b").names == ("a", "b")
    assert copy.tenants_file.read_text() == text + "\n" + text.split("\n", 1)[1].replace(" a", " b")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["soev"], "name 'soev' is already taken in line 3"),
        (["acme", "open-webui"], "namespace 'open-webui' is already taken in line 4"),
        (["Acme"], "name 'Acme' does not match"),
        (["admin"], "name 'admin' cannot be used"),
        (["a\n    namespace: b"], "does not match"),
    ],
)
def test_add_refuses_and_changes_nothing(copy: Checkout, arguments: list[str], reason: str) -> None:
    registry = load_registry(copy)
    with pytest.raises(StackproofError, match=f"(?s)cannot add tenant .*{re.escape(reason)}"):
        registry.add(*arguments)
    assert copy.tenants_file.read_text() == GOOD
    assert [path.name for path in copy.observability.iterdir()] == ["tenants.yaml"]


def test_remove_takes_the_entry_and_its_comment(copy: Checkout) -> None:
    registry = load_registry(copy).remove("enterprise-a")
    assert registry.names == ("soev",)
    assert copy.tenants_file.read_text() == GOOD.split("  # The second")[0] + "# The end.\n"


def test_remove_leaves_the_next_entrys_comment(copy: Checkout) -> None:
    load_registry(copy).remove("soev")
    head, tail = GOOD.split("tenants:\n")
    rest = tail[tail.index("  # The second") :]
    assert copy.tenants_file.read_text() == f"{head}tenants:\n{rest}"


def test_remove_undoes_add(copy: Checkout) -> None:
    load_registry(copy).add("acme").remove("acme")
    assert copy.tenants_file.read_text() == GOOD


def test_remove_the_last_one(copy: Checkout) -> None:
    registry = load_registry(copy).remove("soev").remove("enterprise-a")
    assert registry.names == ()
    assert copy.tenants_file.read_text() == "# The one list.\ntenants: []\n# The end.\n"
    assert registry.add("soev").names == ("soev",)


def test_remove_the_last_one_keeps_what_is_said_of_the_list(copy: Checkout) -> None:
    text = '"tenants":  # nobody else\n  - name: a\n    namespace: a\n    secretPrefix: a\n'
    assert load(copy, text).remove("a").names == ()
    assert copy.tenants_file.read_text() == '"tenants": []  # nobody else\n'


def test_remove_an_unknown_one(copy: Checkout) -> None:
    with pytest.raises(StackproofError, match="no tenant 'acme'"):
        load_registry(copy).remove("acme")


@pytest.mark.parametrize(
    "text", ["tenants: [{name: a, namespace: a, secretPrefix: a}]\n", "{tenants: []}\n"]
)
def test_a_list_in_brackets_is_left_to_its_writer(copy: Checkout, text: str) -> None:
    registry = load(copy, text)
    with pytest.raises(StackproofError, match="written in brackets"):
        registry.add("b")


# --- durations ---


@given(st.integers(min_value=1, max_value=10**6))
def test_durations_go_both_ways(minutes: int) -> None:
    duration = timedelta(minutes=minutes)
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize("text", ["", "31d", "1s", "h", "1m1h"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(StackproofError, match="not a duration"):
        parse_duration(text)


def test_synthetic_tenants_come_after_the_real_ones(checkout: Checkout) -> None:
    registry = load_registry(checkout)
    many = registry.with_synthetic(1000)
    assert many.names[: len(registry)] == registry.names
    assert len(set(many.names)) == len(registry) + 1000
    assert len({tenant.namespace for tenant in many}) == len(many)
    assert len({tenant.secret_prefix for tenant in many}) == len(many)
    with pytest.raises(StackproofError, match="synthetic-0007 is the name of a real tenant"):
        replace(registry, tenants=many.tenants[-994:-993]).with_synthetic(10)
    with pytest.raises(StackproofError, match="cannot be -1"):
        registry.with_synthetic(-1)


def test_the_chart_takes_synthetic_tenants(checkout: Checkout) -> None:
    rendered = Deployment.load(checkout).with_synthetic(5).lgtm()
    overrides = rendered.get("ConfigMap", "mimir")["data"]["overrides.yaml"]
    assert "synthetic-0005" in overrides
