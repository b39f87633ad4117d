"""Three brokers, each with a disk of its own, beside Postgres and Redis."""

from __future__ import annotations

import shutil
from pathlib import Path

from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from forkast_streams.devstack.kafka import Kafka, new_cluster_id
from forkast_streams.devstack.ports import LOOPBACK, free_ports
from forkast_streams.devstack.postgres import Postgres
from forkast_streams.devstack.redis import Redis
from forkast_streams.devstack.server import Server
from forkast_streams.devstack.stack import in_parallel

BROKERS = ("kafka-1", "kafka-2", "kafka-3")


class Broker(Kafka):
    """One of the brokers, each of which is a controller, too.

    Args:
        data_dir: its own.
        number: what the others call it, from 1 on.
        ports: of all brokers, by number.
        controller_ports: of all controllers, by number.
        cluster_id: of all of them.
    """

    def __init__(
        self, data_dir: Path, number: int, ports: dict[int, int], controller_ports: dict[int, int], cluster_id: str
    ) -> None:
        super().__init__(data_dir, ports[number], controller_ports[number])
        self.cluster_id = cluster_id
        self.number = number
        self._voters = ",".join(f"{voter}@{LOOPBACK}:{port}" for voter, port in controller_ports.items())

    def lose_disk(self) -> None:
        """Delete all that it has; call while it does not run."""
        shutil.rmtree(self.folder)

    def _settings(self, logs: Path) -> dict[str, object]:
        more: dict[str, object] = {"node.id": self.number, "controller.quorum.voters": self._voters}
        for name in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic"):
            more[f"{name}.replication.factor"] = len(BROKERS)
        more |= {"transaction.state.log.min.isr": 2, "share.coordinator.state.topic.min.isr": 2}
        # Kafka's own: until a broker that is lost has lost its session, all leaders wait for it as a replica.
        more |= {"broker.session.timeout.ms": 9_000, "broker.heartbeat.interval.ms": 2_000}
        return super()._settings(logs) | more


class Cluster:
    """The five servers of a folder, as `Stack` has three."""

    def __init__(self, folder: Path) -> None:
        numbers = range(1, len(BROKERS) + 1)
        ports = free_ports(2 * len(BROKERS) + 2)
        of_brokers = dict(zip(numbers, ports, strict=False))
        of_controllers = dict(zip(numbers, ports[len(BROKERS) :], strict=False))
        cluster_id = new_cluster_id()
        self._servers: dict[str, Server] = {
            name: Broker(folder / name, number, of_brokers, of_controllers, cluster_id)
            for number, name in enumerate(BROKERS, 1)
        }
        self._brokers = ",".join(f"{LOOPBACK}:{port}" for port in of_brokers.values())
        self._postgres = Postgres(folder, ports[-2])
        self._redis = Redis(folder, ports[-1])
        self._servers |= {"postgres": self._postgres, "redis": self._redis}

    def start(self) -> None:
        """Start all and wait until they answer."""
        for server in self._servers.values():
            server.data_dir.mkdir(parents=True, exist_ok=True)
        in_parallel([server.start for server in self._servers.values()])
        self._until_complete()

    def stop(self) -> None:
        """Stop all and wait until they are gone."""
        in_parallel([server.stop for server in self._servers.values()])

    def env(self) -> dict[str, str]:
        """Where they are, as workers are told."""
        return {
            "KAFKA_BROKERS": self._brokers,
            "REDIS_URL": f"redis://{LOOPBACK}:{self._redis.port}",
            "DATABASE_URL": self._postgres.url,
        }

    def server(self, name: str) -> Server:
        """One of them."""
        return self._servers[name]

    @retry(retry=retry_if_result(lambda count: count < len(BROKERS)), stop=stop_after_delay(60), wait=wait_fixed(0.05))
    def _until_complete(self) -> int:
        """Topics made before would have fewer replicas."""
        return min(server.count_brokers() for server in self._servers.values() if isinstance(server, Broker))
