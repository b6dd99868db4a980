"""Words that YAML takes for something else stay words, wherever a chart's user may write one.

A release, a namespace, a tenant or a host may be called `123`, `on` or `1e3`. The rule knows no
template: a render with the odd word at every place that takes it must be the render with a plain
word there, with the one put in the other's place. Files inside ConfigMaps are compared as what
their program reads, not as text.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
import yaml

from stackproof.helm import renderer
from stackproof.helm.externals import merged
from stackproof.helm.manifests import Release
from stackproof.repo.checkout import Checkout
from stackproof.values.combinations import Choice, Keys, Space, nested

CHARTS = Checkout.find().charts
#: Stands where nothing is odd; no template and no values file contains it.
PLAIN = "zqplain"
#: What YAML 1.1 (Helm, Kubernetes) or 1.2 reads as no string, and what ends or begins something.
WORDS = (
    *("y", "no", "on", "true", "null", "~", "Y", "NULL", "0", "123", "007", "0x10", "1e3", "1.5"),
    *(".inf", "12:30:45", "2026-01-01", "*a", '"a', "a\\n", "a: b", "a #b", "- a", "é", "{{ a }}"),
)
#: What may name a release, a namespace or a tenant.
DNS = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
#: Where a word may stand in a text that has a form.
FORMS = (
    "{}",
    "http://service.{}.svc:8080",
    "redis://service.{}.svc:6379/0",
    "http://{}.example.org/v1",
    "{}@example.org",
    "team={}",
    "x{}",
)
#: Scenarios in which everything is on, first with External Secrets, then without.
SCENARIOS = {
    "lgtm": ("production.yaml", "no-gateway.yaml"),
    "open-webui-stack": ("everything-values.yaml", "stackproof/base.yaml"),
}
#: Names that must be somebody's: the chart says so, where the schema takes any.
NAMES_OF_OTHERS = {("canary", "metricsTenant")}
#: Two maps may not name one variable: each names the odd one in one scenario.
NOT_TWICE = {
    **dict.fromkeys(("production.yaml", "everything-values.yaml"), "extraEnv"),
    **dict.fromkeys(("no-gateway.yaml", "stackproof/base.yaml"), "extraSecretEnv"),
}


@cache
def space(chart: str, scenario: str) -> Space:
    return Space(CHARTS / chart, CHARTS / chart / "ci" / scenario)


#: Ways in which a leaf may hold a word.
WAYS = 7


def held(path: Keys, form: str, how: int, word: str) -> Any:
    """Return a word in a form as a leaf may hold it: itself, in a list, as a map's value or key."""
    text = form.format(word)
    key = f"KEY_OF_{path[-1].upper()}"
    whole = (text, [text], {"key": text}, {key: text}, [{"key": text}])
    return (*whole, {word: "value"}, {word.upper(): "value"})[how]


@cache
def places(chart: str, scenario: str) -> tuple[tuple[Keys, str, int], ...]:
    """Return each free text of a chart: where, its form, and how the leaf holds it.

    A map has several: its values and its keys.
    """
    takes = space(chart, scenario).accepts
    return tuple(
        (leaf.path, form, how)
        for leaf in space(chart, scenario).leaves
        if leaf.path not in NAMES_OF_OTHERS
        for how in range(WAYS)
        for form in FORMS
        if takes(Choice(((leaf.path, held(leaf.path, form, how, PLAIN)),)))
    )


def everywhere(chart: str, scenario: str, word: str) -> tuple[list[Keys], Any, Any]:
    """Return which places take both words, and the values with the plain and the odd one there."""
    at: list[Keys] = []
    plain: dict[str, Any] = {}
    odd: dict[str, Any] = {}
    for path, form, how in places(chart, scenario):
        if path in at and how < 2:
            continue  # one form for each text: the first that goes with all before it
        if form != "{}" and not DNS.fullmatch(word):
            continue  # no part of a host
        if how == WAYS - 1 and path[-1] == NOT_TWICE[scenario]:
            continue
        with_plain = merged(plain, nested(path, held(path, form, how, PLAIN)))
        with_odd = merged(odd, nested(path, held(path, form, how, word)))
        if all(
            space(chart, scenario).accepts(Choice(tuple(((k,), v) for k, v in values.items())))
            for values in (with_plain, with_odd)
        ):
            plain, odd = with_plain, with_odd
            at.append(path)
    return at, plain, odd


def rendered(chart: str, scenario: str, values: Any, word: str) -> Release:
    """Render with a word for the names as well, where it may be one."""
    name = word if DNS.fullmatch(word) and word not in chart else PLAIN
    return renderer.render(
        CHARTS / chart,
        [CHARTS / chart / "ci" / scenario, values],
        release=name,
        namespace=word if DNS.fullmatch(word) else PLAIN,
    )


def meaning(value: Any, key: str = "") -> Any:
    """Return what an object says: without what is a digest of the rest."""
    if isinstance(value, Mapping):
        kept = {str(k): v for k, v in value.items() if not str(k).startswith("checksum/")}
        return {k: meaning(v, k) for k, v in kept.items()}
    if isinstance(value, list):
        return [meaning(one) for one in value]
    if isinstance(value, str):
        if key.endswith((".yaml", ".yml")):
            return meaning(yaml.load(value, Loader=yaml.CSafeLoader))
        # The gateway's accounts in base64, and the migration's name.
        value = re.sub(r"(?<=\(\?i:basic\) ).*", "", value)
        return re.sub(r"(?<=-migrate-)[0-9a-f]{8}", "", value)
    return value if isinstance(value, bool | int | float | None) else str(value)


def put(value: Any, word: str) -> Any:
    """Return the meaning of the plain render with the odd word in the plain one's place."""
    if isinstance(value, dict):
        return {put(k, word): put(v, word) for k, v in value.items()}
    if isinstance(value, list):
        several = [put(one, word) for one in value]
        # Variables made of a map's keys come in the order of their names.
        named = several and all(isinstance(one, dict) and "name" in one for one in several)
        return sorted(several, key=lambda one: str(one["name"])) if named else several
    if isinstance(value, str):
        return value.replace(PLAIN, word).replace(PLAIN.upper(), word.upper())
    return value


def differences(plain: Release, odd: Release, word: str) -> list[str]:
    """Return an object of each that the other lacks, none if the renders say the same."""
    one, other = (
        Counter(json.dumps(put(meaning(m), word), sort_keys=True, ensure_ascii=False) for m in made)
        for made in (plain, odd)
    )
    return [*list(one - other)[:1], *list(other - one)[:1]]


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("chart", sorted(SCENARIOS))
def test_a_word_that_looks_like_something_else_stays_text(chart: str, word: str) -> None:
    for scenario in SCENARIOS[chart]:
        at, plain, odd = everywhere(chart, scenario, word)
        assert len(at) > 5
        wanted = rendered(chart, scenario, plain, PLAIN if DNS.fullmatch(word) else word)
        assert PLAIN in json.dumps([meaning(m) for m in wanted])
        assert differences(wanted, rendered(chart, scenario, odd, word), word) == []
