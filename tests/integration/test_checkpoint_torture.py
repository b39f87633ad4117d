"""A real engine worker on changelogs that end, or were damaged, wherever they can be: it resumes where it must.

The changelog's topic is made anew for each start, with rows as a worker writes them, and the local folder is lost.
The partitions are cut at different records, so that a few starts cover every record boundary.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import for_code

from forkast_streams import checkpoint
from forkast_streams.checkpoint import Checkpointer, recover
from forkast_streams.engine_partition import EnginePartition, OutputRecord
from forkast_streams.producer import EventProducer
from forkast_streams.topics import ENGINE_CHANGELOG, ORDERS_EXCHANGE, ORDERS_NEW, TOPIC_CONFIGS, ensure_topics
from tests.integration.exchange import PARTITIONS, Worker, end_offsets, fresh_stack, produce, read_topic, wait_until
from tests.integration.test_engine_worker import assert_events_are_those_of_a_clean_replay, has_processed_all
from tests.support.changelogs import table_of
from tests.support.flows import home_of, mixed_flow, order_command

# One symbol a partition.
SYMBOLS = {home_of(symbol_id): symbol_id for symbol_id in range(560, 500, -1)}
# Ten boundaries: as many as there are partitions, so that one start covers them all.
RECORDS = 180
STEP = 45
Log = list[tuple[bytes, bytes | None]]


@pytest.fixture(scope="module")
def env() -> Iterator[dict[str, str]]:
    """A Kafka of this module's own, because the engine's changelog is made anew again and again."""
    with fresh_stack() as stack:
        env = stack.env()
        asyncio.run(ensure_topics(env["KAFKA_BROKERS"].split(","), partitions=PARTITIONS))
        flows = [
            (symbol_id, json.dumps(command).encode())
            for symbol_id in SYMBOLS.values()
            for command in mixed_flow(RECORDS, seed=symbol_id, symbol_id=symbol_id)
        ]
        asyncio.run(produce(env, ORDERS_NEW, flows))
        yield env


@pytest.fixture(scope="module")
def changelogs(env: dict[str, str]) -> dict[int, Log]:
    """What a worker would have written of each partition's first records, with small rows and many drops."""
    inputs = asyncio.run(read_topic(env, ORDERS_NEW))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "CHECKPOINT_CHUNK_BYTES", 2_500)
        patch.setattr(checkpoint, "BASE_SLICE_MIN", 30)
        return {partition: _changelog(partition, records) for partition, records in inputs.items()}


def _changelog(partition: int, records: list[Any]) -> Log:
    state, cuts, log = EnginePartition(partition, PARTITIONS), Checkpointer(partition, writer=1), Log()
    for at in range(0, len(records), STEP):
        state.process(records[at : at + STEP])
        rows = cuts.cut(state)
        log += [*((key, None) for key in rows.drops), *rows.puts]
    return log


def _reached(log: Log) -> int:
    """The input offset at which a worker must resume."""
    newest = recover(table_of(log)).newest
    return 0 if newest is None else newest.reached


async def _put_changelog(env: dict[str, str], logs: dict[int, Log]) -> None:
    """Make the changelog's topic anew and write ``logs`` into it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=env["KAFKA_BROKERS"])
    await admin.start()
    try:
        if ENGINE_CHANGELOG in await admin.list_topics():
            await admin.delete_topics([ENGINE_CHANGELOG])
        async with asyncio.timeout(20):
            while True:
                response = await admin.create_topics(
                    [NewTopic(ENGINE_CHANGELOG, PARTITIONS, 1, topic_configs=TOPIC_CONFIGS[ENGINE_CHANGELOG])]
                )
                [(_, code, *_)] = response.topic_errors
                if code == 0:
                    break
                # The topic of the same name is still being deleted.
                assert "Exists" in for_code(code).__name__, for_code(code)
                await asyncio.sleep(0.1)
    finally:
        await admin.close()
    async with EventProducer(env["KAFKA_BROKERS"].split(",")) as producer:
        for partition, log in logs.items():
            for batch in await producer.send_batch(
                ENGINE_CHANGELOG, partition, [OutputRecord(key, value, 0) for key, value in log]
            ):
                await batch.acknowledged


def _probe(env: dict[str, str]) -> None:
    """A new command for every partition."""
    orders = [
        (symbol_id, json.dumps(order_command(symbol_id, id=str(uuid.uuid4()), price="1.00")).encode())
        for symbol_id in SYMBOLS.values()
    ]
    asyncio.run(produce(env, ORDERS_NEW, orders))


def _resume(env: dict[str, str], folder: Path, logs: dict[int, Log]) -> Worker:
    """Start a worker without a disk on ``logs``; it must resume each partition where its log says, and catch up."""
    asyncio.run(_put_changelog(env, logs))
    before = asyncio.run(end_offsets(env, ORDERS_EXCHANGE))
    _probe(env)
    engine = Worker("engine", env, folder / "engine")
    engine.lose_disk()
    engine.start()
    try:
        wait_until(lambda: _is_ahead(engine, env, before), "an event of every partition")
        wait_until(lambda: has_processed_all(env), "the end of the input")
    except BaseException:
        engine.end()
        raise
    inputs, events = asyncio.run(_read_both(env))
    for partition, log in logs.items():
        first = events[partition][before[partition]]
        source = json.loads(first.value)["source"]
        expected = EnginePartition(partition, PARTITIONS).process(inputs[partition]).events
        after = [event for event in expected if json.loads(event.value)["source"]["offset"] >= _reached(log)]
        assert first.value == after[0].value, f"partition {partition} resumed at {source}, not at {_reached(log)}"
    return engine


def _is_ahead(engine: Worker, env: dict[str, str], before: dict[int, int]) -> bool:
    engine.check()
    ends = asyncio.run(end_offsets(env, ORDERS_EXCHANGE))
    return all(ends[partition] > offset for partition, offset in before.items())


async def _read_both(env: dict[str, str]) -> tuple[dict[int, list[Any]], dict[int, list[Any]]]:
    return await read_topic(env, ORDERS_NEW), await read_topic(env, ORDERS_EXCHANGE)


def test_changelog_cut_at_every_record(env: dict[str, str], changelogs: dict[int, Log], tmp_path: Path) -> None:
    """Every boundary between two records of a changelog is some partition's end in one of the starts."""
    # What a changelog tells of was answered when it was written: let a first start answer everything.
    _resume(env, tmp_path, {partition: [] for partition in changelogs}).kill()
    boundaries = 1 + min(map(len, changelogs.values()))
    assert any(value is None for log in changelogs.values() for _, value in log), "there must be drops"
    covered = set()
    for start in range(0, boundaries, PARTITIONS):
        logs = {}
        for partition, log in changelogs.items():
            cut = min(start + partition, boundaries - 1)
            covered.add(cut)
            logs[partition] = log[:cut]
        _resume(env, tmp_path, logs).kill()
    assert covered == set(range(boundaries))
    assert_events_are_those_of_a_clean_replay(env)


def _flipped(_: int, log: Log, __: list[Any]) -> Log:
    newest = max(key for key, value in log if value is not None and b".s." in key)
    return [
        (key, value[:-1] + bytes([value[-1] ^ 1]) if value is not None and key == newest else value)
        for key, value in log
    ]


def _with_zombie(partition: int, log: Log, inputs: list[Any]) -> Log:
    """A worker that was paused in the middle wakes up and adds two more segments, with their drops."""
    half = log[: len(log) // 2]
    found = recover(table_of(half))
    assert found.newest is not None, "half of the log holds a chain"
    state = EnginePartition.restore(partition, found.newest.reached, found.head, found.entries.items(), found.journal)
    cuts, late = Checkpointer.resume(partition, 9, found), Log()
    for _ in range(2):
        state.process(inputs[state.next_offset : state.next_offset + 7])
        rows = cuts.cut(state)
        late += [*((key, None) for key in rows.drops), *rows.puts]
    return log + late


def _out_of_order(_: int, log: Log, __: list[Any]) -> Log:
    return list(reversed(table_of(log).items()))


def _twice(_: int, log: Log, __: list[Any]) -> Log:
    return [row for row in table_of(log).items() for _ in range(2)]


_HOSTILE: list[Callable[[int, Log, list[Any]], Log]] = [_flipped, _with_zombie, _out_of_order, _twice]


def test_hostile_changelogs_and_a_folder_that_is_behind(
    env: dict[str, str], changelogs: dict[int, Log], tmp_path: Path
) -> None:
    """Damaged bytes, a zombie's rows, rows out of order and twice; then an old folder."""
    inputs = asyncio.run(read_topic(env, ORDERS_NEW))
    logs = {p: _HOSTILE[p % len(_HOSTILE)](p, log, inputs[p]) for p, log in changelogs.items()}
    flipped = [p for p in logs if p % len(_HOSTILE) == 0]
    assert all(0 < _reached(logs[p]) < _reached(changelogs[p]) for p in flipped), "an older chain must be there"
    engine = _resume(env, tmp_path, logs)
    try:
        assert engine.terminate() == 0
        repeats = assert_events_are_those_of_a_clean_replay(env)
        shutil.copytree(engine.data_dir, tmp_path / "older")
        _probe(env)
        engine.start()
        wait_until(lambda: has_processed_all(env), "the end of the input")
        assert engine.terminate() == 0
        engine.lose_disk()
        shutil.copytree(tmp_path / "older", engine.data_dir)
        _probe(env)
        engine.start()
        wait_until(lambda: has_processed_all(env), "the end of the input, from an older folder")
        assert engine.terminate() == 0
    finally:
        engine.end()
    # Had the old folder been believed, events of the time since would have come twice.
    assert assert_events_are_those_of_a_clean_replay(env) == repeats
