"""Fetching: one fetch under way to each broker, of what is asked for, and it waits only when it may."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import pytest
from aiokafka.consumer import consumer, fetcher
from aiokafka.consumer.fetcher import RecordTooLargeError
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import (
    CorruptRecordException,
    KafkaConnectionError,
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)
from aiokafka.protocol.fetch import FetchRequest, FetchResponse_v11
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition

from forkast_streams.errors import CorruptLog
from forkast_streams.kafka_client import Pace, PacedFetcher, RawTopics, fetched
from forkast_streams.records import TransactionMark

_TOPIC, _CHANGELOG = "orders.new", "changelog"
_FIRST, _SECOND, _OF_CHANGELOG = TopicPartition(_TOPIC, 0), TopicPartition(_TOPIC, 1), TopicPartition(_CHANGELOG, 0)


# Of a batch in the log: where its attributes begin, which its checksum covers with all behind them, and two of them.
_ATTRIBUTES_AT = 21
_RECORDS_AT = 61
_CONTROL, _GZIP = 0x20, 0x01


def _records(
    first: int, *values: bytes, attributes: int = 0, time_ms: int = 1_000, header: bytes | None = None
) -> bytes:
    """A batch; ``header`` is the name, of four bytes, of one that its records have."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 16)
    for number, value in enumerate(values):
        builder.append(number, time_ms, b"7", value, [] if header is None else [("name", b"v")])
    batch = bytearray(builder.build())
    if header is not None:
        batch = batch.replace(b"name", header)
    batch[:8] = first.to_bytes(8, "big")
    batch[_ATTRIBUTES_AT : _ATTRIBUTES_AT + 2] = attributes.to_bytes(2, "big")
    batch[_ATTRIBUTES_AT - 4 : _ATTRIBUTES_AT] = calc_crc32c(bytes(batch[_ATTRIBUTES_AT:])).to_bytes(4, "big")
    return bytes(batch)


def _packed(batch: bytes) -> bytes:
    """The same with its records packed by gzip."""
    header, records = bytearray(batch[:_RECORDS_AT]), gzip.compress(batch[_RECORDS_AT:])
    header[8:12] = (_RECORDS_AT - 12 + len(records)).to_bytes(4, "big")
    header[_ATTRIBUTES_AT + 1] |= _GZIP
    header[_ATTRIBUTES_AT - 4 : _ATTRIBUTES_AT] = calc_crc32c(bytes(header[_ATTRIBUTES_AT:]) + records).to_bytes(
        4, "big"
    )
    return bytes(header) + records


class _Cluster:
    """Knows one broker for all partitions, or none."""

    leader: int | None = 1

    def leader_for_partition(self, _tp: TopicPartition) -> int | None:
        """The broker."""
        return self.leader


class _Client:
    """A broker: holds each fetch until the test answers it."""

    _metadata_max_age_ms = 1_000

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.cluster = _Cluster()
        self.fetches: asyncio.Queue[tuple[Any, asyncio.Future[Any]]] = asyncio.Queue()
        self.looked_for_leaders = 0

    async def send(self, _node: int, request: Any) -> Any:
        """Fetch."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        self.fetches.put_nowait((request, answer))
        return await answer

    def force_metadata_update(self) -> asyncio.Future[bool]:
        """Look for the partitions' brokers, and find them."""
        self.looked_for_leaders += 1
        self.cluster.leader = 1
        found: asyncio.Future[bool] = self._loop.create_future()
        found.set_result(True)
        return found

    async def next(self) -> tuple[dict[TopicPartition, int], Callable[..., None]]:
        """The next fetch: the places it reads from, and how to answer it."""
        request, answer = await asyncio.wait_for(self.fetches.get(), 5)
        asked = {TopicPartition(topic, number): at for topic, parts in request.topics for number, at, _ in parts}

        def reply(*, error: int = 0, of: TopicPartition | None = None, end: int = 9, **records: bytes) -> None:
            topics: dict[str, list[tuple[Any, ...]]] = {}
            for tp in asked:
                found = records.get(f"p{tp.partition}", b"") if tp.topic == _TOPIC else b""
                code = error if tp == of else 0
                topics.setdefault(tp.topic, []).append((tp.partition, code, end, end, 0, None, -1, found))
            answer.set_result(FetchResponse_v11(0, 0, 0, list(topics.items())))

        reply.fail = answer.set_exception  # type: ignore[attr-defined]
        return asked, reply


class _Consumer:
    """A fetcher of three partitions, read from offset 5 on."""

    def __init__(self) -> None:
        self.client = _Client()
        self.subscriptions = SubscriptionState()
        self.subscriptions.assign_from_user({_FIRST, _SECOND, _OF_CHANGELOG})
        self.assignment = self.subscriptions.subscription.assignment
        for tp in self.assignment.tps:
            self.assignment.state_value(tp).reset_to(5)
        self.fetcher = PacedFetcher(
            self.client, self.subscriptions, value_deserializer=RawTopics({_TOPIC}), retry_backoff_ms=1
        )

    def ask(self, *tps: TopicPartition) -> asyncio.Task[dict[TopicPartition, list[Any]]]:
        """Ask for records."""
        return asyncio.create_task(self.fetcher.fetched_records(set(tps), timeout=5))


@pytest.fixture
async def one() -> AsyncIterator[_Consumer]:
    """A consumer whose first fetch, of everything, is under way."""
    made = _Consumer()
    yield made
    await made.fetcher.close()


async def test_records_come_in_order_and_the_next_fetch_goes_on_behind_them(one: _Consumer) -> None:
    """It begins when they are taken, not before."""
    asked, reply = await one.client.next()
    assert asked == {_FIRST: 5, _SECOND: 5, _OF_CHANGELOG: 5}
    taken = one.ask(_FIRST, _SECOND)
    reply(p0=_records(5, b"a", b"b"), p1=_records(5, b"c"))
    found = await taken
    assert {tp: [(record.offset, record.value) for record in records] for tp, records in found.items()} == {
        _FIRST: [(5, b"a"), (6, b"b")],
        _SECOND: [(5, b"c")],
    }
    asked, _ = await one.client.next()
    assert (asked[_FIRST], asked[_SECOND]) == (7, 6)


async def test_of_whole_batches_only_what_was_asked_for_is_delivered(one: _Consumer) -> None:
    """Not what stands before the place in the first one; the marks of transactions, which take offsets, as such."""
    _, reply = await one.client.next()
    taken = one.ask(_FIRST)
    batches = [_records(3, b"x", b"y", b"a"), _records(6, b"mark", attributes=_CONTROL), _records(7, b"b")]
    reply(p0=b"".join(batches))
    found = (await taken)[_FIRST]
    assert [(record.offset, record.value) for record in found] == [(5, b"a"), (6, None), (7, b"b")]
    assert [isinstance(record, TransactionMark) for record in found] == [False, True, False]
    asked, _ = await one.client.next()
    assert asked[_FIRST] == 8


@pytest.mark.parametrize("is_packed", [False, True])
async def test_a_header_whose_name_is_no_utf_8_is_read_with_the_others(one: _Consumer, *, is_packed: bool) -> None:
    """A broker takes it, so whoever may write could end every reader with one record."""
    _, reply = await one.client.next()
    taken = one.ask(_FIRST)
    odd = _records(6, b"b", b"c", header=b"\xff\xfe\xff\xfe")
    reply(p0=_records(5, b"a", header=b"good") + (_packed(odd) if is_packed else odd) + _records(8, b"d"))
    found = (await taken)[_FIRST]
    assert [(record.offset, record.value) for record in found] == [(5, b"a"), (6, b"b"), (7, b"c"), (8, b"d")]
    assert [list(record.headers) for record in found[1:]] == [[("\ufffd" * 4, b"v")]] * 2 + [[]]


async def _read_two_records_and_lose_the_broker(one: _Consumer) -> None:
    _, reply = await one.client.next()
    taken = one.ask(_FIRST)
    reply(p0=_records(5, b"a", b"b"))
    await taken
    _, reply = await one.client.next()
    reply.fail(KafkaConnectionError())  # type: ignore[attr-defined]


async def test_after_a_failure_the_record_before_the_place_is_read_once_more(one: _Consumer) -> None:
    """A broker that comes back may have lost what it had acknowledged, and have taken something else since."""
    await _read_two_records_and_lose_the_broker(one)
    asked, reply = await one.client.next()
    assert asked[_FIRST] == 6
    reply(p0=_records(5, b"a", b"b") + _records(7, b"c"))
    assert [(record.offset, record.value) for record in (await one.ask(_FIRST))[_FIRST]] == [(7, b"c")]
    asked, _ = await one.client.next()
    assert asked[_FIRST] == 8


@pytest.mark.parametrize(("latest_ms", "attributes"), [(1_000, 0), (1, _CONTROL)])
async def test_the_record_before_the_place_may_come_alone(one: _Consumer, latest_ms: int, attributes: int) -> None:
    """Then reading goes on behind it, as nothing is new. It may be a mark, whose time a state does not have."""
    one.fetcher.expect_before(_FIRST, 5, latest_ms)
    waiting = one.ask(_FIRST)
    asked: dict[TopicPartition, int] = {}
    while asked.get(_FIRST) != 4:
        asked, reply = await one.client.next()
        reply(p0=_records(4, b"a", attributes=attributes) if asked[_FIRST] == 4 else b"")
    asked, _ = await one.client.next()
    assert asked[_FIRST] == 5
    waiting.cancel()


@pytest.mark.parametrize(
    "answer",
    [
        {"p0": _records(5, b"a", b"other") + _records(7, b"c")},
        {"p0": _records(5, b"a", b"b", time_ms=2_000) + _records(7, b"c")},
        {"p0": _records(7, b"c")},
        {"error": OffsetOutOfRangeError.errno, "of": _FIRST},
    ],
)
async def test_a_log_that_was_cut_is_not_read_on(one: _Consumer, answer: dict[str, Any]) -> None:
    """With another record there, none, or an end before."""
    await _read_two_records_and_lose_the_broker(one)
    waiting = one.ask(_FIRST)
    _, reply = await one.client.next()
    reply(**answer)
    with pytest.raises((CorruptLog, OffsetOutOfRangeError)):
        await waiting


async def test_a_state_knows_when_the_record_before_its_place_was_taken(one: _Consumer) -> None:
    """At the latest; a later one is another one."""
    one.fetcher.expect_before(_FIRST, 5, 999)
    waiting = one.ask(_FIRST)
    asked: dict[TopicPartition, int] = {}
    while asked.get(_FIRST) != 4:
        asked, reply = await one.client.next()
        reply(p0=_records(4, b"a", b"b") if asked[_FIRST] == 4 else b"")
    with pytest.raises(CorruptLog, match=r"orders\.new-0 has lost its end: at offset 4"):
        await waiting


async def test_a_replica_that_does_not_show_its_newest_records_yet_is_asked_until_it_does(one: _Consumer) -> None:
    """One that has just become the leader knows later than the old one what all have: nothing is lost there."""
    await _read_two_records_and_lose_the_broker(one)
    waiting = one.ask(_FIRST)
    for _ in range(3):
        asked, reply = await one.client.next()
        assert asked[_FIRST] == 6
        reply(end=5)
    _, reply = await one.client.next()
    reply(p0=_records(5, b"a", b"b") + _records(7, b"c"))
    assert [record.value for record in (await waiting)[_FIRST]] == [b"c"]


async def test_records_that_wait_while_their_broker_is_lost_are_known_of_before(one: _Consumer) -> None:
    """They are not in the request that fails."""
    _, reply = await one.client.next()
    reply(p0=_records(5, b"a"))
    taken = one.ask(_SECOND)
    asked, reply = await one.client.next()
    assert _FIRST not in asked
    reply.fail(KafkaConnectionError())  # type: ignore[attr-defined]
    taken.cancel()
    assert [record.value for record in (await one.ask(_FIRST))[_FIRST]] == [b"a"]
    while (await one.client.next())[0].get(_FIRST, 5) != 5:
        pass


async def test_another_leader_is_asked_for_the_record_before_the_place(one: _Consumer) -> None:
    """Also where no fetch has failed."""
    _, reply = await one.client.next()
    taken = one.ask(_FIRST)
    reply(p0=_records(5, b"a", b"b"))
    one.client.cluster.leader = 2
    await taken
    asked, _ = await one.client.next()
    assert asked[_FIRST] == 6


@pytest.mark.parametrize("error", [56, 74, 5])
async def test_a_refused_partition_is_asked_for_again_after_a_pause(one: _Consumer, error: int) -> None:
    """With a look for its leader, and without holding up the others."""
    one.fetcher._retry_backoff = 0.05
    _, reply = await one.client.next()
    waiting = one.ask(_FIRST, _SECOND)
    refused_at = asyncio.get_running_loop().time()
    reply(error=error, of=_FIRST)
    asked, reply = await one.client.next()
    assert set(asked) == {_SECOND}
    reply(p1=_records(5, b"b"))
    assert list(await waiting) == [_SECOND]
    waiting = one.ask(_FIRST)
    asked = {}
    while _FIRST not in asked:
        asked, reply = await one.client.next()
        reply()
    assert asyncio.get_running_loop().time() - refused_at >= 0.05
    assert one.client.looked_for_leaders == 1
    waiting.cancel()


async def test_a_batch_that_is_damaged_is_not_delivered(one: _Consumer) -> None:
    """Nor what came before it in the same fetch: all of it is fetched again."""
    _, reply = await one.client.next()
    taken = one.ask(_FIRST)
    reply(p0=_records(5, b"a") + _records(6, b"b")[:-1] + b"?")
    with pytest.raises(CorruptRecordException):
        await taken
    assert one.assignment.state_value(_FIRST).position == 5


async def test_each_partition_comes_first_in_its_turn(one: _Consumer) -> None:
    """A broker sends a batch that is larger than a fetch of the first one only: another one would starve."""
    waiting = one.ask(_FIRST, _SECOND)
    firsts = []
    for _ in range(4):
        asked, reply = await one.client.next()
        firsts.append(next(tp for tp in asked if tp != _OF_CHANGELOG))
        reply()
    assert firsts[1:] in ([_FIRST, _SECOND, _FIRST], [_SECOND, _FIRST, _SECOND])
    waiting.cancel()


async def test_of_few_partitions_more_is_fetched_at_once(one: _Consumer) -> None:
    """As much of all together, and never less of one than it was told."""
    one.fetcher._max_partition_fetch_bytes = 64 * 1024
    for partitions, kib in ((1, 640), (2, 320), (10, 64), (100, 64)):
        one.fetcher._asked_for = frozenset(TopicPartition(_TOPIC, number) for number in range(partitions))
        ((_, ((_, _, size),)),) = one.fetcher._request([(_FIRST, 5)]).topics
        assert size == kib * 1024


async def test_only_one_fetch_is_under_way_and_none_while_records_wait(one: _Consumer) -> None:
    """Records that nobody takes do not come twice."""
    _, reply = await one.client.next()
    one.fetcher._wake()
    await asyncio.sleep(0)
    assert one.client.fetches.empty()
    reply(p0=_records(5, b"a"))
    await asyncio.wait(one.fetcher._pending_tasks)
    assert one.fetcher._records
    one.fetcher._wake()
    await asyncio.sleep(0)
    assert one.client.fetches.empty()


async def test_a_recovered_changelog_is_fetched_no_more(one: _Consumer) -> None:
    """While it is recovered everything is; once a batch topic is asked for, that alone."""
    _, reply = await one.client.next()
    waiting = one.ask(_OF_CHANGELOG)
    await asyncio.sleep(0)
    reply()
    asked, reply = await one.client.next()
    assert set(asked) == {_FIRST, _SECOND, _OF_CHANGELOG}
    waiting.cancel()
    waiting = one.ask(_FIRST, _SECOND)
    await asyncio.sleep(0)
    reply()
    asked, _ = await one.client.next()
    assert set(asked) == {_FIRST, _SECOND}
    waiting.cancel()


async def test_who_asks_waits_no_longer_than_it_said(one: _Consumer) -> None:
    """And gets nothing then."""
    assert await one.fetcher.fetched_records({_FIRST}, timeout=0.01) == {}


async def test_what_was_sought_away_from_is_not_delivered(one: _Consumer) -> None:
    """The answer to a fetch from the old place is thrown away."""
    _, reply = await one.client.next()
    one.assignment.state_value(_FIRST).seek(3)
    reply(p0=_records(5, b"old"))
    asked, _ = await one.client.next()
    assert asked[_FIRST] == 3


async def test_what_is_given_back_is_fetched_again(one: _Consumer) -> None:
    """From there on, what was fetched behind it too; but nobody who has sought further back is moved."""
    _, reply = await one.client.next()
    taken = one.ask(_FIRST, _SECOND)
    reply(p0=_records(5, b"a", b"b"))
    await taken
    one.fetcher.rewind(_FIRST, 6)
    one.fetcher.rewind(_SECOND, 9)
    _, reply = await one.client.next()
    reply()
    asked, _ = await one.client.next()
    assert (asked[_FIRST], asked[_SECOND]) == (6, 5)


async def test_a_broker_that_fails_is_asked_again(one: _Consumer) -> None:
    """From the same place."""
    asked, reply = await one.client.next()
    reply.fail(KafkaConnectionError())  # type: ignore[attr-defined]
    assert (await one.client.next())[0] == asked


async def test_a_partition_that_has_moved_is_looked_for(one: _Consumer) -> None:
    """Then it is fetched again; so is one whose broker is not known."""
    _, reply = await one.client.next()
    one.client.cluster.leader = None
    reply(error=NotLeaderForPartitionError.errno, of=_FIRST)
    asked: dict[TopicPartition, int] = {}
    while _FIRST not in asked:
        asked, reply = await one.client.next()
        reply()
    assert asked[_FIRST] == 5
    assert one.client.looked_for_leaders


async def test_a_place_that_the_log_has_left_is_looked_up_anew(one: _Consumer) -> None:
    """As at a start; or told, when the consumer says so."""
    _, reply = await one.client.next()
    one.fetcher._default_reset_strategy = 0
    waiting = one.ask(_FIRST)
    reply(error=OffsetOutOfRangeError.errno, of=_FIRST)
    with pytest.raises(OffsetOutOfRangeError):
        await waiting


@pytest.mark.parametrize(
    ("error", "records", "raised"),
    [
        (TopicAuthorizationFailedError.errno, b"", TopicAuthorizationFailedError),
        (0, _records(5, b"a")[:20], RecordTooLargeError),
    ],
)
async def test_who_asks_is_told_what_is_wrong(
    one: _Consumer, error: int, records: bytes, raised: type[Exception]
) -> None:
    """No permission, or a record larger than a fetch."""
    _, reply = await one.client.next()
    waiting = one.ask(_FIRST)
    reply(error=error, of=_FIRST, p0=records)
    with pytest.raises(raised):
        await waiting


async def test_an_unexpected_error_ends_the_fetcher(one: _Consumer) -> None:
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
