"""One connection to a broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

from aiokafka import conn
from aiokafka.conn import CloseReason
from aiokafka.errors import KafkaConnectionError

from forkast_streams.kafka_client.protocol import (
    ANSWER_HEADER_BYTES,
    QUICK_REQUESTS,
    correlation_id_of,
    encode_message,
)


class Connection(conn.AIOKafkaConnection):
    """Sends fetches and what is produced, and takes their answers, in fewer steps; everything else as aiokafka does."""

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
            return super().send(request, expect_response)  # type: ignore[no-any-return]
        correlation_id = self._next_correlation_id()
        try:
            self._writer.write(encode_message(prepared, correlation_id, self._client_id))
        except OSError as exc:
            self.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"Connection at {self._host}:{self._port} broken: {exc}") from exc
        answer = self._loop.create_future()
        timer = self._loop.call_later(self._request_timeout, _time_out, answer)
        answer.add_done_callback(lambda _: timer.cancel())
        self._requests.append((correlation_id, prepared, answer))
        return answer  # type: ignore[no-any-return]

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


def _time_out(answer: asyncio.Future[Any]) -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())
