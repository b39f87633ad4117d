"""Fetching: the quick way to read and to write says what aiokafka's own does, and a fetch waits only when it may."""

from __future__ import annotations

import asyncio
import struct
from io import BytesIO
from typing import Any, NamedTuple

import pytest
from aiokafka.consumer import consumer, fetcher
from aiokafka.protocol.fetch import FetchRequest, FetchRequest_v11, FetchResponse_v11
from hypothesis import given
from hypothesis import strategies as st

from forkast_streams.fetching import PacedFetcher, decode_response, encode_request

_INT32 = st.integers(-(2**31), 2**31 - 1)
_INT16 = st.integers(-(2**15), 2**15 - 1)
_INT64 = st.integers(-(2**63), 2**63 - 1)
_REQUESTS = st.tuples(
    _INT32, _INT32, _INT32, _INT32, st.integers(0, 1), _INT32, _INT32,
    st.lists(st.tuples(st.text(max_size=9), st.lists(st.tuples(_INT32, _INT32, _INT64, _INT64, _INT32), max_size=4)),
             max_size=3),
    st.lists(st.tuples(st.text(max_size=9), st.lists(_INT32, max_size=3)), max_size=2),
    st.text(max_size=5),
)  # fmt: skip
_ABORTED = st.none() | st.lists(st.tuples(_INT64, _INT64), max_size=3)
_RECORDS = st.none() | st.binary(max_size=50)
_PARTITIONS = st.tuples(_INT32, _INT16, _INT64, _INT64, _INT64, _ABORTED, _INT32, _RECORDS)
_TOPICS = st.lists(st.tuples(st.text(max_size=9), st.lists(_PARTITIONS, max_size=4)), max_size=3)


@given(_REQUESTS)
def test_a_request_is_the_bytes_of_its_schema(values: tuple[Any, ...]) -> None:
    """Byte for byte."""
    request = FetchRequest_v11(*values)
    own = request.SCHEMA.encode([request.__dict__[name] for name in request.SCHEMA.names])
    assert encode_request(request) == request.encode() == own


@given(_INT32, _INT16, _INT32, _TOPICS)
def test_a_response_is_what_its_schema_reads(throttle: int, error: int, session: int, topics: list[Any]) -> None:
    """Field by field, from bytes and from where a header was read off."""
    encoded = FetchResponse_v11.SCHEMA.encode([throttle, error, session, topics])
    own = [part.decode(source) for source in [BytesIO(encoded)] for part in FetchResponse_v11.SCHEMA.fields]
    behind_header = BytesIO(b"head" + encoded)
    behind_header.read(4)
    for read in (decode_response(FetchResponse_v11, encoded), FetchResponse_v11.decode(behind_header)):
        assert [read.__dict__[name] for name in FetchResponse_v11.SCHEMA.names] == own
        assert own == [throttle, error, session, topics]


def test_a_response_that_ends_early_is_an_error() -> None:
    """However much of it is there."""
    partition = (1, 0, 9, 9, 0, [(1, 2)], -1, b"records")
    encoded = FetchResponse_v11.SCHEMA.encode([0, 0, 0, [("orders.new", [partition])]])
    assert decode_response(FetchResponse_v11, encoded).topics == [("orders.new", [partition])]
    for size in range(len(encoded)):
        with pytest.raises(struct.error):
            decode_response(FetchResponse_v11, encoded[:size])


def test_aiokafka_uses_the_replacements() -> None:
    """Its newest version of the request is the one that is replaced, and its consumers make this fetcher."""
    newest = FetchRequest(100, 1, 2, 0, [("orders.new", [(0, 5, 64)])]).prepare({1: (0, 99)})
    assert type(newest) is FetchRequest_v11
    assert newest.RESPONSE_TYPE is FetchResponse_v11
    assert consumer.Fetcher is PacedFetcher
    assert {"_proc_fetch_request", "_fetch_requests_routine"} <= set(dir(fetcher.Fetcher))


class _State(NamedTuple):
    highwater: int | None


class _Assignment(NamedTuple):
    highwater: int | None

    def state_value(self, _tp: object) -> _State:
        return _State(self.highwater)


_REQUEST = FetchRequest(100, 1, 2, 0, [("orders.new", [(0, 5, 64)])])


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long a fetch waited, the clock standing still; every fetch has records."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    async def fetch(*_: object) -> bool:
        return True

    monkeypatch.setattr("forkast_streams.fetching.asyncio.sleep", sleep)
    monkeypatch.setattr("forkast_streams.fetching.time.monotonic", lambda: 1_000.0)
    monkeypatch.setattr(fetcher.Fetcher, "_proc_fetch_request", fetch)
    return waited


def _paced(pace_s: float) -> PacedFetcher:
    paced = PacedFetcher.__new__(PacedFetcher)
    paced.pace_s, paced._fetched_at = pace_s, {}
    return paced


def _fetch(paced: PacedFetcher, *, highwater: int | None, node: int = 1) -> None:
    asyncio.run(paced._proc_fetch_request(_Assignment(highwater), node, _REQUEST))


def test_a_fetch_waits_only_behind_one_with_records_and_only_when_all_is_read(waits: list[float]) -> None:
    """The request reads from offset 5 on."""
    paced = _paced(0.1)
    _fetch(paced, highwater=5)
    assert waits == []
    _fetch(paced, highwater=5)
    assert waits == [pytest.approx(0.1)]
    _fetch(paced, highwater=6)
    _fetch(paced, highwater=None)
    _fetch(paced, highwater=5, node=2)
    assert len(waits) == 1


def test_a_fetch_does_not_wait_behind_one_without_records(waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """That one has waited for records itself."""

    async def nothing(*_: object) -> bool:
        return False

    monkeypatch.setattr(fetcher.Fetcher, "_proc_fetch_request", nothing)
    paced = _paced(0.1)
    for _ in range(3):
        _fetch(paced, highwater=5)
    assert waits == []


def test_without_a_pace_nothing_waits(waits: list[float]) -> None:
    """The engine and the keeper have none."""
    paced = _paced(0.0)
    for _ in range(3):
        _fetch(paced, highwater=5)
    assert waits == []
