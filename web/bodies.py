"""Bodies of requests, read once however many look at them."""

from __future__ import annotations

from aiohttp import web

from forkast_streams.errors import ApiError
from web.request_state import note, peek

_JSON = "application/json"
_BODY = web.RequestKey("body", bytes)


async def read_body(request: web.Request, bytes_max: int) -> bytes:
    """The whole body.

    Raises:
        ApiError: 413, it has more than ``bytes_max``.
    """
    body, content = peek(request, _BODY), request.content
    if body is None:
        # Most bodies came in one piece with their headers.
        body = content.read_nowait(bytes_max + 1) if content.is_eof() else await content.read(bytes_max + 1)
        while len(body) <= bytes_max and not content.at_eof():
            body += await content.read(bytes_max + 1 - len(body))
    if len(body) > bytes_max:
        raise ApiError(413, "BODY_TOO_LARGE", f"the body must have at most {bytes_max} bytes")
    note(request, _BODY, body)
    return body


async def read_json_body(request: web.Request, bytes_max: int) -> bytes:
    """The whole body of a request that must carry JSON; it is not decoded.

    Raises:
        ApiError: 415, it is said to be something else, or compressed; 413, it has more than ``bytes_max``.
    """
    # The first look spares nearly all requests the reading of the header.
    if request.headers.get("Content-Type") != _JSON and request.content_type != _JSON:
        raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", "the body must be sent as Content-Type: application/json")
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", "the body must not be compressed")
    return await read_body(request, bytes_max)


async def require_no_body(request: web.Request) -> None:
    """Refuse a request that says more than its route reads.

    Raises:
        ApiError: 400, it has a body that is not empty.
    """
    try:
        await read_body(request, 0)
    except ApiError:
        message = "this request takes no body; name what it is about in the query"
        raise ApiError(400, "BODY_NOT_ALLOWED", message) from None
