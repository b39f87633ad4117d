"""What integration tests need of a running exchange: workers as processes, and whole topics as lists."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from forkast_streams.audit.capture import ENGINE_GROUP
from forkast_streams.devstack import Stack
from forkast_streams.devstack.ports import free_ports
from forkast_streams.engine_partition import EnginePartition
from forkast_streams.producer import EventProducer
from forkast_streams.records import OutputRecord
from forkast_streams.topics import ORDERS_NEW, partition_for

PARTITIONS = 10
# Enough to find a record of a client behind the heartbeats of a worker that had fallen behind.
_NEWEST = 500
# The users that tests act for are the demo users.
_DEMO = {"FORKAST_DEMO_USERS": "1"}


@contextmanager
def fresh_stack() -> Iterator[Stack]:
    """Kafka, Postgres and Redis on free ports, with nothing in them; gone afterwards."""
    # Not below pytest's folders, which are closed to the user that Postgres has when we are root.
    folder = Path(tempfile.mkdtemp(prefix="forkast-test-"))
    stack = Stack(folder, "auto")
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()
        shutil.rmtree(folder, ignore_errors=True)


def wait_until(condition: Callable[[], bool], what: str, *, within_s: float = 60.0) -> None:
    """Poll ``condition`` until it holds.

    Raises:
        TimeoutError: it does not hold in time; the message names ``what``.
    """
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {within_s:g} s")
        time.sleep(0.05)


class Worker:
    """A role as a process of its own, started as a user would start it; ``module`` has its ``worker`` command."""

    def __init__(
        self, role: str, env: dict[str, str], data_dir: Path, *, instance: str = "1", module: str = "forkast_streams"
    ) -> None:
        self.role = role
        self.instance = instance
        self.data_dir = data_dir
        self.log = data_dir.parent / f"{data_dir.name}.log"
        self.port = free_ports(1)[0]
        self._env = env
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process's id; it was started."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> Worker:
        """Start without waiting."""
        command = [sys.executable, "-m", self._module, "worker", self.role, "--data-dir", str(self.data_dir)]
        command += ["--port", str(self.port), "--instance", self.instance]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, env=os.environ | _DEMO | self._env, stdout=log, stderr=log)
        return self

    def wait_ready(self) -> Worker:
        """Return when the worker says that it is ready."""
        wait_until(self.is_ready, f"{self.role} getting ready (log: {self.log.read_text()[-3000:]})")
        return self

    def is_ready(self) -> bool:
        """Whether ``/ready`` answers 200."""
        self.check()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=2) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def check(self) -> None:
        """Fail with the log's tail when the process has ended."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"{self.role} ended with {self._process.returncode}: {self.log.read_text()[-3000:]}")

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def terminate(self) -> int:
        """Ask it to stop; return its exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(timeout=30)

    def exit_status(self) -> int | None:
        """How the process has ended; None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def end(self) -> None:
        """Make sure that it does not run any more."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self.kill()

    def lose_disk(self) -> None:
        """Delete the local state."""
        shutil.rmtree(self.data_dir, ignore_errors=True)


async def produce(env: dict[str, str], topic: str, records: Iterable[tuple[int, bytes]]) -> int:
    """Send ``(symbol_id, value)`` records, each to its symbol's partition; return how many were acknowledged."""
    by_partition: dict[int, list[OutputRecord]] = {}
    for symbol_id, value in records:
        record = OutputRecord(str(symbol_id).encode(), value, 0)
        by_partition.setdefault(partition_for(symbol_id, PARTITIONS), []).append(record)
    count = 0
    async with EventProducer(env["KAFKA_BROKERS"].split(",")) as producer:
        for partition, of_partition in by_partition.items():
            for batch in await producer.send_batch(topic, partition, of_partition):
                await batch.acknowledged
                count += batch.count
    return count


async def read_topic(env: dict[str, str], topic: str) -> dict[int, list[Any]]:
    """All records of ``topic`` by partition."""
    return await _read(env, topic)


async def last_records(env: dict[str, str], topic: str) -> dict[int, Any]:
    """The last record of each partition of ``topic`` that has one; heartbeats, which lead to no event, aside."""
    last = {}
    for partition, records in (await _read(env, topic, newest=_NEWEST)).items():
        others = [record for record in records if b'"HEARTBEAT"' not in record.value]
        assert others or not records, f"nothing but heartbeats in the last {_NEWEST} records of {topic}-{partition}"
        if others:
            last[partition] = others[-1]
    return last


async def is_settled(env: dict[str, str]) -> bool:
    """Whether nothing comes by itself before it can be compared: no order and no deadline of a clean replay ends."""
    soon_ms = int(time.time() * 1000) + 15_000
    for partition, records in (await read_topic(env, ORDERS_NEW)).items():
        engine = EnginePartition(partition, PARTITIONS)
        engine.process(records)
        if engine.due(soon_ms):
            return False
    return True


async def _read(env: dict[str, str], topic: str, *, newest: int | None = None) -> dict[int, list[Any]]:
    tps = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
    records: dict[int, list[Any]] = {tp.partition: [] for tp in tps}
    consumer = AIOKafkaConsumer(bootstrap_servers=env["KAFKA_BROKERS"], max_partition_fetch_bytes=4 << 20)
    await consumer.start()
    try:
        ends = {tp: end for tp, end in (await consumer.end_offsets(tps)).items() if end}
        consumer.assign(list(ends))
        for tp, end in ends.items():
            consumer.seek(tp, 0 if newest is None else max(0, end - newest))
        while ends:
            for tp, fetched in (await consumer.getmany(timeout_ms=200)).items():
                records[tp.partition] += fetched
                if fetched[-1].offset >= ends.get(tp, 0) - 1:
                    ends.pop(tp, None)
    finally:
        await consumer.stop()
    return records


async def end_offsets(env: dict[str, str], topic: str) -> dict[int, int]:
    """Number of records each partition of ``topic`` has had."""
    consumer = AIOKafkaConsumer(bootstrap_servers=env["KAFKA_BROKERS"])
    await consumer.start()
    try:
        tps = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
        return {tp.partition: end for tp, end in (await consumer.end_offsets(tps)).items()}
    finally:
        await consumer.stop()


async def committed_offsets(env: dict[str, str], group: str, topic: str) -> dict[int, int]:
    """What a consumer group has committed of ``topic``, by partition; 0 where it has committed nothing."""
    consumer = AIOKafkaConsumer(bootstrap_servers=env["KAFKA_BROKERS"], group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        tps = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
        consumer.assign(tps)
        return {tp.partition: await consumer.committed(tp) or 0 for tp in tps}
    finally:
        await consumer.stop()


async def are_commands_answered(env: dict[str, str]) -> bool:
    """Whether the engine has committed every command; its answers are in the log then.

    The last event does not tell: a heartbeat that finds nothing due has none.
    """
    ends = await end_offsets(env, ORDERS_NEW)
    committed = await committed_offsets(env, ENGINE_GROUP, ORDERS_NEW)
    return all(committed[partition] >= end for partition, end in ends.items())
