"""Run many mutants on all cores, in an order and a choice that a seed fixes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import subprocess
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import yaml

from stackproof.errors import StackproofError, UsageError

from .judge import Judge, MutantFate, MutantResult
from .operators import Mutant, files, mutants

ALLOWED = "mutants-allowed.yaml"
_CHART_FILES = ("templates/*", "files/*", "values.yaml")
_BATCH = 12


@dataclass(frozen=True)
class MutantRecord:
    """A mutant and what became of it."""

    mutant: Mutant
    judgement: MutantResult

    @property
    def verdict(self) -> MutantFate:
        """What became of it."""
        return self.judgement.verdict


@dataclass(frozen=True)
class Summary:
    """All results of a run."""

    results: tuple[MutantRecord, ...]
    allowed: Mapping[str, str]
    """Id of each survivor that has an explanation, and the explanation."""
    others: tuple[MutantRecord, ...] = ()
    """Of mutants that were not drawn, but are explained: they count for `stale` only."""
    deaf: Mapping[str, int] = field(default_factory=dict)
    """Checks that fail without a mutant, and so notice none: in how many scenarios."""

    def count(self, verdict: MutantFate) -> int:
        """Return how many mutants ended so."""
        return len(self._ended(verdict))

    @property
    def counted(self) -> int:
        """How many are not equivalent."""
        return len(self.results) - self.count(MutantFate.EQUIVALENT)

    @property
    def share(self) -> float | None:
        """Killed mutants of those that are not equivalent, 0 to 1; None if all are."""
        return self.count(MutantFate.KILLED) / self.counted if self.counted else None

    def _ended(self, verdict: MutantFate) -> tuple[MutantRecord, ...]:
        return tuple(one for one in self.results if one.verdict is verdict)

    @property
    def crashed(self) -> tuple[MutantRecord, ...]:
        """Those that a check could not cope with."""
        return self._ended(MutantFate.CRASHED)

    @property
    def survivors(self) -> tuple[MutantRecord, ...]:
        """Those that nothing noticed."""
        return self._ended(MutantFate.SURVIVED)

    @property
    def unexplained(self) -> tuple[MutantRecord, ...]:
        """Survivors that mutants-allowed.yaml says nothing of."""
        return tuple(one for one in self.survivors if one.mutant.id not in self.allowed)

    @property
    def stale(self) -> tuple[str, ...]:
        """Explanations of mutants that there are no more, or that are noticed: to be deleted."""
        alive = {
            one.mutant.id
            for one in (*self.results, *self.others)
            if one.verdict is MutantFate.SURVIVED
        }
        return tuple(sorted(self.allowed.keys() - alive))

    def record(self) -> dict[str, object]:
        """The run as build/report/mutants.json has it."""
        killers = Counter(one.judgement.by for one in self._ended(MutantFate.KILLED))
        return {
            "mutants": len(self.results),
            **{str(verdict): self.count(verdict) for verdict in MutantFate},
            "killed_share": None if self.share is None else round(self.share, 4),
            "deaf": dict(self.deaf),
            "explained": len(self.survivors) - len(self.unexplained),
            "killed_by": dict(killers.most_common()),
            "crashes": [
                {"diff": one.mutant.diff(), "by": one.judgement.by, "said": one.judgement.message}
                for one in self.crashed
            ],
            "survivors": [
                {
                    "file": one.mutant.file,
                    "line": one.mutant.line,
                    "operator": one.mutant.operator,
                    "diff": one.mutant.diff(),
                    "changes": list(one.judgement.seen_in),
                    "reason": self.allowed.get(one.mutant.id),
                }
                for one in self.survivors
            ],
        }


def generate(root: Path) -> list[Mutant]:
    """Return every mutant of a checkout, or of a chart's folder.

    Raises:
        UsageError: It is neither.
    """
    whole = not (root / "Chart.yaml").is_file()
    if whole and not (root / "charts").is_dir():
        raise UsageError("there is no chart", where=str(root), todo="Name a chart's folder.")
    names = files(root) if whole else files(root, _CHART_FILES)
    return [
        mutant
        for name in names
        for mutant in mutants(name, (root / name).read_text(encoding="utf-8"))
    ]


def sample(of: Sequence[Mutant], most: int, seed: int = 0) -> list[Mutant]:
    """Return at most so many mutants, chosen by chance, in the order of the files.

    Each is drawn by its own name: a change of one file leaves the choice in the others as it is.
    """
    drawn: list[tuple[str, int]] = []
    times: dict[str, int] = defaultdict(int)
    for i, mutant in enumerate(of):
        times[mutant.id] += 1
        name = f"{seed}\0{mutant.id}\0{times[mutant.id]}"
        drawn.append((hashlib.sha256(name.encode()).hexdigest(), i))
    return [of[i] for i in sorted(i for _, i in sorted(drawn)[:most])]


def since(of: Sequence[Mutant], root: Path, revision: str) -> list[Mutant]:
    """Return the mutants of lines that a checkout has changed since a revision.

    Raises:
        UsageError: git does not know the revision.
    """
    changed = _changed_lines(root, revision)
    return [mutant for mutant in of if mutant.line in changed.get(mutant.file, ())]


def _changed_lines(root: Path, revision: str) -> Mapping[str, set[int]]:
    done = subprocess.run(
        ["git", "diff", "--unified=0", "--no-color", "--relative", revision, "--", "."],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UsageError(done.stderr.strip(), where=f"git diff {revision}")
    found: dict[str, set[int]] = defaultdict(set)
    file = ""
    for line in done.stdout.splitlines():
        if line.startswith("+++ "):
            file = line.removeprefix("+++ ").removeprefix("b/")
        elif line.startswith("@@"):
            start, _, count = line.split("+")[1].split(" ")[0].partition(",")
            found[file].update(range(int(start), int(start) + int(count or 1)))
    return found


def run(
    root: Path,
    chosen: Sequence[Mutant],
    others: Sequence[Mutant] = (),
    *,
    jobs: int | None = None,
    on_result: Callable[[MutantRecord], None] | None = None,
) -> Summary:
    """Judge mutants, several processes at a time; results are in the order of the mutants.

    Args:
        root: A checkout, or a chart's folder.
        chosen: Which mutants.
        others: Further ones, whose results do not count: explained, and not drawn.
        jobs: Processes; as many as there are cores by default.
        on_result: Told of each result as it comes.

    Raises:
        StackproofError: A checkout that its own checks object to, a chart that does not render, or
            a process that was killed.
    """
    results: dict[int, MutantRecord] = {}
    every = list(enumerate((*chosen, *others)))
    batches = [every[start : start + _BATCH] for start in range(0, len(every), _BATCH)]
    with tempfile.TemporaryDirectory(prefix="stackproof-mutants-") as folder:
        deaf = _judge_of(root, Path(folder)).deaf  # here, where an unsound checkout is an error
        with _processes(jobs) as pool:
            for done in pool.map(partial(_judge, root, Path(folder)), batches):
                for i, result in done:
                    results[i] = result
                    if on_result:
                        on_result(result)
    ordered = tuple(results[i] for i in sorted(results))
    return Summary(ordered[: len(chosen)], allowed(root), ordered[len(chosen) :], deaf)


@contextmanager
def _processes(jobs: int | None) -> Iterator[ProcessPoolExecutor]:
    """Give a pool that ends at once where the run does: a batch takes a minute."""
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs or os.cpu_count(), mp_context=spawn, initializer=_begin)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise StackproofError(
            "a process that judges was killed: is there too little memory?",
            where="mutants",
            todo="Try with fewer at a time: --jobs 1.",
        ) from error
    except BaseException:
        for process in multiprocessing.active_children():
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Make this process end with the run: Ctrl-C is for the run alone, and so is its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run = multiprocessing.parent_process()
    assert run is not None

    def watch() -> None:
        run.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@cache
def _judge_of(root: Path, folder: Path) -> Judge:
    """Return this process's judge, with a copy of its own."""
    return Judge(root, folder / str(os.getpid()))


def _judge(
    root: Path, folder: Path, batch: Sequence[tuple[int, Mutant]]
) -> list[tuple[int, MutantRecord]]:
    judge = _judge_of(root, folder)
    return [(i, MutantRecord(mutant, judge.judge(mutant))) for i, mutant in batch]


def allowed(root: Path) -> dict[str, str]:
    """Return the survivors that are explained, and why each is no hole.

    Raises:
        StackproofError: An entry lacks one of its parts.
    """
    places = (root / "charts" / ALLOWED, root / "ci" / "stackproof" / ALLOWED)
    file = next(filter(Path.exists, places), None)
    found: dict[str, str] = {}
    text = file.read_text(encoding="utf-8") if file else ""
    for entry in yaml.load(text, Loader=yaml.CSafeLoader) or ():
        lacking = {"file", "operator", "line", "reason"} - entry.keys()
        if lacking:
            raise StackproofError(
                f"an entry lacks {', '.join(sorted(lacking))}: {entry}", where=str(file)
            )
        found[f"{entry['file']}: {entry['operator']}: {entry['line']}"] = entry["reason"]
    return found
