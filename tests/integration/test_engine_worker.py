"""The engine worker on a real Kafka: whatever happens to the process, its events are those of a clean replay."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import MessageSizeTooLargeError

from forkast_streams.audit.capture import ENGINE_GROUP
from forkast_streams.engine_partition import EnginePartition
from forkast_streams.failfast import EXIT_STATUS
from forkast_streams.topics import ORDERS_DEAD, ORDERS_EXCHANGE, ORDERS_NEW, ensure_topics, partition_for
from tests.chaos.state_damage import stores
from tests.integration.exchange import (
    PARTITIONS,
    Worker,
    are_commands_answered,
    committed_offsets,
    end_offsets,
    is_settled,
    produce,
    read_topic,
    wait_until,
)
from tests.support.flows import mixed_flow, order_command, symbol_command

# Symbols that no other test uses.
FIRST_SYMBOL = 9_000


@pytest.fixture
def topics(stack_env: dict[str, str]) -> dict[str, str]:
    """The servers' environment, with all topics made."""
    asyncio.run(ensure_topics(stack_env["KAFKA_BROKERS"].split(","), partitions=PARTITIONS))
    return stack_env


@pytest.fixture
def engine(topics: dict[str, str], tmp_path: Path) -> Iterator[Worker]:
    """An engine worker, not started yet."""
    worker = Worker("engine", topics, tmp_path / "engine")
    yield worker
    worker.end()


def flow(count: int, *, seed: int, symbols: range) -> list[tuple[int, bytes]]:
    """Mixed commands for several symbols."""
    return [
        (symbol_id, json.dumps(command).encode())
        for symbol_id in symbols
        for command in mixed_flow(count // len(symbols), seed=seed + symbol_id, symbol_id=symbol_id)
    ]


def has_processed_all(env: dict[str, str]) -> bool:
    """Whether the engine has answered every command, and no more comes by itself."""

    async def look() -> bool:
        return await are_commands_answered(env) and await is_settled(env)

    return asyncio.run(look())


def assert_events_are_those_of_a_clean_replay(env: dict[str, str]) -> int:
    """Compare, byte for byte; return how many events came more than once."""

    async def read() -> tuple[dict[int, list[Any]], dict[int, list[Any]]]:
        return await read_topic(env, ORDERS_NEW), await read_topic(env, ORDERS_EXCHANGE)

    inputs, events = asyncio.run(read())
    repeats = 0
    for partition, records in inputs.items():
        expected = [
            (event.key, event.value, event.timestamp)
            for event in EnginePartition(partition, PARTITIONS).process(records).events
        ]
        seen: dict[tuple[int, int], tuple[Any, ...]] = {}
        for record in events[partition]:
            event = json.loads(record.value)
            content = (record.key, record.value, record.timestamp)
            known = seen.setdefault((event["symbolId"], event["sequence"]), content)
            assert known == content, "an event came again with other bytes"
        repeats += len(events[partition]) - len(seen)
        assert list(seen.values()) == expected
    return repeats


def test_events_survive_kill_9_and_lost_disks(engine: Worker, topics: dict[str, str]) -> None:
    """Killed again and again, its disk lost at times: no event is lost, none is invented, none differs."""
    symbols = range(FIRST_SYMBOL, FIRST_SYMBOL + 8)
    for round_number in range(4):
        asyncio.run(produce(topics, ORDERS_NEW, flow(12_000, seed=round_number, symbols=symbols)))
        engine.start()
        before = asyncio.run(end_offsets(topics, ORDERS_EXCHANGE))
        wait_until(lambda: _has_new_event(engine, topics, before), "the first new event")  # noqa: B023
        engine.kill()
        if round_number % 2:
            engine.lose_disk()
    engine.start().wait_ready()
    wait_until(lambda: has_processed_all(topics), "the end of the input")
    assert engine.terminate() == 0
    assert_events_are_those_of_a_clean_replay(topics)


def _has_new_event(engine: Worker, env: dict[str, str], before: dict[int, int]) -> bool:
    engine.check()
    return asyncio.run(end_offsets(env, ORDERS_EXCHANGE)) != before


def test_clean_stop_repeats_nothing(engine: Worker, topics: dict[str, str]) -> None:
    """After SIGTERM the next start goes on exactly where the last one stopped: no event comes twice."""
    symbols = range(FIRST_SYMBOL, FIRST_SYMBOL + 8)
    engine.start().wait_ready()
    wait_until(lambda: has_processed_all(topics), "the end of the input")
    assert engine.terminate() == 0
    before = assert_events_are_those_of_a_clean_replay(topics)
    asyncio.run(produce(topics, ORDERS_NEW, flow(4_000, seed=100, symbols=symbols)))
    engine.start().wait_ready()
    assert engine.terminate() == 0
    engine.start().wait_ready()
    wait_until(lambda: has_processed_all(topics), "the end of the input")
    assert engine.terminate() == 0
    assert assert_events_are_those_of_a_clean_replay(topics) == before


def test_commit_that_a_crash_has_cut_off_is_made_up_for(engine: Worker, topics: dict[str, str]) -> None:
    """The checkpoint has it, the group does not: the next start commits it though no command comes any more."""
    asyncio.run(produce(topics, ORDERS_NEW, flow(1_000, seed=700, symbols=range(FIRST_SYMBOL, FIRST_SYMBOL + 8))))
    engine.start().wait_ready()
    wait_until(lambda: has_processed_all(topics), "the end of the input")
    assert engine.terminate() == 0
    ends = asyncio.run(end_offsets(topics, ORDERS_NEW))
    earlier = {partition: max(0, end - 5) for partition, end in ends.items()}
    asyncio.run(_commit(topics, earlier))
    events = asyncio.run(end_offsets(topics, ORDERS_EXCHANGE))
    engine.start().wait_ready()
    wait_until(lambda: asyncio.run(committed_offsets(topics, ENGINE_GROUP, ORDERS_NEW)) == ends, "the commit")
    assert engine.terminate() == 0
    assert asyncio.run(end_offsets(topics, ORDERS_EXCHANGE)) == events


async def _commit(env: dict[str, str], offsets: dict[int, int]) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=env["KAFKA_BROKERS"], group_id=ENGINE_GROUP, enable_auto_commit=False)
    await consumer.start()
    try:
        tps = {TopicPartition(ORDERS_NEW, partition): offset for partition, offset in offsets.items()}
        consumer.assign(list(tps))
        await consumer.commit(tps)
    finally:
        await consumer.stop()


def test_local_store_that_has_lost_rows_is_read_again_from_the_changelog(
    engine: Worker, topics: dict[str, str]
) -> None:
    """The worker stops with the remedy in its log, which is to start it again."""
    symbols = range(FIRST_SYMBOL + 20, FIRST_SYMBOL + 24)
    engine.start().wait_ready()
    asyncio.run(produce(topics, ORDERS_NEW, flow(2_000, seed=600, symbols=symbols)))
    wait_until(lambda: has_processed_all(topics), "the end of the input")
    assert engine.terminate() == 0
    assert lose_order_ids(engine.data_dir), "there are used order ids to lose"
    engine.start()
    wait_until(lambda: engine.exit_status() is not None, "the worker finding the damage")
    assert engine.exit_status() == EXIT_STATUS
    assert "start the worker again" in engine.log.read_text()
    engine.start().wait_ready()
    asyncio.run(produce(topics, ORDERS_NEW, flow(2_000, seed=700, symbols=symbols)))
    wait_until(lambda: has_processed_all(topics), "the end of the input")
    assert engine.terminate() == 0
    assert_events_are_those_of_a_clean_replay(topics)


def lose_order_ids(folder: Path) -> int:
    """Take the used order ids of one partition out of the local store of a worker that does not run."""
    for store in stores(folder):
        lost = [key for key in store.keys() if b".j." in key]  # noqa: SIM118 - it is no dict
        for key in lost:
            del store[key]
        if lost:
            return len(lost)
    return 0


def test_paused_worker_that_wakes_after_its_partitions_moved_does_no_harm(
    engine: Worker, topics: dict[str, str], tmp_path: Path
) -> None:
    """A zombie's late events are repeats of the same bytes, and both workers' checkpoints stay usable."""
    symbols = range(FIRST_SYMBOL, FIRST_SYMBOL + 8)
    other = Worker("engine", topics, tmp_path / "engine-2", instance="2")
    try:
        engine.start().wait_ready()
        asyncio.run(produce(topics, ORDERS_NEW, flow(8_000, seed=200, symbols=symbols)))
        engine.signal(signal.SIGSTOP)
        other.start()
        asyncio.run(produce(topics, ORDERS_NEW, flow(8_000, seed=300, symbols=symbols)))
        wait_until(lambda: has_processed_all(topics), "the other worker taking over")
        engine.signal(signal.SIGCONT)
        asyncio.run(produce(topics, ORDERS_NEW, flow(8_000, seed=400, symbols=symbols)))
        engine.wait_ready()
        other.wait_ready()
        wait_until(lambda: has_processed_all(topics), "the end of the input")
        assert other.terminate() == 0
        asyncio.run(produce(topics, ORDERS_NEW, flow(2_000, seed=500, symbols=symbols)))
        wait_until(lambda: has_processed_all(topics), "the first worker taking over again")
    finally:
        other.end()
    assert engine.terminate() == 0
    assert_events_are_those_of_a_clean_replay(topics)


def test_strays_go_home_and_refused_records_to_the_dead_letters(engine: Worker, topics: dict[str, str]) -> None:
    """A symbol's order on a foreign partition trades in its own book; what is no command is kept as it was."""
    symbol_id = FIRST_SYMBOL + 100
    home = partition_for(symbol_id, PARTITIONS)
    stray = json.dumps(order_command(symbol_id, id="00000000-0000-0000-0000-00000000abcd")).encode()
    engine.start().wait_ready()
    asyncio.run(produce(topics, ORDERS_NEW, [(symbol_id, json.dumps(symbol_command(symbol_id)).encode())]))
    asyncio.run(_produce_raw(topics, (home + 1) % PARTITIONS, str(symbol_id).encode(), stray))
    asyncio.run(_produce_raw(topics, home, str(symbol_id).encode(), b"\xff no command"))
    wait_until(lambda: _order_is_out(topics, home, b"abcd"), "the stray order's event")
    wait_until(lambda: _is_dead(topics, home, b"\xff no command"), "the dead letter")
    assert engine.terminate() == 0


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_large_forged_and_packed_records_end_no_engine(engine: Worker, topics: dict[str, str], codec: str) -> None:
    """Whatever a producer can put into the log; an order behind it is taken, also one that was packed."""
    symbol_id = FIRST_SYMBOL + 300 + len(codec)
    home, key = partition_for(symbol_id, PARTITIONS), str(symbol_id).encode()
    first = json.dumps(order_command(symbol_id, id=f"00000000-0000-0000-0001-0000{symbol_id:08d}")).encode()
    poison: list[tuple[bytes, list[tuple[str, bytes]]]] = [
        (codec.encode() + b"x" * 1_040_000, []),
        (first, []),
        # A rejection repeats the price; that of a repeated order is the only one without a row, where it has no room.
        (first.replace(b'"price": 100', b'"price": 100.' + b"1" * 60_000), []),
        (json.dumps(order_command(symbol_id)).encode(), [("forwarded-from", b"3:" + b"9" * 5_000)]),
    ]
    order = json.dumps(order_command(symbol_id, id=f"00000000-0000-0000-0000-0000{symbol_id:08d}")).encode()

    async def send() -> None:
        brokers = topics["KAFKA_BROKERS"]
        async with AIOKafkaProducer(
            bootstrap_servers=brokers, compression_type=codec, max_request_size=16 << 20
        ) as producer:
            for value, headers in [*poison, (order, [])]:
                await producer.send_and_wait(ORDERS_NEW, value, key=key, partition=home, headers=headers)
            with pytest.raises(MessageSizeTooLargeError):
                await producer.send_and_wait(ORDERS_NEW, b"x" * 5_000_000, key=key, partition=home)

    engine.start().wait_ready()
    asyncio.run(produce(topics, ORDERS_NEW, [(symbol_id, json.dumps(symbol_command(symbol_id)).encode())]))
    asyncio.run(send())
    wait_until(lambda: _order_is_out(topics, home, f"{symbol_id:08d}".encode()), "the order behind the poison")
    assert any(len(event.value) > 60_000 for event in asyncio.run(read_topic(topics, ORDERS_EXCHANGE))[home])
    letters = asyncio.run(read_topic(topics, ORDERS_DEAD))[home]
    reasons = [dict(letter.headers)["reason"] for letter in letters if letter.key == key]
    assert {b"TOO_LARGE", b"INVALID_ORIGIN"} <= set(reasons)
    assert engine.terminate() == 0


async def _produce_raw(env: dict[str, str], partition: int, key: bytes, value: bytes) -> None:
    from forkast_streams.producer import EventProducer

    async with EventProducer(env["KAFKA_BROKERS"].split(",")) as producer:
        await producer.send(ORDERS_NEW, key=key, value=value, partition=partition)


def _order_is_out(env: dict[str, str], partition: int, fragment: bytes) -> bool:
    events = asyncio.run(read_topic(env, ORDERS_EXCHANGE))[partition]
    return any(fragment in record.value and b'"ORDER"' in record.value for record in events)


def _is_dead(env: dict[str, str], partition: int, value: bytes) -> bool:
    letters = asyncio.run(read_topic(env, ORDERS_DEAD))[partition]
    return any(letter.value == value and dict(letter.headers)["reason"] == b"INVALID_JSON" for letter in letters)
