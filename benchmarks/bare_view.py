"""An HTTP view that only produces: ``python -m benchmarks.bare_view PORT`` is what the OMS cannot be faster than.

The body goes into ``orders.new`` as it came, unread, and is answered when the log has acknowledged it; nobody is asked
who sends it.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop
from aiohttp import web

from forkast_streams.config import Settings
from forkast_streams.producer import EventProducer
from forkast_streams.topics import ORDERS_NEW


async def serve(port: int) -> None:
    """Serve until cancelled."""
    async with EventProducer(Settings.from_env().broker_list) as producer:

        async def place(request: web.Request) -> web.Response:
            body = await request.read()
            await producer.send(ORDERS_NEW, key=b"1", value=body, partition=0)
            return web.Response(body=b"{}", status=201, content_type="application/json")

        app = web.Application()
        app.router.add_post("/orders", place)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
