"""A symbol that gets another tick or lot size."""

from __future__ import annotations

import tracemalloc
from decimal import Decimal

from forkast_streams.engine.symbols import OFF_GRID, OUT_OF_RANGE, Grid
from tests.support.exchanges import Engine, Naive
from tests.support.flows import START_MS, order_command, symbol_command


def test_order_that_expires_just_before_another_lot_size_is_told_in_the_old_one() -> None:
    """The order expires as the first event of the very command that changes the grids: its quantity is 3, not 0.3."""
    commands = [
        symbol_command(1),
        order_command(1, quantity=3, price="99.5", timeInForce="GTD", expiresAt=START_MS + 2),
        symbol_command(1, tickSize="0.5", lotSize="0.1"),
        order_command(1, id="00000000-0000-0000-0000-000000000002", quantity="0.3"),
    ]
    engine, naive = Engine(), Naive()
    answers = [engine.process(command) for command in commands]
    assert answers == [naive.process(command) for command in commands]
    expired, _ = answers[2]
    assert (expired[0], expired[1]["quantity"], expired[1]["price"]) == ("CANCEL", "3", "99.50")
    assert [envelope["sequence"] for envelope in engine.envelopes] == [1, 2, 3, 4, 5]


def test_each_grid_has_its_own_answer_for_the_same_number() -> None:
    """Grids remember numbers by what they are asked with: one object is asked of many grids, one after the other."""
    steps = [Decimal("0.01"), Decimal("0.5"), Decimal(1), Decimal(5), Decimal("0.3")]
    grids = [Grid(step, Decimal(1_000)) for step in steps for _ in range(3)]
    numbers: list[int | str | Decimal] = [Decimal(number) / 2 for number in range(-10, 3_000)]
    numbers += ["100.5", 7, 15, 1_000, 1_001, 0, -1, 10**12]
    for number in numbers:
        for grid in grids * 2:
            exact = Decimal(number)
            units = exact / grid.step
            expected = OFF_GRID if units % 1 else int(units)
            assert grid.units(number) == (expected if 0 < exact <= 1_000 else OUT_OF_RANGE), (number, grid.step)


def test_what_a_grid_remembers_is_bounded() -> None:
    """Whoever sends orders with ever other numbers makes it hold no more than a few thousand of them."""
    grid = Grid(Decimal("0.00000001"), Decimal(1_000_000_000))
    tracemalloc.start()
    try:
        for number in range(1, 30_000):
            units = grid.units(Decimal(number) + Decimal("0.00000001"))
            assert grid.text(units) == f"{number}.00000001"
        assert tracemalloc.get_traced_memory()[0] < 2 * 1024 * 1024
    finally:
        tracemalloc.stop()
