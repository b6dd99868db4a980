"""What the parts of a run share: it asks the read APIs, and keeps all findings but the matrix."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from stackproof.backends.base import Answer, Client, ReadApi
from stackproof.model import Access, Signal
from stackproof.otlp import synthetic
from stackproof.otlp.synthetic import Emission
from stackproof.stack.base import Stack

from .tokens import Marks, Window, question
from .verdict import Finding, Violation

#: Refusals and data sources are checked for at most this many tenants.
CHECKED_TENANTS = 20
#: What is asked once is asked again for this long while there is no answer at all: a forwarded port
#: loses a connection now and then, and silence proves nothing.
_UNANSWERED_S, _PAUSE_S = 5.0, 0.1


class Observer:
    """What the parts of a run share. Safe to use from several threads.

    Args:
        stack: The deployment under proof.
        tenants: Who must be kept apart.
        signals: What each of them sends.
        client: Sends the requests.
        deadline_s: How long telemetry may take to be seen.
        emissions: What was sent already, by tenant; without it new ones are made.
    """

    def __init__(
        self,
        stack: Stack,
        tenants: tuple[str, ...],
        signals: tuple[Signal, ...],
        client: Client,
        deadline_s: float,
        emissions: Mapping[str, Emission] | None = None,
    ) -> None:
        self.stack = stack
        self.tenants = tenants
        self.client = client
        self.deadline_s = deadline_s
        self.run_id = synthetic.new_run()
        self.readers = {tenant: stack.reader(tenant) for tenant in tenants}
        # All tokens are known before the first is sent: whatever is read is searched for all.
        self.emissions = dict(emissions or {}) or {
            tenant: synthetic.new_emission(tenant, self.run_id, signals) for tenant in tenants
        }
        self.marks = Marks(self.emissions)
        self.violations: list[Violation] = []
        self.findings: list[Finding] = []
        self.notes: list[str] = []
        #: Ids of the read APIs through which an owner has seen its own.
        self.shown: set[str] = set()
        self.health: dict[str, None] = {}
        self.requests = 0
        self.lock = threading.Lock()

    @property
    def cut_short(self) -> bool:
        """Whether a component is dead, so that nothing more can be proven."""
        return bool(self.health)

    def ask(self, api: ReadApi, access: Access, owner: str, within: Window | None = None) -> Answer:
        """Ask for an owner's data, once."""
        self.requests += 1
        return self.client.ask(api, access, question(self.emissions[owner], within))

    def ask_once(self, api: ReadApi, access: Access, owner: str) -> Answer:
        """Ask for an owner's data, again only while there is no answer at all."""
        ends = time.monotonic() + min(_UNANSWERED_S, self.deadline_s)
        while True:
            answer = self.ask(api, access, owner)
            if not answer.error or self.cut_short or time.monotonic() > ends:
                return answer
            time.sleep(_PAUSE_S)

    def found(self, finding: Finding, violation: Violation | None = None) -> None:
        """Keep what a further check has found."""
        with self.lock:
            self.findings.append(finding)
            if violation is not None:
                self.violations.append(violation)

    def violated(self, violation: Violation) -> None:
        """Keep a violation that no further check has found."""
        with self.lock:
            self.violations.append(violation)

    def note(self, note: str) -> None:
        """Keep what was not checked, and why; the same only once."""
        with self.lock:
            if note not in self.notes:
                self.notes.append(note)
