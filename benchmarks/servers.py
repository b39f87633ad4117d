"""What benchmarks need of a running exchange: servers on free ports, topics and records in them, workers, CPU time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import psutil

from benchmarks.harness import Run
from benchmarks.records import SymbolRecord
from forkast_streams.devstack import Stack
from forkast_streams.producer import EventProducer
from forkast_streams.records import OutputRecord
from forkast_streams.storage.postgres import prepare_database
from forkast_streams.topics import PARTITIONS_DEFAULT, ensure_topics, partition_for
from tests.integration.exchange import Worker

_ROOT = Path(__file__).resolve().parent.parent
_SENT_AT_ONCE = 100_000


@dataclass(frozen=True, slots=True)
class Servers:
    """Kafka, Postgres and Redis of one run, with topics and tables made.

    Attributes:
        env: their addresses under the names that processes read.
        folder: for the workers' local state; exists.
        stack: to stop or to start one of them.
    """

    env: dict[str, str]
    folder: Path
    stack: Stack

    @property
    def brokers(self) -> list[str]:
        """Addresses of the Kafka brokers."""
        return self.env["KAFKA_BROKERS"].split(",")


@contextmanager
def servers(run: Run, name: str = "servers", *, partitions: int = PARTITIONS_DEFAULT) -> Iterator[Servers]:
    """Start servers in a folder of the run and stop them at the end; ``name`` keeps those of one run apart."""
    folder = run.folder / name
    folder.mkdir()
    folder.chmod(0o755)
    with run.step("Starting Kafka, Postgres and Redis"):
        stack = Stack(folder / "stack", "auto")
        stack.start()
    try:
        # Workers of this package are found from any folder.
        env = stack.env() | {"PYTHONPATH": str(_ROOT)}
        asyncio.run(ensure_topics(env["KAFKA_BROKERS"].split(","), partitions=partitions))
        asyncio.run(prepare_database(env["DATABASE_URL"], demo_users=True))
        yield Servers(env, folder, stack)
    finally:
        stack.stop()


@contextmanager
def worker(at: Servers, role: str, *, instance: str = "1", module: str = "forkast_streams") -> Iterator[Worker]:
    """A worker of ``role``, not yet started; its process is ended with the block.

    ``module`` is run as ``python -m MODULE worker ROLE ...``, for a worker that is built otherwise.
    """
    one = Worker(role, at.env, at.folder / f"{role}-{instance}", instance=instance, module=module)
    try:
        yield one
    finally:
        one.end()


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used, in user and in system mode, all its threads together."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


async def send(at: Servers, topic: str, records: Iterable[SymbolRecord], partitions: int = PARTITIONS_DEFAULT) -> int:
    """Send records, each to its symbol's partition, a part at a time; return how many were acknowledged."""
    count, rest = 0, iter(records)
    async with EventProducer(at.brokers) as producer:
        while part := list(islice(rest, _SENT_AT_ONCE)):
            by_partition: dict[int, list[OutputRecord]] = {}
            for symbol_id, value in part:
                record = OutputRecord(str(symbol_id).encode(), value, 0)
                by_partition.setdefault(partition_for(symbol_id, partitions), []).append(record)
            sent = []
            for partition, of_partition in by_partition.items():
                sent += await producer.send_batch(topic, partition, of_partition)
            for batch in sent:
                await batch.acknowledged
                count += batch.count
    return count
