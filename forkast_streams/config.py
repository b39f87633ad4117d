"""Settings of a process, read once from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Where the servers are and where this process keeps its files.

    The three server variables have the names the predecessor used.

    Attributes:
        kafka_brokers: comma-separated ``host:port`` list (``KAFKA_BROKERS``).
        redis_url: ``redis://`` or ``rediss://`` URL (``REDIS_URL``).
        database_url: ``postgresql://`` URL (``DATABASE_URL``).
        data_dir: folder for local state; one folder a process (``FORKAST_DATA_DIR``).
        host: address the web server of a role listens on (``FORKAST_HOST``).
        instance: name of this process within its role, unique per role (``FORKAST_INSTANCE``); it makes
            the Kafka group membership static, so that a restarted worker is back without a rebalance.
    """

    kafka_brokers: str = "localhost:9092"
    redis_url: str = "redis://localhost:6379"
    database_url: str = "postgresql://localhost:5432/forkast_exchange"
    data_dir: Path = Path("data")
    host: str = "127.0.0.1"
    instance: str = "1"

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from ``env`` (default: the process environment)."""
        env = os.environ if env is None else env
        return cls(
            kafka_brokers=env.get("KAFKA_BROKERS", cls.kafka_brokers),
            redis_url=env.get("REDIS_URL", cls.redis_url),
            database_url=env.get("DATABASE_URL", cls.database_url),
            data_dir=Path(env.get("FORKAST_DATA_DIR", "data")),
            host=env.get("FORKAST_HOST", cls.host),
            instance=env.get("FORKAST_INSTANCE", cls.instance),
        )

    @property
    def broker_list(self) -> list[str]:
        """The brokers as aiokafka takes them."""
        return [broker.strip() for broker in self.kafka_brokers.split(",") if broker.strip()]
