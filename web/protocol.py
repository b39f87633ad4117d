"""The web server below the routes: bounded connections, and our answers where aiohttp answers by itself.

What cannot be parsed never reaches a middleware: aiohttp would answer it with its version and a piece of the input.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from forkast_streams.errors import ApiError
from forkast_streams.limits import (
    CONNECTION_IDLE_S_MAX,
    CONNECTIONS_ADDRESS_MAX,
    CONNECTIONS_MAX,
    CONNECTIONS_WAITING_MAX,
    HEADER_BYTES_MAX,
    HEADERS_MAX,
    REFUSED_BODY_READ_S_MAX,
    RESPONSE_WRITE_S_MAX,
)
from forkast_streams.roles import ExchangeApp
from forkast_streams.start_checks import require_safe_transport
from web.errors import SECURITY_HEADERS, BrokenBodyError, error_response, http_error
from web.fixed_routes import FixedRoutes

log = logging.getLogger(__name__)

# How aiohttp says that there are too many headers; the kind of its error does not tell.
_TOO_MANY = "Too many"


class BoundaryProtocol(RequestHandler):
    """One connection."""

    # Of the newest request.
    _body: StreamReader | None = None
    _unread: asyncio.TimerHandle | None = None
    address: str = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection; the one that has been idle longest may have to go for it."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else ""
        if isinstance(self._manager, BoundaryServer):
            self._manager.arrived(self)

    def data_received(self, data: bytes) -> None:
        """Take bytes; when they are no HTTP, whoever waits for the rest of a body is told, or will be."""
        super().data_received(data)
        for message, body in self._messages:
            if not isinstance(message, _ErrInfo):
                # Kept, because between the queue and its handler a request is nowhere for a turn of the loop.
                self._body = body
            elif self._body is not None and not self._body.is_eof():
                self._body.set_exception(BrokenBodyError())

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Go on reading where that was paused; aiohttp does it all again behind each piece of a body."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""
        return self._waiter is not None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's words, which quote the input
    ) -> web.StreamResponse:
        """Answer what is no HTTP, and what failed outside the middlewares, without a word of the input."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun, so the error can not be told")
        if status < 500:
            log.info("a request from %s could not be parsed: %s", request.remote, type(exc).__name__)
            error = _unparsable(exc)
        else:
            log.error("a request from %s failed", request.remote, exc_info=exc)
            error = ApiError(500, "INTERNAL_ERROR", "the request failed for a reason of ours; it is logged")
        response = error_response(error)
        # No middleware and no signal sees this answer.
        response.headers.update(SECURITY_HEADERS)
        response.force_close()
        return response

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """Send an answer, one of aiohttp's own errors as ours; no coroutine of its own around aiohttp's."""
        if isinstance(resp, web.HTTPException) and resp.status >= 400:
            resp = error_response(http_error(resp))
        return super().finish_response(request, resp, start_time)

    def pause_writing(self) -> None:
        """Wait for a client that does not read, but not for long; streams look after themselves."""
        super().pause_writing()
        # A handler that still runs is a stream; an answer is written when its handler is done.
        if self._current_request is None:
            self._unread = self._loop.call_later(RESPONSE_WRITE_S_MAX, self._give_up)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._forget_unread()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone."""
        server = self._manager
        if isinstance(server, BoundaryServer):
            server.left(self)
        super().connection_lost(exc)
        self._forget_unread()

    def _forget_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _give_up(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class BoundaryServer(web.Server):
    """All connections of a web server.

    Attributes:
        connections_max: beyond them idle ones are closed.
        address_max: beyond them those of one address, idle ones first; None where all come through a proxy.
    """

    connections_max = CONNECTIONS_MAX
    address_max: int | None = CONNECTIONS_ADDRESS_MAX

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._of_address: Counter[str] = Counter()

    def __call__(self) -> RequestHandler:
        """A new connection's protocol."""
        return BoundaryProtocol(self, loop=self._loop, **self._kwargs)

    def arrived(self, newcomer: BoundaryProtocol) -> None:
        """Count a connection, and close the one that has been idle longest when there are too many."""
        self._of_address[newcomer.address] += 1
        if len(self._connections) > self.connections_max:
            self._close_idle(lambda _: True)
        if self.address_max is not None and self._of_address[newcomer.address] > self.address_max:
            is_closed = self._close_idle(lambda one: one is not newcomer and one.address == newcomer.address)
            if not is_closed and newcomer.transport is not None:
                newcomer.transport.abort()

    def left(self, one: BoundaryProtocol) -> None:
        """A connection is gone."""
        self._of_address[one.address] -= 1
        if self._of_address[one.address] <= 0:
            del self._of_address[one.address]

    def _close_idle(self, may_go: Callable[[BoundaryProtocol], bool]) -> bool:
        for protocol, transport in self._connections.items():
            if isinstance(protocol, BoundaryProtocol) and protocol.is_idle and may_go(protocol):
                transport.abort()
                return True
        return False


class BoundaryRunner(web.AppRunner):
    """Runs an application on such a server."""

    def __init__(self, app: ExchangeApp, **kwargs: Any) -> None:
        self._exchange = app
        super().__init__(
            app.web.web_app,
            access_log=None,
            keepalive_timeout=CONNECTION_IDLE_S_MAX,
            lingering_time=REFUSED_BODY_READ_S_MAX,
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            max_headers=HEADERS_MAX,
            # No route takes a compressed body, and one that is thrown away must not be unpacked for that.
            auto_decompress=False,
            **kwargs,
        )

    def _reg_site(self, site: web.BaseSite) -> None:
        # Called before the site listens. A client that finds the usual 128 places taken tries again after a second.
        site._backlog = CONNECTIONS_WAITING_MAX
        if isinstance(site, web.TCPSite) and "web.auth" in self._exchange.role.modules:
            # Faust's own command line can name another address than the settings.
            require_safe_transport(replace(self._exchange.settings, host=site._host or ""))
        super()._reg_site(site)

    async def _make_server(self) -> web.Server:
        plain = await super()._make_server()
        server = BoundaryServer(
            FixedRoutes(self._exchange.web.web_app).handle,
            request_factory=plain.request_factory,
            loop=plain._loop,
            **plain._kwargs,
        )
        # The other half is for the servers and for files.
        server.connections_max = min(CONNECTIONS_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        if self._exchange.settings.behind_tls_proxy:
            server.address_max = None
        return server


def install(app: ExchangeApp) -> None:
    """Serve ``app`` so. Faust's web driver has no seam below the application but the runner it keeps."""
    app.web._runner = BoundaryRunner(app)


def _unparsable(exc: BaseException | None) -> ApiError:
    if isinstance(exc, LineTooLong) or _TOO_MANY in str(exc):
        message = f"the request line and each header must have at most {HEADER_BYTES_MAX} bytes"
        return ApiError(431, "HEADERS_TOO_LARGE", f"{message}, and there must be at most {HEADERS_MAX} headers")
    return ApiError(400, "MALFORMED_REQUEST", "this is no HTTP/1.1 request")
