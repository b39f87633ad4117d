"""The topics: their names, how they are configured, and which partition a symbol belongs to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code
from aiokafka.partitioner import murmur2

from forkast_streams.errors import SetupError
from forkast_streams.kafka_security import kafka_arguments, unreachable

ORDERS_NEW = "orders.new"
ORDERS_EXCHANGE = "orders.exchange"
ORDERS_DEAD = "orders.dead"

PARTITIONS_DEFAULT = 10
REPLICAS_WANTED = 3
APP_PREFIX = "forkast-"

# Faust derives these names from the app id and the table's name; topics are created before a worker starts,
# because a topic that appears later is seen only after a metadata refresh.
ORDER_BOOKS_TABLE = "order_books"
MARKET_DATA_TABLE = "market_data"
ENGINE_CHANGELOG = f"{APP_PREFIX}engine-{ORDER_BOOKS_TABLE}-changelog"
KEEPER_CHANGELOG = f"{APP_PREFIX}keeper-{MARKET_DATA_TABLE}-changelog"
OMS_LEADER = f"{APP_PREFIX}oms-__assignor-__leader"

_KEEP_FOREVER = {"retention.ms": "-1", "retention.bytes": "-1"}
# Time is the log's append time: a producer's clock can neither move the exchange's time nor let retention
# delete records that are still needed.
_APPEND_TIME = {"message.timestamp.type": "LogAppendTime"}
# The broker unpacks what a producer has packed: so a record is never larger than the broker's own limit for one, and a
# small one never becomes gigabytes in an engine.
_UNPACKED = {"compression.type": "uncompressed"}
# A changelog that is also deleted by age would end Faust's recovery in a wait without end.
_CHANGELOG = {"cleanup.policy": "compact", "retention.ms": "-1"}

TOPIC_CONFIGS: dict[str, dict[str, str]] = {
    ORDERS_NEW: _KEEP_FOREVER | _APPEND_TIME | _UNPACKED,
    ORDERS_EXCHANGE: _KEEP_FOREVER,
    ORDERS_DEAD: _KEEP_FOREVER,
    ENGINE_CHANGELOG: _CHANGELOG,
    KEEPER_CHANGELOG: _CHANGELOG,
}


@lru_cache(maxsize=100_000)
def partition_for(symbol_id: int, partitions: int) -> int:
    """Partition of a symbol's records among ``partitions``: what Kafka's default partitioner gives its key."""
    return partition_for_key(str(symbol_id).encode(), partitions)


def partition_for_key(key: bytes, partitions: int) -> int:
    """Partition that Kafka's default partitioner (murmur2) gives ``key`` among ``partitions``."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


async def ensure_topics(brokers: list[str], *, partitions: int = PARTITIONS_DEFAULT) -> list[str]:
    """Create the topics that are missing; return their names, sorted.

    On three brokers and more each topic gets three replicas, of which two must have a record before it counts as
    acknowledged.

    Raises:
        SetupError: the brokers are out of reach, or an existing topic does not have the partition count of the
            others, which would put a symbol's commands and events on different partitions.
    """
    async with _admin(brokers) as admin:
        existing = await _partition_counts(admin)
        wanted = existing.get(ORDERS_NEW, partitions)
        _check_partition_counts(existing, wanted)
        replicas = min(REPLICAS_WANTED, len((await admin.describe_cluster())["brokers"]))
        durable = {"min.insync.replicas": "2"} if replicas >= REPLICAS_WANTED else {}
        missing = [
            NewTopic(name, wanted, replicas, topic_configs=config | durable)
            for name, config in TOPIC_CONFIGS.items()
            if name not in existing
        ]
        # The leader topic exists only because Faust subscribes a role without topics to it.
        missing.append(NewTopic(OMS_LEADER, 1, replicas))
        return sorted(await _create(admin, missing))


async def require_topics(brokers: list[str]) -> None:
    """Check that all topics are there, before a worker would wait for them without end.

    Raises:
        SetupError: a topic is missing, the partition counts differ, or the brokers are out of reach.
    """
    async with _admin(brokers) as admin:
        existing = await _partition_counts(admin)
    missing = sorted(TOPIC_CONFIGS.keys() - existing.keys())
    if missing:
        raise SetupError(f"topics are missing ({', '.join(missing)}); run `forkast init` once to create them.")
    _check_partition_counts(existing, existing[ORDERS_NEW])


@asynccontextmanager
async def _admin(brokers: list[str]) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**kafka_arguments(brokers))
    try:
        await admin.start()
    except KafkaError as exc:
        await admin.close()
        raise unreachable(brokers) from exc
    try:
        yield admin
    finally:
        await admin.close()


async def _partition_counts(admin: AIOKafkaAdminClient) -> dict[str, int]:
    """Partition counts of those of our topics that exist."""
    names = set(TOPIC_CONFIGS) & set(await admin.list_topics())
    if not names:
        return {}
    return {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics(sorted(names))}


def _check_partition_counts(existing: dict[str, int], wanted: int) -> None:
    for name, count in existing.items():
        if count != wanted:
            raise SetupError(
                f"topic {name} has {count} partitions and {ORDERS_NEW} has {wanted}; "
                "all topics need one partition count: recreate the odd one."
            )


async def _create(admin: AIOKafkaAdminClient, topics: list[NewTopic]) -> list[str]:
    response = await admin.create_topics(topics)
    created = []
    for name, code, *_ in response.topic_errors:
        if code == 0:
            created.append(name)
        elif for_code(code) is not TopicAlreadyExistsError:
            raise SetupError(f"topic {name} could not be created: {for_code(code).__name__}; check the brokers.")
    return created
