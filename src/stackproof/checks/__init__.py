"""What must hold for everything that is rendered: one set of rules for tests, twins and mutants.

- `invariants`: of one render of any chart (schemas, references, pod security, …);
- `deployment`: of what this repository deploys, all releases together (tenants, retention, …);
- `platform`: of the same on the clusters that it is meant for (names resolve, who may enter, …);
- `configs`: of each configuration, as the program that reads it judges it.
"""

from __future__ import annotations

from stackproof.rules import Rule, Rules

__all__ = ["Rule", "Rules"]
