"""A symbol that gets another tick or lot size."""

from __future__ import annotations

from tests.unit.exchanges import Engine, Naive
from tests.unit.flows import START_MS, order_command, symbol_command


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
