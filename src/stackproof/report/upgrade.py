"""A roll as a file, on the page and in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Console
from rich.text import Text

from stackproof.repo import results
from stackproof.repo.results import Provenance
from stackproof.upgrade import Upgrade, UpgradeVerdict
from stackproof.wording import counted

from .plots import Bar, timeline

_STYLE = {UpgradeVerdict.ISOLATED: "bold green", UpgradeVerdict.INCOMPLETE: "bold yellow"}
_MOST_REASONS = 12


def upgrade_json(upgrade: Upgrade) -> dict[str, Any]:
    """Return the contents of `upgrade.json`."""
    return {
        "since": upgrade.since,
        "verdict": upgrade.verdict.value,
        "parts": {
            "before": upgrade.before.verdict.value,
            "during": upgrade.during.value,
            "after": upgrade.after.verdict.value if upgrade.after else None,
        },
        "tenants": list(upgrade.tenants),
        "rolled": list(upgrade.rolled),
        "seconds": round(upgrade.seconds, 3),
        "programs": {
            name: {program.name: program.version for program in proof.programs}
            for name, proof in (("before", upgrade.before), ("after", upgrade.after))
            if proof
        },
        "events": [
            {"at_s": round(each.at, 3), "component": each.component, "what": each.what}
            for each in upgrade.events
        ],
        "availability": [
            {
                "name": each.name,
                "tenant": each.tenant,
                "polls": each.polls,
                "unanswered_s": round(each.unanswered_s, 3),
                "gaps_s": [[round(begin, 3), round(end, 3)] for begin, end in each.gaps],
                "apart_s": round(each.apart_s, 3),
            }
            for each in upgrade.availability
        ],
        "delivered": [{**asdict(each), "signal": each.signal.value} for each in upgrade.delivered],
        "seen": [
            {
                "kind": each.violation.kind.value,
                "leaking": each.violation.kind.leaking,
                "message": each.violation.message,
                "times": each.times,
                "first_s": round(each.first_s, 3),
                "last_s": round(each.last_s, 3),
            }
            for each in upgrade.seen
        ],
        "reasons": list(upgrade.reasons),
        "notes": list(upgrade.notes),
    }


def write_upgrade(upgrade: Upgrade, directory: Path, of: Provenance) -> Path:
    """Write `upgrade.json`; return its path."""
    return results.write(directory, "upgrade", upgrade_json(upgrade), of)


def write_unchanged(since: str, directory: Path, of: Provenance) -> Path:
    """Write `upgrade.json` of a change that replaces nothing; return its path."""
    found = {"since": since, "verdict": UpgradeVerdict.UNCHANGED.value, "rolled": []}
    return results.write(directory, "upgrade", found, of)


def show_upgrade(upgrade: Upgrade, console: Console) -> None:
    """Print the verdict, its four parts, and what is wrong."""
    for line in _lines(upgrade):
        console.print(line, soft_wrap=True)


def _lines(upgrade: Upgrade) -> Iterator[Text]:
    verdict = upgrade.verdict
    after = upgrade.after.verdict if upgrade.after else "not tried"
    yield Text.assemble(
        (verdict.value, _STYLE.get(verdict, "bold red")),
        f"  before: {upgrade.before.verdict}, during: {upgrade.during}, after: {after}",
    )
    rolled = ", ".join(upgrade.rolled) or "no component"
    yield Text(f"since {upgrade.since}: {rolled} rolled in {upgrade.seconds:.1f} s")
    for each in upgrade.delivered:
        known = f" ({each.known} by a known limit)" if each.known else ""
        yield Text(
            f"  {each.signal}: {each.acknowledged} acknowledged, {each.lost} lost{known}, "
            f"{each.twice} twice, {each.misplaced} misplaced"
        )
    for told in upgrade.availability:
        yield Text(
            f"  {told.name}: {told.unanswered_s:.1f} s without an answer, "
            f"{counted(told.polls, 'question')}, {told.apart_s:.1f} s apart at most",
            "" if told.unanswered_s else "dim",
        )
    for reason in upgrade.reasons[:_MOST_REASONS]:
        yield Text(reason, "red")
    if (more := len(upgrade.reasons) - _MOST_REASONS) > 0:
        yield Text(f"… and {more} more in the report", "dim")
    for note in upgrade.notes:
        yield Text(f"note: {note}", "dim")


def drawn(found: Mapping[str, Any]) -> Markup:
    """Draw what `upgrade.json` holds as a timeline: what was replaced, and who got no answer."""
    if not found.get("events"):
        return Markup("")
    events: Sequence[Mapping[str, Any]] = found["events"]
    rows: list[tuple[str, Sequence[Bar], str]] = []
    for component in found["rolled"]:
        times = [each["at_s"] for each in events if each["component"] == component]
        bar = Bar(min(times), max(times), "roll")
        rows.append((component, [bar], f"{bar.end - bar.begin:.1f} s"))
    for each in found["availability"]:
        gaps = [Bar(begin, end, "gap") for begin, end in each["gaps_s"]]
        rows.append((each["name"], gaps, f"{each['unanswered_s']:.1f} s"))
    leaking = [each for each in found["seen"] if each["leaking"]]
    leaks = [Bar(each["first_s"], each["last_s"], "leaked") for each in leaking]
    rows.append(("leaks", leaks, counted(sum(each["times"] for each in leaking), "look")))
    title = "Seconds of the roll: what was replaced, when nobody answered, and what leaked"
    return timeline(title, rows)
