"""The quick way to write requests and to read answers says what aiokafka's own schemas say."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import pytest
from aiokafka.protocol.fetch import FetchRequest, FetchRequest_v11, FetchResponse_v11
from aiokafka.protocol.produce import ProduceRequest, ProduceRequest_v7, ProduceResponse_v7
from hypothesis import given
from hypothesis import strategies as st

from forkast_streams.kafka_client import protocol

_INT32 = st.integers(-(2**31), 2**31 - 1)
_INT16 = st.integers(-(2**15), 2**15 - 1)
_INT64 = st.integers(-(2**63), 2**63 - 1)
_TOPIC = st.text(max_size=9)
_FETCHES = st.tuples(
    _INT32, _INT32, _INT32, _INT32, st.integers(0, 1), _INT32, _INT32,
    st.lists(st.tuples(_TOPIC, st.lists(st.tuples(_INT32, _INT32, _INT64, _INT64, _INT32), max_size=4)), max_size=3),
    st.lists(st.tuples(_TOPIC, st.lists(_INT32, max_size=3)), max_size=2),
    st.text(max_size=5),
)  # fmt: skip
_ABORTED = st.none() | st.lists(st.tuples(_INT64, _INT64), max_size=3)
_RECORDS = st.none() | st.binary(max_size=50)
_FETCHED_PARTITIONS = st.tuples(_INT32, _INT16, _INT64, _INT64, _INT64, _ABORTED, _INT32, _RECORDS)
_FETCHED = st.tuples(
    _INT32, _INT16, _INT32, st.lists(st.tuples(_TOPIC, st.lists(_FETCHED_PARTITIONS, max_size=4)), max_size=3)
)
_PRODUCES = st.tuples(
    st.none() | _TOPIC, _INT16, _INT32,
    st.lists(st.tuples(_TOPIC, st.lists(st.tuples(_INT32, st.binary(max_size=50)), max_size=4)), max_size=3),
)  # fmt: skip
_PRODUCED_PARTITIONS = st.tuples(_INT32, _INT16, _INT64, _INT64, _INT64)
_PRODUCED = st.tuples(st.lists(st.tuples(_TOPIC, st.lists(_PRODUCED_PARTITIONS, max_size=4)), max_size=3), _INT32)


def _by_schema(request: Any) -> bytes:
    encoded: bytes = request.SCHEMA.encode([request.__dict__[name] for name in request.SCHEMA.names])
    return encoded


def _check_read(kind: Any, read: Any, values: tuple[Any, ...]) -> None:
    """From bytes, from behind a header, and from where a header was read off."""
    encoded = kind.SCHEMA.encode(list(values))
    [source] = [BytesIO(encoded)]
    assert [part.decode(source) for part in kind.SCHEMA.fields] == list(values)
    behind_header = BytesIO(b"head" + encoded)
    behind_header.read(4)
    for found in (read(kind, encoded), read(kind, b"head" + encoded, 4), kind.decode(behind_header)):
        assert [found.__dict__[name] for name in kind.SCHEMA.names] == list(values)


@given(_FETCHES)
def test_a_fetch_is_the_bytes_of_its_schema(values: tuple[Any, ...]) -> None:
    """Byte for byte."""
    request = FetchRequest_v11(*values)
    assert protocol.encode_fetch(request) == request.encode() == _by_schema(request)


@given(_FETCHED)
def test_what_was_fetched_is_what_its_schema_reads(values: tuple[Any, ...]) -> None:
    """Field by field."""
    _check_read(FetchResponse_v11, protocol.decode_fetched, values)


@given(_PRODUCES)
def test_what_is_produced_is_the_bytes_of_its_schema(values: tuple[Any, ...]) -> None:
    """Byte for byte."""
    request = ProduceRequest_v7(*values)
    assert protocol.encode_produce(request) == request.encode() == _by_schema(request)


@given(_PRODUCED)
def test_what_was_produced_is_what_its_schema_reads(values: tuple[Any, ...]) -> None:
    """Field by field."""
    _check_read(ProduceResponse_v7, protocol.decode_produced, values)


@given(_PRODUCES, _INT32, st.text(max_size=20))
def test_a_message_has_the_size_and_the_header_of_aiokafkas(
    values: tuple[Any, ...], correlation_id: int, client: str
) -> None:
    """And the answer's header is read as it reads it."""
    request = ProduceRequest_v7(*values)
    whole = request.build_request_header(correlation_id, client).encode() + request.encode()
    assert protocol.encode_message(request, correlation_id, client) == struct.pack(">i", len(whole)) + whole
    answer = struct.pack(">i", correlation_id) + b"body"
    assert protocol.correlation_id_of(answer) == request.parse_response_header(answer).correlation_id
    assert answer[protocol.ANSWER_HEADER_BYTES :] == b"body"


@pytest.mark.parametrize(
    ("kind", "read", "values"),
    [
        (FetchResponse_v11, protocol.decode_fetched, (0, 0, 0, [("t", [(1, 0, 9, 9, 0, [(1, 2)], -1, b"records")])])),
        (ProduceResponse_v7, protocol.decode_produced, ([("t", [(1, 0, 9, 9, 0)])], 0)),
    ],
)
def test_an_answer_that_ends_early_is_an_error(kind: Any, read: Any, values: tuple[Any, ...]) -> None:
    """However much of it is there."""
    encoded = kind.SCHEMA.encode(list(values))
    for size in range(len(encoded)):
        with pytest.raises(struct.error):
            read(kind, encoded[:size])


def test_aiokafka_uses_what_is_replaced() -> None:
    """Its newest versions of these requests."""
    fetch = FetchRequest(100, 1, 2, 0, [("orders.new", [(0, 5, 64)])]).prepare({1: (0, 99)})
    produce = ProduceRequest(None, -1, 9, [("orders.new", [(0, b"records")])]).prepare({0: (0, 99)})
    assert {type(fetch), type(produce)} == protocol.QUICK_REQUESTS
    assert (FetchResponse_v11, ProduceResponse_v7) == (fetch.RESPONSE_TYPE, produce.RESPONSE_TYPE)
