"""Mutation testing: changes of charts, values, configs and Flux files that checks must notice.

Each mutant is put into a copy of the repository and judged by the very checks that the tests run:
the invariants on every scenario of the chart, the checks of the whole deployment and of the Flux
tree, and the programs' own judgement of their configuration. The first that objects kills it. A
mutant that changes no object in any scenario is equivalent, and counted apart. What survives is a
hole in the checks, or has its reason in mutants-allowed.yaml.
"""

from __future__ import annotations

from .judge import Judge, MutantFate
from .operators import Mutant, files, mutants
from .run import MutantRecord, Summary, allowed, run, sample, since

__all__ = [
    "Judge",
    "Mutant",
    "MutantFate",
    "MutantRecord",
    "Summary",
    "allowed",
    "files",
    "mutants",
    "run",
    "sample",
    "since",
]
