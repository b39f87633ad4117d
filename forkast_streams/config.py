"""Settings of a process, read once from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from forkast_streams.kafka_security import Brokers, KafkaSecurity
from forkast_streams.record_signatures import Signer


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
        kafka_security: protocol and credentials of the connections to the brokers (``KAFKA_SECURITY_PROTOCOL`` ...).
        signer: signs what this process writes to ``orders.new`` (``FORKAST_PRODUCER_KEY``); None: nothing is signed.
        producer_keys: file with the producers' keys, for the engine (``FORKAST_PRODUCER_KEYS``); None: signatures
            are not looked at.
    """

    kafka_brokers: str = "localhost:9092"
    redis_url: str = "redis://localhost:6379"
    database_url: str = "postgresql://localhost:5432/forkast_exchange"
    data_dir: Path = Path("data")
    host: str = "127.0.0.1"
    instance: str = "1"
    kafka_security: KafkaSecurity = field(default_factory=KafkaSecurity)
    signer: Signer | None = field(default=None, repr=False)
    producer_keys: Path | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from ``env`` (default: the process environment).

        Raises:
            SetupError: a variable has a value that cannot be meant.
        """
        env = os.environ if env is None else env
        return cls(
            kafka_brokers=env.get("KAFKA_BROKERS", cls.kafka_brokers),
            redis_url=env.get("REDIS_URL", cls.redis_url),
            database_url=env.get("DATABASE_URL", cls.database_url),
            data_dir=Path(env.get("FORKAST_DATA_DIR", "data")),
            host=env.get("FORKAST_HOST", cls.host),
            instance=env.get("FORKAST_INSTANCE", cls.instance),
            kafka_security=KafkaSecurity.from_env(env),
            signer=Signer.from_env(env),
            producer_keys=Path(env["FORKAST_PRODUCER_KEYS"]) if env.get("FORKAST_PRODUCER_KEYS") else None,
        )

    @property
    def broker_list(self) -> Brokers:
        """The brokers as the project's Kafka clients take them: with how to connect, and the key to sign with."""
        addresses = [broker.strip() for broker in self.kafka_brokers.split(",") if broker.strip()]
        return Brokers(addresses, self.kafka_security, self.signer)
