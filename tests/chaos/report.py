"""The report of a run, for people and for programs.

``python -m tests.chaos.report data/chaos/chaos.json`` prints the tables of docs/chaos.md; of several files the last one
that has a scenario counts.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.chaos.scenario import Result

_HONEST = (
    "One machine shows what the crash of a process does, not what the loss of all machines does: Kafka does not write "
    "each record through to the disk, and kill -9 leaves the page cache."
)
_FUNCTIONS = ("matching", "orders", "persisted", "book")

Row = dict[str, Any]


def write(results: list[Result], folder: Path, *, seed: int, quick: bool) -> None:
    """Write ``chaos.json`` and ``chaos.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "seed": seed, "quick": quick, "cpus": os.cpu_count(), "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }  # fmt: skip
    document = about | {"scenarios": [result.as_dict() for result in results]}
    (folder / "chaos.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / "chaos.md").write_text("\n".join(["# Chaos", "", *tables([document]), _HONEST, ""]))


def tables(documents: list[Row]) -> list[str]:
    """What was measured against the limits, what the audit has looked at, and every failure in full, as Markdown."""
    rows: dict[str, Row] = {}
    for document in documents:
        run = f"{'short' if document['quick'] else 'full'}, seed {document['seed']}"
        rows |= {row["name"]: row | {"run": run} for row in document["scenarios"]}
    ordered = sorted(rows.values(), key=lambda row: int(row["name"][2:]))
    passed = sum(row["passed"] for row in ordered)
    lines = [
        f"{passed} of {len(ordered)} scenarios passed on {documents[-1]['cpus']} cores.", "",
        "Seconds until each function worked again after the fault, worst round, and the limit if there is one.",
        "", "| # | fault | run | matching | orders | persisted | book | other | events | repeats | requests | |",
        "| --- " * 12 + "|",
    ]  # fmt: skip
    lines += [_row(row) for row in ordered]
    lines += _audit_table(ordered)
    for row in ordered:
        if not row["passed"]:
            lines += ["", f"{row['name']} failed:", "", *(f"* {failure[:1_000]}" for failure in row["failures"])]
    return [*lines, ""]


def _row(row: Row) -> str:
    measures, limits = row["measures"], row["limits"]

    def cell(name: str) -> str:
        if name not in measures:
            return ""
        limit = f" / {limits[name]:g}" if name in limits else ""
        return f"{measures[name]:.1f}{limit}"

    other = ", ".join(f"{name} {cell(name)}" for name in measures if name not in _FUNCTIONS)
    requests = ", ".join(
        f"{count} {'unanswered' if status == '0' else 'of ' + status}"
        for status, count in sorted(row["requests"].items())
    )
    cells = [row["name"], row["title"], row["run"], *map(cell, _FUNCTIONS), other]
    cells += [f"{row['log']['events']:,}", f"{row['log']['repeats']:,}", requests]
    return "| " + " | ".join([*cells, "passed" if row["passed"] else "**failed**"]) + " |"


def _audit_table(rows: list[Row]) -> list[str]:
    """What ``forkast audit`` has looked at in all scenarios together, and the commands and events that there were."""
    audits = [row["audit"]["invariants"] for row in rows if row["audit"]]
    commands, events, taken = (Counter[str]() for _ in range(3))
    for row in rows:
        commands.update(row["log"]["commands_by_kind"])
        events.update(row["log"]["events_by_type"])
        taken.update(row["taken"])
    lines = [
        "", f"`forkast audit` at the end of {len(audits)} of {len(rows)} scenarios, all together:", "",
        "| invariant | | looked at | violations |", "| --- | --- | --- | --- |",
    ]  # fmt: skip
    for name, of_first in (audits[0] if audits else {}).items():
        looked, broken = (sum(audit[name][what] for audit in audits) for what in ("lookedAt", "violations"))
        lines.append(f"| {name} | {of_first['promise']} | {looked:,} | {broken:,} |")
    return [
        *lines, "", f"Commands in the logs: {_counts(commands)}.", "", f"Events, without repeats: {_counts(events)}.",
        "", f"Requests over HTTP that were taken: {_counts(taken)}.",
    ]  # fmt: skip


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counter.most_common())


if __name__ == "__main__":
    sys.stdout.write("\n".join(tables([json.loads(Path(name).read_text()) for name in sys.argv[1:]])))
