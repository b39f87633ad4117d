"""Numbers that are megabytes long: answered as others are, and not kept."""

from __future__ import annotations

import json
import tracemalloc
import uuid
from dataclasses import replace

import pytest

from forkast_streams.engine_partition import EnginePartition
from tests.support.flows import PARTITIONS, home_of, order_command, records_of, symbol_command

_ORDERS = 300
_ZEROS = "0" * 20_000


@pytest.mark.parametrize(
    ("price", "answer"),
    [(f"{{}}.5{_ZEROS}", "ORDER"), (f"{{}}.005{_ZEROS}1", "REJECT"), (f'"{{}}.5{_ZEROS}"', None)],
    ids=["many zeros", "off the grid", "text"],
)
def test_numbers_of_any_length_take_no_memory(price: str, answer: str | None) -> None:
    """Each order has another number of 20 kB; 300 of them leave no more behind than ordinary ones."""
    partition = EnginePartition(home_of(1), PARTITIONS)
    defined, *orders = records_of([symbol_command(1)] + [order_command(1)] * (_ORDERS + 1))
    for at, record in enumerate(orders):
        command = json.loads(record.value or b"") | {"id": str(uuid.UUID(int=at)), "price": "PRICE"}
        orders[at] = replace(record, value=json.dumps(command).replace('"PRICE"', price.format(1_000 + at)).encode())
    partition.process([defined, orders[0]])
    tracemalloc.start()
    try:
        for record in orders[1:]:
            outputs = partition.process([record])
            assert [json.loads(event.value or b"")["type"] for event in outputs.events] == [answer] * bool(answer)
            assert len(outputs.dead) == (answer is None)
        del outputs
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < _ORDERS * 2_000, "an order itself is some 500 bytes, what is said of one some 500 more"
