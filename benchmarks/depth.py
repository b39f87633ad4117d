"""What standing orders cost the commands above them, and the longest time a worker's loop stands still."""

from __future__ import annotations

from benchmarks.children import measure_in_child
from benchmarks.harness import Goal, Run, benchmark
from benchmarks.results import Plot

_DEPTHS = (1_000, 100_000, 1_000_000)
# Not fewer in a quick run: each partition must get to several checkpoints.
_COMMANDS = 300_000


@benchmark(
    "depth",
    "Does a command cost more, and does anything pause, with a million orders resting?",
    [
        Goal("CPU: deepest / shallowest", "<=", 1.3),
        Goal("longest batch with its checkpoint", "<=", 50),
    ],
)
def depth(run: Run) -> None:
    """The same flow of commands over books of three sizes, each in a process of its own, by turns."""
    depths = [run.scaled(orders) if orders > 1_000 else orders for orders in _DEPTHS]
    histograms: dict[str, list[float]] = {}
    classes: list[float] = []
    with run.step("Books", len(depths) * len(run.rounds(3))) as done:
        for at in run.rounds(3):
            for nth, orders in enumerate(depths):
                found = measure_in_child("standing", "depth", orders, _COMMANDS)
                name = f"{orders:,} resting"
                run.record(f"{name}: CPU", found["us"], "µs/command")
                run.record(f"{name}: CPU of checkpoints, a part of it", found["cuts_us"], "µs/command")
                run.record(f"{name}: batch, 99 %", found["p99_ms"], "ms")
                run.record(f"{name}: longest batch", found["pause_ms"], "ms")
                run.record(f"{name}: longest batch, wall time", found["wall_ms"], "ms")
                run.record(f"{name}: longest cut of a checkpoint", found["cut_ms"], "ms")
                classes = found["classes"]
                seen = histograms.setdefault(name, [0.0] * len(classes))
                histograms[name] = [old + new for old, new in zip(seen, found["counts"], strict=True)]
                done(at * len(depths) + nth + 1)
    names = [f"{orders:,} resting" for orders in depths]
    run.ratio("CPU: deepest / shallowest", f"{names[-1]}: CPU", f"{names[0]}: CPU")
    for pauses in zip(*(run.figures[f"{name}: longest batch"].values for name in names), strict=True):
        run.record("longest batch with its checkpoint", max(pauses), "ms")
    costs = {"CPU": [run.median(f"{name}: CPU") for name in names]}
    run.plot(Plot("cpu", "CPU of a command", "line", [float(one) for one in depths], costs, "resting orders", "µs"))
    run.plot(
        Plot("batches", "Times of batches, checkpoints included", "histogram", classes, histograms, "ms", "batches")
    )
    run.note(
        f"{_COMMANDS:,} commands from records to encoded events in ten partitions, in batches as large as "
        "a fetch, with a checkpoint of a partition every 6,000 records. Of ten commands four cancel and replace "
        "standing orders anywhere in the book."
    )
    run.note("Times are processor times, but for the wall times, which other work on the machine lengthens.")
