"""``forkast bench``: measure the exchange; the benchmarks themselves are in a checkout's ``benchmarks`` folder."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from forkast_streams.compiled import require_fresh
from forkast_streams.errors import SetupError

console = Console(stderr=True)

_EVERY = "all"
_VERDICTS = {True: "[green]yes[/]", False: "[red]no[/]", None: "?"}


def bench(
    names: Annotated[list[str] | None, typer.Argument(help="Benchmarks to run, or all.", show_default=False)] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the size; for development.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON, one object a line.")] = False,
    show_list: Annotated[bool, typer.Option("--list", help="Name the benchmarks and what they answer.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Write docs/benchmarks.md from the full results.")] = False,
) -> None:
    """Measure speed and size of the exchange, in a checkout of the project.

    Servers are started on free ports in a temporary folder. Results go to data/bench. The exit status is 1 when a
    full run has missed a goal.

    Example:
        forkast bench matching --quick
    """
    require_fresh()
    modules = _benchmarks()
    registry = modules["harness"].all_benchmarks()
    if show_list:
        _print_list(registry.benchmarks.values())
    wanted = sorted(registry.benchmarks) if names == [_EVERY] else names or []
    if not (wanted or show_list or report):
        raise typer.BadParameter("name a benchmark, or all; --list shows them", param_hint="NAMES")
    ones = [registry.named(name) for name in wanted]
    if len(ones) == 1:
        result = ones[0].execute(quick=quick, console=console)
        file = result.save()
        if as_json:
            typer.echo(json.dumps(result.as_json(), ensure_ascii=False))
        else:
            _print_result(result, file)
        is_missed = not quick and any(judged.is_met is False for judged in result.judged())
    else:
        # Each in a process of its own, so that what one leaves in memory slows no other down.
        flags = ["--quick"] * quick + ["--json"] * as_json
        commands = [[sys.executable, "-m", "forkast_streams", "bench", one.name, *flags] for one in ones]
        statuses = [subprocess.run(command, check=False).returncode for command in commands]
        is_missed = any(statuses)
    if report:
        console.print(f"Written: {modules['report'].write_report()}", highlight=False)
    if is_missed:
        raise typer.Exit(1)


def _benchmarks() -> dict[str, Any]:
    """The modules of the benchmarks by name; they are no part of the wheel.

    Raises:
        SetupError: this is not a checkout.
    """
    checkout = Path(__file__).resolve().parent.parent.parent
    if not (checkout / "benchmarks" / "harness.py").is_file():
        raise SetupError(
            "the benchmarks are not part of the installed package: run `make setup` and `forkast bench` in a checkout "
            "of the project."
        )
    sys.path.insert(0, str(checkout))
    return {name: importlib.import_module(f"benchmarks.{name}") for name in ("harness", "report")}


def _print_list(ones: Any) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    for one in sorted(ones, key=lambda one: str(one.name)):
        table.add_row(f"[bold]{one.name}[/]", one.question)
    Console().print(table)


def _print_result(result: Any, file: Path) -> None:
    number = importlib.import_module("benchmarks.svg").number
    table = Table(title=f"{result.name}: {result.question}", title_justify="left")
    for name in ("figure", "median", "smallest", "largest", "unit", "goal", "met"):
        table.add_column(name, justify="right" if name in ("median", "smallest", "largest") else "left")
    goals = {judged.goal.figure: judged for judged in result.judged()}
    for figure in result.figures:
        judged = goals.pop(figure.name, None)
        values = [number(value) for value in (figure.median, min(figure.values), max(figure.values))]
        goal = f"{judged.goal.comparison} {number(judged.goal.wanted)}" if judged else ""
        table.add_row(figure.name, *values, figure.unit, goal, _VERDICTS[judged.is_met] if judged else "")
    for name, judged in goals.items():
        table.add_row(name, "", "", "", "", f"{judged.goal.comparison} {number(judged.goal.wanted)}", "not measured")
    out = Console()
    out.print(table)
    for note in result.notes:
        out.print(f"- {note}", highlight=False)
    machine = result.machine
    out.print(
        f"{result.seconds:,.0f} s on {machine.cores} cores, {machine.python}, load {machine.load[0]:g} before and "
        f"{result.load_after[0]:g} after; {file}",
        highlight=False,
    )
