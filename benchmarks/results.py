"""The result of a benchmark: figures with units, goals judged by them, and the same as JSON."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from benchmarks.machine import Machine

# Where results go, relative to the checkout.
FOLDER = Path(__file__).resolve().parent.parent / "data" / "bench"

Comparison = Literal[">=", "<="]
PlotKind = Literal["bars", "line", "histogram"]


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure should be, judged by its median.

    Attributes:
        figure: name of the figure, as it is recorded.
        comparison: on which side of ``wanted`` the figure should be.
        wanted: in the figure's unit.
    """

    figure: str
    comparison: Comparison
    wanted: float

    def is_met_by(self, measured: float) -> bool:
        """Whether ``measured`` is on the right side."""
        return measured >= self.wanted if self.comparison == ">=" else measured <= self.wanted


@dataclass(slots=True)
class Figure:
    """One measured quantity, a value a round.

    Attributes:
        name: unique in its result.
        unit: such as ``commands/s``; ``x`` for a ratio.
        values: at least one, in the order they were measured in.
    """

    name: str
    unit: str
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing of the report.

    Attributes:
        name: unique in its result; part of the file's name.
        title: a line above it.
        kind: bars one below the other, a line over numbers, or a histogram's bars side by side.
        x: names of the bars, or the numbers of a line.
        y: as many values for each series, by the series' name.
        x_unit: what the numbers of ``x`` are, empty for names.
        y_unit: what the values are.
        mark: a value of ``y`` to draw a line at, such as a goal.
    """

    name: str
    title: str
    kind: PlotKind
    x: list[str] | list[float]
    y: dict[str, list[float]]
    x_unit: str
    y_unit: str
    mark: float | None = None


@dataclass(frozen=True, slots=True)
class JudgedGoal:
    """A goal and what was measured; None when the figure was not measured, as of a peer that is not installed."""

    goal: Goal
    measured: float | None

    @property
    def is_met(self) -> bool | None:
        """None when nothing was measured."""
        return None if self.measured is None else self.goal.is_met_by(self.measured)


@dataclass(slots=True)
class Result:
    """What one run of a benchmark has found.

    Attributes:
        name: of the benchmark.
        question: that it answers.
        quick: whether it ran at a tenth of its size; its figures are for development then.
        started: ISO time in UTC.
        seconds: how long it took.
        machine: what it ran on.
        load_after: as ``machine.load``, at the end.
        figures: in the order they were first recorded in.
        goals: of the benchmark; judged by `judged`.
        plots: drawings for the report.
        notes: sentences a reader of the figures must know.
    """

    name: str
    question: str
    quick: bool
    started: str
    seconds: float
    machine: Machine
    load_after: tuple[float, float, float]
    figures: list[Figure]
    goals: list[Goal]
    plots: list[Plot] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def figure(self, name: str) -> Figure | None:
        """The figure of that name, if it was recorded."""
        return next((figure for figure in self.figures if figure.name == name), None)

    def judged(self) -> list[JudgedGoal]:
        """All goals, each with what was measured."""
        found = [(goal, self.figure(goal.figure)) for goal in self.goals]
        return [JudgedGoal(goal, None if figure is None else figure.median) for goal, figure in found]

    def as_json(self) -> dict[str, Any]:
        """Everything, with minimum, median and maximum of each figure and the verdict on each goal."""
        content = asdict(self)
        for figure in content["figures"]:
            values = figure["values"]
            figure |= {"min": min(values), "median": statistics.median(values), "max": max(values)}
        content["goals"] = [
            asdict(judged.goal) | {"measured": judged.measured, "met": judged.is_met} for judged in self.judged()
        ]
        return content

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Read back what `as_json` gave."""
        content = dict(content)
        content["machine"] = Machine(**content["machine"] | {"load": tuple(content["machine"]["load"])})
        content["load_after"] = tuple(content["load_after"])
        content["figures"] = [Figure(one["name"], one["unit"], one["values"]) for one in content["figures"]]
        content["goals"] = [Goal(one["figure"], one["comparison"], one["wanted"]) for one in content["goals"]]
        content["plots"] = [Plot(**one) for one in content["plots"]]
        return cls(**content)

    def save(self, folder: Path = FOLDER) -> Path:
        """Write ``NAME.json``, or ``NAME.quick.json`` beside it, and return the file."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{self.name}{'.quick' if self.quick else ''}.json"
        file.write_text(json.dumps(self.as_json(), indent=1, ensure_ascii=False) + "\n", "utf-8")
        return file


def load_results(folder: Path = FOLDER) -> list[Result]:
    """The results of full runs, by name."""
    files = sorted(file for file in folder.glob("*.json") if not file.name.endswith(".quick.json"))
    return [Result.from_json(json.loads(file.read_text("utf-8"))) for file in files]
