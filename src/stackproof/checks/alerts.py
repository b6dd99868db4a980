"""Grafana's provisioned alert rules, as they are in the rendered ConfigMap.

The format: https://grafana.com/docs/grafana/latest/alerting/set-up/provision-alerting-resources/.
A rule here is one query and a threshold over it; it fires for each series of the query's answer
that is above the threshold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stackproof.helm.manifests import Release, parsed

CONFIG_MAP = "grafana-alerts"
EXPRESSIONS = "__expr__"
"""The data source of what Grafana reckons itself."""


@dataclass(frozen=True, slots=True)
class AlertRule:
    """One rule: `record` is all that is provisioned of it."""

    record: Mapping[str, Any]

    @property
    def uid(self) -> str:
        """Its uid."""
        return str(self.record["uid"])

    @property
    def queries(self) -> tuple[Mapping[str, Any], ...]:
        """What is asked of a data source."""
        return tuple(q for q in self.record["data"] if q["datasourceUid"] != EXPRESSIONS)

    @property
    def expr(self) -> str:
        """Its query."""
        return str(self.queries[0]["model"]["expr"])

    @property
    def source(self) -> str:
        """The uid of the data source that it asks."""
        return str(self.queries[0]["datasourceUid"])


def read(release: Release) -> tuple[AlertRule, ...]:
    """Return the rules that a release provisions Grafana with; none where it has none."""
    text = release.file(CONFIG_MAP, "rules.yaml")
    groups = parsed(text)["groups"] if text is not None else ()
    return tuple(AlertRule(rule) for group in groups for rule in group["rules"])


def problems(release: Release, sources: frozenset[str]) -> Iterator[str]:
    """Yield why Grafana would refuse a rule, or why it could never fire."""
    seen: set[str] = set()
    for rule in read(release):
        where = f"alert rule {rule.uid}"
        if rule.uid in seen or len(rule.uid) > 40:
            yield f"{where}: its uid is not its own, or longer than 40"
        seen.add(rule.uid)
        asked = [str(query["datasourceUid"]) for query in rule.queries]
        if len(asked) != 1 or asked[0] not in sources:
            told = ", ".join(asked) or "nothing"
            yield f"{where} asks {told}, not one data source that there is"
        steps = {step["refId"]: step["model"] for step in rule.record["data"]}
        last = steps.get(rule.record.get("condition"), {})
        if last.get("type") != "threshold" or last.get("expression") not in steps:
            yield f"{where}: its condition is no threshold over its query"
        if rule.record.get("noDataState") not in {"OK", "Alerting"}:
            yield f"{where} does not say what no answer means (noDataState)"
        elif rule.record["noDataState"] == "OK" and rule.record.get("execErrState") != "Error":
            yield f"{where} says that it found something where it could not ask (execErrState)"
        if not (rule.record.get("annotations") or {}).get("summary"):
            yield f"{where} does not say what is wrong"
