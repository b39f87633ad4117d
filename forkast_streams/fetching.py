"""How records are fetched from Kafka: aiokafka's fetcher, with less work a fetch.

A worker that keeps up fetches a few records at a time, so what a fetch costs is what an order costs. Importing this
module puts its classes and functions in the place of aiokafka's; ``tests/unit/test_fetching.py`` fails when one of
those is not what it was.
"""

from __future__ import annotations

import asyncio
import struct
import time
from io import BytesIO
from typing import Any

from aiokafka.consumer import consumer, fetcher
from aiokafka.protocol.fetch import FetchRequest_v11, FetchResponse_v11

# Big-endian, as Kafka's protocol has it; see its message ``Fetch``, version 11.
_REQUEST = struct.Struct(">iiiibiii")
_REQUEST_PARTITION = struct.Struct(">iiqqi")
_RESPONSE = struct.Struct(">ihii")
_RESPONSE_PARTITION = struct.Struct(">ihqqqi")
_ABORTED = struct.Struct(">qq")
_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")
_TWO_INT32 = struct.Struct(">ii")


class RawTopics(set[str]):
    """The topics whose records a consumer hands over as its parser made them; set in place of a deserializer."""

    def __call__(self, value: bytes | None) -> bytes | None:
        """Deserialize nothing."""
        return value


class _PartitionRecords(fetcher.PartitionRecords):
    """Leaves out aiokafka's ``ConsumerRecord``, which takes a third of the time of reading a record.

    A record of the parser has ``offset, timestamp, timestamp_type, key, value, headers``.
    """

    def __init__(self, tp: Any, *args: Any) -> None:
        super().__init__(tp, *args)
        if isinstance(self._value_deserializer, RawTopics) and tp.topic in self._value_deserializer:
            self._consumer_record = self._as_parsed

    @staticmethod
    def _as_parsed(_tp: Any, record: Any) -> Any:
        return record


class PacedFetcher(fetcher.Fetcher):
    """Lets some time pass between two fetches of a consumer that keeps up, so that more comes with each.

    A fetch that has more to read does not wait, and one behind a fetch without records has waited long enough.

    Attributes:
        pace_s: seconds from a fetch with records to the next one from the same broker; 0: none.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pace_s = 0.0
        self._fetched_at: dict[Any, float] = {}

    async def _proc_fetch_request(self, assignment: Any, node_id: Any, request: Any) -> Any:
        wait_s = self._fetched_at.pop(node_id, 0.0) + self.pace_s - time.monotonic()
        if wait_s > 0 and not _has_more(assignment, request):
            try:
                await asyncio.sleep(wait_s)
            except asyncio.CancelledError:
                # The partitions go; aiokafka's own way to say so.
                return False
        has_new = await super()._proc_fetch_request(assignment, node_id, request)
        if has_new:
            self._fetched_at[node_id] = time.monotonic()
        return has_new


def _has_more(assignment: Any, request: Any) -> bool:
    """Whether a partition of ``request`` is known to go on behind the place from which it is read."""
    for topic, partitions in request.topics:
        for partition, offset, _ in partitions:
            highwater = assignment.state_value(fetcher.TopicPartition(topic, partition)).highwater
            if highwater is None or highwater > offset:
                return True
    return False


def encode_request(request: Any) -> bytes:
    """A ``FetchRequest_v11`` as bytes, the same as its own schema makes."""
    parts = [
        _REQUEST.pack(
            request.replica_id,
            request.max_wait_time,
            request.min_bytes,
            request.max_bytes,
            request.isolation_level,
            request.session_id,
            request.session_epoch,
            len(request.topics),
        )
    ]
    for topic, partitions in request.topics:
        parts += (_text(topic), _INT32.pack(len(partitions)))
        parts += [_REQUEST_PARTITION.pack(*partition) for partition in partitions]
    parts.append(_INT32.pack(len(request.forgotten_topics_data)))
    for topic, forgotten in request.forgotten_topics_data:
        parts += (_text(topic), _INT32.pack(len(forgotten)))
        parts += [_INT32.pack(partition) for partition in forgotten]
    parts.append(_text(request.rack_id))
    return b"".join(parts)


def decode_response(kind: type[Any], data: BytesIO | bytes) -> Any:
    """A ``FetchResponse_v11``, the same as its own schema reads.

    Raises:
        struct.error: the bytes end early.
    """
    buffer = data if isinstance(data, bytes) else data.read()
    throttle_ms, error_code, session_id, count = _RESPONSE.unpack_from(buffer)
    at = _RESPONSE.size
    topics = []
    for _ in range(count):
        (length,) = _INT16.unpack_from(buffer, at)
        at += _INT16.size
        topic = buffer[at : at + length].decode()
        at += length
        (partitions,) = _INT32.unpack_from(buffer, at)
        at += _INT32.size
        of_topic = []
        for _ in range(partitions):
            partition, at = _decode_partition(buffer, at)
            of_topic.append(partition)
        topics.append((topic, of_topic))
    return kind(throttle_ms, error_code, session_id, topics)


def _decode_partition(buffer: bytes, at: int) -> tuple[tuple[Any, ...], int]:
    """The partition of a response that begins at ``at``, and where it ends."""
    number, error_code, highwater, last_stable, log_start, aborted_count = _RESPONSE_PARTITION.unpack_from(buffer, at)
    at += _RESPONSE_PARTITION.size
    # A count of -1 is no list at all.
    aborted: list[tuple[int, int]] | None = None if aborted_count < 0 else []
    for _ in range(aborted_count):
        assert aborted is not None, "there are some"
        aborted.append(_ABORTED.unpack_from(buffer, at))
        at += _ABORTED.size
    replica, size = _TWO_INT32.unpack_from(buffer, at)
    at += _TWO_INT32.size
    if size < 0:
        return (number, error_code, highwater, last_stable, log_start, aborted, replica, None), at
    end = at + size
    if end > len(buffer):
        raise struct.error("a response ends within its records")
    return (number, error_code, highwater, last_stable, log_start, aborted, replica, buffer[at:end]), end


def _text(text: str) -> bytes:
    encoded = text.encode()
    return _INT16.pack(len(encoded)) + encoded


fetcher.PartitionRecords = _PartitionRecords
consumer.Fetcher = PacedFetcher
FetchRequest_v11.encode = encode_request
FetchResponse_v11.decode = classmethod(decode_response)
