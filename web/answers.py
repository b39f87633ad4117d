"""Whole answers of JSON, written with their headers in one piece.

What aiohttp does for any answer, a dictionary of headers, signals that fill it and a serializer, takes as long as
everything that is checked of an order. The answers that most requests get differ only in their body, the date and what
the rate limits tell; so their headers are a text that is mostly made beforehand. All others go aiohttp's way, with the
same headers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from http import HTTPStatus

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.web_request import BaseRequest

JSON_TYPE, CHARSET = "application/json", "utf-8"
# Makes the header lines that depend on the request, each with its end of line.
HeaderLines = Callable[[web.Request], str]
_BODILESS = frozenset({204, 205})


class StandingHeaders:
    """The headers of an application's answers that can be written beforehand, and who makes the others."""

    def __init__(self, headers: dict[str, str]) -> None:
        self._lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._varying: list[HeaderLines] = []

    def vary(self, lines: HeaderLines) -> None:
        """Add headers that depend on the request."""
        self._varying.append(lines)

    def of(self, request: web.Request) -> str:
        """The header lines of an answer to ``request``."""
        lines = self._lines
        for varying in self._varying:
            lines += varying(request)
        return lines


STANDING_HEADERS = web.AppKey("standing_headers", StandingHeaders)


class JsonAnswer(web.Response):
    """A JSON body without any header of its own."""

    _head: str | None = None

    def __init__(self, body: bytes, status: int) -> None:
        super().__init__(body=body, status=status, content_type=JSON_TYPE, charset=CHARSET)
        self._json = body

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        """Make the headers."""
        if self._payload_writer is not None or not isinstance(request, web.Request) or not self._is_usual(request):
            return await super().prepare(request)
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive
        head = f"{_first_lines(self.status)}Content-Length: {len(self._json)}\r\nDate: {rfc822_formatted_time()}\r\n"
        head += request.app[STANDING_HEADERS].of(request)
        self._head = head if self._keep_alive else f"{head}Connection: close\r\n"
        self._req = request
        self._payload_writer = request.writer
        return self._payload_writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Write all of it."""
        head, writer = self._head, self._payload_writer
        if head is None or writer is None:
            await super().write_eof(data)
            return
        self._head = None
        # The writer knows nothing of headers here, so what it is given is sent as it is, and drained if need be.
        await writer.write_eof(f"{head}\r\n".encode() + self._json)
        self._eof_sent = True
        self._req = None
        self._body_length = writer.output_size
        self._payload_writer = None

    def _is_usual(self, request: web.Request) -> bool:
        return (
            request.version == HttpVersion11
            and request.method != "HEAD"
            and self.status not in _BODILESS
            and len(self._headers) == 1
            and not (self._cookies or self._compression or self._chunked)
        )


@cache
def _first_lines(status: int) -> str:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {JSON_TYPE}; charset={CHARSET}\r\n"
