"""The topics: their names, how they are configured, and which partition a symbol belongs to."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code
from aiokafka.partitioner import murmur2

from forkast_streams.errors import SetupError
from forkast_streams.kafka_security import kafka_arguments, unreachable
from forkast_streams.topic_settings import differences, mend

log = logging.getLogger(__name__)

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

# A replica that missed the newest records must not lead: they are acknowledged, and others would get their offsets.
_NO_TRUNCATION = {"unclean.leader.election.enable": "false"}
_KEEP_FOREVER = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"} | _NO_TRUNCATION
# Time is the log's append time: a producer's clock can neither move the exchange's time nor let retention
# delete records that are still needed.
_APPEND_TIME = {"message.timestamp.type": "LogAppendTime"}
# The broker unpacks what a producer has packed: so a record is never larger than the broker's own limit for one, and a
# small one never becomes gigabytes in an engine.
_UNPACKED = {"compression.type": "uncompressed"}
# Events carry the time of their commands. Were a broker's clock hours ahead once, it would take no event of that time
# when it is right again; brokers before 3.6 have no such limit, and no such setting.
_ANY_TIME = {"message.timestamp.after.max.ms": str(2**63 - 1)}
# A changelog that is also deleted by age would end Faust's recovery in a wait without end.
_CHANGELOG = {"cleanup.policy": "compact", "retention.ms": "-1"} | _NO_TRUNCATION
# The segment that is written is never compacted: with Kafka's, of a gigabyte, a recovery would read as much of each
# partition.
_QUICK_TO_READ = {"segment.bytes": str(8 << 20), "min.cleanable.dirty.ratio": "0.1"}
# Without these the exchange would lose or misjudge records; without others it could, or is slow.
_REQUIRED = frozenset({"cleanup.policy", "retention.ms", "retention.bytes", "message.timestamp.type"})

TOPIC_CONFIGS: dict[str, dict[str, str]] = {
    ORDERS_NEW: _KEEP_FOREVER | _APPEND_TIME | _UNPACKED,
    ORDERS_EXCHANGE: _KEEP_FOREVER | _ANY_TIME,
    ORDERS_DEAD: _KEEP_FOREVER | _ANY_TIME,
    ENGINE_CHANGELOG: _CHANGELOG | _QUICK_TO_READ,
    KEEPER_CHANGELOG: _CHANGELOG | _QUICK_TO_READ,
}


@lru_cache(maxsize=100_000)
def partition_for(symbol_id: int, partitions: int) -> int:
    """Partition of a symbol's records among ``partitions``: what Kafka's default partitioner gives its key."""
    return partition_for_key(str(symbol_id).encode(), partitions)


def partition_for_key(key: bytes, partitions: int) -> int:
    """Partition that Kafka's default partitioner (murmur2) gives ``key`` among ``partitions``."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


@dataclass(frozen=True, slots=True)
class TopicChanges:
    """What `ensure_topics` did.

    Attributes:
        partitions: how many the topics have.
        created: names, sorted.
        mended: a topic and what it had instead of a setting that the exchange relies on, such as
            ``orders.new: retention.ms was 604800000, is -1``.
    """

    partitions: int
    created: list[str]
    mended: list[str]


async def ensure_topics(brokers: list[str], *, partitions: int = PARTITIONS_DEFAULT) -> TopicChanges:
    """Create the topics that are missing, and give those that are there the settings the exchange relies on.

    On three brokers and more each new topic gets three replicas, of which two must have a record before it counts as
    acknowledged. Topics that others have made, such as brokers that create them when they are first named, have
    Kafka's defaults, by which the log is deleted after a week and producers set the exchange's clock.

    Args:
        brokers: their addresses.
        partitions: those of new topics where there is no ``orders.new`` yet, else they get as many as that.

    Raises:
        SetupError: the brokers are out of reach, they refuse, or an existing topic does not have the partition count
            of the others, which would put a symbol's commands and events on different partitions.
    """
    async with _admin(brokers) as admin:
        existing = await _partition_counts(admin)
        wanted = existing.get(ORDERS_NEW, partitions)
        _check_partition_counts(existing, wanted)
        replicas = min(REPLICAS_WANTED, len((await admin.describe_cluster())["brokers"]))
        durable = {"min.insync.replicas": "2"} if replicas >= REPLICAS_WANTED else {}
        missing = [
            # The others are not known to every broker; they are given behind this, as far as they are.
            NewTopic(name, wanted, replicas, topic_configs=_required(config) | durable)
            for name, config in TOPIC_CONFIGS.items()
            if name not in existing
        ]
        # The leader topic exists only because Faust subscribes a role without topics to it.
        missing.append(NewTopic(OMS_LEADER, 1, replicas))
        created = sorted(await _create(admin, missing))
        mended = await mend(admin, TOPIC_CONFIGS, _REQUIRED)
        changes = [
            f"{name}: {setting} was {had}, is {TOPIC_CONFIGS[name][setting]}"
            for name in sorted(existing)
            for setting, had in mended.get(name, {}).items()
        ]
        return TopicChanges(wanted, created, changes)


async def require_topics(brokers: list[str]) -> None:
    """Check that all topics are there as they must be, before a worker would wait for them without end.

    Raises:
        SetupError: a topic is missing or has other settings than the exchange relies on, the partition counts differ,
            or the brokers are out of reach.
    """
    async with _admin(brokers) as admin:
        existing = await _partition_counts(admin)
        missing = sorted(TOPIC_CONFIGS.keys() - existing.keys())
        if missing:
            raise SetupError(
                f"topics are missing ({', '.join(missing)}), or this user may not describe them; run `forkast init` "
                "once to create them, or let it (ACL DESCRIBE)."
            )
        _check_partition_counts(existing, existing[ORDERS_NEW])
        for name, differing in sorted((await differences(admin, TOPIC_CONFIGS)).items()):
            for setting, value in differing.items():
                remedy = f"instead of {TOPIC_CONFIGS[name][setting]}; run `forkast init` once to mend it."
                if setting not in _REQUIRED:
                    log.warning("topic %s has %s=%s %s", name, setting, value, remedy)
                    continue
                raise SetupError(
                    f"topic {name} has {setting}={value}, with which the exchange would lose or misjudge records, "
                    f"{remedy}"
                )


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


def _required(config: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in config.items() if name in _REQUIRED}
