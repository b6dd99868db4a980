"""Where attacks are run: one stack for most of them, and one of its own for each that ruins it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Self

from stackproof.backends import Client
from stackproof.flux.deployment import Deployment
from stackproof.model import EntryPoint
from stackproof.stack.local import LocalStack

from .base import Attack, AttackedStack, AttackOutcome, run


class Arena:
    """Local stacks of one deployment, started when an attack needs them.

    Attacks on the backends get a stack apart from the others, and those that destroy, one each.
    """

    def __init__(self, deployment: Deployment, *, spare: bool = False) -> None:
        """`spare`: the gateway refuses what destroys, so that even that needs no stack apart."""
        self.deployment = deployment
        self.spare = spare
        self._open: dict[str, tuple[ExitStack, AttackedStack]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._open):
            self._end(name)

    def run(self, attack: Attack) -> AttackOutcome:
        """Run one attack where it does no harm to the next."""
        apart = attack.destroys and not (self.spare and attack.entry_point is EntryPoint.GATEWAY)
        shared = "backends" if attack.entry_point is EntryPoint.BACKEND else "shared"
        name = "ruins" if apart else shared
        try:
            target = self._scene(name)
            return run(attack.against(target.stack.versions), target)
        finally:
            if apart:
                self._end(name)

    def _scene(self, name: str) -> AttackedStack:
        if name not in self._open:
            with ExitStack() as opening:
                client = opening.enter_context(Client())
                stack = opening.enter_context(LocalStack(self.deployment))
                self._open[name] = (opening.pop_all(), AttackedStack(stack, client))
        return self._open[name][1]

    def _end(self, name: str) -> None:
        if opened := self._open.pop(name, None):
            opened[0].close()
