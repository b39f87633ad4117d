"""Fetches and what is produced, as Kafka's protocol writes them: with ``struct``, to the bytes of aiokafka's schemas.

Those take longer than everything else about a request of one record.
"""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

from aiokafka.protocol.fetch import FetchRequest_v11, FetchResponse_v11
from aiokafka.protocol.produce import ProduceRequest_v7, ProduceResponse_v7

# Big-endian; see Kafka's messages ``Fetch``, version 11, and ``Produce``, version 7.
_HEADER = struct.Struct(">ihhi")
_FETCH = struct.Struct(">iiiibiii")
_FETCH_PARTITION = struct.Struct(">iiqqi")
_FETCHED = struct.Struct(">ihii")
_FETCHED_PARTITION = struct.Struct(">ihqqqi")
_ABORTED = struct.Struct(">qq")
_PRODUCE = struct.Struct(">hii")
_PRODUCED_PARTITION = struct.Struct(">ihqqq")
_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")
_TWO_INT32 = struct.Struct(">ii")

QUICK_REQUESTS = frozenset({FetchRequest_v11, ProduceRequest_v7})


def encode_message(request: Any, correlation_id: int, client_id: str) -> bytes:
    """A request of `QUICK_REQUESTS` with its size and header before it."""
    client, body = _text(client_id), request.encode()
    size = _HEADER.size - _INT32.size + len(client) + len(body)
    return b"".join((_HEADER.pack(size, request.API_KEY, request.API_VERSION, correlation_id), client, body))


def correlation_id_of(answer: bytes) -> int:
    """The request that ``answer`` answers; its body comes after these ``ANSWER_HEADER_BYTES``."""
    (correlation_id,) = _INT32.unpack_from(answer)
    return int(correlation_id)


ANSWER_HEADER_BYTES = _INT32.size


def encode_fetch(request: Any) -> bytes:
    """A ``FetchRequest_v11``."""
    parts = [
        _FETCH.pack(
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
        parts += [_FETCH_PARTITION.pack(*partition) for partition in partitions]
    parts.append(_INT32.pack(len(request.forgotten_topics_data)))
    for topic, forgotten in request.forgotten_topics_data:
        parts += (_text(topic), _INT32.pack(len(forgotten)))
        parts += [_INT32.pack(partition) for partition in forgotten]
    parts.append(_text(request.rack_id))
    return b"".join(parts)


def decode_fetched(kind: type[Any], data: BytesIO | bytes, at: int = 0) -> Any:
    """A ``FetchResponse_v11`` that begins at ``at``.

    Raises:
        struct.error: the bytes end early.
    """
    buffer = data if isinstance(data, bytes) else data.read()
    throttle_ms, error_code, session_id, count = _FETCHED.unpack_from(buffer, at)
    at += _FETCHED.size
    topics = []
    for _ in range(count):
        topic, partitions, at = _decode_topic(buffer, at)
        of_topic = []
        for _ in range(partitions):
            partition, at = _decode_fetched_partition(buffer, at)
            of_topic.append(partition)
        topics.append((topic, of_topic))
    return kind(throttle_ms, error_code, session_id, topics)


def _decode_fetched_partition(buffer: bytes, at: int) -> tuple[tuple[Any, ...], int]:
    """The partition of a fetch's answer that begins at ``at``, and where it ends."""
    number, error_code, highwater, last_stable, log_start, aborted_count = _FETCHED_PARTITION.unpack_from(buffer, at)
    at += _FETCHED_PARTITION.size
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


def encode_produce(request: Any) -> bytes:
    """A ``ProduceRequest_v7``."""
    transaction = request.transactional_id
    parts = [
        _INT16.pack(-1) if transaction is None else _text(transaction),
        _PRODUCE.pack(request.required_acks, request.timeout, len(request.topics)),
    ]
    for topic, partitions in request.topics:
        parts += (_text(topic), _INT32.pack(len(partitions)))
        for partition, records in partitions:
            parts += (_TWO_INT32.pack(partition, len(records)), records)
    return b"".join(parts)


def decode_produced(kind: type[Any], data: BytesIO | bytes, at: int = 0) -> Any:
    """A ``ProduceResponse_v7`` that begins at ``at``.

    Raises:
        struct.error: the bytes end early.
    """
    buffer = data if isinstance(data, bytes) else data.read()
    (count,) = _INT32.unpack_from(buffer, at)
    at += _INT32.size
    topics = []
    for _ in range(count):
        topic, partitions, at = _decode_topic(buffer, at)
        of_topic = []
        for _ in range(partitions):
            of_topic.append(_PRODUCED_PARTITION.unpack_from(buffer, at))
            at += _PRODUCED_PARTITION.size
        topics.append((topic, of_topic))
    (throttle_ms,) = _INT32.unpack_from(buffer, at)
    return kind(topics, throttle_ms)


def _decode_topic(buffer: bytes, at: int) -> tuple[str, int, int]:
    """The name that begins at ``at``, the number of partitions behind it, and where these begin."""
    (length,) = _INT16.unpack_from(buffer, at)
    at += _INT16.size
    topic = buffer[at : at + length].decode()
    (partitions,) = _INT32.unpack_from(buffer, at + length)
    return topic, partitions, at + length + _INT32.size


def _text(text: str) -> bytes:
    encoded = text.encode()
    return _INT16.pack(len(encoded)) + encoded


def install() -> None:
    """Let aiokafka's own classes be read and written so."""
    FetchRequest_v11.encode = encode_fetch
    FetchResponse_v11.decode = classmethod(decode_fetched)
    ProduceRequest_v7.encode = encode_produce
    ProduceResponse_v7.decode = classmethod(decode_produced)
