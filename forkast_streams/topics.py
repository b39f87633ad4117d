"""The topics: their names, how they are configured, and which partition a symbol belongs to."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code
from aiokafka.partitioner import murmur2
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from forkast_streams.errors import SetupError
from forkast_streams.kafka_security import kafka_arguments, unreachable

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
# partition. Workers start without this.
_QUICK_TO_READ = {"segment.bytes": str(8 << 20), "min.cleanable.dirty.ratio": "0.1"}
_SETTLE_S = 10.0
_SETTLE_POLL_S = 0.05
# Kafka's number for a setting that the topic itself has, and neither its broker nor a default.
_OWN_SETTING = 1

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


@dataclass(frozen=True, slots=True)
class _Settings:
    """Those of an existing topic: what is in force, and what the topic itself has been given."""

    in_force: dict[str, str] = field(default_factory=dict)
    own: dict[str, str] = field(default_factory=dict)

    def differing_from(self, wanted: dict[str, str]) -> dict[str, str]:
        """What is in force instead of the wanted values; settings that the broker does not know do not differ."""
        known = wanted.keys() & self.in_force.keys()
        return {name: self.in_force[name] for name in sorted(known) if self.in_force[name] != wanted[name]}


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
            NewTopic(name, wanted, replicas, topic_configs=_without(config, _ANY_TIME) | durable)
            for name, config in TOPIC_CONFIGS.items()
            if name not in existing
        ]
        # The leader topic exists only because Faust subscribes a role without topics to it.
        missing.append(NewTopic(OMS_LEADER, 1, replicas))
        created = sorted(await _create(admin, missing))
        mended = await _mend(admin, TOPIC_CONFIGS.keys())
        changes = [change for name in existing for change in mended.get(name, ())]
        return TopicChanges(wanted, created, sorted(changes))


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
            raise SetupError(f"topics are missing ({', '.join(missing)}); run `forkast init` once to create them.")
        _check_partition_counts(existing, existing[ORDERS_NEW])
        for name, settings in sorted((await _settings(admin, TOPIC_CONFIGS.keys())).items()):
            for setting, value in settings.differing_from(_without(TOPIC_CONFIGS[name], _QUICK_TO_READ)).items():
                raise SetupError(
                    f"topic {name} has {setting}={value}, with which the exchange would lose or misjudge records, "
                    f"instead of {TOPIC_CONFIGS[name][setting]}; run `forkast init` once to mend it."
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


def _without(config: dict[str, str], those: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in config.items() if name not in those}


async def _settings(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, _Settings]:
    """Settings of topics that exist; those that we may not see are left out, which is logged."""
    asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in sorted(names)]
    found: dict[str, _Settings] = {}
    for response in await admin.describe_configs(asked) if asked else ():
        for code, message, _, name, entries in response.resources:
            if code:
                reason = message or for_code(code).__name__
                log.warning("the settings of topic %s cannot be seen, so they are not checked: %s", name, reason)
                continue
            found[name] = _Settings(
                {setting: value for setting, value, *_ in entries},
                {setting: value for setting, value, _, source, *_ in entries if source == _OWN_SETTING},
            )
    return found


async def _mend(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, list[str]]:
    """Give topics the settings they lack; return what was changed, by topic."""
    mended = {}
    for name, settings in sorted((await _settings(admin, names)).items()):
        wanted = TOPIC_CONFIGS[name]
        if differing := settings.differing_from(wanted):
            # All that a topic has of its own has to be named, or it goes back to the broker's default.
            own = settings.own | {setting: wanted[setting] for setting in differing}
            await _alter(admin, ConfigResource(ConfigResourceType.TOPIC, name, own))
            mended[name] = [f"{name}: {setting} was {was}, is {wanted[setting]}" for setting, was in differing.items()]
    # A broker takes note of a change only after it has answered.
    settling = AsyncRetrying(
        stop=stop_after_delay(_SETTLE_S),
        wait=wait_fixed(_SETTLE_POLL_S),
        retry=retry_if_exception_type(SetupError),
        reraise=True,
    )
    async for attempt in settling:
        with attempt:
            for name, settings in (await _settings(admin, mended)).items():
                if settings.differing_from(TOPIC_CONFIGS[name]):
                    raise SetupError(f"topic {name} has been given its settings and does not show them; try again.")
    return mended


async def _alter(admin: AIOKafkaAdminClient, topic: ConfigResource) -> None:
    for response in await admin.alter_configs([topic]):
        for code, message, *_ in response.resources:
            if code:
                settings = ", ".join(f"{name}={value}" for name, value in TOPIC_CONFIGS[topic.name].items())
                raise SetupError(
                    f"topic {topic.name} could not be given its settings ({message or for_code(code).__name__}); "
                    f"let its administrator set {settings}."
                )
