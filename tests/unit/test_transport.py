"""The private names of Faust that the batch transport builds on: an upgrade that moves one must fail here."""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect
from collections import defaultdict, deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.producer.message_accumulator import BatchBuilder
from faust.assignor.partition_assignor import PartitionAssignor
from faust.stores.rocksdb import Store
from faust.tables.manager import TableManager
from faust.transport.drivers import aiokafka as driver
from faust.transport.utils import DefaultSchedulingStrategy
from faust.types import TP
from mode import Service
from mode.threads import ServiceThread

from forkast_streams import transport
from forkast_streams.config import Settings
from forkast_streams.limits import BATCH_BYTES
from forkast_streams.roles import ROLES, create_app


def test_faust_is_the_version_the_overrides_were_written_for() -> None:
    """Another version needs another look at every override."""
    assert importlib.metadata.version("faust-streaming") == "0.15.3"
    assert importlib.metadata.version("mode-streaming") == "0.7.1"


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [
        (driver.Consumer, "_wait_next_records", ["self", "timeout"]),
        (driver.Consumer, "getmany", ["self", "timeout"]),
        (driver.Consumer, "_getmany", ["self", "active_partitions", "timeout"]),
        (driver.Consumer, "_get_active_partitions", ["self"]),
        (driver.Consumer, "_new_offset", ["self", "tp"]),
        (driver.Consumer, "_add_gap", ["self", "tp", "offset_from", "offset_to"]),
        (driver.Consumer, "_to_message", ["self", "tp", "record"]),
        (driver.Consumer, "on_buffer_full", ["self", "tp"]),
        (driver.Consumer, "perform_seek", ["self"]),
        (driver.Consumer, "wait_empty", ["self"]),
        (driver.Consumer, "on_partitions_revoked", ["self", "revoked"]),
        (driver.Consumer, "_new_consumer_thread", ["self"]),
        (driver.AIOKafkaConsumerThread, "_create_worker_consumer", ["self", "transport"]),
        (driver.AIOKafkaConsumerThread, "on_start", ["self"]),
        (driver.AIOKafkaConsumerThread, "on_thread_stop", ["self"]),
        (driver.AIOKafkaConsumerThread, "call_thread", ["self", "fun", "args", "kwargs"]),
        (TableManager, "on_start", ["self"]),
        (TableManager, "_update_channels", ["self"]),
        (faust.Worker, "_schedule_shutdown", ["self", "signal"]),
        (faust.Worker, "_sentinel_task", ["self"]),
        (GroupCoordinator, "check_errors", ["self"]),
        (Store, "_db_for_partition", ["self", "partition"]),
        (Store, "persisted_offset", ["self", "tp"]),
    ],
)
def test_overridden_method_is_there_with_its_parameters(owner: type, name: str, parameters: list[str]) -> None:
    """The method has the signature that the override has."""
    assert list(inspect.signature(getattr(owner, name)).parameters) == parameters


def test_the_stores_offset_key_and_the_assignors_url_are_there() -> None:
    """Two attributes that are not methods."""
    assert isinstance(Store.offset_key, bytes)
    assert isinstance(PartitionAssignor._url, property)


@pytest.mark.parametrize(
    "name",
    [
        "maybe_start",
        "start",
        "stop",
        "crash",
        "set_shutdown",
        "_stopped_set",
        "_stop_children",
        "_stop_futures",
        "_stop_exit_stacks",
    ],
)
def test_what_a_thread_does_otherwise_than_a_service_is_taken_back(name: str) -> None:
    """All that the thread's class overrides, so that the consumer is a plain service of the worker's loop."""
    of_thread, of_service = getattr(ServiceThread, name), getattr(Service, name)
    own = getattr(transport._ConsumerOnLoop, name)
    assert of_thread is not of_service
    assert own is of_service or own is getattr(Service, f"_default{name}", None)


def test_a_batch_of_the_producers_has_the_builder_that_records_are_put_into() -> None:
    """And the count of them that is kept outside of it."""
    batch = BatchBuilder(1_000, 0, is_transactional=False)
    assert list(inspect.signature(AIOKafkaProducer.create_batch).parameters) == ["self"]
    assert batch._builder.append(0, 1, b"key", b"value", []) is not None
    batch._relative_offset = 1
    assert batch.record_count() == 1


class _Consumer(transport.BatchConsumer):
    """Only what messages are fetched and handed over with; ``rewound`` is what was given back."""

    flow_active = True

    def __init__(self, fetched: dict[TP, list[Any]] | None = None) -> None:
        Service.__init__(self)
        self.app = SimpleNamespace(
            consumer_generation_id=1, monitor=SimpleNamespace(track_tp_end_offset=lambda *_: None)
        )
        self.transport = SimpleNamespace(batch_topics={"orders.new"})
        self.scheduler = DefaultSchedulingStrategy()
        self.rewound: dict[TP, int] = {}
        self._fetched = fetched or {}
        self._in_flight = defaultdict(deque)
        self._buffered_partitions = set()

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109 - as overridden
        return self._fetched, set(self._fetched)

    def _to_message(self, _tp: TP, record: Any) -> Any:
        return record

    def _batch_message(self, _tp: TP, records: list[Any], _generation: int) -> Any:
        return records

    def highwater(self, _tp: TP) -> int:
        return 0

    def _rewind(self, tp: TP, offset: int) -> None:
        self.rewound[tp] = offset


_BATCH, _CHANGELOG, _OTHER = TP("orders.new", 0), TP("changelog", 0), TP("changelog", 1)


def _fetch_of_all() -> dict[TP, list[Any]]:
    return {tp: [SimpleNamespace(offset=at) for at in range(5, 8)] for tp in (_BATCH, _CHANGELOG, _OTHER)}


async def test_what_was_fetched_when_the_flow_has_stopped_is_fetched_again() -> None:
    """Faust drops it, and a standby that reads on behind it has a hole."""
    consumer = _Consumer(_fetch_of_all())
    consumer.flow_active = False
    assert [one async for one in consumer.getmany(1)] == []
    assert consumer.rewound == {_BATCH: 5, _CHANGELOG: 5, _OTHER: 5}


@pytest.mark.parametrize("stops", [1, 2, 3, 7])
async def test_what_is_not_handed_over_when_the_flow_stops_is_fetched_again(stops: int) -> None:
    """From the first message on that was not."""
    consumer = _Consumer(_fetch_of_all())
    handed: dict[TP, int] = {}
    async for tp, message in consumer.getmany(1):
        handed[tp] = (message[-1] if tp == _BATCH else message).offset
        consumer.flow_active = len(handed) and sum(at - 4 for at in handed.values()) < stops
    for tp in (_BATCH, _CHANGELOG, _OTHER):
        left = consumer.rewound.get(tp, 8)
        assert left == handed.get(tp, 4) + 1
    assert sum(8 - at for at in consumer.rewound.values()) == 9 - sum(at - 4 for at in handed.values())


async def test_a_message_that_was_refused_is_fetched_again() -> None:
    """It was cancelled on its way to an agent whose queue was full."""
    consumer = _Consumer(_fetch_of_all())
    suspended = asyncio.Event()
    suspended.set()
    async for tp, _ in consumer.getmany(1):
        if tp == _CHANGELOG:
            await consumer.wait_first(asyncio.Event().wait(), suspended.wait())
    assert consumer.rewound[_CHANGELOG] == 5
    assert _BATCH not in consumer.rewound


async def test_a_message_that_is_taken_at_once_is_handed_over_without_the_other_waits() -> None:
    """They are closed, so that nobody misses them."""
    others_begun = []

    async def take() -> str:
        return "taken"

    async def other() -> None:
        others_begun.append(True)

    result = await _Consumer().wait_first(take(), other())
    assert (result.results, result.stopped, others_begun) == (["taken"], False, [])


async def test_a_message_that_is_not_taken_ends_with_the_other_waits() -> None:
    """As Faust does it: the hand-over is cancelled when the flow is suspended."""
    cancelled = asyncio.Event()

    async def take() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    suspended = asyncio.Event()
    handing_over = asyncio.create_task(_Consumer().wait_first(take(), suspended.wait()))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not handing_over.done()
    suspended.set()
    assert (await handing_over).results == [True]
    await asyncio.wait_for(cancelled.wait(), 5)


async def test_other_waits_of_a_consumer_are_modes() -> None:
    """That for the flow to go on, for one, which is an event."""
    resumed = asyncio.Event()
    waiting = asyncio.create_task(_Consumer().wait(resumed))
    await asyncio.sleep(0)
    resumed.set()
    assert (await asyncio.wait_for(waiting, 5)).stopped is False


async def test_an_error_of_the_one_who_takes_a_message_is_raised() -> None:
    """Not lost with its task."""

    async def take() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await _Consumer().wait_first(take(), asyncio.Event().wait())


def test_what_standbys_have_queued_survives_the_end_of_a_recovery(tmp_path: Path) -> None:
    """Faust resumes a flow that flows, and emptied their changelog's queue with that."""
    app = create_app("engine", Settings(data_dir=tmp_path))
    flow, queue = app.flow_control, app.tables.changelog_queue
    flow.resume()
    queue.put_nowait("a row")
    flow.resume()
    assert queue.qsize() == 1
    flow.suspend()
    flow.resume()
    assert queue.empty(), "what is read again from before the stop would come twice"


def test_what_an_engine_sends_at_once_fits_into_a_readers_fetch() -> None:
    """Else a broker sends it only to the partition whose turn it is, and the others wait."""
    readers = {name: role.fetch_bytes for name, role in ROLES.items() if name in ("sink", "keeper")}
    assert len(readers) == 2
    # The last record of a batch may begin just below the limit.
    assert all(fetched >= BATCH_BYTES * 3 // 2 for fetched in readers.values())
