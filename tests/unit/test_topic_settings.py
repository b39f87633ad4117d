"""Settings of topics with brokers that show them late, refuse some, or do not know them."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import TopicAuthorizationFailedError, UnknownTopicOrPartitionError

from forkast_streams import topic_settings, topics
from forkast_streams.errors import SetupError
from forkast_streams.topic_settings import differences, mend

WANTED = {"log": {"retention.ms": "-1", "segment.bytes": "8", "of.newer.brokers": "1"}}
REQUIRED = {"retention.ms"}
_ERROR_OF_POLICY = 44


class Brokers:
    """Topics with their settings; each may be unknown at first, and settings may be refused."""

    def __init__(self, **settings: str) -> None:
        self.settings = {"retention.ms": "9", "segment.bytes": "9"} | settings
        self.own = {"mine": "1"}
        self.unknown = 0
        self.error = 0
        self.refused: set[str] = set()

    async def describe_configs(self, _: Any) -> list[Any]:
        """What is in force."""
        code = self.error
        if self.unknown:
            self.unknown -= 1
            code = UnknownTopicOrPartitionError.errno
        entries = [(name, value, False, 5) for name, value in self.settings.items()]
        entries += [(name, value, False, 1) for name, value in self.own.items()]
        return [SimpleNamespace(resources=[(code, "", 2, "log", entries)])]

    async def alter_configs(self, resources: list[Any]) -> list[Any]:
        """Replace all that the topic has of its own."""
        [resource] = resources
        if self.refused & resource.configs.keys():
            return [SimpleNamespace(resources=[(_ERROR_OF_POLICY, "by policy", 2, "log")])]
        self.own = resource.configs
        self.settings |= {name: value for name, value in resource.configs.items() if name in self.settings}
        return [SimpleNamespace(resources=[(0, "", 2, "log")])]


async def mended(brokers: Brokers) -> dict[str, dict[str, str]]:
    return await mend(cast("Any", brokers), WANTED, REQUIRED)


async def test_what_differs_is_mended_and_the_rest_is_kept() -> None:
    """A setting that the broker does not know is no difference."""
    brokers = Brokers()
    assert await mended(brokers) == {"log": {"retention.ms": "9", "segment.bytes": "9"}}
    assert brokers.own == {"mine": "1", "retention.ms": "-1", "segment.bytes": "8"}
    assert await mended(brokers) == {}


async def test_a_topic_that_was_made_this_moment_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker that is asked may not know it yet; one that it never knows is an error."""
    monkeypatch.setattr(topic_settings, "_SETTLE_POLL_S", 0.001)
    brokers = Brokers()
    brokers.unknown = 3
    assert "log" in await mended(brokers)
    monkeypatch.setattr(topic_settings, "_SETTLE_S", 0.01)
    brokers.unknown = 1_000
    with pytest.raises(SetupError, match="topic log is not there"):
        await differences(cast("Any", brokers), WANTED)


async def test_only_what_is_required_must_be_mended() -> None:
    """A provider may have settings that nobody changes."""
    brokers = Brokers()
    brokers.refused = {"segment.bytes"}
    assert await mended(brokers) == {"log": {"retention.ms": "9"}}
    brokers = Brokers()
    brokers.refused = {"retention.ms"}
    with pytest.raises(SetupError, match=r"topic log cannot be given retention.ms=-1 \(by policy\)"):
        await mended(brokers)


async def test_settings_that_may_not_be_seen_are_left_out() -> None:
    brokers = Brokers()
    brokers.error = TopicAuthorizationFailedError.errno
    assert await differences(cast("Any", brokers), WANTED) == {}
    assert await mended(brokers) == {}


async def test_a_worker_that_may_not_describe_a_topic_is_told_which_right_it_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Brokers do not tell a topic that is hidden from one that is not there."""

    class Hiding:
        """Brokers with nothing to show."""

        async def list_topics(self) -> list[str]:
            """None."""
            return []

    monkeypatch.setattr(topics, "_admin", lambda _: nullcontext(Hiding()))
    with pytest.raises(SetupError, match=r"orders\.dead, .*DESCRIBE"):
        await topics.require_topics([])
