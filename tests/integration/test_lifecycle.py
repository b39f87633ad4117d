"""How workers end: in time when asked to, by themselves when they can not go on, and started again after that."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from forkast_streams.config import Settings
from forkast_streams.devstack import Stack
from forkast_streams.devstack.ports import free_ports
from forkast_streams.storage.postgres import prepare_database
from forkast_streams.supervisor import RoleProcess, Supervisor
from forkast_streams.topics import ORDERS_EXCHANGE, ORDERS_NEW, ensure_topics, partition_for
from tests.integration.exchange import PARTITIONS, Worker, end_offsets, produce, wait_until
from tests.integration.test_engine_worker import (
    assert_events_are_those_of_a_clean_replay,
    flow,
    has_processed_all,
)
from tests.support.flows import order_command, symbol_command

# Symbols that no other test uses.
FIRST_SYMBOL = 12_000
SYMBOLS = range(FIRST_SYMBOL, FIRST_SYMBOL + 8)
STOP_LIMIT_S = 10.0
_SABOTAGE = Path(__file__).parent / "sabotage"


@pytest.fixture
def topics(stack_env: dict[str, str]) -> dict[str, str]:
    """The servers' environment, with topics and tables made."""
    asyncio.run(ensure_topics(stack_env["KAFKA_BROKERS"].split(","), partitions=PARTITIONS))
    asyncio.run(prepare_database(stack_env["DATABASE_URL"], demo_users=True))
    return stack_env


@pytest.fixture
def worker(topics: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Makes workers, and ends those that are left."""
    made: list[Worker] = []

    def make(role: str, *, instance: str = "1", sabotage: str | None = None) -> Worker:
        env = topics | (_sabotaged(sabotage, tmp_path) if sabotage else {})
        made.append(Worker(role, env, tmp_path / f"{role}-{instance}", instance=instance))
        return made[-1]

    yield make
    for each in made:
        each.end()


def _sabotaged(kind: str, folder: Path) -> dict[str, str]:
    path = os.pathsep.join([str(_SABOTAGE), os.environ.get("PYTHONPATH", "")])
    return {"SABOTAGE": str(folder / "sabotage"), "SABOTAGE_KIND": kind, "PYTHONPATH": path}


def _ended(process: Worker, status: int, *, within_s: float) -> str:
    """Wait for the process to end with ``status``; return its log."""
    assert process._process is not None
    assert process._process.wait(timeout=within_s) == status, process.log.read_text()[-3000:]
    return process.log.read_text()


def test_sigterm_ends_every_worker_in_time_while_kafka_is_away(
    worker: Callable[..., Worker], topics: dict[str, str], stack: Stack
) -> None:
    """The Kafka client would commit and leave for as long as the broker is gone; no worker waits for that."""
    workers = [worker(role).start() for role in ("engine", "keeper", "sink", "oms")]
    for each in workers:
        each.wait_ready()
    asyncio.run(produce(topics, ORDERS_NEW, flow(4_000, seed=1, symbols=SYMBOLS)))
    kafka = stack.server("kafka")
    process = kafka.process()
    assert process is not None
    process.kill()
    try:
        wait_until(lambda: not process.is_running() or process.status() == "zombie", "the broker's end")
        began = time.monotonic()
        with ThreadPoolExecutor(len(workers)) as pool:
            list(pool.map(Worker.terminate, workers))
        assert time.monotonic() - began < STOP_LIMIT_S
    finally:
        kafka.start()


@pytest.mark.parametrize(
    ("sabotage", "sentence"),
    [
        ("coordination", "the Kafka client failed"),
        ("delivery", "no progress for 3 s: orders.new-"),
        ("loop", "the event loop failed"),
    ],
)
def test_worker_that_can_not_go_on_ends_itself(
    sabotage: str, sentence: str, worker: Callable[..., Worker], topics: dict[str, str], tmp_path: Path
) -> None:
    """A dead coordinator, a fetcher that delivers nothing, a loop that stands still: status 70 and one clear line."""
    engine = worker("engine", sabotage=sabotage).start().wait_ready()
    wait_until(lambda: has_processed_all(topics), "the end of the input")
    (tmp_path / "sabotage").touch()
    asyncio.run(produce(topics, ORDERS_NEW, flow(400, seed=2, symbols=SYMBOLS)))
    assert sentence in _ended(engine, 70, within_s=25)
    (tmp_path / "sabotage").unlink()
    engine.start().wait_ready()
    wait_until(lambda: has_processed_all(topics), "the end of the input")
    assert engine.terminate() == 0
    assert_events_are_those_of_a_clean_replay(topics)


def test_unexpected_error_commits_nothing_and_is_retried_with_a_back_off(
    topics: dict[str, str], tmp_path: Path
) -> None:
    """The real supervisor starts the failing worker again, later each time, and it goes on once the cause is gone."""
    poison = order_command(FIRST_SYMBOL, id="00000000-0000-4000-8000-00000000dead", clientOrderId="poison")
    home = partition_for(FIRST_SYMBOL, PARTITIONS)
    (tmp_path / "sabotage").touch()
    commands = [symbol_command(FIRST_SYMBOL), order_command(FIRST_SYMBOL, id="00000000-0000-4000-8000-0000000000aa")]
    asyncio.run(produce(topics, ORDERS_NEW, [(FIRST_SYMBOL, json.dumps(command).encode()) for command in commands]))
    poisoned_at = asyncio.run(end_offsets(topics, ORDERS_NEW))[home]
    asyncio.run(produce(topics, ORDERS_NEW, [(FIRST_SYMBOL, json.dumps(poison).encode())]))
    sentences: list[str] = []

    async def supervise() -> None:
        settings = Settings.from_env(topics | {"FORKAST_DATA_DIR": str(tmp_path / "data")})
        process = RoleProcess("engine", free_ports(1)[0], settings)
        supervisor = Supervisor([process], sentences.append)
        running = asyncio.create_task(supervisor.run(lambda: sentences.append("ready")))
        try:
            await _until(lambda: len(sentences) == 3, "three ends")
            # None: not even the first time-out of a commit was reached.
            assert (await _committed(topics, home) or 0) <= poisoned_at
            (tmp_path / "sabotage").unlink()
            await _until(lambda: "ready" in sentences, "the engine getting ready")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            await running

    with _environment(_sabotaged("matching", tmp_path)):
        asyncio.run(supervise())
    assert [sentence.split(". Its log")[0] for sentence in sentences[:3]] == [
        f"engine ended with status 70; starting it again in {seconds} s" for seconds in ("0.2", "0.4", "0.8")
    ]
    log = (tmp_path / "data" / "logs" / "engine.log").read_text()
    assert "an unexpected error in the engine" in log
    assert f"processing orders.new-{home} failed; the worker stops before anything more is committed" in log
    assert has_processed_all(topics)
    assert_events_are_those_of_a_clean_replay(topics)


def test_faust_gives_each_instance_the_folder_that_the_command_gives_it(topics: dict[str, str], tmp_path: Path) -> None:
    """Two workers that ``faust -A`` starts from one folder must not open the same tables."""
    env = os.environ | topics | {"FORKAST_DATA_DIR": str(tmp_path), "FORKAST_INSTANCE": "7"}
    program = "from forkast_streams import roles; print(roles.engine.conf.datadir)"
    run = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert run.stdout.split() == [str(tmp_path / "engine-7")]


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


async def _until(condition: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - other processes make it true
            await asyncio.sleep(0.05)
    assert condition(), what


async def _committed(env: dict[str, str], partition: int) -> int | None:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=env["KAFKA_BROKERS"], group_id="forkast-engine", enable_auto_commit=False
    )
    await consumer.start()
    try:
        committed: int | None = await consumer.committed(TopicPartition(ORDERS_NEW, partition))
        return committed
    finally:
        await consumer.stop()


class Load:
    """Puts some thousand commands a second into the log until it is stopped, less than an engine can take."""

    def __init__(self, env: dict[str, str], *, seed: int) -> None:
        self._env = env
        self._seed = seed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            self._seed += 1
            asyncio.run(produce(self._env, ORDERS_NEW, flow(400, seed=self._seed, symbols=SYMBOLS)))

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()


def test_stop_under_load_repeats_nothing(worker: Callable[..., Worker], topics: dict[str, str]) -> None:
    """SIGTERM while commands pour in: a checkpoint, a commit, status 0 within the limit, and no event comes twice."""
    engine = worker("engine").start().wait_ready()
    wait_until(lambda: has_processed_all(topics), "the end of the input")
    before = assert_events_are_those_of_a_clean_replay(topics)
    seconds = []
    with Load(topics, seed=1_000):
        for _ in range(3):
            produced = asyncio.run(end_offsets(topics, ORDERS_EXCHANGE))
            wait_until(lambda: asyncio.run(end_offsets(topics, ORDERS_EXCHANGE)) != produced, "events")  # noqa: B023
            began = time.monotonic()
            assert engine.terminate() == 0
            seconds.append(time.monotonic() - began)
            engine.start().wait_ready()
    wait_until(lambda: has_processed_all(topics), "the end of the input")
    assert engine.terminate() == 0
    assert max(seconds) < STOP_LIMIT_S
    assert assert_events_are_those_of_a_clean_replay(topics) == before


def test_stopped_worker_leaves_and_the_other_keeps_its_state(
    worker: Callable[..., Worker], topics: dict[str, str]
) -> None:
    """The other one has all partitions long before the session ends, and loads only those it did not have."""
    first, second = worker("engine"), worker("engine", instance="2")
    first.start().wait_ready()
    second.start().wait_ready()
    first.wait_ready()
    asyncio.run(produce(topics, ORDERS_NEW, flow(8_000, seed=3, symbols=SYMBOLS)))
    wait_until(lambda: has_processed_all(topics), "the end of the input")
    read_from = len(first.log.read_text())
    assert second.terminate() == 0
    asyncio.run(produce(topics, ORDERS_NEW, flow(8_000, seed=4, symbols=SYMBOLS)))
    wait_until(lambda: has_processed_all(topics), "the first one taking over", within_s=6)
    assert "kept 5" in first.log.read_text()[read_from:]
    assert first.terminate() == 0
    assert_events_are_those_of_a_clean_replay(topics)
