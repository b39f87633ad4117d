"""The command line of the simulation: one seed with all that happens in it, or many with what happened how often."""

from __future__ import annotations

import time
from collections import Counter
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from tests.simulation.campaign import Outcome, outcome_of, outcomes
from tests.simulation.exchange import run_seed
from tests.simulation.faults import EXPECTED

RUNS = 10_000
# In fewer runs than this some fault may be missing by chance.
_RUNS_WITH_ALL_FAULTS = 2_000
_FAILURES_SHOWN_MAX = 5

app = typer.Typer(add_completion=False)
console = Console()


@app.command()
def simulate(
    seed: Annotated[int | None, typer.Option(help="Repeat this seed alone.")] = None,
    verbose: Annotated[bool, typer.Option(help="With --seed: print every step, not only when it fails.")] = False,
    runs: Annotated[int, typer.Option(min=1, help="How many seeds to run.")] = RUNS,
    first: Annotated[int, typer.Option("--from", min=0, help="The first seed.")] = 1,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; one a processor by default.")] = None,
) -> None:
    """Run the exchange in simulation and check every promise; ends with 1 when one is broken or a fault never came.

    Example:
        python -m tests.simulation --seed 7 --verbose
    """
    is_good = _repeat(seed, verbose=verbose) if seed is not None else _run_many(range(first, first + runs), jobs)
    raise typer.Exit(0 if is_good else 1)


def _repeat(seed: int, *, verbose: bool) -> bool:
    lines: list[str] = []
    outcome = outcome_of(seed)
    if verbose or outcome.failure is not None:
        _trace(seed, lines)
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if outcome.failure is not None:
        _print_failure(outcome)
        return False
    _print_counts(outcome.counts, 1)
    console.print(f"seed {seed}: all promises hold, digest {outcome.digest}", highlight=False)
    return True


def _trace(seed: int, lines: list[str]) -> None:
    """Collect what happens in the run of ``seed``; how it ends is known."""
    try:
        run_seed(seed, trace=lines.append)
    except Exception as exc:
        lines.append(f"the run ends: {type(exc).__name__}")


def _run_many(seeds: range, jobs: int | None) -> bool:
    counts: Counter[str] = Counter()
    failed: list[Outcome] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    started = time.monotonic()
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("simulating", total=len(seeds))
        for outcome in outcomes(seeds, jobs=jobs):
            counts += outcome.counts
            if outcome.failure is not None:
                failed.append(outcome)
                progress.update(task, description=f"{len(failed)} failed")
                if len(failed) <= _FAILURES_SHOWN_MAX:
                    _print_failure(outcome)
            progress.advance(task)
    _print_counts(counts, len(seeds))
    holes = [name for name in EXPECTED if not counts[name]] if len(seeds) >= _RUNS_WITH_ALL_FAULTS else []
    for name in holes:
        console.print(f"never happened: {name}", style="red", markup=False)
    if failed:
        console.print(f"failed seeds: {' '.join(str(o.seed) for o in sorted(failed))}", style="red", highlight=False)
    seconds = time.monotonic() - started
    console.print(f"{len(seeds)} seeds in {seconds:.0f} s, {len(failed)} failed", highlight=False)
    return not failed and not holes


def _print_failure(outcome: Outcome) -> None:
    console.print(outcome.failure, markup=False, highlight=False, soft_wrap=True)
    command = f"python -m tests.simulation --seed {outcome.seed} --verbose"
    console.print(
        f"[red]seed {outcome.seed} breaks a promise[/red]; repeat it with: {escape(command)}", highlight=False
    )


def _print_counts(counts: Counter[str], runs: int) -> None:
    table = Table("what happened", "times", title=f"{runs} runs")
    table.columns[1].justify = "right"
    names = [*EXPECTED, *sorted(counts.keys() - set(EXPECTED))]
    for name in names:
        if counts[name] or runs > 1:
            table.add_row(escape(name), f"{counts[name]:,}")
    console.print(table)
