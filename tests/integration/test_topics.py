"""Topics that somebody else has made get the settings the exchange relies on, or no worker starts on them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed

from forkast_streams.errors import SetupError
from forkast_streams.topics import ORDERS_NEW, TOPIC_CONFIGS, ensure_topics, require_topics

# What a broker gives a topic that it makes because a client named it, and one setting of its owner.
FOREIGN = {"retention.ms": "604800000", "message.timestamp.type": "CreateTime", "segment.bytes": "1048576"}


@pytest.fixture
async def brokers(stack_env: dict[str, str]) -> list[str]:
    """Those of a Kafka that has the topics."""
    addresses = stack_env["KAFKA_BROKERS"].split(",")
    await ensure_topics(addresses)
    return addresses


@pytest.fixture
async def admin(brokers: list[str]) -> AsyncIterator[AIOKafkaAdminClient]:
    """A client of theirs."""
    client = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await client.start()
    yield client
    await client.close()


async def settings_of(admin: AIOKafkaAdminClient, topic: str) -> dict[str, str]:
    [response] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    [(code, _, _, _, entries)] = response.resources
    assert code == 0
    return {name: value for name, value, *_ in entries}


async def test_a_topic_of_somebody_else_is_refused_until_init_has_mended_it(
    brokers: list[str], admin: AIOKafkaAdminClient
) -> None:
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, ORDERS_NEW, FOREIGN)])
    async for attempt in AsyncRetrying(stop=stop_after_delay(30), wait=wait_fixed(0.05)):
        with attempt:
            # A broker takes note of a change only after it has answered.
            assert not FOREIGN.items() - (await settings_of(admin, ORDERS_NEW)).items()
    with pytest.raises(SetupError, match=r"topic orders\.new has .*run `forkast init` once"):
        await require_topics(brokers)
    changes = await ensure_topics(brokers)
    assert changes.created == []
    assert sorted(changes.mended) == [
        "orders.new: compression.type was producer, is uncompressed",
        "orders.new: message.timestamp.type was CreateTime, is LogAppendTime",
        "orders.new: retention.ms was 604800000, is -1",
    ]
    await require_topics(brokers)
    now = await settings_of(admin, ORDERS_NEW)
    assert (now["message.timestamp.type"], now["segment.bytes"]) == ("LogAppendTime", "1048576")
    assert (await ensure_topics(brokers)).mended == []


async def test_topics_that_are_made_have_all_their_settings(brokers: list[str], admin: AIOKafkaAdminClient) -> None:
    """Those, too, that old brokers do not know, so that topics are made without them at first."""
    for topic, wanted in TOPIC_CONFIGS.items():
        assert not wanted.items() - (await settings_of(admin, topic)).items(), topic
