"""Runs benchmarks: a registry of them, and the `Run` through which one records what it measures.

A benchmark is a function in a module of this package::

    @benchmark("memory", "How many bytes does a resting order take?", [Goal("resting order", "<=", 400)])
    def memory(run: Run) -> None:
        for _ in run.rounds(3):
            run.record("resting order", measured_bytes(run.scaled(1_000_000)), "bytes")

Everything that is compared is measured in the same run, side by side, and recorded as a ratio too: the machine's own
speed cancels out of a ratio.
"""

from __future__ import annotations

import importlib
import pkgutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

import benchmarks
from benchmarks.machine import load_average, this_machine
from benchmarks.results import Figure, Goal, Plot, Result
from forkast_streams.errors import SetupError

__all__ = ["Benchmark", "Goal", "Plot", "Registry", "Run", "all_benchmarks", "benchmark"]

RATIO = "x"
# What --quick divides sizes by.
QUICK_DIVISOR = 10
_SHOWN_EVERY_S = 0.1


class Run:
    """One run of a benchmark, and what it has recorded so far.

    Attributes:
        quick: whether a tenth of the work is enough.
        folder: a temporary folder of this run, which other users may enter, as servers started as root need it.
    """

    def __init__(self, *, quick: bool, folder: Path, progress: Progress) -> None:
        self.quick = quick
        self.folder = folder
        self.figures: dict[str, Figure] = {}
        self.plots: list[Plot] = []
        self.notes: list[str] = []
        self._progress = progress

    def scaled(self, size: int) -> int:
        """``size``, or a tenth of it in a quick run."""
        return max(1, size // QUICK_DIVISOR) if self.quick else size

    def rounds(self, count: int) -> range:
        """``count`` rounds, or a single one in a quick run."""
        return range(1 if self.quick else count)

    def record(self, name: str, value: float, unit: str) -> float:
        """Add a value, one a round, to the figure ``name``; return it."""
        figure = self.figures.setdefault(name, Figure(name, unit))
        assert figure.unit == unit, f"{name} is recorded in {figure.unit} and in {unit}"
        figure.values.append(float(value))
        return float(value)

    def ratio(self, name: str, over: str, under: str) -> None:
        """Record figure ``over`` divided by figure ``under``: round by round when they have the same rounds.

        Nothing is recorded when one of them was not measured.
        """
        if over not in self.figures or under not in self.figures:
            return
        tops, bottoms = self.figures[over].values, self.figures[under].values
        if len(tops) != len(bottoms):
            tops, bottoms = [self.figures[over].median], [self.figures[under].median]
        for top, bottom in zip(tops, bottoms, strict=True):
            self.record(name, top / bottom, RATIO)

    def median(self, name: str) -> float:
        """The median of what figure ``name`` has so far."""
        return self.figures[name].median

    def plot(self, plot: Plot) -> None:
        """Add a drawing to the report."""
        self.plots.append(plot)

    def note(self, sentence: str) -> None:
        """Add a sentence that a reader of the figures must know."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    @contextmanager
    def step(self, what: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
        """Show that ``what`` is going on; the value is called with how much of ``total`` is done so far."""
        task, shown_at = self._progress.add_task(what, total=total), 0.0

        def done(amount: float) -> None:
            # Some tell of each request; to show each would take more of the machine than to send it.
            nonlocal shown_at
            if time.monotonic() >= shown_at + _SHOWN_EVERY_S:
                shown_at = time.monotonic()
                self._progress.update(task, completed=amount)

        try:
            yield done
        finally:
            self._progress.remove_task(task)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A question about speed or size, and how to measure the answer.

    Attributes:
        name: a word; the result's file is named by it.
        question: one sentence.
        goals: what its figures should be.
        run: records figures; may raise SetupError.
    """

    name: str
    question: str
    goals: list[Goal]
    run: Callable[[Run], None]

    def execute(self, *, quick: bool, console: Console) -> Result:
        """Run it in a temporary folder, with its progress on ``console``."""
        machine = this_machine()
        started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
        with (
            tempfile.TemporaryDirectory(prefix=f"forkast-{self.name}-") as name,
            Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress,
        ):
            folder = Path(name)
            folder.chmod(0o755)
            run = Run(quick=quick, folder=folder, progress=progress)
            with run.step(f"[bold]{self.name}[/]{' (quick)' if quick else ''}"):
                self.run(run)
        if machine.load[0] > machine.cores:
            run.note(
                f"The machine was busy with other work, {machine.load[0]:g} processes on {machine.cores} cores: times "
                "are longer than they would be, those that are not processor times most of all."
            )
        return Result(
            name=self.name,
            question=self.question,
            quick=quick,
            started=started,
            seconds=round(time.perf_counter() - clock, 2),
            machine=machine,
            load_after=load_average(),
            figures=list(run.figures.values()),
            goals=self.goals,
            plots=run.plots,
            notes=run.notes,
        )


@dataclass(slots=True)
class Registry:
    """The benchmarks by name, in the order of their modules' names."""

    benchmarks: dict[str, Benchmark] = field(default_factory=dict)

    def add(self, one: Benchmark) -> None:
        """Add a benchmark.

        Raises:
            ValueError: there is one of that name.
        """
        if one.name in self.benchmarks:
            raise ValueError(f"there are two benchmarks named {one.name}")
        self.benchmarks[one.name] = one

    def named(self, name: str) -> Benchmark:
        """The benchmark of that name.

        Raises:
            SetupError: there is none.
        """
        if name not in self.benchmarks:
            raise SetupError(f"there is no benchmark {name}; there are {', '.join(sorted(self.benchmarks))}.")
        return self.benchmarks[name]


_registry = Registry()


def benchmark(
    name: str, question: str, goals: list[Goal] | None = None
) -> Callable[[Callable[[Run], None]], Callable[[Run], None]]:
    """Register the decorated function as a benchmark."""

    def register(function: Callable[[Run], None]) -> Callable[[Run], None]:
        _registry.add(Benchmark(name, question, goals or [], function))
        return function

    return register


def all_benchmarks() -> Registry:
    """Import every module of this package and return what they registered."""
    for module in pkgutil.iter_modules(benchmarks.__path__):
        if not module.name.startswith("__"):
            importlib.import_module(f"benchmarks.{module.name}")
    return _registry
