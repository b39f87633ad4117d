"""``python -m tests.simulation``: run seeds, show how often what happened, end with 1 when a promise was broken."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from tests.simulation.exchange import run_seed
from tests.simulation.faults import CRASH_POINTS
from tests.simulation.world import Violation

console = Console(stderr=True)
_SEEDS_AT_ONCE = 10
_FAILURES_MAX = 10
_CHECKED = ("commands", "events checked", "events repeated", "states recovered", "orders acknowledged by the OMS")


def main(
    runs: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 10_000,
    first: Annotated[int, typer.Option("--from", help="The first of them.")] = 1,
    seed: Annotated[int | None, typer.Option(help="Run this one alone and print all that happens.")] = None,
    processes: Annotated[int | None, typer.Option(help="How many at once; all cores without it.")] = None,
) -> None:
    """Run the whole exchange under seeds that decide every order, delay and fault."""
    if seed is not None:
        _run_one(seed)
        return
    counts: Counter[str] = Counter()
    failures: dict[int, str] = {}
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=console) as progress, closing(_results(first, runs, processes)) as results:
        task = progress.add_task("Seeds", total=runs)
        for done, failed, counted in results:
            progress.advance(task, done)
            counts += counted
            failures |= failed
            for number, message in failed.items():
                progress.console.print(f"Seed {number}: {message}", markup=False, highlight=False)
            if len(failures) >= _FAILURES_MAX:
                break
    _print(counts)
    if failures:
        console.print(f"{len(failures)} seeds broke a promise; each is repeated by --seed: {sorted(failures)}")
        raise typer.Exit(1)
    console.print(f"Seeds {first} to {first + runs - 1}: every promise was kept.")


def _run_one(seed: int) -> None:
    console.print(f"Seed {seed}")
    try:
        result = run_seed(seed, trace=lambda line: typer.echo(line))
    except Violation as exc:
        console.print(f"Seed {seed}: {exc}", markup=False, highlight=False)
        raise typer.Exit(1) from None
    _print(result.counts)
    console.print(f"Seed {seed}: every promise was kept.")


def _results(first: int, runs: int, processes: int | None) -> Iterator[tuple[int, dict[int, str], Counter[str]]]:
    end = first + runs
    parts = [range(at, min(at + _SEEDS_AT_ONCE, end)) for at in range(first, end, _SEEDS_AT_ONCE)]
    with ProcessPoolExecutor(processes or os.cpu_count()) as pool:
        try:
            for future in as_completed([pool.submit(run_seeds, part) for part in parts]):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def run_seeds(seeds: range) -> tuple[int, dict[int, str], Counter[str]]:
    """Run ``seeds``; return how many, what went wrong by seed, and how often what happened."""
    counts: Counter[str] = Counter()
    failures = {}
    for seed in seeds:
        try:
            counts += run_seed(seed).counts
        except Exception as exc:
            failures[seed] = f"{type(exc).__name__}: {exc}"
    return len(seeds), failures, counts


def _print(counts: Counter[str]) -> None:
    table = Table("what happened", "times")
    table.columns[1].justify = "right"
    faults = {f"crash: {point}": 0 for point in CRASH_POINTS} | {
        name: count for name, count in counts.items() if name not in _CHECKED
    }
    for name in sorted(faults):
        table.add_row(name, f"{counts[name]:,}")
    table.add_section()
    for name in _CHECKED:
        table.add_row(name, f"{counts[name]:,}")
    console.print(table)


app = typer.Typer(add_completion=False)
app.command()(main)
