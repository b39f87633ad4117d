"""Looks at the settings of topics and mends them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import UnknownTopicOrPartitionError, for_code
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from forkast_streams.errors import SetupError

log = logging.getLogger(__name__)

_SETTLE_S = 10.0
_SETTLE_POLL_S = 0.05
# Kafka's number for a setting that the topic itself has, and neither its broker nor a default.
_OWN_SETTING = 1


@dataclass(frozen=True, slots=True)
class _Settings:
    """Those of a topic: what is in force, and what the topic itself has been given."""

    in_force: dict[str, str]
    own: dict[str, str]

    def differing_from(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """What is in force instead of the wanted values; settings that the broker does not know do not differ."""
        known = wanted.keys() & self.in_force.keys()
        return {name: self.in_force[name] for name in sorted(known) if self.in_force[name] != wanted[name]}


class _NotYet(SetupError):
    """A broker does not show yet what another one has already done."""


async def differences(admin: AIOKafkaAdminClient, wanted: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """What topics have instead of the wanted settings, by topic; those that we may not see are left out and logged.

    Raises:
        SetupError: a topic is not there.
    """
    return {topic: have.differing_from(wanted[topic]) for topic, have in (await _settings(admin, wanted)).items()}


async def mend(
    admin: AIOKafkaAdminClient, wanted: Mapping[str, Mapping[str, str]], required: Collection[str]
) -> dict[str, dict[str, str]]:
    """Give topics the settings they lack; return what they had instead, by topic.

    Args:
        admin: a client.
        wanted: values by setting, by topic.
        required: the settings that must be mended; what a broker refuses of others is logged.

    Raises:
        SetupError: a required one cannot be mended, or a topic is not there.
    """
    mended: dict[str, dict[str, str]] = {}
    for topic, have in sorted((await _settings(admin, wanted)).items()):
        differing, own = have.differing_from(wanted[topic]), have.own
        for is_required in (True, False):
            chosen = {name: wanted[topic][name] for name in differing if (name in required) is is_required}
            if not chosen:
                continue
            # All that a topic has of its own has to be named, or it goes back to the broker's default.
            refusal = await _alter(admin, topic, own | chosen)
            if refusal is None:
                own |= chosen
                mended.setdefault(topic, {}).update({name: differing[name] for name in chosen})
                continue
            asked = ", ".join(f"{name}={value}" for name, value in chosen.items())
            if is_required:
                raise SetupError(f"topic {topic} cannot be given {asked} ({refusal}); let its administrator set it.")
            log.warning("topic %s was not given %s: %s", topic, asked, refusal)
    await _until_shown(admin, {topic: {name: wanted[topic][name] for name in had} for topic, had in mended.items()})
    return mended


async def _until_shown(admin: AIOKafkaAdminClient, given: Mapping[str, Mapping[str, str]]) -> None:
    """A broker takes note of a change only after it has answered."""
    async for attempt in _settling():
        with attempt:
            if any((await differences(admin, given)).values()):
                raise _NotYet("topics have been given their settings and do not show them; try again.")


async def _settings(admin: AIOKafkaAdminClient, topics: Collection[str]) -> dict[str, _Settings]:
    found: dict[str, _Settings] = {}
    async for attempt in _settling():
        with attempt:
            found = await _settings_now(admin, topics)
    return found


async def _settings_now(admin: AIOKafkaAdminClient, topics: Collection[str]) -> dict[str, _Settings]:
    asked = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in sorted(topics)]
    found: dict[str, _Settings] = {}
    for response in await admin.describe_configs(asked) if asked else ():
        for code, message, _, topic, entries in response.resources:
            reason = message or for_code(code).__name__
            if for_code(code) is UnknownTopicOrPartitionError:
                raise _NotYet(f"topic {topic} is not there ({reason}); run `forkast init`.")
            if code:
                log.warning("the settings of topic %s cannot be seen, so they are not checked: %s", topic, reason)
                continue
            found[topic] = _Settings(
                {name: value for name, value, *_ in entries},
                {name: value for name, value, _, source, *_ in entries if source == _OWN_SETTING},
            )
    return found


async def _alter(admin: AIOKafkaAdminClient, topic: str, settings: Mapping[str, str]) -> str | None:
    """Set all that the topic has of its own; return why it was refused."""
    for response in await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, dict(settings))]):
        for code, message, *_ in response.resources:
            if code:
                return str(message or for_code(code).__name__)
    return None


def _settling() -> AsyncRetrying:
    return AsyncRetrying(
        stop=stop_after_delay(_SETTLE_S),
        wait=wait_fixed(_SETTLE_POLL_S),
        retry=retry_if_exception_type(_NotYet),
        reraise=True,
    )
