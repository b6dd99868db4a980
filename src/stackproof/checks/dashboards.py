"""Grafana's provisioned dashboards: what each panel asks, and whether it can be answered at all.

Dashboards are read from the rendered ConfigMap, since that is what Grafana gets. The check that
needs no backend is here (`problems`); that every panel shows something is for the end-to-end tests,
which ask the panels' queries through the provisioned data sources.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stackproof.backends.grafana import BACKENDS
from stackproof.errors import StackproofError
from stackproof.helm.manifests import Release
from stackproof.model import STACK_TENANT, Backend
from stackproof.otlp.app_metrics import EMITTED_TWICE, SERIES

CONFIG_MAP = "grafana-dashboards"
#: The data source of the stack's own metrics.
STACK_SOURCE = f"{Backend.MIMIR}-{STACK_TENANT}"

#: What Grafana puts in by itself, and what it is for an hour's dashboard.
BUILT_IN: Mapping[str, str] = {
    "__rate_interval": "4m",
    "__interval": "1m",
    "__auto": "1m",
    "__range": "1h",
}
_VARIABLE = re.compile(r"\$(?:\{(?P<braced>\w+)\}|(?P<plain>\w+))")
# What stands in PromQL and is no metric: strings, matchers, ranges, and the labels of a grouping.
_NO_METRIC = (
    re.compile(r"\{[^}]*\}"),
    re.compile(r"\[[^]]*\]"),
    re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)"),
)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_NAME = re.compile(r"(?<![\w:.])[A-Za-z_:][\w:]*(?!\s*\(|[\w:])")
_KEPT = re.compile(r'\["__name__"\]\s+regex\s+= "([^"]+)"')
# What a LogQL expression does to the lines of a range before it counts them.
_COUNTED = re.compile(r"\{[^}]*\}([^{\[]*)\[")
_KEYWORDS = frozenset({"and", "or", "unless", "bool", "offset", "inf", "nan"})


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel, as it stands in the file. `source` is a uid or a `${variable}`."""

    panel: str
    backend: Backend
    source: str
    text: str
    instant: bool


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard. `record` is the whole file, `name` the file's name."""

    name: str
    record: Mapping[str, Any]

    @property
    def uid(self) -> str:
        """Its uid, or an empty string."""
        return str(self.record.get("uid") or "")

    @property
    def variables(self) -> dict[str, Mapping[str, Any]]:
        """Its variables by name."""
        return {each["name"]: each for each in self.record["templating"]["list"]}

    @property
    def panels(self) -> tuple[Mapping[str, Any], ...]:
        """Its panels, also those within rows."""
        return tuple(_panels(self.record["panels"]))

    @property
    def queries(self) -> tuple[Query, ...]:
        """Every query of every panel."""
        return tuple(_queries(self.panels))

    def source_of(self, query: Query, tenant: str) -> str:
        """Return the uid that a query goes to when the tenant ("" for all) is chosen."""
        variable = self.variables.get(query.source.strip("${}"))
        if not query.source.startswith("$") or variable is None:
            return query.source
        return f"{BACKENDS[variable['query']]}-{tenant}" if tenant else BACKENDS[variable["query"]]


def _panels(panels: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for panel in panels:
        yield from _panels(panel.get("panels") or ())
        if panel["type"] != "row":
            yield panel


def _queries(panels: Sequence[Mapping[str, Any]]) -> Iterator[Query]:
    for panel in panels:
        for target in panel.get("targets") or ():
            source = target.get("datasource") or panel["datasource"]
            yield Query(
                panel["title"],
                BACKENDS[source["type"]],
                source["uid"],
                target.get("expr") or target.get("query") or "",
                bool(target.get("instant")) or target.get("queryType") == "instant",
            )


def read(release: Release) -> tuple[Dashboard, ...]:
    """Return the dashboards that a release provisions Grafana with.

    Raises:
        StackproofError: One of them is no JSON.
    """
    data: Mapping[str, str] = release.get("ConfigMap", CONFIG_MAP)["data"]
    found = []
    for name, text in data.items():
        if name.endswith(".json"):
            try:
                found.append(Dashboard(name, json.loads(text)))
            except ValueError as error:
                raise StackproofError(f"is not valid JSON: {error}", where=name) from error
    return tuple(found)


def kept(release: Release) -> frozenset[str]:
    """Return the metrics of the stack itself that the monitor keeps; none where there is none."""
    found = _KEPT.search(release.file("monitor", "config.alloy") or "")
    return frozenset(found[1].split("|")) if found else frozenset()


def expand(text: str, values: Mapping[str, str]) -> str:
    """Return a query with its variables put in, as Grafana does before it asks.

    Raises:
        StackproofError: It uses a variable that there is not.
    """
    known = {**BUILT_IN, **values}

    def value(found: re.Match[str]) -> str:
        name = found["braced"] or found["plain"]
        if name not in known:
            raise StackproofError(f"uses the variable {name}, which does not exist", where=text)
        return known[name]

    return _VARIABLE.sub(value, text)


def metrics(promql: str) -> frozenset[str]:
    """Return the names of the metrics that a PromQL expression reads."""
    bare = _STRING.sub("", promql)
    for pattern in _NO_METRIC:
        bare = pattern.sub(" ", bare)
    return frozenset(_NAME.findall(bare)) - _KEYWORDS


def problems(
    dashboards: Sequence[Dashboard],
    uids: Collection[str],
    tenants: Collection[str],
    stack: Collection[str] = (),
) -> list[str]:
    """Return what is wrong with the dashboards themselves; empty when all is well.

    Args:
        dashboards: All that are provisioned.
        uids: Of the provisioned data sources.
        tenants: Names that no dashboard may hold.
        stack: Metrics that there are of the stack itself (:func:`kept`).
    """
    found = []
    for number, dashboard in enumerate(dashboards):
        if not dashboard.uid:
            found.append(f"{dashboard.name}: has no uid")
        if dashboard.uid in {each.uid for each in dashboards[:number]}:
            found.append(f"{dashboard.name}: its uid {dashboard.uid} is taken")
        found += [f"{dashboard.name}: {each}" for each in _of_one(dashboard, uids, tenants, stack)]
    return found


def _of_one(
    dashboard: Dashboard, uids: Collection[str], tenants: Collection[str], stack: Collection[str]
) -> Iterator[str]:
    text = json.dumps(dashboard.record)
    yield from (f"names the tenant {each}" for each in tenants if re.search(rf"\b{each}\b", text))
    ids = [panel["id"] for panel in dashboard.panels]
    if len(set(ids)) < len(ids):
        yield "two panels have the same id"
    values = dict.fromkeys(dashboard.variables, ".+")
    for query in dashboard.queries:
        where = f"panel {query.panel!r}"
        if dashboard.source_of(query, "") not in uids:
            yield f"{where}: there is no data source {query.source}"
        try:
            expanded = expand(query.text, values)
        except StackproofError as error:
            yield f"{where}: {error.what}"
            continue
        if not expanded:
            yield f"{where}: asks nothing"
        if query.backend is Backend.LOKI and any(
            "| drop __error__" not in each for each in _COUNTED.findall(expanded)
        ):
            yield f"{where}: one line that says it has an __error__ is an error: drop it"
        if query.backend is Backend.MIMIR:
            names = metrics(expanded)
            unknown = names.difference(stack if query.source == STACK_SOURCE else SERIES)
            yield from (f"{where}: nothing emits the metric {name}" for name in sorted(unknown))
            for name in sorted(names & EMITTED_TWICE.keys()):
                if f'{EMITTED_TWICE[name]}!=""' not in expanded:
                    yield f"{where}: {name} is there twice, ask for one by {EMITTED_TWICE[name]}"
