"""What Flux installs from elsewhere is what versions.yaml pins."""

from __future__ import annotations

from collections.abc import Iterator

from stackproof.repo.versions import Chart, Versions

from .subject import FLUX, Subject, chart_of, dig, of, own


@FLUX.register
def charts_are_those_of_the_pins(subject: Subject) -> Iterator[str]:
    """Each chart from elsewhere has the repository and the version of versions.yaml, and back."""
    pins = dict(Versions.load(subject.checkout).charts)
    installed: set[str] = set()
    for step, manifest in own(subject, "HelmRelease"):
        chart = chart_of(manifest)
        if dig(chart, "sourceRef").get("kind") != "HelmRepository":
            continue
        url, name = subject.repository(manifest), str(chart.get("chart"))
        found = Chart(url, str(chart.get("version")))
        installed.add(name)
        if name not in pins:
            yield f"{of(step, manifest)}: versions.yaml pins no chart {name}"
        elif found != pins[name]:
            yield (
                f"{of(step, manifest)}: chart {name} is {found.version} of {found.repository}, "
                f"versions.yaml has {pins[name].version} of {pins[name].repository}"
            )
    for name in sorted(pins.keys() - installed):
        yield f"versions.yaml: nothing in flux/ installs the chart {name}"
