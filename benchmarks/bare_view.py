"""HTTP servers that only produce, as a Faust view and as a plain handler: how fast an OMS could be that does nothing.

``python -m benchmarks.bare_view faust PORT FOLDER`` is a ``View`` of a Faust worker, the way Faust's guide serves HTTP;
``python -m benchmarks.bare_view plain PORT`` is a handler of aiohttp without Faust. With both, a request's body goes
into ``orders.new`` as it came, unread, and is answered when the idempotent producer has its acknowledgement; nobody is
asked who sends it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging

import faust
import mode.loop
import uvloop
from aiohttp import web
from faust.cli.faust import cli as faust_cli
from faust.web import Request, Response, View

from forkast_streams.config import Settings
from forkast_streams.producer import EventProducer
from forkast_streams.topics import ORDERS_NEW

_KEY = b"1"


class _App(faust.App):
    """A Faust app with the exchange's producer."""

    producer_of_exchange: EventProducer

    async def on_first_start(self) -> None:
        """Start the producer before requests come."""
        await self.add_runtime_dependency(self.producer_of_exchange)
        await super().on_first_start()


def faust_app(folder: str) -> faust.App:
    """The Faust app with its one view; apart from the view its settings are those of the OMS."""
    brokers = Settings.from_env().broker_list
    app = _App(
        "forkast-bare-view", broker=[f"kafka://{broker}" for broker in brokers], datadir=folder,
        table_standby_replicas=0, key_serializer="raw", value_serializer="raw",
        web_tables_enabled=False, web_router_enabled=False, web_metrics_enabled=False, web_stats_enabled=False,
        web_graph_enabled=False,
    )  # fmt: skip
    producer = app.producer_of_exchange = EventProducer(brokers, gather_turns=1)

    @app.page("/orders")
    class Orders(View):
        async def post(self, request: Request) -> Response:
            body = await request.read()
            await producer.send(ORDERS_NEW, key=_KEY, value=body, partition=0)
            return self.json({}, status=201)

    return app


async def serve_plain(port: int) -> None:
    """Serve the plain handler until cancelled."""
    async with EventProducer(Settings.from_env().broker_list, gather_turns=1) as producer:

        async def place(request: web.Request) -> web.Response:
            body = await request.read()
            await producer.send(ORDERS_NEW, key=_KEY, value=body, partition=0)
            return web.Response(body=b"{}", status=201, content_type="application/json")

        app = web.Application()
        app.router.add_post("/orders", place)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()


def main() -> None:
    """Serve one of the two."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("faust", "plain"))
    parser.add_argument("port")
    parser.add_argument("folder", nargs="?")
    arguments = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.WARNING)
    if arguments.kind == "plain":
        uvloop.run(serve_plain(int(arguments.port)))
        return
    mode.loop.use("uvloop")
    app = faust_app(arguments.folder)
    app.finalize()
    web_args = ["--web-port", arguments.port, "--web-bind", "127.0.0.1"]
    faust_cli(args=["--datadir", arguments.folder, "worker", "--loglevel", "warn", *web_args], app=app)


if __name__ == "__main__":
    main()
