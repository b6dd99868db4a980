"""Start a stack, attack it, and show the outcome of each attack.

Writes build/report/attacks.json, which the next report includes; with some attacks only, into
build/report/partial. Exit code: 0 every outcome is as it must be, 1 one is not.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rich.text import Text

from stackproof.options import add_junit, add_names, add_report, only_listed
from stackproof.repo.checkout import Checkout
from stackproof.wording import counted

if TYPE_CHECKING:
    from stackproof.attacks import AttackOutcome


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the names and --list."""
    add_names(parser, "an attack")
    add_junit(parser)
    add_report(parser)


def run(args: argparse.Namespace) -> int:
    """Run the attacks and print what became of them."""
    from stackproof import attacks, terminal
    from stackproof.flux.deployment import Deployment
    from stackproof.junit import Case
    from stackproof.repo import results
    from stackproof.stack import providers

    checkout = Checkout.find()
    if only_listed(args, "attack", {attack.name: attack.does for attack in attacks.ATTACKS}):
        return 0
    console = terminal.console(args)
    of = results.Provenance.of(checkout)
    providers.prepare("local", console)
    chosen = [each for each in attacks.ATTACKS if not args.names or each.name in args.names]
    records, cases = [], []
    with attacks.Arena(Deployment.load(checkout)) as arena:
        for attack in chosen:
            with console.status(f"{attack.name}: {attack.does}"):
                outcome = arena.run(attack)
            records.append(outcome.record())
            console.print(_line(outcome), soft_wrap=True)
            failures = []
            if not outcome.ok:
                harm = "; ".join(outcome.harmed) or f"not {attack.expect}"
                failures = [f"{harm}: {outcome.answer}"]
                console.print(f"  {failures[0]}", soft_wrap=True)
            group = f"attacks.{attack.entry_point}"
            cases.append(Case(group, attack.name, failures, (), outcome.seconds))
    target = results.write(
        args.report or Checkout.report_folder(),
        "attacks",
        {"of": len(attacks.ATTACKS), "attacks": records},
        of,
        whole=not args.names,
    )
    terminal.answer(args, target, cases)
    failed = [record["name"] for record in records if not record["ok"]]
    console.print(
        f"\n{counted(len(records), 'attack')}, "
        f"{counted(len(failed), 'not as it must be', 'not as they must be')}\n{target}",
        soft_wrap=True,
    )
    return 1 if failed else 0


def _line(outcome: AttackOutcome) -> Text:
    """Return what became of an attack."""
    attack = outcome.attack
    sign, style = ("✔", "green") if outcome.ok else ("✘", "bold red")
    became = "refused" if outcome.refused else attack.expect.value
    return Text.assemble(
        (sign, style),
        f" {attack.name}  ",
        (f"{attack.entry_point}, {became}, {outcome.seconds:.1f} s", "dim"),
    )
