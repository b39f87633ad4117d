"""One connection to a broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

from aiokafka import conn
from aiokafka.conn import CloseReason
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.protocol.admin import ApiVersionRequest
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest

from forkast_streams.kafka_client.protocol import (
    ANSWER_HEADER_BYTES,
    QUICK_REQUESTS,
    correlation_id_of,
    encode_message,
)

# Seconds after which a broker of which nothing comes counts as gone, and another one is asked who leads now: a machine
# that is lost closes no connection. They are counted in steps, so that a loop that stood still has counted one.
SILENT_S = 5.0
_STEPS = 5
# A name server that is gone costs 5 s alone.
_CONNECT_S = 10.0
# Seconds from one try to connect to a silent broker to the next one, in all of the process.
_PAUSE_S = 3.0
# Silent brokers by host and port, and until when nobody else connects to them.
_avoided: dict[tuple[str, int], float] = {}
# What brokers answer by themselves; not what waits for the members of a group, or takes as long as it says.
_ANSWERED_AT_ONCE = frozenset(
    request.API_KEY
    for request in (
        ApiVersionRequest,
        FetchRequest,
        FindCoordinatorRequest,
        InitProducerIdRequest,
        MetadataRequest,
        OffsetFetchRequest,
        OffsetRequest,
    )
)
# What waits for replicas, which may be what is gone: it is sent again, and the broker does not count as silent. A
# group's coordinator gives its replicas 5 s.
_REPLICATED_S = 6.0
_REPLICATED = frozenset(request.API_KEY for request in (HeartbeatRequest, OffsetCommitRequest, ProduceRequest))
_BOUNDED = _ANSWERED_AT_ONCE | _REPLICATED


def is_avoided(host: str, port: int) -> bool:
    """Whether a broker was silent a moment ago, or someone tries right now whether it still is."""
    return time.monotonic() < _avoided.get((host, port), 0.0)


class Connection(conn.AIOKafkaConnection):
    """Sends fetches and what is produced, and takes their answers, in fewer steps; everything else as aiokafka does.

    A broker that is silent is not waited for as long as a request may take.
    """

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect and say who is there.

        Raises:
            TimeoutError: the broker is silent.
        """
        address = self._host, self._port
        was_silent = address in _avoided
        if was_silent:
            # Nobody else waits for the outcome.
            _avoided[address] = time.monotonic() + _CONNECT_S + _PAUSE_S
        try:
            async with asyncio.timeout(_CONNECT_S):
                connected: tuple[asyncio.StreamReader, asyncio.StreamWriter] = await super().connect()
        except (OSError, KafkaError) as exc:
            if isinstance(exc, TimeoutError):
                self._note_silence()
                raise TimeoutError("it did not answer") from None
            _avoided.pop(address, None)
            raise
        except asyncio.CancelledError:
            if was_silent:
                self._note_silence()
            raise
        _avoided.pop(address, None)
        return connected

    def send(self, request: Any, expect_response: bool = True) -> Awaitable[Any]:
        """Send ``request``; its answer comes with the future, or TimeoutError.

        Raises:
            KafkaConnectionError: the connection is broken.
        """
        if self._writer is not None and self._writer.transport.is_closing():
            # Broken, which the reader learns in the loop's next turns; uvloop would raise RuntimeError meanwhile.
            self.close(reason=CloseReason.CONNECTION_BROKEN)
        if self._writer is None or not expect_response:
            return super().send(request, expect_response)  # type: ignore[no-any-return]
        prepared = request.prepare(self._versions)
        if type(prepared) not in QUICK_REQUESTS:
            sent: Awaitable[Any] = super().send(request, expect_response)
            if prepared.API_KEY in _BOUNDED:
                self._watch(prepared, self._requests[-1][-1])
            return sent
        correlation_id = self._next_correlation_id()
        try:
            self._writer.write(encode_message(prepared, correlation_id, self._client_id))
        except OSError as exc:
            self.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"Connection at {self._host}:{self._port} broken: {exc}") from exc
        answer = self._loop.create_future()
        self._watch(prepared, answer)
        self._requests.append((correlation_id, prepared, answer))
        return answer  # type: ignore[no-any-return]

    def _watch(self, request: Any, answer: asyncio.Future[Any]) -> None:
        """Let ``answer`` time out when nothing comes; one that comes slowly, or behind others, may take its time."""
        is_replicated = request.API_KEY in _REPLICATED
        step_s = min(_REPLICATED_S if is_replicated else SILENT_S, self._request_timeout) / _STEPS
        # Not a function in here, which would refer to itself: garbage that only a collection finds, for each request.
        timer = self._loop.call_later(step_s, self._look, answer, step_s, _STEPS - 1, self._progress(), is_replicated)
        answer.add_done_callback(lambda _: timer.cancel())

    def _look(
        self,
        answer: asyncio.Future[Any],
        step_s: float,
        steps: int,
        before: tuple[float, int, int],
        is_replicated: bool,
    ) -> None:
        """The end of a step."""
        if answer.done():
            return
        progress, (_, first, of_first) = self._progress(), self._requests[0]
        waits_for_others = first.API_KEY not in _BOUNDED and not of_first.done()
        if progress != before or waits_for_others:
            steps = _STEPS
        if steps:
            self._loop.call_later(step_s, self._look, answer, step_s, steps - 1, progress, is_replicated)
            return
        answer.set_exception(TimeoutError())
        if not is_replicated:
            self._note_silence()
            # Or it would be asked again by whoever has the connection.
            self.close(reason=CloseReason.CONNECTION_TIMEOUT)

    def _note_silence(self) -> None:
        _avoided[self._host, self._port] = time.monotonic() + _PAUSE_S

    def _progress(self) -> tuple[float, int, int]:
        """What changes with all that comes and goes: the last answer's time, and what is under way in and out."""
        if self._reader is None or self._writer is None:
            return self._last_action, 0, 0
        arrived = len(self._reader._buffer)  # noqa: SLF001 - has no public name
        return self._last_action, arrived, self._writer.transport.get_write_buffer_size()

    def _handle_frame(self, frame: bytes) -> None:
        correlation_id, request, answer = self._requests[0]
        if type(request) not in QUICK_REQUESTS or correlation_id_of(frame) != correlation_id:
            super()._handle_frame(frame)
            return
        if not answer.done():
            answer.set_result(request.RESPONSE_TYPE.decode(frame, ANSWER_HEADER_BYTES))
        self._last_action = time.monotonic()
        # Only now: if something fails before, closing the connection fails this request with the others.
        self._requests.popleft()
