"""Judge mutants of a checkout, or of any chart: what notices them, if anything does."""

from __future__ import annotations

import json
import re
import shutil
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from stackproof.checks.application import APPLICATION
from stackproof.checks.configs import refused
from stackproof.checks.deployment import DEPLOYMENT, RenderedDeployment
from stackproof.checks.invariants import INVARIANTS, broken
from stackproof.checks.observability import OBSERVABILITY
from stackproof.checks.platform import PLATFORM
from stackproof.checks.settings import SETTINGS
from stackproof.errors import StackproofError
from stackproof.flux.delivered import differing
from stackproof.flux.deployment import Deployment
from stackproof.helm import renderer, schema
from stackproof.helm.externals import ExternalObjects, Rendered
from stackproof.helm.manifests import Manifest, Release
from stackproof.helm.renderer import HelmError, Render, Values
from stackproof.repo.checkout import Checkout
from stackproof.rules import Rule
from stackproof.values import unused
from stackproof.values.combinations import BASE, Space, scenarios

from .operators import Mutant

_COPIED = ("charts", "observability", "flux", "schemas", "tools", ".github", "versions.yaml")
_MIXED = 6
_RICH = 2


class MutantFate(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    SURVIVED = "survived"
    CRASHED = "crashed"
    """A check could not cope with it: a fault of the check, which has noticed nothing."""
    EQUIVALENT = "equivalent"


@dataclass(frozen=True)
class MutantResult:
    """A verdict, and how it came about."""

    verdict: MutantFate
    by: str = ""
    """The check that killed it."""
    message: str = ""
    seen_in: tuple[str, ...] = ()
    """Scenarios in which a survivor changes an object."""


Fingerprint = tuple[tuple[str, str, str], ...]
"""Of each object: where it is from, what it says, and what that means."""


@dataclass(frozen=True)
class _Case:
    """A render that mutants are compared in."""

    name: str
    values: tuple[Values, ...]
    must_fail: bool = False
    deaf: frozenset[str] = frozenset()
    """Checks that object to it, or crash, without any change: they can notice none."""


class Judge:
    """Judges mutants in a copy of its own, one after the other.

    Args:
        root: A checkout, or the folder of one chart.
        workplace: A folder for the copy, empty or not there yet.
    """

    def __init__(self, root: Path, workplace: Path) -> None:
        self._whole = not (root / "Chart.yaml").is_file()
        self._root = workplace / root.name
        self._pins = Checkout(self._root) if self._whole else Checkout.own()
        self._known_cases: dict[Path, list[_Case]] = {}
        self._before: dict[Path, Mapping[str, Fingerprint | None]] = {}
        self._idle_before: dict[Path, frozenset[str]] = {}
        if not self._whole:
            shutil.copytree(root, self._root)
            self._cases(self._root)
            return
        for name in _COPIED:
            source, target = root / name, self._root / name
            if source.is_dir():
                shutil.copytree(source, target)
            elif source.exists():
                shutil.copy2(source, target)
        self._flux_before = self._flux()
        self._deployed_before = self._fingerprints()
        self._refuse_unsound()

    @property
    def deaf(self) -> Mapping[str, int]:
        """Checks that notice nothing, since they fail on the unchanged chart: in how many cases."""
        return Counter(name for case in chain(*self._known_cases.values()) for name in case.deaf)

    def _refuse_unsound(self) -> None:
        """Raise where a check objects to the checkout itself: it would seem to kill them all."""
        if found := self._judged_deployment() or self._judged_flux():
            raise StackproofError(
                f"{found.by}: {found.message}",
                where=self._root.name,
                todo="Mutants are judged by checks that hold: put this right first.",
            )

    def judge(self, mutant: Mutant) -> MutantResult:
        """Return what becomes of a mutant. The copy is as before afterwards."""
        chart = self._chart_of(mutant.file)
        if chart is not None and chart not in self._before:
            self._before[chart] = {name: print_ for name, print_, _ in self._renders(chart)}
            self._idle_before[chart] = self._idle(chart)
        path = self._root / mutant.file
        text = path.read_text(encoding="utf-8")
        path.write_text(mutant.apply(text), encoding="utf-8")
        try:
            return self._judged(mutant, chart)
        except HelmError as error:
            return _killed("render", error.message)
        except StackproofError as error:
            return _killed("load", str(error))
        except Exception as error:  # noqa: BLE001 (whatever it is, it is told)
            return MutantResult(
                MutantFate.CRASHED, _raiser(error), f"{type(error).__name__}: {error}"
            )
        finally:
            path.write_text(text, encoding="utf-8")

    def _chart_of(self, file: str) -> Path | None:
        if not self._whole:
            return self._root
        parts = Path(file).parts
        return self._root / "charts" / parts[1] if parts[0] == "charts" else None

    def _judged(self, mutant: Mutant, chart: Path | None) -> MutantResult:
        changed: list[str] = []
        if chart is not None and not mutant.file.endswith("values-prod.yaml"):
            for name, print_, judged in self._renders(chart):
                if alike(self._before[chart][name], print_):
                    continue
                changed.append(name)
                if judged is not None:
                    return judged
        if self._whole:
            for what, judged in self._deployment(mutant):
                changed.append(what)
                if judged is not None:
                    return judged
        if not changed:
            return MutantResult(MutantFate.EQUIVALENT)
        if chart is not None:
            # Last, by trying each: a value that does nothing, a change that reaches no pod.
            for one in sorted(self._idle(chart) - self._idle_before[chart]):
                return _killed("audit", one)
        return MutantResult(MutantFate.SURVIVED, seen_in=tuple(changed))

    # --- One chart ------------------------------------------------------------------------------

    def _renders(
        self, chart: Path
    ) -> Iterator[tuple[str, Fingerprint | None, MutantResult | None]]:
        """Yield each case: its name, what it renders to, and a judgement if that is wrong."""
        external_objects = ExternalObjects.load(chart, self._pins)
        for case, outcome in self._outcomes(chart):
            if isinstance(outcome, HelmError):
                killed = None if case.must_fail else _killed("render", outcome.message)
                yield case.name, None, killed
            elif case.must_fail:
                killed = _killed("refusal", f"{case.name} is not refused")
                yield case.name, fingerprint(outcome), killed
            else:
                rendered = external_objects.around(outcome, case.values)
                found = next(_objections(chart, rendered, case.deaf), None)
                yield case.name, fingerprint(outcome), _killed(*found) if found else None

    def _idle(self, chart: Path) -> frozenset[str]:
        """Return the values of the richest scenario files that do nothing."""
        files_ = [c.values[0] for c in self._cases(chart) if c.values and not c.must_fail]
        rich = [file for file in files_ if isinstance(file, Path)][:_RICH]
        found = [one for file in rich for one in unused.find(chart, [file], 0, file.name)]
        stale = [one for file in files_ for one in unused.unrolled(chart, [file])]
        return frozenset(map(str, found)) | frozenset(unused.unread(chart)) | frozenset(stale)

    def _outcomes(self, chart: Path) -> Iterator[tuple[_Case, Release | HelmError]]:
        """Render the cases, the richest first: most mutants are killed there."""
        cases = self._cases(chart)
        for some in (cases[:_RICH], cases[_RICH:]):
            outcomes = renderer.render_many(_request(chart, case) for case in some)
            yield from zip(some, outcomes, strict=True)

    def _cases(self, chart: Path) -> list[_Case]:
        if chart not in self._known_cases:
            found = [_Case(path.stem, (path,)) for path in scenarios(chart)]
            found += [_Case(BASE.stem, (path,)) for path in [chart / BASE] if path.exists()]
            found = found or [_Case("defaults", ())]
            refused_ = sorted((chart / "ci" / "refused").glob("*.yaml"))
            found += [_Case(path.stem, (path,), must_fail=True) for path in refused_]
            space = Space.of(chart)
            mixed = map(space.given, space.sample(_MIXED)[-_MIXED:])
            found += [_Case(f"mixture {n}", (values,)) for n, values in enumerate(mixed)]
            self._known_cases[chart] = self._usable(chart, found)
        return self._known_cases[chart]

    def _usable(self, chart: Path, cases: Sequence[_Case]) -> list[_Case]:
        """Return the cases that are as they should be without a mutant, the richest first.

        Raises:
            StackproofError: The chart renders with none of them.
        """
        external_objects = ExternalObjects.load(chart, self._pins)
        renders = renderer.render_many(_request(chart, case) for case in cases)
        usable: list[tuple[int, _Case]] = []
        said = ""
        for case, outcome in zip(cases, renders, strict=True):
            if isinstance(outcome, HelmError):
                said = said or outcome.message
                if case.must_fail:
                    usable.append((0, case))
            elif not case.must_fail:
                rendered = external_objects.around(outcome, case.values)
                deaf = frozenset(name for name, _ in _objections(chart, rendered, crashes=True))
                usable.append((-len(outcome.manifests), replace(case, deaf=deaf)))
        if all(case.must_fail for _, case in usable):
            raise StackproofError(
                f"it renders with none of its scenarios, nor its defaults: {said}",
                where=chart.name,
                todo="Put values with which it renders into ci/NAME-values.yaml of the chart.",
            )
        usable.sort(key=lambda one: one[0])
        return [case for _, case in usable]

    # --- The deployment and the Flux tree ---------------------------------------------------------

    def _deployment(self, mutant: Mutant) -> Iterator[tuple[str, MutantResult | None]]:
        if not mutant.file.startswith("flux/"):
            differs = not all(map(alike, self._deployed_before, self._fingerprints()))
            # What the deployment does not take of default values may still lead nowhere.
            if differs or mutant.file.endswith("/values.yaml"):
                judged = self._judged_deployment()
                if differs or judged is not None:
                    yield "the deployment", judged
        if mutant.file.startswith("flux/") or mutant.file.endswith("values-prod.yaml"):
            flux = self._flux()
            if not alike(self._flux_before, flux):
                yield "the Flux tree", self._judged_flux()

    def _deployed(self) -> RenderedDeployment:
        return RenderedDeployment(Deployment.load(Checkout(self._root)))

    def _fingerprints(self) -> tuple[Fingerprint, ...]:
        return tuple(fingerprint(release) for release in self._deployed().releases)

    def _judged_deployment(self) -> MutantResult | None:
        deployed = self._deployed()
        deployment = deployed.deployment
        tenant = deployment.registry.tenants[0]
        releases = {
            "lgtm": (deployed.lgtm, deployment.lgtm_values()),
            "open-webui-stack": (deployed.tenants[tenant.name], deployment.tenant_values(tenant)),
        }
        for chart, (release, values) in releases.items():
            external_objects = ExternalObjects.load(self._root / "charts" / chart, self._pins)
            if found := broken(external_objects.around(release, values)):
                return _killed(*found)
        if first := _first_problem((*DEPLOYMENT, *SETTINGS, *PLATFORM), deployed):
            return first
        # Last, because starting the programs takes longest.
        told = (problem for release, _ in releases.values() for problem in refused(release))
        return next((_killed("configs", problem) for problem in told), None)

    def _flux(self) -> Fingerprint:
        from stackproof.flux import tree

        built = tree.build(Checkout(self._root))
        steps = [
            (step.name, said := f"{step.folder} {step.depends_on} {step.problems}", said)
            for step in built.steps
        ]
        objects = [m for step in built.steps for m in step.objects]
        return (*steps, *((m.source, _said(m), _meant(m)) for m in objects))

    def _judged_flux(self) -> MutantResult | None:
        from stackproof.flux.checks import FLUX, Subject

        subject = Subject.load(Checkout(self._root))
        if first := _first_problem(FLUX, subject):
            return first
        told = differing(subject.tree, self._deployed().deployment)
        return next((_killed("delivered", problem) for problem in told), None)


def _killed(by: str, message: str) -> MutantResult:
    return MutantResult(MutantFate.KILLED, by, message)


def _first_problem(rules: Iterable[Rule[Any]], subject: object) -> MutantResult | None:
    found = (_killed(rule.name, problem) for rule in rules for problem in rule.find(subject))
    return next(found, None)


def _request(chart: Path, case: _Case) -> Render:
    return Render(chart=chart, values=case.values, release="one", namespace="here")


def _objections(
    chart: Path, rendered: Rendered, but: frozenset[str] = frozenset(), *, crashes: bool = False
) -> Iterator[tuple[str, str]]:
    """Yield each check that does not hold, once, and its first message.

    Args:
        chart: The chart; one of our own has checks of its own.
        rendered: What is looked at.
        but: Checks that are not asked.
        crashes: Whether a check that raises counts as one that does not hold.
    """
    own = {"open-webui-stack": APPLICATION, "lgtm": OBSERVABILITY}.get(chart.name)
    valid = INVARIANTS["schema-valid"].find if own else _known_kinds_valid
    # First: what is not valid has no shape that the others could look at.
    finds = {"schema-valid": valid}
    finds |= {check.name: check.find for check in INVARIANTS if check.name not in finds}
    asked = [(name, partial(find, rendered)) for name, find in finds.items()]
    asked += [(check.name, partial(check.find, rendered.release)) for check in own or ()]
    for name, find in asked:
        if name in but:
            continue
        try:
            found = next(find(), None)
        except Exception as error:
            if not crashes:
                raise
            found = f"{type(error).__name__}: {error}"
        if found is not None:
            yield name, found


def _known_kinds_valid(rendered: Rendered) -> Iterator[str]:
    """Every object is valid, but those of operators' kinds that have no schema here.

    Other people's charts have some: they keep no other object from being looked at.
    """
    for version in rendered.kubernetes:
        known = schema.schemas(version, rendered.schemas)
        for manifest in rendered.release:
            if not manifest.kind or not known.foreign(manifest):
                yield from (f"Kubernetes {version}: {one}" for one in known.check(manifest))


def _raiser(error: BaseException) -> str:
    """Return where an error came about: function, file and line."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.name} ({Path(frame.filename).name}:{frame.lineno})"


#: What the API server, or the operator, puts where nothing is said: saying it changes nothing.
_DEFAULTS: Mapping[str, object] = {
    "protocol": "TCP",
    "type": "ClusterIP",
    "periodSeconds": 10,
    "failureThreshold": 3,
    "terminationGracePeriodSeconds": 30,
    "creationPolicy": "Owner",
    "emptyDir": {},
    "engineVersion": "v2",
    "whenDeleted": "Retain",
    "whenScaled": "Retain",
    "replicas": 1,
    "failurePolicy": "Fail",
    "refreshInterval": "1h",
    "strategy": "Setters",
}


def fingerprint(release: Release) -> Fingerprint:
    """Return what tells one render from another: its objects without what is said needlessly."""
    return tuple((m.source, _said(m), _meant(m)) for m in release)


def alike(before: Fingerprint | None, now: Fingerprint | None) -> bool:
    """Tell whether two renders are the same, or differ only in how a configuration is written."""
    if before is None or now is None or len(before) != len(now):
        return before is now
    same = all(a[0] == b[0] and a[2] == b[2] for a, b in zip(before, now, strict=True))
    # A checksum that changes by itself is no matter of writing.
    written = any(a[1] != b[1] and _CONFIG_MAP in a[1] for a, b in zip(before, now, strict=True))
    return before == now or (same and written)


_CONFIG_MAP = '"kind": "ConfigMap"'


@lru_cache(maxsize=50_000)
def _said(m: Manifest) -> str:
    return json.dumps(_plain(m.content), sort_keys=True)


@lru_cache(maxsize=50_000)
def _meant(m: Manifest) -> str:
    """Return what an object means: YAML as data, and no checksums of how it is written."""
    said = re.sub(r'("checksum/[^"]*": )"[0-9a-f]{64}"', r"\1", _said(m))
    if m.kind != "ConfigMap":
        return said
    data = {key: _parsed(key, text) for key, text in (m.get("data") or {}).items()}
    return json.dumps({**_plain(m.content), "data": data}, sort_keys=True, default=str)


def _parsed(key: str, text: str) -> object:
    try:
        return yaml.load(text, yaml.CSafeLoader) if key.endswith((".yaml", ".yml")) else text
    except yaml.YAMLError:
        return text


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {key: _plain(below) for key, below in value.items()}
        if "rollingUpdate" in kept and kept.get("type") == "RollingUpdate":
            del kept["type"]
        return {
            key: below
            for key, below in kept.items()
            if below is not None and not (key in _DEFAULTS and _DEFAULTS[key] == below)
        }
    return [_plain(one) for one in value] if isinstance(value, list) else value
