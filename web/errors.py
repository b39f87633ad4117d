"""One format of errors and one set of headers for every answer of every role."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from forkast_streams.errors import ApiError, Unavailable

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Server": "forkast",
}
_CODES = {401: "UNAUTHORIZED", 403: "FORBIDDEN", 404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "BODY_TOO_LARGE"}
_encode = msgspec.json.Encoder(decimal_format="number").encode


def json_response(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return web.Response(
        body=_encode(body), status=status, headers=headers, content_type="application/json", charset="utf-8"
    )


def error_response(error: ApiError) -> web.Response:
    """The answer to a refused request."""
    body: dict[str, Any] = {"code": error.code, "message": str(error)}
    if error.field is not None:
        body["field"] = error.field
    return json_response({"error": body}, status=error.status, headers=error.headers)


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error in one format; what is unexpected is logged and tells the client nothing."""
    try:
        return await handler(request)
    except ApiError as exc:
        return error_response(exc)
    except Unavailable as exc:
        return error_response(ApiError(503, "UNAVAILABLE", str(exc), headers={"Retry-After": "1"}))
    except web.HTTPException as exc:
        if exc.status < 400:
            raise
        headers = {name: exc.headers[name] for name in ("Allow", "WWW-Authenticate") if name in exc.headers}
        code = _CODES.get(exc.status, "BAD_REQUEST" if exc.status < 500 else "INTERNAL_ERROR")
        return error_response(ApiError(exc.status, code, exc.reason or code, headers=headers))
    except Exception:
        log.exception("unexpected error in %s %s", request.method, request.path)
        return error_response(ApiError(500, "INTERNAL_ERROR", "the request failed for a reason of ours; it is logged"))


async def add_security_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Set the headers that every answer has, errors and streams too."""
    response.headers.update(SECURITY_HEADERS)


def install(app: web.Application) -> None:
    """Make ``app`` answer so."""
    app.middlewares.insert(0, errors_as_json)
    app.on_response_prepare.append(add_security_headers)
