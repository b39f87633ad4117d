"""What a resting order takes of a worker's memory."""

from __future__ import annotations

from benchmarks.children import measure_in_child
from benchmarks.harness import Goal, Run, benchmark

_ORDERS = 1_000_000


@benchmark(
    "memory",
    "How many bytes of a worker's memory does a resting order take?",
    [Goal("resident memory of a resting order", "<=", 400)],
)
def memory(run: Run) -> None:
    """The growth of a fresh process that is given resting orders, a process a round."""
    orders = run.scaled(_ORDERS)
    with run.step("Filling books", 4) as done:
        for at in run.rounds(3):
            found = measure_in_child("standing", "memory", orders)
            run.record("resident memory of a resting order", found["bytes"], "bytes")
            done(at + 1)
        found = measure_in_child("standing", "allocations", orders)
        run.record("Python's allocations for a resting order", found["bytes"], "bytes")
    run.note(
        f"{orders:,} limit orders of 1,000 users on ten symbols and 20,000 levels, filled from records with "
        "checkpoints cut as in a worker. With an order counts the memory of its id, which must not be used again."
    )
