"""One format of errors, one set of headers and one bound in time for every answer of every role."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Middleware

from forkast_streams.deadlines import Deadlines
from forkast_streams.errors import ApiError, Unavailable
from forkast_streams.limits import BODY_READ_S_MAX, REQUEST_S_MAX
from web.answers import CHARSET, JSON_TYPE, STANDING_HEADERS, JsonAnswer, StandingHeaders
from web.request_state import note, peek

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Server": "forkast",
}
# Browsers keep to TLS for a year once they have seen it.
_BEHIND_TLS_HEADERS = {"Strict-Transport-Security": "max-age=31536000"}
_CODES = {401: "UNAUTHORIZED", 403: "FORBIDDEN", 404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "BODY_TOO_LARGE"}
_encode = msgspec.json.Encoder(decimal_format="number").encode


def json_response(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    encoded = _encode(body)
    if headers is None and status < 400:
        return JsonAnswer(encoded, status)
    return web.Response(body=encoded, status=status, headers=headers, content_type=JSON_TYPE, charset=CHARSET)


def error_response(error: ApiError) -> web.Response:
    """The answer to a refused request."""
    return json_response({"error": error_view(error)}, status=error.status, headers=error.headers)


def error_view(error: ApiError) -> dict[str, Any]:
    """The JSON of an error."""
    body: dict[str, Any] = {"code": error.code, "message": str(error)}
    if error.field is not None:
        body["field"] = error.field
    if error.order_id is not None:
        body["orderId"] = error.order_id
    return body


def to_api_error(exc: Exception) -> ApiError:
    """What a client is told of an exception."""
    if isinstance(exc, ApiError):
        return exc
    if isinstance(exc, Unavailable):
        return ApiError(503, "UNAVAILABLE", str(exc), headers={"Retry-After": "1"})
    return ApiError(500, "INTERNAL_ERROR", "the request failed for a reason of ours; it is logged")


def http_error(exc: web.HTTPException) -> ApiError:
    """One of aiohttp's own errors as ours."""
    headers = {name: exc.headers[name] for name in ("Allow", "WWW-Authenticate") if name in exc.headers}
    code = _CODES.get(exc.status, "BAD_REQUEST" if exc.status < 500 else "INTERNAL_ERROR")
    return ApiError(exc.status, code, exc.reason or code, headers=headers)


class BrokenBodyError(TimeoutError):
    """A body can not be read any further. A time-out by kind, because that is what aiohttp takes from a body."""


class _BodyTimeoutError(BrokenBodyError):
    """A body has not arrived in time."""


class _Deadline:
    """The time limit of a request: what runs for it is cancelled when its time is up."""

    __slots__ = ("_task", "is_expired")

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self.is_expired = False

    def is_over(self) -> bool:
        """Whether the request has no limit any more."""
        return self._task is None

    def expire(self) -> None:
        """Cancel what runs."""
        if self._task is not None:
            self.is_expired = True
            self._task.cancel()

    def lift(self) -> bool:
        """End the limit; return whether the request was cancelled for it, and by nobody else."""
        task, self._task = self._task, None
        return self.is_expired and task is not None and task.uncancel() == 0


_DEADLINE = web.RequestKey("deadline", _Deadline)


def _errors_as_json() -> Middleware:
    deadlines = Deadlines()

    @web.middleware
    async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer every error in one format and in time; what is unexpected is logged and tells the client nothing."""
        body, timer = request.content, None
        if not body.is_eof():
            timer = asyncio.get_running_loop().call_later(BODY_READ_S_MAX, body.set_exception, _BodyTimeoutError())
        deadline = _Deadline()
        note(request, _DEADLINE, deadline)
        deadlines.limit(deadline, REQUEST_S_MAX)
        try:
            return await handler(request)
        except asyncio.CancelledError:
            if not deadline.lift():
                raise
            return _answer(request, TimeoutError(), timed_out=True)
        except web.HTTPException as exc:
            if exc.status < 400:
                raise
            return error_response(http_error(exc))
        except Exception as exc:
            return _answer(request, exc, timed_out=deadline.is_expired)
        finally:
            deadline.lift()
            if timer is not None:
                timer.cancel()

    return errors_as_json


def _answer(request: web.Request, exc: Exception, *, timed_out: bool) -> web.StreamResponse:
    """The answer to a request that ended in ``exc``."""
    error, must_close = to_api_error(exc), False
    if isinstance(exc, _BodyTimeoutError):
        error = ApiError(408, "BODY_TIMEOUT", f"the body must arrive within {BODY_READ_S_MAX:g} s")
        must_close = True
    elif isinstance(exc, (BrokenBodyError, web.RequestPayloadError, HttpProcessingError)):
        error, must_close = ApiError(400, "MALFORMED_REQUEST", "the body is not sent as its headers say"), True
    elif timed_out and isinstance(exc, TimeoutError):
        message = "the request took too long; what became of it is unknown: look before sending it again"
        error = ApiError(503, "UNAVAILABLE", message, headers={"Retry-After": "2"})
    elif error.status == 500 and (not isinstance(exc, ConnectionError) or request.transport is not None):
        # A client that went in the middle of its request is nothing to report.
        log.error("unexpected error in %s %r", request.method, request.path, exc_info=exc)
    response = error_response(error)
    if must_close:
        response.force_close()
    return response


async def add_security_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Set the headers that every answer has, errors and streams too; an answer that has begun may last."""
    response.headers.update(SECURITY_HEADERS)
    deadline = peek(request, _DEADLINE)
    if deadline is not None and not deadline.is_expired:
        deadline.lift()


async def _add_behind_tls_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_BEHIND_TLS_HEADERS)


def install(app: web.Application, *, behind_tls_proxy: bool = False) -> None:
    """Make ``app`` answer so."""
    app.middlewares.insert(0, _errors_as_json())
    app.on_response_prepare.append(add_security_headers)
    app[STANDING_HEADERS] = StandingHeaders(SECURITY_HEADERS | (_BEHIND_TLS_HEADERS if behind_tls_proxy else {}))
    if behind_tls_proxy:
        app.on_response_prepare.append(_add_behind_tls_headers)
