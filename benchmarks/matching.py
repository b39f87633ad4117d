"""The matching engine alone, on one thread, beside other order books for Python."""

from __future__ import annotations

from typing import Any

from benchmarks.book_flows import NAMES
from benchmarks.books import BOOKS, install_peers
from benchmarks.children import measure_in_child
from benchmarks.harness import Goal, Run, benchmark
from benchmarks.results import Plot

_COMMANDS = 300_000
_RESTING = 1_000_000
# Flow against flow is measured by turns, as the machine may be another one minutes later.
_SPREAD_ROUNDS = 5
_PYTHON_PEERS = ("pyorderbook", "lightmatchingengine")
_UNIT = "commands/s"

_GOALS = [
    *(Goal(f"{flow}: ours / best Python peer", ">=", 2.0) for flow in NAMES),
    *(Goal(f"{flow}: ours / nanobook", ">=", 1.0) for flow in NAMES),
    Goal("ours: slowest flow / fastest flow", ">=", 0.6),
]


@benchmark("matching", "How many commands a second does the matching engine alone take, and its peers?", _GOALS)
def matching(run: Run) -> None:
    """Time each flow with every book, by turns in a process of its own; then the flows with ours, by turns.

    There each flow of each round has a process of its own: a deep book in the gaps that another has left behind in the
    memory is a third slower.
    """
    with run.step("Installing the peers"):
        if (why := install_peers()) is not None:
            run.note(f"The peers could not be installed: {why}")
    sizes, rounds = (run.scaled(_COMMANDS), run.scaled(_RESTING)), len(run.rounds(3))
    with run.step("Flows", len(NAMES) + 1) as done:
        for at, flow in enumerate(NAMES):
            _record(run, flow, measure_in_child("books", *sizes, rounds, flow, ",".join(BOOKS)))
            done(at + 1)
        for _ in run.rounds(_SPREAD_ROUNDS):
            _record_spread(run, [measure_in_child("books", *sizes, 1, flow, "ours")["ours"] for flow in NAMES])
    _plot(run)
    run.note(
        "Orders are limit orders. shallow: around one price, few open. deep: the same between "
        f"{run.scaled(_RESTING):,} standing orders on 2,000 levels, of which a tenth of the commands cancels one. "
        "sweeping: an order takes 20 orders on 20 levels. cancel-heavy: 95 % of the orders are cancelled."
    )
    run.note(
        "Speeds are by processor time. Each book is driven from plain values, in its own kind of numbers, and hands "
        "every trade to Python; making its own order objects is part of its time. Ours also makes an event of every "
        "acceptance and cancel, checks the symbol's rules and refuses repeated order ids."
    )
    run.note(
        "No order is cancelled on a level that has traded since it was empty: nanobook 0.19.2 never returns from an "
        "order that meets such a cancelled one."
    )


def _record(run: Run, flow: str, found: dict[str, Any]) -> None:
    ours = found["ours"]
    for name in BOOKS:
        rounds = found[name]
        if isinstance(rounds, str):
            run.note(f"{name} is not here: {rounds}.")
            continue
        for one in rounds:
            run.record(f"{flow}: {name}", one["commands"] / one["seconds"], _UNIT)
        done = rounds[0]["commands"]
        if done < ours[0]["commands"]:
            run.note(f"{flow}: {name} was stopped after {done:,} commands.")
        elif rounds[0]["traded"] != ours[0]["traded"]:
            run.note(f"{flow}: {name} traded {rounds[0]['traded']:,} lots, ours {ours[0]['traded']:,}.")
    peers = [f"{flow}: {name}" for name in _PYTHON_PEERS if f"{flow}: {name}" in run.figures]
    if peers:
        run.ratio(f"{flow}: ours / best Python peer", f"{flow}: ours", max(peers, key=run.median))
    run.ratio(f"{flow}: ours / nanobook", f"{flow}: ours", f"{flow}: nanobook")


def _record_spread(run: Run, found: list[list[dict[str, Any]]]) -> None:
    speeds = [one["commands"] / one["seconds"] for [one] in found]
    run.record("ours: slowest flow / fastest flow", min(speeds) / max(speeds), "x")


def _plot(run: Run) -> None:
    present = [name for name in BOOKS if all(f"{flow}: {name}" in run.figures for flow in NAMES)]
    speeds = {name: [run.median(f"{flow}: {name}") for flow in NAMES] for name in present}
    run.plot(Plot("speed", "Commands a second, one thread", "bars", list(NAMES), speeds, "", _UNIT))
