"""Every permutation of both charts' values renders to objects that break no invariant."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import strategies
from tests.unit.charts.scenarios import each_scenario

from stackproof.checks import chain
from stackproof.checks.invariants import broken
from stackproof.flux.immutable import refused
from stackproof.helm import renderer
from stackproof.helm.externals import ExternalObjects
from stackproof.helm.manifests import Manifest, Release, thaw
from stackproof.helm.renderer import HelmError, Render
from stackproof.repo.checkout import Checkout
from stackproof.values.combinations import Choice, Permutations, Space, Switch, smallest

CHARTS = Checkout.find().charts
#: Mixtures of each chart, and how many a test tries.
MIXED = {"lgtm": 400, "open-webui-stack": 1080}
CHUNK = 65
PROPERTY = settings(max_examples=60)


@cache
def space(chart: str) -> Space:
    return Space.of(CHARTS / chart)


@cache
def permutations(chart: str) -> Permutations:
    return space(chart).permutations(MIXED[chart])


@cache
def external_objects(chart: str) -> ExternalObjects:
    return ExternalObjects.load(CHARTS / chart)


def asked(chart: str, choice: Choice, *, release: str = "one", namespace: str = "here") -> Render:
    values = [space(chart).given(choice)]
    return Render(chart=CHARTS / chart, values=values, release=release, namespace=namespace)


def wrong_with(chart: str, choice: Choice, outcome: Release | HelmError) -> str | None:
    """What is wrong with a render, None if nothing is."""
    if isinstance(outcome, HelmError):
        # `fail`, the chart's own no: a rule between values that no schema can hold.
        own = outcome.kind == "template" and "execution error at" in outcome.message
        return None if own else str(outcome)
    found = broken(external_objects(chart).around(outcome, [space(chart).given(choice)]))
    return ": ".join(found) if found else unlinked(outcome)


def unlinked(release: Release) -> str | None:
    """A limit below what must pass it, between this chart and the other's defaults."""
    parts = [m for m in release if m.kind in {"ConfigMap", "StatefulSet", "Deployment"}]
    key = "".join(m.digest for m in parts if m.name in CARRIERS or m.name.endswith("-alloy"))
    if key not in CHAINS:
        lgtm = release if is_lgtm(release) else defaults("lgtm")
        tenant = defaults("open-webui-stack") if is_lgtm(release) else release
        links = chain.links(lgtm, tenant)
        CHAINS[key] = next((f"limits: {problem}" for problem in chain.broken(links)), None)
    return CHAINS[key]


CARRIERS = {"mimir", "loki", "tempo", "gateway", "monitor"}
CHAINS: dict[str, str | None] = {}


def is_lgtm(release: Release) -> bool:
    return release.manifests[0].source.startswith("lgtm/")


@cache
def defaults(chart: str) -> Release:
    return renderer.renderer().render(asked(chart, Choice(())))


def blame(chart: str, choice: Choice, first: str) -> str:
    """The fewest settings that break the same, and how."""

    def fails(less: Choice) -> bool:
        if not space(chart).accepts(less):
            return False
        said = wrong_with(chart, less, renderer.render_many([asked(chart, less)])[0])
        return said is not None and said.split(":")[0] == first.split(":")[0]

    return f"with {smallest(choice, fails)}:\n{first}"


def fingerprint(release: Release) -> str:
    parts = "\n".join(f"{m.source} {m.index} {m.digest}" for m in release)
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def chunks() -> list[object]:
    """Chart and number of each test. There are no more permutations than mixtures and pairs.

    A chart's tests are one worker's: they share the search for its permutations.
    """
    return [
        pytest.param(chart, n, marks=pytest.mark.xdist_group(f"permutations of {chart}"))
        for chart, mixed in MIXED.items()
        for n in range(mixed // CHUNK + 2)
    ]


def part(chart: str, number: int) -> Sequence[Choice]:
    all_of_them = permutations(chart).chosen
    last = number == MIXED[chart] // CHUNK + 1
    return all_of_them[number * CHUNK : None if last else (number + 1) * CHUNK]


@pytest.mark.parametrize(("chart", "number"), chunks())
def test_permutations_break_no_invariant(
    chart: str, number: int, record_property: Callable[[str, object], None]
) -> None:
    chosen = part(chart, number)
    outcomes = renderer.render_many(asked(chart, choice) for choice in chosen)
    for choice, outcome in zip(chosen, outcomes, strict=True):
        said = wrong_with(chart, choice, outcome)
        assert said is None, blame(chart, choice, said)
    prints = {fingerprint(one) for one in outcomes if isinstance(one, Release)}
    record_property("renders", sorted(prints))


@pytest.mark.parametrize("chart", MIXED)
def test_all_pairs_occur(chart: str) -> None:
    """All but those that the schema refuses, which are counted and do break a rule."""
    known, found = space(chart), permutations(chart)
    sizes = [len(switch.settings) for switch in known.switches]
    everything = (sum(sizes) ** 2 - sum(size**2 for size in sizes)) // 2
    assert found.pairs + len(found.refused) == everything
    assert len(found.refused) < everything / 500
    assert not any(known.accepts(choice) for choice in found.refused)


def test_cross_rules_are_set_aside() -> None:
    refused = {str(choice) for choice in permutations("open-webui-stack").refused}
    assert "alloy.replicaCount=2, alloy.podLogs.enabled=true" in refused
    assert any("sampler=" in choice and "samplerArg=" in choice for choice in refused)


def test_switches_are_what_the_schema_and_the_scenarios_offer() -> None:
    found = {str(switch): switch for switch in space("open-webui-stack").switches}
    otel = "openWebui.config.telemetry.otel"
    assert found[f"{otel}.enabled"].settings == (True, False)
    assert found[f"{otel}.protocol"].settings == ("grpc", "http")
    assert set(found[f"{otel}.samplerArg"].settings) == {"", 0.25, 0}
    assert found["ingress.tlsSecret"].settings == ("", "chat-tls")
    assert found["nodeSelector"].settings == ({}, {"pool": "tenants"})


def test_a_chart_without_a_schema_has_switches_too(tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text("enabled: true\nname: ''\nport: 80\n")
    assert Space.of(tmp_path).switches == (
        Switch(("enabled",), (True, False)),
        Switch(("name",), ("", "example")),
    )


def test_the_fewest_settings_are_blamed() -> None:
    many = Choice(tuple(((f"s{i}",), i) for i in range(40)))

    def fails(choice: Choice) -> bool:
        return {("s7",), ("s23",)} <= {path for path, _ in choice.settings}

    assert str(smallest(many, fails)) == "s7=7, s23=23"


def test_a_broken_permutation_is_named(checkout: Checkout) -> None:
    chart = checkout.charts / "lgtm"
    helpers = (chart / "templates" / "_helpers.tpl").read_text(encoding="utf-8")
    wrong = helpers.replace("runAsNonRoot: true", "runAsNonRoot: {{ .Values.x | default true }}")
    assert wrong != helpers
    template = (chart / "templates" / "grafana.yaml").read_text(encoding="utf-8")
    old = "serviceAccountName: grafana"
    assert old in template
    when = "if and .Values.grafana.ingress.enabled (not .Values.gateway.enabled)"
    fault = f"serviceAccountName: {{{{ {when} }}}}gone{{{{ else }}}}grafana{{{{ end }}}}"
    overlay = {"templates/grafana.yaml": template.replace(old, fault)}

    def fails(choice: Choice) -> bool:
        request = replace(asked("lgtm", choice), overlay=overlay)
        return bool(wrong_with("lgtm", choice, renderer.renderer().render(request)))

    guilty = next(choice for choice in permutations("lgtm").chosen[80:] if fails(choice))
    assert len(guilty.settings) > 2
    assert str(smallest(guilty, fails)) == "gateway.enabled=false, grafana.ingress.enabled=true"


# --- Properties ---------------------------------------------------------------------------------


@pytest.mark.parametrize("chart", MIXED)
@PROPERTY
@given(data=st.data())
def test_what_the_schema_accepts_renders_right(chart: str, data: st.DataObject) -> None:
    choice = data.draw(strategies.choices(space(chart)))
    said = wrong_with(chart, choice, renderer.render_many([asked(chart, choice)])[0])
    assert said is None, f"with {choice}:\n{said}"


@pytest.mark.parametrize("chart", MIXED)
@PROPERTY
@given(data=st.data())
def test_a_fault_is_refused_by_name(chart: str, data: st.DataObject) -> None:
    fault = data.draw(strategies.faults(space(chart)))
    with pytest.raises(HelmError) as caught:
        renderer.render(CHARTS / chart, [fault.values], release="one", namespace="here")
    assert caught.value.kind == "schema", caught.value.message
    assert fault.key in caught.value.message, (fault.about, caught.value.message)


# --- Several releases ---------------------------------------------------------------------------

UPGRADES = sorted(CHARTS.glob("*/ci/upgrade-from/*.yaml"))


def of_scenario(values: Path) -> Render:
    chart = next(p for p in values.parents if (p / "Chart.yaml").exists())
    return Render(chart=chart, values=[values], release="one", namespace="here")


@each_scenario
def test_rendering_twice_gives_equal_bytes(values: Path) -> None:
    asked, text = of_scenario(values), renderer.renderer().text
    assert text(asked) == text(asked) == text(replace(asked, is_upgrade=True))


@each_scenario
def test_releases_share_nothing(values: Path) -> None:
    """Two releases of any values, in two namespaces, make no object that is the same one."""
    asked, render = of_scenario(values), renderer.renderer().render
    one, two = (
        {(m.kind, m.namespace, m.name) for m in render(request)}
        for request in (asked, replace(asked, release="two", namespace="there"))
    )
    assert one
    assert not one & two


def unkept(before: Path, overlay: Mapping[str, str] | None = None) -> list[str]:
    """What an upgrade from earlier values would have to change, and cannot.

    What the earlier release made stands beside its values: of each object, by kind and name, the
    fields that may not change.
    """
    request = replace(of_scenario(before), is_upgrade=True, overlay=overlay or {})
    made = {m.ref: m for m in renderer.renderer().render(request)}
    recorded = before.with_suffix(".immutable.json")
    kept = json.loads(recorded.read_text(encoding="utf-8"))
    return [
        ref
        for ref, held in kept.items()
        if ref not in made or refused(Manifest.of(held, recorded.name), made[ref])
    ]


@pytest.mark.parametrize("before", UPGRADES, ids=lambda p: f"{p.parts[-4]}-{p.stem}")
def test_an_upgrade_keeps_names_and_volumes(before: Path) -> None:
    """Values of an earlier release render to what the cluster lets us change that release to."""
    assert unkept(before) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "lost"),
    [
        ("_helpers.tpl", "app.kubernetes.io/name: lgtm", "app.kubernetes.io/name: o11y", "mimir"),
        ("_backend.tpl", "name: data\n        labels", "name: volume\n        labels", "loki"),
        ("grafana.yaml", '"grafana" "grafana")', '"grafana" "grafana-2")', "grafana"),
    ],
)
def test_what_an_upgrade_cannot_change_is_found(file: str, old: str, new: str, lost: str) -> None:
    (before,) = (path for path in UPGRADES if path.parts[-4] == "lgtm")
    text = (CHARTS / "lgtm" / "templates" / file).read_text(encoding="utf-8")
    assert old in text
    found = unkept(before, {f"templates/{file}": text.replace(old, new)})
    assert any(name.endswith(f"/{lost}") for name in found), found


def test_there_is_an_earlier_release_of_each_chart() -> None:
    assert {path.parts[-4] for path in UPGRADES} == set(MIXED)


# --- Strings that YAML would take for something else --------------------------------------------


def treacherous(chart: str, text: str) -> Iterator[Choice]:
    """Each string that may be anything, set to what is no string where the quotes are missing."""
    known = space(chart)
    switched_on = [(s.path, True) for s in known.switches if s.settings == (False, True)]
    for leaf in known.leaves:
        free = leaf.schema.get("type") == "string" and not {"requests", "limits"} & set(leaf.path)
        choice = Choice((*switched_on, (leaf.path, text)))
        if free and known.accepts(choice):
            yield choice


@pytest.mark.parametrize("text", strategies.TREACHEROUS)
@pytest.mark.parametrize("chart", MIXED)
def test_no_string_becomes_something_else(
    chart: str, text: str, record_property: Callable[[str, object], None]
) -> None:
    chosen = list(treacherous(chart, text))
    assert chosen, "the schema refuses the base with every switch on: complete ci/stackproof/base"
    outcomes = renderer.render_many(asked(chart, choice) for choice in chosen)
    for choice, outcome in zip(chosen, outcomes, strict=True):
        said = wrong_with(chart, choice, outcome)
        assert said is None, f"with {choice}:\n{said}"
    record_property("renders", sorted({fingerprint(o) for o in outcomes if isinstance(o, Release)}))


# --- Numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("chart", MIXED)
def test_a_whole_number_is_written_in_digits(chart: str) -> None:
    """A template has 1e+06 of 1000000, which Python and a shell do not take for a whole number."""
    known, number = space(chart), 1_234_567
    whole = [leaf for leaf in known.leaves if leaf.schema.get("type") == "integer"]
    chosen = [c for leaf in whole if known.accepts(c := Choice(((leaf.path, number),)))]
    assert len(chosen) > 5
    for choice, release in zip(
        chosen, renderer.render_many(asked(chart, choice) for choice in chosen), strict=True
    ):
        assert isinstance(release, Release)
        for m in release:
            assert "1.234567e+06" not in json.dumps(thaw(m)), f"{m.ref} with {choice}"
