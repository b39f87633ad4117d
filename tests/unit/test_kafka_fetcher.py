"""Fetching: one fetch under way to each broker, of what is asked for, and it waits only when it may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from aiokafka.consumer import consumer, fetcher
from aiokafka.consumer.fetcher import RecordTooLargeError
from aiokafka.errors import (
    CorruptRecordException,
    KafkaConnectionError,
    KafkaError,
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.structs import TopicPartition

from forkast_streams.kafka_client import Pace, PacedFetcher, fetched
from forkast_streams.records import TransactionMark
from forkast_streams.transport import _ConsumerOnLoop
from tests.support.fetching import CONTROL, FIRST, OF_CHANGELOG, SECOND, TOPIC, Consumer, packed, records_at


@pytest.fixture
async def one() -> AsyncIterator[Consumer]:
    """A consumer whose first fetch, of everything, is under way."""
    made = Consumer()
    yield made
    await made.fetcher.close()


async def test_records_come_in_order_and_the_next_fetch_goes_on_behind_them(one: Consumer) -> None:
    """It begins when they are taken, not before."""
    asked, reply = await one.client.next()
    assert asked == {FIRST: 5, SECOND: 5, OF_CHANGELOG: 5}
    taken = one.ask(FIRST, SECOND)
    reply(p0=records_at(5, b"a", b"b"), p1=records_at(5, b"c"))
    found = await taken
    assert {tp: [(record.offset, record.value) for record in records] for tp, records in found.items()} == {
        FIRST: [(5, b"a"), (6, b"b")],
        SECOND: [(5, b"c")],
    }
    asked, _ = await one.client.next()
    assert (asked[FIRST], asked[SECOND]) == (7, 6)


async def test_of_whole_batches_only_what_was_asked_for_is_delivered(one: Consumer) -> None:
    """Not what stands before the place in the first one; the marks of transactions, which take offsets, as such."""
    _, reply = await one.client.next()
    taken = one.ask(FIRST)
    batches = [records_at(3, b"x", b"y", b"a"), records_at(6, b"mark", attributes=CONTROL), records_at(7, b"b")]
    reply(p0=b"".join(batches))
    found = (await taken)[FIRST]
    assert [(record.offset, record.value) for record in found] == [(5, b"a"), (6, None), (7, b"b")]
    assert [isinstance(record, TransactionMark) for record in found] == [False, True, False]
    asked, _ = await one.client.next()
    assert asked[FIRST] == 8


@pytest.mark.parametrize("is_packed", [False, True])
async def test_a_header_whose_name_is_no_utf_8_is_read_with_the_others(one: Consumer, *, is_packed: bool) -> None:
    """A broker takes it, so whoever may write could end every reader with one record."""
    _, reply = await one.client.next()
    taken = one.ask(FIRST)
    odd = records_at(6, b"b", b"c", header=b"\xff\xfe\xff\xfe")
    reply(p0=records_at(5, b"a", header=b"good") + (packed(odd) if is_packed else odd) + records_at(8, b"d"))
    found = (await taken)[FIRST]
    assert [(record.offset, record.value) for record in found] == [(5, b"a"), (6, b"b"), (7, b"c"), (8, b"d")]
    assert [list(record.headers) for record in found[1:]] == [[("\ufffd" * 4, b"v")]] * 2 + [[]]


@pytest.mark.parametrize("error", [56, 74, 5])
async def test_a_refused_partition_is_asked_for_again_after_a_pause(one: Consumer, error: int) -> None:
    """With a look for its leader, and without holding up the others."""
    one.fetcher._retry_backoff = 0.05
    _, reply = await one.client.next()
    waiting = one.ask(FIRST, SECOND)
    refused_at = asyncio.get_running_loop().time()
    reply(error=error, of=FIRST)
    asked, reply = await one.client.next()
    assert set(asked) == {SECOND}
    reply(p1=records_at(5, b"b"))
    assert list(await waiting) == [SECOND]
    waiting = one.ask(FIRST)
    asked = {}
    while FIRST not in asked:
        asked, reply = await one.client.next()
        reply()
    assert asyncio.get_running_loop().time() - refused_at >= 0.05
    assert one.client.looked_for_leaders == 1
    waiting.cancel()


async def test_a_batch_that_is_damaged_is_not_delivered(one: Consumer) -> None:
    """Nor what came before it in the same fetch: all of it is fetched again."""
    _, reply = await one.client.next()
    taken = one.ask(FIRST)
    reply(p0=records_at(5, b"a") + records_at(6, b"b")[:-1] + b"?")
    with pytest.raises(CorruptRecordException):
        await taken
    assert one.assignment.state_value(FIRST).position == 5


async def test_each_partition_comes_first_in_its_turn(one: Consumer) -> None:
    """A broker sends a batch that is larger than a fetch of the first one only: another one would starve."""
    waiting = one.ask(FIRST, SECOND)
    firsts = []
    for _ in range(4):
        asked, reply = await one.client.next()
        firsts.append(next(tp for tp in asked if tp != OF_CHANGELOG))
        reply()
    assert firsts[1:] in ([FIRST, SECOND, FIRST], [SECOND, FIRST, SECOND])
    waiting.cancel()


async def test_of_few_partitions_more_is_fetched_at_once(one: Consumer) -> None:
    """As much of all together, and never less of one than it was told."""
    one.fetcher._max_partition_fetch_bytes = 64 * 1024
    for partitions, kib in ((1, 640), (2, 320), (10, 64), (100, 64)):
        one.fetcher._asked_for = frozenset(TopicPartition(TOPIC, number) for number in range(partitions))
        ((_, ((_, _, size),)),) = one.fetcher._request([(FIRST, 5)]).topics
        assert size == kib * 1024


async def test_only_one_fetch_is_under_way_and_none_while_records_wait(one: Consumer) -> None:
    """Records that nobody takes do not come twice."""
    _, reply = await one.client.next()
    one.fetcher._wake()
    await asyncio.sleep(0)
    assert one.client.fetches.empty()
    reply(p0=records_at(5, b"a"))
    await asyncio.wait(one.fetcher._pending_tasks)
    assert one.fetcher._records
    one.fetcher._wake()
    await asyncio.sleep(0)
    assert one.client.fetches.empty()


async def test_a_recovered_changelog_is_fetched_no_more(one: Consumer) -> None:
    """While it is recovered everything is; once a batch topic is asked for, that alone."""
    _, reply = await one.client.next()
    waiting = one.ask(OF_CHANGELOG)
    await asyncio.sleep(0)
    reply()
    asked, reply = await one.client.next()
    assert set(asked) == {FIRST, SECOND, OF_CHANGELOG}
    waiting.cancel()
    waiting = one.ask(FIRST, SECOND)
    await asyncio.sleep(0)
    reply()
    asked, _ = await one.client.next()
    assert set(asked) == {FIRST, SECOND}
    waiting.cancel()


async def test_who_asks_waits_no_longer_than_it_said(one: Consumer) -> None:
    """And gets nothing then."""
    assert await one.fetcher.fetched_records({FIRST}, timeout=0.01) == {}


async def test_what_was_sought_away_from_is_not_delivered(one: Consumer) -> None:
    """The answer to a fetch from the old place is thrown away."""
    _, reply = await one.client.next()
    one.assignment.state_value(FIRST).seek(3)
    reply(p0=records_at(5, b"old"))
    asked, _ = await one.client.next()
    assert asked[FIRST] == 3


async def test_what_is_given_back_is_fetched_again(one: Consumer) -> None:
    """From there on, what was fetched behind it too; but nobody who has sought further back is moved."""
    _, reply = await one.client.next()
    taken = one.ask(FIRST, SECOND)
    reply(p0=records_at(5, b"a", b"b"))
    await taken
    one.fetcher.rewind(FIRST, 6)
    one.fetcher.rewind(SECOND, 9)
    _, reply = await one.client.next()
    reply()
    asked, _ = await one.client.next()
    assert (asked[FIRST], asked[SECOND]) == (6, 5)


async def test_a_broker_that_fails_is_asked_again(one: Consumer) -> None:
    """From the same place."""
    asked, reply = await one.client.next()
    reply.fail(KafkaConnectionError())  # type: ignore[attr-defined]
    assert (await one.client.next())[0] == asked


async def test_a_partition_that_has_moved_is_looked_for(one: Consumer) -> None:
    """Then it is fetched again; so is one whose broker is not known."""
    _, reply = await one.client.next()
    one.client.cluster.leader = None
    reply(error=NotLeaderForPartitionError.errno, of=FIRST)
    asked: dict[TopicPartition, int] = {}
    while FIRST not in asked:
        asked, reply = await one.client.next()
        reply()
    assert asked[FIRST] == 5
    assert one.client.looked_for_leaders


async def test_a_place_that_the_log_has_left_is_looked_up_anew(one: Consumer) -> None:
    """As at a start; or told, when the consumer says so."""
    _, reply = await one.client.next()
    one.fetcher._default_reset_strategy = 0
    waiting = one.ask(FIRST)
    reply(error=OffsetOutOfRangeError.errno, of=FIRST)
    with pytest.raises(OffsetOutOfRangeError):
        await waiting


@pytest.mark.parametrize(
    ("error", "records", "raised"),
    [
        (TopicAuthorizationFailedError.errno, b"", TopicAuthorizationFailedError),
        (0, records_at(5, b"a")[:20], RecordTooLargeError),
    ],
)
async def test_who_asks_is_told_what_is_wrong(
    one: Consumer, error: int, records: bytes, raised: type[Exception]
) -> None:
    """No permission, or a record larger than a fetch."""
    _, reply = await one.client.next()
    waiting = one.ask(FIRST)
    reply(error=error, of=FIRST, p0=records)
    with pytest.raises(raised):
        await waiting


async def test_an_unexpected_error_ends_the_fetcher(one: Consumer) -> None:
    """Its consumer sees that; it must not hang."""
    _, reply = await one.client.next()
    reply.fail(ZeroDivisionError())  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="Unexpected error during data retrieval"):
        await one.fetcher.error_future
    one.fetcher._fetch_task = asyncio.create_task(asyncio.sleep(0))


def test_aiokafkas_consumers_make_this_fetcher() -> None:
    """And it keeps what it has fetched in these."""
    assert consumer.Fetcher is PacedFetcher
    assert fetcher.FetchResult is fetched.FetchResult
    assert fetcher.PartitionRecords is fetched.PartitionRecords


class _State(NamedTuple):
    highwater: int | None


class _Assignment(NamedTuple):
    highwater: int | None

    def state_value(self, _tp: object) -> _State:
        return _State(self.highwater)


_REQUEST = FetchRequest(100, 1, 2, 0, [("orders.new", [(0, 5, 64)])])


_PACE = Pace(seconds=0.1, busy_seconds=0.3, busy_bytes=1_000)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long fetches waited, the clock standing still."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("forkast_streams.kafka_client.fetcher.asyncio.sleep", sleep)
    monkeypatch.setattr("forkast_streams.kafka_client.fetcher.time.monotonic", lambda: 1_000.0)
    return waited


def _paced(pace: Pace, *, has_new: bool = True, size: int = 10) -> PacedFetcher:
    async def fetch(*_: object) -> tuple[bool, int]:
        return has_new, size

    paced = PacedFetcher.__new__(PacedFetcher)
    paced.pace, paced._next_at, paced._fetch = pace, {}, fetch  # type: ignore[method-assign]
    return paced


def _fetch(paced: PacedFetcher, *, highwater: int | None, node: int = 1) -> None:
    asyncio.run(paced._proc_fetch_request(_Assignment(highwater), node, _REQUEST))


def test_a_fetch_waits_only_behind_one_with_records_and_only_when_all_is_read(waits: list[float]) -> None:
    """The request reads from offset 5 on."""
    paced = _paced(_PACE)
    _fetch(paced, highwater=5)
    assert waits == []
    _fetch(paced, highwater=5)
    assert waits == [pytest.approx(0.1)]
    _fetch(paced, highwater=6)
    _fetch(paced, highwater=None)
    _fetch(paced, highwater=5, node=2)
    assert len(waits) == 1


def test_a_fetch_waits_longer_behind_one_with_many_records(waits: list[float]) -> None:
    """What a batch costs by itself is shared by more of them then."""
    paced = _paced(_PACE, size=1_000)
    for _ in range(2):
        _fetch(paced, highwater=5)
    assert waits == [pytest.approx(0.3)]


def test_a_fetch_does_not_wait_behind_one_without_records(waits: list[float]) -> None:
    """That one has waited for records itself."""
    paced = _paced(_PACE, has_new=False, size=0)
    for _ in range(3):
        _fetch(paced, highwater=5)
    assert waits == []


def test_without_a_pace_nothing_waits(waits: list[float]) -> None:
    """As a consumer of somebody else's."""
    paced = _paced(Pace())
    for _ in range(3):
        _fetch(paced, highwater=5)
    assert waits == []


async def test_it_is_told_what_has_ended_the_fetching() -> None:
    """Whoever waits for records gets none, and would wait for ever."""
    one = Consumer()
    _, reply = await one.client.next()
    assert one.fetcher.failure() is None
    reply.fail(ZeroDivisionError())  # type: ignore[attr-defined]
    assert await one.fetcher.fetched_records({FIRST}, timeout=0.01) == {}
    worker: Any = SimpleNamespace(_consumer=SimpleNamespace(_fetcher=one.fetcher))
    assert isinstance(_ConsumerOnLoop.failure(worker), KafkaError)


async def test_a_fetcher_that_is_closed_has_not_failed() -> None:
    one = Consumer()
    await one.fetcher.close()
    assert one.fetcher.failure() is None


async def test_a_leader_is_not_looked_for_without_a_pause(one: Consumer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition may have none for hours, and brokers answer at once."""
    looked = []

    def look() -> asyncio.Future[bool]:
        found: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        found.set_result(True)
        looked.append(found)
        return found

    monkeypatch.setattr(one.client, "force_metadata_update", look)
    _, reply = await one.client.next()
    one.client.cluster.leader = None
    reply()
    await asyncio.sleep(0.05)
    assert len(looked) in range(2, 52)
    one.client.cluster.leader = 1
    await one.client.next()
