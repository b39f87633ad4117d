"""The report of a run, for people and for programs."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

from tests.chaos.scenario import Result

_HONEST = (
    "One broker on one machine shows what the crash of a process does, not what the loss of a machine does: Kafka "
    "does not write each record through to the disk, and kill -9 leaves the page cache. Three replicas, two of them in "
    "sync, are configured wherever there are three brokers; that they keep what one machine loses is not shown here."
)


def write(results: list[Result], folder: Path, *, seed: int, quick: bool) -> None:
    """Write ``chaos.json`` and ``chaos.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "seed": seed, "quick": quick, "cpus": os.cpu_count(), "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }  # fmt: skip
    document = about | {"scenarios": [result.as_dict() for result in results]}
    (folder / "chaos.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / "chaos.md").write_text(markdown(results, seed=seed, quick=quick))


def markdown(results: list[Result], *, seed: int, quick: bool) -> str:
    """A table of what was measured against the limits, and every failure in full."""
    ordered = sorted(results, key=lambda result: int(result.name[2:]))
    events = sum(result.verdict.events for result in ordered)
    passed = sum(result.passed for result in ordered)
    summary = (
        f"{passed} of {len(ordered)} scenarios passed; {events} events checked; seed {seed}, "
        f"{'short' if quick else 'full'} run on {os.cpu_count()} cores."
    )
    lines = [
        "# Chaos", "",
        summary, "", "Seconds until each function worked again after the fault (worst round), and the limit if any.",
        "", "| # | fault | matching | orders | persisted | book | other | repeats | requests | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    lines += [_row(result) for result in ordered]
    for result in ordered:
        if result.failures:
            lines += ["", f"## {result.name} failed", "", *(f"* {failure[:1_000]}" for failure in result.failures)]
    return "\n".join([*lines, "", _HONEST, ""])


def _row(result: Result) -> str:
    def cell(name: str) -> str:
        if name not in result.measures:
            return ""
        limit = f" / {result.limits[name]:g}" if name in result.limits else ""
        return f"{result.measures[name]:.1f}{limit}"

    functions = ("matching", "orders", "persisted", "book")
    other = ", ".join(f"{name} {cell(name)}" for name in result.measures if name not in functions)
    requests = ", ".join(f"{count} of {status or 'none'}" for status, count in sorted(result.requests.items()))
    cells = [result.name, result.title, *map(cell, functions), other, str(result.verdict.repeats), requests]
    return "| " + " | ".join([*cells, "passed" if result.passed else "**failed**"]) + " |"
