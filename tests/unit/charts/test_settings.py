"""What the rules of settings read, and how: that each notices its fault is shown by the twins."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from stackproof.checks import accounts, alerts, application, observability, settings
from stackproof.checks.alloy import Alloy, alloy_settings
from stackproof.checks.deployment import RenderedDeployment
from stackproof.checks.gateway import routes
from stackproof.checks.settings import SETTINGS
from stackproof.flux.deployment import Deployment
from stackproof.helm.externals import read_values
from stackproof.helm.manifests import COMPONENT, Manifest, Release, at
from stackproof.repo.checkout import Checkout

CHECKOUT = Checkout.find()


def test_a_default_that_leads_nowhere_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(file: Path) -> Mapping[str, Any]:
        if file.parent.name != "open-webui-stack":
            return dict(read_values(file))
        backends = {"loki": "http://loki.observability.svc:3101"}
        return {"alloy": {"backends": backends, "image": {"repository": "alloy", "tag": "0"}}}

    monkeypatch.setattr(settings, "read_values", read)
    deployed = RenderedDeployment(Deployment.load(CHECKOUT))
    assert list(SETTINGS["defaults-are-of-this-deployment"].find(deployed)) == [
        "open-webui-stack/values.yaml: alloy.backends.loki is "
        "http://loki.observability.svc:3101, where there is no Service",
        "open-webui-stack/values.yaml: alloy.image is alloy:0, which is not in versions.yaml",
    ]


def test_paths_lead_through_maps_and_lists() -> None:
    assert at({"a": [{"b": 1}]}, "a.0.b") == 1
    assert at({"a": [{"b": 1}]}, "a.1.b") is None
    assert at(None, "a") is None


def test_alloy_files_are_read_by_block() -> None:
    text = (
        'a.b "c" {\n\trule {\n\t\tx = 1\n\t}\n\trule {\n\t\tx = {\n\t\t\t"k" = 2,\n\t\t}\n\t}\n}\n'
    )
    assert alloy_settings(text) == {"a.b.c.rule.x": "1", "a.b.c.rule#2.x": '{ "k" = 2, }'}


def test_a_bracket_in_a_text_is_none_of_alloys() -> None:
    text = 'a "b" {\n\tx = [\n\t\t`y("^[[{]")`,\n\t\t"\\"[",\n\t]\n\tz = 1\n}\n'
    assert alloy_settings(text) == {"a.b.x": '[ `y("^[[{]")`, "\\"[", ]', "a.b.z": "1"}


def test_a_list_that_never_ends_is_read_to_the_end() -> None:
    assert alloy_settings('a "b" {\n\tx = [\n\t\t1,\n}\n') == {"a.b.x": "[ 1, }"}


@pytest.mark.parametrize(("period", "expected"), [("500ms", 5), ("1s", 9.5), ("1.5s", 13.5)])
def test_an_alloys_patience_is_the_sum_of_its_pauses(period: str, expected: float) -> None:
    """Ten tries by default, the first after half a second."""
    alloy = Alloy(
        alloy_settings(
            f'loki.write "x" {{\n endpoint {{\n max_backoff_period = "{period}"\n}}\n}}\n'
        ),
        {},
        {},
    )
    assert dict(accounts.patience(alloy)) == {"loki.write.x": timedelta(seconds=expected)}


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"ports": [{"port": 53}]}, "lets out to everybody"),
        ({"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}, "lets out to the internet on every port"),
    ],
    ids=["to everybody", "on every port"],
)
def test_a_rule_of_a_policy_that_names_less_opens_more(rule: dict[str, Any], told: str) -> None:
    labels = {COMPONENT: "postgres"}
    made = {
        "kind": "NetworkPolicy",
        "metadata": {"name": "postgres", "labels": labels},
        "spec": {"egress": [rule]},
    }
    release = Release("web", "web", "1.37.0", (Manifest.of(made, "policies.yaml", 0),))
    found = list(application.APPLICATION["the-internet-is-not-the-cluster"].find(release))
    assert f"NetworkPolicy/postgres {told}" in found


def test_a_rule_without_a_query_is_a_problem() -> None:
    rule = {
        "uid": "idle",
        "data": [],
        "noDataState": "OK",
        "execErrState": "Error",
        "annotations": {"summary": "?"},
    }
    text = yaml.safe_dump({"groups": [{"rules": [rule]}]})
    made = {
        "metadata": {"name": alerts.CONFIG_MAP},
        "kind": "ConfigMap",
        "data": {"rules.yaml": text},
    }
    release = Release("lgtm", "x", "1.37.0", (Manifest.of(made, "alerts.yaml", 0),))
    assert list(alerts.problems(release, frozenset({"mimir"}))) == [
        "alert rule idle asks nothing, not one data source that there is",
        "alert rule idle: its condition is no threshold over its query",
    ]


def test_routes_are_read_off_the_caddyfile() -> None:
    text = (
        "@w {\n method POST\n vars_regexp {http.request.uri} ^(/a|/b)([?]|$)\n"
        " not vars {http.auth.user.id} admin\n}\nhandle @w {\n uri strip_prefix /a\n"
        " import backend {$LOKI_URL}\n}\n"
    )
    (route,) = routes(text)
    assert (set(route.methods), route.write, route.strip) == ({"POST"}, True, "/a")
    assert route.upstream == "LOKI_URL"
    assert route.path.fullmatch("/b")


def test_the_canary_is_the_user_of_its_image() -> None:
    dockerfile = (CHECKOUT.root / "Dockerfile").read_text(encoding="utf-8")
    assert f"\nUSER {':'.join(map(str, observability.CANARY_USER))}\n" in dockerfile


@pytest.mark.parametrize("limit", ["512Mi", "536870912", 536870912])
def test_a_limit_is_the_same_however_it_is_written(limit: object) -> None:
    """A plain number reaches a template as 5.36870912e+08."""
    changed = {"tempo": {"resources": {"limits": {"memory": limit}}}}
    release = Deployment.load(CHECKOUT).with_values(lgtm=[changed]).lgtm()
    (container,) = release.get("StatefulSet", "tempo")["spec"]["template"]["spec"]["containers"]
    values = {each["name"]: each.get("value") for each in container["env"]}
    assert values["GOMEMLIMIT"] == str(536870912 * 9 // 10)
