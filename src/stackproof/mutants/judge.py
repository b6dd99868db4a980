"""Judge mutants of a checkout, or of any chart: what notices them, if anything does."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from pathlib import Path

import yaml

from stackproof import audit, helm
from stackproof.checkout import Checkout
from stackproof.checks.application import APPLICATION
from stackproof.checks.configs import refused
from stackproof.checks.delivered import differing
from stackproof.checks.deployment import DEPLOYMENT, Scene
from stackproof.checks.invariants import broken
from stackproof.checks.observability import OBSERVABILITY
from stackproof.checks.settings import SETTINGS
from stackproof.deployment import Deployment
from stackproof.errors import StackproofError
from stackproof.helm import HelmError, Render, Values
from stackproof.manifests import Manifest, Release
from stackproof.mutants.operators import Mutant
from stackproof.permutations import BASE, Space, scenarios
from stackproof.surroundings import Surroundings

_COPIED = ("charts", "observability", "flux", "schemas", "tools", ".github", "versions.yaml")
_MIXED = 6
_RICH = 2


class Verdict(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    SURVIVED = "survived"
    EQUIVALENT = "equivalent"


@dataclass(frozen=True)
class Judgement:
    """A verdict, and how it came about."""

    verdict: Verdict
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


class Judge:
    """Judges mutants in a copy of its own, one after the other.

    Args:
        root: A checkout, or the folder of one chart.
        workplace: An empty folder for the copy.
    """

    def __init__(self, root: Path, workplace: Path) -> None:
        self._whole = (root / "charts").is_dir()
        self._root = workplace / root.name
        if self._whole:
            for name in _COPIED:
                source, target = root / name, self._root / name
                if source.is_dir():
                    shutil.copytree(source, target)
                elif source.exists():
                    shutil.copy2(source, target)
        else:
            shutil.copytree(root, self._root)
        self._pins = Checkout(self._root) if self._whole else Checkout.find()
        self._before: dict[Path, Mapping[str, Fingerprint | None]] = {}
        self._idle_before: dict[Path, frozenset[str]] = {}
        self._flux_before = self._flux() if self._whole else ()
        self._deployed_before = self._deployed() if self._whole else ()
        self._refuse_unsound()

    def _refuse_unsound(self) -> None:
        """Raise where a check objects to the checkout itself: it would seem to kill them all."""
        found = (self._judged_deployment() or self._judged_flux()) if self._whole else None
        if found is not None:
            raise StackproofError(
                f"{found.by}: {found.message}",
                where=self._root.name,
                todo="Mutants are judged by checks that hold: put this right first.",
            )

    def judge(self, mutant: Mutant) -> Judgement:
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
            return Judgement(Verdict.KILLED, "render", error.message)
        except StackproofError as error:
            return Judgement(Verdict.KILLED, "load", str(error))
        except Exception as error:  # noqa: BLE001 (a check that cannot cope has noticed)
            return Judgement(Verdict.KILLED, "load", f"{type(error).__name__}: {error}")
        finally:
            path.write_text(text, encoding="utf-8")

    def _chart_of(self, file: str) -> Path | None:
        if not self._whole:
            return self._root
        parts = Path(file).parts
        return self._root / "charts" / parts[1] if parts[0] == "charts" else None

    def _judged(self, mutant: Mutant, chart: Path | None) -> Judgement:
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
            return Judgement(Verdict.EQUIVALENT)
        if chart is not None:
            # Last, by trying each: a value that does nothing, a change that reaches no pod.
            for one in sorted(self._idle(chart) - self._idle_before[chart]):
                return Judgement(Verdict.KILLED, "audit", one)
        return Judgement(Verdict.SURVIVED, seen_in=tuple(changed))

    # --- One chart ------------------------------------------------------------------------------

    def _renders(self, chart: Path) -> Iterator[tuple[str, Fingerprint | None, Judgement | None]]:
        """Yield each case: its name, what it renders to, and a judgement if that is wrong."""
        surroundings = Surroundings.load(chart, self._pins)
        for case, outcome in self._outcomes(chart):
            if isinstance(outcome, HelmError):
                killed = Judgement(Verdict.KILLED, "render", outcome.message)
                yield case.name, None, None if case.must_fail else killed
                continue
            if case.must_fail:
                killed = Judgement(Verdict.KILLED, "refusal", f"{case.name} is not refused")
                yield case.name, fingerprint(outcome), killed
                continue
            found = broken(surroundings.around(outcome, case.values)) or _unfit(chart, outcome)
            yield (
                case.name,
                fingerprint(outcome),
                Judgement(Verdict.KILLED, *found) if found else None,
            )

    def _idle(self, chart: Path) -> frozenset[str]:
        """Return the values of the richest scenario files that do nothing."""
        files_ = [c.values[0] for c in self._cases(chart) if c.values and not c.must_fail]
        rich = [file for file in files_ if isinstance(file, Path)][:_RICH]
        found = [one for file in rich for one in audit.idle(chart, [file], 0, file.name)]
        stale = [one for file in files_ for one in audit.unrolled(chart, [file])]
        return frozenset(map(str, found)) | frozenset(audit.unread(chart)) | frozenset(stale)

    def _outcomes(self, chart: Path) -> Iterator[tuple[_Case, Release | HelmError]]:
        """Render the cases, the richest first: most mutants are killed there."""
        cases = self._cases(chart)
        for some in (cases[:_RICH], cases[_RICH:]):
            outcomes = helm.render_many(self._asked(chart, case) for case in some)
            yield from zip(some, outcomes, strict=True)

    def _asked(self, chart: Path, case: _Case) -> Render:
        return Render(
            chart=chart,
            values=case.values,
            release="one",
            namespace="here",
            kube_version=self._kube_version,
        )

    @cached_property
    def _kube_version(self) -> str:
        return helm.newest_kubernetes()

    def _cases(self, chart: Path) -> list[_Case]:
        if chart not in self._known_cases:
            found = [_Case(path.stem, (path,)) for path in scenarios(chart)]
            found += [_Case(BASE.stem, (path,)) for path in [chart / BASE] if path.exists()]
            refused_ = sorted((chart / "ci" / "refused").glob("*.yaml"))
            found += [_Case(path.stem, (path,), must_fail=True) for path in refused_]
            space = Space.of(chart)
            mixed = space.sample(_MIXED)[-_MIXED:]
            found += [
                _Case(f"mixture {n}", (space.given(choice),)) for n, choice in enumerate(mixed)
            ]
            renders = helm.render_many(self._asked(chart, case) for case in found)
            surroundings = Surroundings.load(chart, self._pins)
            usable = [
                (-len(outcome.manifests) if isinstance(outcome, Release) else 0, case)
                for case, outcome in zip(found, renders, strict=True)
                if _is_sound(case, outcome, surroundings)
            ]
            usable.sort(key=lambda one: one[0])
            self._known_cases[chart] = [case for _, case in usable] or [_Case("defaults", ())]
        return self._known_cases[chart]

    @cached_property
    def _known_cases(self) -> dict[Path, list[_Case]]:
        return {}

    # --- The deployment and the Flux tree ---------------------------------------------------------

    def _deployment(self, mutant: Mutant) -> Iterator[tuple[str, Judgement | None]]:
        if not mutant.file.startswith("flux/"):
            now = self._deployed()
            if not all(map(alike, self._deployed_before, now)):
                yield "the deployment", self._judged_deployment()
            elif mutant.file.endswith("/values.yaml"):
                # What the deployment does not take may still lead nowhere.
                judged = self._judged_deployment()
                if judged is not None:
                    yield "the deployment", judged
        if mutant.file.startswith("flux/") or mutant.file.endswith("values-prod.yaml"):
            flux = self._flux()
            if not alike(self._flux_before, flux):
                yield "the Flux tree", self._judged_flux()

    def _scene(self) -> Scene:
        return Scene(Deployment.load(Checkout(self._root)))

    def _deployed(self) -> tuple[Fingerprint, ...]:
        return tuple(fingerprint(release) for release in self._scene().releases)

    def _judged_deployment(self) -> Judgement | None:
        scene = self._scene()
        surroundings = {
            name: Surroundings.load(self._root / "charts" / name, self._pins)
            for name in ("lgtm", "open-webui-stack")
        }
        deployment = scene.deployment
        found = broken(surroundings["lgtm"].around(scene.lgtm, deployment.lgtm_values()))
        tenant = deployment.registry.tenants[0]
        stack = surroundings["open-webui-stack"]
        found = found or broken(
            stack.around(scene.tenants[tenant.name], deployment.tenant_values(tenant))
        )
        if found:
            return Judgement(Verdict.KILLED, *found)
        for check in (*DEPLOYMENT, *SETTINGS):
            for problem in check.find(scene):
                return Judgement(Verdict.KILLED, check.name, problem)
        # Last, because starting the programs takes longest.
        for release in (scene.lgtm, scene.tenants[tenant.name]):
            for problem in refused(release):
                return Judgement(Verdict.KILLED, "configs", problem)
        return None

    def _flux(self) -> Fingerprint:
        from stackproof.flux import tree

        built = tree.build(Checkout(self._root))
        steps = [
            (step.name, said := f"{step.folder} {step.depends_on} {step.problems}", said)
            for step in built.steps
        ]
        objects = [m for step in built.steps for m in step.objects]
        return (*steps, *((m.source, _said(m), _meant(m)) for m in objects))

    def _judged_flux(self) -> Judgement | None:
        from stackproof.flux.checks import FLUX, Subject

        subject = Subject.load(Checkout(self._root))
        for check in FLUX:
            for problem in check.find(subject):
                return Judgement(Verdict.KILLED, check.name, problem)
        for problem in differing(subject.tree, self._scene().deployment):
            return Judgement(Verdict.KILLED, "delivered", problem)
        return None


def _unfit(chart: Path, release: Release) -> tuple[str, str] | None:
    """Return the first check of one of our own charts that does not hold, and its message."""
    own = {"open-webui-stack": APPLICATION, "lgtm": OBSERVABILITY}.get(chart.name, ())
    for check in own:
        for problem in check.find(release):
            return check.name, problem
    return None


def _is_sound(case: _Case, outcome: Release | HelmError, surroundings: Surroundings) -> bool:
    """Tell whether a case is as it should be without a mutant: only then it can kill one."""
    if isinstance(outcome, HelmError) or case.must_fail:
        return isinstance(outcome, HelmError) and case.must_fail
    around = surroundings.around(outcome, case.values)
    return broken(around) is None and _unfit(surroundings.chart, outcome) is None


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
    return json.dumps({**_plain_map(m.content), "data": data}, sort_keys=True, default=str)


def _parsed(key: str, text: str) -> object:
    try:
        return yaml.load(text, yaml.CSafeLoader) if key.endswith((".yaml", ".yml")) else text
    except yaml.YAMLError:
        return text


def _plain_map(value: Mapping[str, object]) -> dict[str, object]:
    plain = _plain(value)
    return dict(plain) if isinstance(plain, Mapping) else {}


def _plain(value: object) -> object:
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
