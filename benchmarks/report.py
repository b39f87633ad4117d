"""Writes ``docs/benchmarks.md`` and its plots from the results of full runs: ``python -m benchmarks.report``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.results import FOLDER, Figure, JudgedGoal, Result, load_results
from benchmarks.svg import draw, number

DOCS = Path(__file__).resolve().parent.parent / "docs"

_HEAD = """# Benchmarks

Written by `forkast bench --report` from the results in `data/bench`; do not edit it by hand. `make bench` measures
everything again, `forkast bench --list` names the benchmarks and their questions, `forkast bench NAME --quick` runs
one at a tenth of its size. What is compared was measured in the same run, side by side, so that the machine's speed
cancels out of the ratios (x). Each figure is the median of its rounds, with the smallest and the largest beside it; the
last line of a section says when and of which commit.
"""
_GOALS_HEAD = ["## Goals", "", "| benchmark | figure | goal | measured | met |", "| --- | --- | --- | ---: | --- |"]


def write_report(results: Path = FOLDER, docs: Path = DOCS) -> Path:
    """Write the page and its plots, and return the page; benchmarks without a result stay as they stand there."""
    page, pictures = docs / "benchmarks.md", docs / "benchmarks"
    pictures.mkdir(parents=True, exist_ok=True)
    parts = _parts_of(page.read_text("utf-8")) if page.exists() else {}
    found = load_results(results)
    measured = {result.name for result in found}
    wanted = {f"{result.name}-{plot.name}.svg": draw(plot) for result in found for plot in result.plots}
    for old in pictures.glob("*.svg"):
        name = old.name.partition("-")[0]
        if old.name not in wanted and (name in measured or name not in parts):
            old.unlink()
    for name, content in wanted.items():
        (pictures / name).write_text(content, "utf-8")
    parts |= {result.name: _Part(_goals(result), _section(result)) for result in found}
    ordered = [parts[name] for name in sorted(parts)]
    goals = [*_GOALS_HEAD, *(row for part in ordered for row in part.goals), ""]
    page.write_text("\n".join([_HEAD, *goals, *(line for part in ordered for line in part.section)]), "utf-8")
    return page


@dataclass(frozen=True, slots=True)
class _Part:
    """What the page has of one benchmark: its rows of the table of goals, and its section."""

    goals: list[str]
    section: list[str]


def _parts_of(page: str) -> dict[str, _Part]:
    """The parts of a page that was written here, by the name of the benchmark."""
    _, goals, *sections = page.split("\n## ")
    rows = [line for line in goals.splitlines() if line.startswith("| [")]
    found = {}
    for section in sections:
        name = section.partition("\n")[0]
        lines = f"## {section}".rstrip().splitlines()
        found[name] = _Part([row for row in rows if row.startswith(f"| [{name}](")], [*lines, ""])
    return found


def _goals(result: Result) -> list[str]:
    lines = []
    for judged in result.judged():
        figure = result.figure(judged.goal.figure)
        measured = "not measured" if judged.measured is None else number(judged.measured)
        unit = figure.unit if figure else ""
        goal = f"{'≥' if judged.goal.comparison == '>=' else '≤'} {number(judged.goal.wanted)}"
        lines.append(
            f"| [{result.name}](#{result.name}) | {judged.goal.figure} | {goal} {unit} | {measured} {unit} "
            f"| {verdict(judged)} |"
        )
    return lines


def _section(result: Result) -> list[str]:
    lines = [f"## {result.name}", "", result.question, "", "| figure | median | smallest to largest | unit |"]
    lines += ["| --- | ---: | ---: | --- |", *(_row(figure) for figure in result.figures), ""]
    lines += [f"- {note}" for note in result.notes]
    lines += ["", *(f"![{plot.title}](benchmarks/{result.name}-{plot.name}.svg)" for plot in result.plots)]
    machine = result.machine
    made = (
        f"{result.started}, {result.seconds:,.0f} s, commit {machine.commit or 'unknown'}; {machine.cpu}, "
        f"{machine.cores} cores, {machine.memory_gib:g} GiB, {machine.python}, {machine.system}; the engine is "
        f"{'compiled' if machine.compiled else 'not compiled'}; load "
        f"{machine.load[0]:g} before and {result.load_after[0]:g} after."
    )
    lines += ["", f"<sub>{made}</sub>", ""]
    return lines


def _row(figure: Figure) -> str:
    spread = "" if len(figure.values) == 1 else f"{number(min(figure.values))} to {number(max(figure.values))}"
    return f"| {figure.name} | {number(figure.median)} | {spread} | {figure.unit} |"


def verdict(judged: JudgedGoal) -> str:
    """One word."""
    return {True: "yes", False: "no", None: "?"}[judged.is_met]


if __name__ == "__main__":
    print(write_report())
