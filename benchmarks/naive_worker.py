"""The engine as a Faust agent like in Faust's guide: ``python -m benchmarks.naive_worker worker engine ...``.

An event at a time, a send for each output and a table write for each order that a command touches. The engine and the
codec are ours; the transport, the delivery of events, the table and its changelog are Faust's own.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import faust
from faust.cli.faust import cli as faust_cli
from faust.types import StreamT

from forkast_streams.codec import decode_command, encode_events
from forkast_streams.engine.events import TradeExecuted
from forkast_streams.engine.matching_engine import MatchingEngine

INPUT = "naive.new"
OUTPUT = "naive.exchange"
PARTITIONS = 10


def make_app(data_dir: str) -> faust.App:
    """The app with its one agent."""
    brokers = [f"kafka://{broker}" for broker in os.environ["KAFKA_BROKERS"].split(",")]
    app = faust.App(
        "forkast-naive", broker=brokers, store="rocksdb://", datadir=data_dir, key_serializer="raw",
        value_serializer="raw", topic_partitions=PARTITIONS,
    )  # fmt: skip
    source, sink = app.topic(INPUT, partitions=PARTITIONS), app.topic(OUTPUT, partitions=PARTITIONS)
    orders = app.Table("orders", partitions=PARTITIONS, value_type=str)
    engines: dict[int, MatchingEngine] = {}

    @app.agent(source)
    async def match(stream: StreamT[Any]) -> None:
        async for event in stream.events():
            message = event.message
            engine = engines.setdefault(message.partition, MatchingEngine())
            command, time_ms = decode_command(message.value), int(message.timestamp * 1000)
            events = engine.process(command, message.offset, time_ms)
            symbol = engine.markets[command.symbol_id].symbol
            touched: dict[str, str] = {}
            for one, value in zip(
                events, encode_events(events, symbol, message.partition, message.offset, time_ms), strict=True
            ):
                await sink.send(key=message.key, value=value)
                if isinstance(one, TradeExecuted):
                    touched[one.maker_order_id] = one.maker_status
                    touched[one.taker_order_id] = one.taker_status
                elif (order_id := getattr(one, "order_id", None)) is not None:
                    touched[order_id] = type(one).__name__
            for order_id, status in touched.items():
                orders[order_id] = status

    return app


def main() -> None:
    """Run the worker; the arguments are those of ``forkast worker``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command")
    parser.add_argument("role")
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--port", required=True)
    parser.add_argument("--instance")
    arguments = parser.parse_args()
    app = make_app(arguments.data_dir)
    app.finalize()
    faust_cli(args=["--datadir", arguments.data_dir, "worker", "--web-port", arguments.port], app=app)


if __name__ == "__main__":
    main()
