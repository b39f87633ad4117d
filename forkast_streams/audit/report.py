"""What an audit has found, for a person and for a program."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table

from forkast_streams.audit.evidence import Cut
from forkast_streams.audit.findings import INVARIANTS, Finding, Findings


def print_report(console: Console, cut: Cut, findings: Findings, seconds: float) -> None:
    """Print a line for each invariant, and the first record that breaks one in full."""
    table = Table(title="Audit", title_justify="left", caption_justify="left")
    table.add_column("invariant")
    table.add_column("")
    table.add_column("looked at", justify="right")
    table.add_column("result")
    for name, promise in INVARIANTS.items():
        broken, looked = findings.violations[name], findings.looked[name]
        result = f"[bold red]{broken:,} broken[/]" if broken else "[green]holds[/]" if looked else "not looked at"
        table.add_row(name, promise, f"{looked:,}", result)
    table.caption = f"{cut.records():,} records in {seconds:.1f} s, {cut.records() / max(seconds, 1e-3):,.0f} a second"
    console.print(table)
    for name in INVARIANTS:
        if name in findings.first:
            _print_finding(console, findings.first[name])


def _print_finding(console: Console, finding: Finding) -> None:
    console.print(f"[bold red]{finding.invariant}[/] {INVARIANTS[finding.invariant]}:", highlight=False)
    console.print(finding.message, markup=False, highlight=False, soft_wrap=True)
    if finding.record is not None:
        text = json.dumps(finding.record, indent=2, ensure_ascii=False, default=str)
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def as_json(cut: Cut, findings: Findings, seconds: float) -> dict[str, Any]:
    """The same for a program."""
    return {
        "clean": findings.is_clean,
        "records": cut.records(),
        "seconds": round(seconds, 3),
        "ends": cut.ends,
        "invariants": {
            name: {
                "promise": promise,
                "lookedAt": findings.looked[name],
                "violations": findings.violations[name],
                "first": None if (first := findings.first.get(name)) is None
                else {"message": first.message, "record": first.record},
            }
            for name, promise in INVARIANTS.items()
        },
    }  # fmt: skip
