"""``python -m tests.chaos``: run the scenarios, print what happens, write the report, end with 1 on any failure."""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from forkast_streams.supervisor import unwind_on_ending_signals
from tests.chaos.exchange import Exchange
from tests.chaos.report import write
from tests.chaos.scenario import Result, Scenario, run
from tests.chaos.scenarios import SCENARIOS

console = Console(stderr=True)


def main(
    only: Annotated[list[str] | None, typer.Option(help="Run this scenario, such as F-8; can be repeated.")] = None,
    seed: Annotated[int | None, typer.Option(help="Order and random choices; without it one is made up.")] = None,
    quick: Annotated[bool, typer.Option(help="One round each and short outages.")] = False,
    report: Annotated[Path, typer.Option(help="Folder for chaos.md and chaos.json.")] = Path("data/chaos"),
    keep: Annotated[bool, typer.Option(help="Keep the folders of scenarios that fail.")] = False,
) -> None:
    """Break a running exchange in every way of the fault matrix and check what is left.

    Example:
        python -m tests.chaos --only F-8 --seed 7
    """
    unwind_on_ending_signals()
    # That brokers go is what is tested; a client's complaints about it would bury everything else.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    unknown = set(only or ()) - SCENARIOS.keys()
    if unknown:
        raise typer.BadParameter(f"there is no scenario {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    seed = int(time.time()) % 1_000_000 if seed is None else seed
    names = list(only or SCENARIOS)
    random.Random(seed).shuffle(names)
    console.print(f"seed {seed}, order {' '.join(names)}", highlight=False)
    results: list[Result] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=len(names))
        for number, name in enumerate(names):
            progress.update(task, description=f"{name} {SCENARIOS[name].title}")
            result = asyncio.run(run_alone(SCENARIOS[name], seed + number, quick=quick, keep=keep))
            results.append(result)
            _print(result)
            progress.advance(task)
            write(results, report, seed=seed, quick=quick)
    console.print(f"report: {report / 'chaos.md'}", highlight=False)
    raise typer.Exit(0 if all(result.passed for result in results) else 1)


async def run_alone(scenario: Scenario, seed: int, *, quick: bool, keep: bool) -> Result:
    """Run a scenario on an exchange of its own."""
    folder = _new_folder()
    exchange = Exchange(folder, scenario.brokers)
    passed = False
    try:
        await exchange.start()
        result = await run(scenario, exchange, seed, quick=quick)
        passed = result.passed
        return result
    finally:
        await exchange.stop()
        if passed or not keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            console.print(f"kept: {folder}", highlight=False)


def _new_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="forkast-chaos-"))
    # Postgres has a user of its own when we are root.
    folder.chmod(0o755)
    return folder


def _print(result: Result) -> None:
    measures = ", ".join(f"{name} {value:.1f}" for name, value in result.measures.items())
    verdict = "[green]passed[/green]" if result.passed else "[red]failed[/red]"
    console.print(
        f"{result.name:5} {verdict} in {result.seconds:.0f} s: {measures}; {result.verdict.events} events, "
        f"{result.verdict.repeats} repeats; requests {result.requests}",
        highlight=False,
    )
    for failure in result.failures:
        console.print(f"      {failure[:600]}", highlight=False, markup=False)
    for end in result.worker_ends:
        console.print(f"      ({end})", highlight=False, markup=False)


if __name__ == "__main__":
    typer.run(main)
