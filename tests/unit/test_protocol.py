"""One connection below the routes: what breaks in the middle of a body is told to whoever reads it, or will."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from unittest.mock import Mock

import pytest
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from web.errors import BrokenBodyError
from web.protocol import BoundaryServer

_HEAD = b'POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\n'


async def connected(handle: Callable[[web.BaseRequest], Awaitable[web.Response]]) -> RequestHandler:
    """A connection that waits for its first request."""
    protocol = BoundaryServer(handle)()
    transport = Mock(spec=asyncio.Transport)
    transport.get_extra_info.side_effect = {"peername": ("192.0.2.1", 1)}.get
    transport.is_closing.return_value = False
    protocol.connection_made(transport)
    await asyncio.sleep(0)
    return protocol


@pytest.mark.parametrize("turns", range(6))
async def test_body_that_breaks_is_told_at_any_moment(turns: int) -> None:
    """Also in the turn of the loop in which its request is neither in the queue nor with its handler."""
    found: asyncio.Future[BaseException | bytes] = asyncio.get_running_loop().create_future()

    async def handle(request: web.BaseRequest) -> web.Response:
        try:
            found.set_result(await request.read())
        except BrokenBodyError as exc:
            found.set_result(exc)
        return web.Response()

    protocol = await connected(handle)
    protocol.data_received(_HEAD)
    for _ in range(turns):
        await asyncio.sleep(0)
    protocol.data_received(b"canary\r\n")
    assert isinstance(await asyncio.wait_for(found, 5), BrokenBodyError)
    protocol.connection_lost(None)


async def test_garbage_behind_a_whole_body_does_not_break_it() -> None:
    """The request is answered; what comes behind it is refused by itself."""
    found: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def handle(request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(0)
        found.set_result(await request.read())
        return web.Response()

    protocol = await connected(handle)
    protocol.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
    protocol.data_received(b"no http\r\n\r\n")
    assert await asyncio.wait_for(found, 5) == b"{}"
    protocol.connection_lost(None)
