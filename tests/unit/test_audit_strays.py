"""The audit's verdict on records of foreign partitions while engines are behind each other."""

from __future__ import annotations

import json

import msgspec
import pytest

from forkast_streams.audit.records import Record
from tests.support.audit_world import FOREIGN, HOME, World, order_id
from tests.support.flows import home_of, order_command, symbol_command
from tests.unit.test_audit import broken


def _with_a_stray(*, before: str) -> World:
    """A stray that has arrived, and an order before its copy at home, or before itself."""
    world = World()
    symbol_id = next(number for number in range(2, 500) if home_of(number) == FOREIGN)
    for number in (1, symbol_id):
        world.send_command(symbol_command(number))
    world.send_command(order_command(1 if before == "copy" else symbol_id, id=order_id(1)))
    world.send_command(order_command(id=order_id(2)), partition=FOREIGN)
    return world.process()


@pytest.mark.parametrize(("before", "unanswered"), [("copy", HOME), ("stray", FOREIGN)])
def test_a_stray_behind_an_unanswered_input_is_no_violation(before: str, unanswered: int) -> None:
    """Its copy, or the stray itself, was not read yet: the engine of that partition is behind the other one."""
    world = _with_a_stray(before=before)
    assert broken(world) == set()
    del world.events[unanswered][1:]
    world.required = {partition: len(records) for partition, records in world.inputs.items()}
    world.required[unanswered] = 1
    assert broken(world) == set()


def test_a_made_up_stray_before_an_unanswered_input_is_caught() -> None:
    """What was read of a partition that waits is judged."""
    world = _with_a_stray(before="stray")
    headers = (("forwarded-from", b"%d:0" % FOREIGN),)
    world.inputs[HOME][1:] = [msgspec.structs.replace(copy, headers=headers) for copy in world.inputs[HOME][1:]]
    del world.events[FOREIGN][1:]
    world.required = {partition: len(records) for partition, records in world.inputs.items()} | {FOREIGN: 1}
    assert "no such stray" in world.audit().first["I-2"].message


@pytest.mark.parametrize("fate", ["late", "lost", "changed"])
@pytest.mark.parametrize("unanswered", [1, 2, 5])
def test_a_lost_stray_is_caught_while_its_partition_is_busy(unanswered: int, fate: str) -> None:
    """Its copy may be among the inputs that are not answered yet, and then it is no violation."""
    world = _with_a_stray(before="stray")
    at = next(number for number, record in enumerate(world.inputs[HOME]) if record.headers)
    copy = world.inputs[HOME][at]
    del world.inputs[HOME][at:]
    world.events[HOME] = [event for event in world.events[HOME] if _source_of(event) < at]
    for number in range(unanswered):
        world.send_command(order_command(id=order_id(10 + number)))
    if fate != "lost":
        value = b"{}" if fate == "changed" else copy.value
        world.inputs[HOME].append(msgspec.structs.replace(copy, offset=len(world.inputs[HOME]), value=value))
    world.required = {partition: len(records) for partition, records in world.inputs.items()} | {HOME: at}
    assert broken(world) == (set() if fate == "late" else {"I-2"})


def _source_of(event: Record) -> int:
    offset: int = json.loads(event.value or b"")["source"]["offset"]
    return offset
