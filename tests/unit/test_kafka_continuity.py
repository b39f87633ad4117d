"""Fetching: a log is read on only where it still has what was read of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, OffsetOutOfRangeError
from aiokafka.structs import TopicPartition

from forkast_streams.errors import CorruptLog
from forkast_streams.records import LastRead, record_digest
from tests.support.fetching import CONTROL, FIRST, SECOND, Consumer, records_at


@pytest.fixture
async def one() -> AsyncIterator[Consumer]:
    """A consumer whose first fetch, of everything, is under way."""
    made = Consumer()
    yield made
    await made.fetcher.close()


async def _read_two_records_and_lose_the_broker(one: Consumer) -> None:
    _, reply = await one.client.next()
    taken = one.ask(FIRST)
    reply(p0=records_at(5, b"a", b"b"))
    await taken
    _, reply = await one.client.next()
    reply.fail(KafkaConnectionError())  # type: ignore[attr-defined]


async def test_after_a_failure_the_record_before_the_place_is_read_once_more(one: Consumer) -> None:
    """A broker that comes back may have lost what it had acknowledged, and have taken something else since."""
    await _read_two_records_and_lose_the_broker(one)
    asked, reply = await one.client.next()
    assert asked[FIRST] == 6
    reply(p0=records_at(5, b"a", b"b") + records_at(7, b"c"))
    assert [(record.offset, record.value) for record in (await one.ask(FIRST))[FIRST]] == [(7, b"c")]
    asked, _ = await one.client.next()
    assert asked[FIRST] == 8


@pytest.mark.parametrize(("latest_ms", "attributes"), [(1_000, 0), (1, CONTROL)])
async def test_the_record_before_the_place_may_come_alone(one: Consumer, latest_ms: int, attributes: int) -> None:
    """Then reading goes on behind it, as nothing is new. It may be a mark, whose time a state does not have."""
    one.fetcher.expect_before(FIRST, 5, LastRead(latest_ms))
    waiting = one.ask(FIRST)
    asked: dict[TopicPartition, int] = {}
    while asked.get(FIRST) != 4:
        asked, reply = await one.client.next()
        reply(p0=records_at(4, b"a", attributes=attributes) if asked[FIRST] == 4 else b"")
    asked, _ = await one.client.next()
    assert asked[FIRST] == 5
    waiting.cancel()


@pytest.mark.parametrize(
    "answer",
    [
        {"p0": records_at(5, b"a", b"other") + records_at(7, b"c")},
        {"p0": records_at(5, b"a", b"b", time_ms=2_000) + records_at(7, b"c")},
        {"p0": records_at(7, b"c")},
        {"error": OffsetOutOfRangeError.errno, "of": FIRST},
    ],
)
async def test_a_log_that_was_cut_is_not_read_on(one: Consumer, answer: dict[str, Any]) -> None:
    """With another record there, none, or an end before."""
    await _read_two_records_and_lose_the_broker(one)
    waiting = one.ask(FIRST)
    _, reply = await one.client.next()
    reply(**answer)
    with pytest.raises((CorruptLog, OffsetOutOfRangeError)):
        await waiting


async def test_a_state_knows_when_the_record_before_its_place_was_taken(one: Consumer) -> None:
    """At the latest; a later one is another one."""
    one.fetcher.expect_before(FIRST, 5, LastRead(999))
    waiting = one.ask(FIRST)
    asked: dict[TopicPartition, int] = {}
    while asked.get(FIRST) != 4:
        asked, reply = await one.client.next()
        reply(p0=records_at(4, b"a", b"b") if asked[FIRST] == 4 else b"")
    with pytest.raises(CorruptLog, match=r"orders\.new-0 has lost its end: at offset 4"):
        await waiting


async def test_a_replica_that_does_not_show_its_newest_records_yet_is_asked_until_it_does(one: Consumer) -> None:
    """One that has just become the leader knows later than the old one what all have: nothing is lost there."""
    await _read_two_records_and_lose_the_broker(one)
    waiting = one.ask(FIRST)
    for _ in range(3):
        asked, reply = await one.client.next()
        assert asked[FIRST] == 6
        reply(end=5)
    _, reply = await one.client.next()
    reply(p0=records_at(5, b"a", b"b") + records_at(7, b"c"))
    assert [record.value for record in (await waiting)[FIRST]] == [b"c"]


async def test_records_that_wait_while_their_broker_is_lost_are_known_of_before(one: Consumer) -> None:
    """They are not in the request that fails."""
    _, reply = await one.client.next()
    reply(p0=records_at(5, b"a"))
    taken = one.ask(SECOND)
    asked, reply = await one.client.next()
    assert FIRST not in asked
    reply.fail(KafkaConnectionError())  # type: ignore[attr-defined]
    taken.cancel()
    assert [record.value for record in (await one.ask(FIRST))[FIRST]] == [b"a"]
    while (await one.client.next())[0].get(FIRST, 5) != 5:
        pass


async def _read_two_records(one: Consumer, **more: Any) -> None:
    _, reply = await one.client.next()
    taken = one.ask(FIRST)
    reply(p0=records_at(5, b"a", b"b", **more))
    await taken


async def test_a_broker_that_was_away_between_two_fetches_is_asked_for_the_record_before_the_place(
    one: Consumer,
) -> None:
    """No fetch fails: the client opens a new connection in the place of the one that has ended."""
    _, reply = await one.client.next()
    reply(p0=records_at(5, b"a", b"b"))
    await asyncio.sleep(0.01)
    one.client.disconnect()
    await one.ask(FIRST)
    while (asked := (await one.client.next())[0].get(FIRST)) is None:
        pass
    assert asked == 6


async def test_what_comes_over_another_connection_than_thought_is_not_taken(one: Consumer) -> None:
    """It is read once more, with the record before it."""
    await _read_two_records(one)
    asked, reply = await one.client.next()
    assert asked[FIRST] == 7
    one.client.disconnect()
    reply(p0=records_at(7, b"c"))
    asked, reply = await one.client.next()
    assert asked[FIRST] == 6
    waiting = one.ask(FIRST)
    reply(p0=records_at(5, b"a", b"x") + records_at(7, b"c"))
    with pytest.raises(CorruptLog):
        await waiting


async def test_what_a_later_leader_has_taken_is_not_read_before_the_record_before_it(one: Consumer) -> None:
    """A broker that led before has cut off what the leader between did not have; its connection is the same."""
    waiting, reply = await _meet_a_later_leader(one)
    reply(p0=records_at(5, b"a", b"b", leader_epoch=3) + records_at(7, b"c", leader_epoch=5))
    assert [record.value for record in (await waiting)[FIRST]] == [b"c"]
    await _reads_on(one, 8, b"d", leader_epoch=5)


async def test_a_record_before_the_place_that_fills_a_fetch_is_looked_for_once(one: Consumer) -> None:
    """Or nothing behind it would ever be read: it comes without what the later leader has taken."""
    waiting, reply = await _meet_a_later_leader(one)
    reply(p0=records_at(5, b"a", b"b", leader_epoch=3))
    await _reads_on(one, 7, b"c", waiting, leader_epoch=5)
    await _reads_on(one, 8, b"d", leader_epoch=5)


async def _meet_a_later_leader(one: Consumer) -> tuple[asyncio.Task[Any], Any]:
    """Get a record of its epoch; who waits for records, and the reply to the look for the one before."""
    await _read_two_records(one, leader_epoch=3)
    _, reply = await one.client.next()
    reply(p0=records_at(7, b"c", leader_epoch=5))
    asked, reply = await one.client.next()
    assert asked[FIRST] == 6
    return one.ask(FIRST), reply


async def _reads_on(
    one: Consumer, at: int, value: bytes, waiting: asyncio.Task[Any] | None = None, **more: Any
) -> None:
    asked, reply = await one.client.next()
    assert asked[FIRST] == at
    waiting = waiting or one.ask(FIRST)
    reply(p0=records_at(at, value, **more))
    assert [record.value for record in (await waiting)[FIRST]] == [value]


def _record(at: int, value: bytes, timestamp: int = 1_000) -> Any:
    return SimpleNamespace(offset=at, timestamp=timestamp, key=b"7", value=value)


async def _show_record_before(one: Consumer, known: Any) -> asyncio.Task[Any]:
    """Ask for records behind one that is ``known``, and answer with what is there."""
    one.fetcher.expect_before(FIRST, 5, LastRead(digest=record_digest(known)))
    waiting = one.ask(FIRST)
    asked: dict[TopicPartition, int] = {}
    while asked.get(FIRST) != 4:
        asked, reply = await one.client.next()
        reply(p0=records_at(4, b"a") if asked[FIRST] == 4 else b"")
    return waiting


async def test_a_state_may_know_which_record_is_before_its_place(one: Consumer) -> None:
    waiting = await _show_record_before(one, _record(4, b"a"))
    asked, _ = await one.client.next()
    assert asked[FIRST] == 5
    waiting.cancel()


@pytest.mark.parametrize("known", [_record(4, b"b"), _record(4, b"a", timestamp=1_001)])
async def test_an_older_record_in_its_place_is_another_one(one: Consumer, known: Any) -> None:
    """A log that was cut and has grown again may have it there: events that an engine has sent once more."""
    waiting = await _show_record_before(one, known)
    with pytest.raises(CorruptLog, match=r"orders\.new-0 has lost its end: at offset 4"):
        await waiting


async def test_a_record_that_was_read_is_known_better_than_by_its_time(one: Consumer) -> None:
    """A rebalance that leaves the partition where it was takes nothing from that."""
    await _read_two_records(one)
    _, reply = await one.client.next()
    one.fetcher.expect_before(FIRST, 7, LastRead(1_000))
    reply()
    asked, reply = await one.client.next()
    assert asked[FIRST] == 6
    waiting = one.ask(FIRST)
    reply(p0=records_at(5, b"a", b"x"))
    with pytest.raises(CorruptLog):
        await waiting


async def test_another_leader_is_asked_for_the_record_before_the_place(one: Consumer) -> None:
    """Also where no fetch has failed."""
    _, reply = await one.client.next()
    taken = one.ask(FIRST)
    reply(p0=records_at(5, b"a", b"b"))
    one.client.cluster.leader = 2
    await taken
    asked, _ = await one.client.next()
    assert asked[FIRST] == 6
