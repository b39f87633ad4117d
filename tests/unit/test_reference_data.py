"""What the log and the table say of a symbol's status when Kafka or the database goes in the middle."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError, TopicAuthorizationFailedError

from forkast_streams import reference_data
from forkast_streams.config import Settings
from forkast_streams.errors import SetupError, Unavailable
from forkast_streams.reference_data import publish_symbols, set_status, sync_symbols

SEEN = datetime(2030, 1, 2, 3, 4, 5)  # noqa: DTZ001 - as the column has it
ROW = {
    "id": 7, "symbol": "AAPL", "tickSize": "0.01", "lotSize": "1", "status": "TRADING", "minQuantity": None,
    "maxQuantity": None, "minNotional": None, "priceCollar": None, "maxOpenOrders": None,
}  # fmt: skip
SETTINGS = Settings.from_env({"KAFKA_BROKERS": "127.0.0.1:1"})


class Servers:
    """Kafka and Postgres as one list of what was done; each step can be made to fail.

    Attributes:
        done: the steps that succeeded, in their order.
        fail: errors by step.
        log: SYMBOL commands that the log has.
    """

    def __init__(self) -> None:
        self.done: list[str] = []
        self.fail: dict[str, Exception] = {}
        self.log: list[dict[str, Any]] = []
        self.status = ROW["status"]

    def do(self, step: str) -> None:
        if step in self.fail:
            raise self.fail[step]
        self.done.append(step)


class Client:
    """A Kafka consumer or producer, or Postgres."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    # Postgres

    async def query(self, name: str, **parameters: Any) -> list[dict[str, Any]]:
        self._servers.do(name)
        if name == "symbols":
            return [ROW | {"status": self._servers.status}]
        if name == "symbol_written_at":
            return [{"updatedAt": SEEN}]
        assert (name, parameters["id"], parameters["seen"]) == ("set_symbol_status", 7, SEEN)
        self._servers.status = parameters["status"]
        return [{"id": 7}]

    # Kafka

    async def partition_count(self, _: str) -> int:
        self._servers.do("partition_count")
        return 1

    async def send(self, _: str, *, value: bytes, **__: Any) -> None:
        self._servers.do("send")
        self._servers.log.append(json.loads(value))

    async def start(self) -> None:
        self._servers.do("start")

    async def stop(self) -> None:
        self._servers.do("stop")

    async def seek_to_end(self) -> None:
        self._servers.do("seek_to_end")

    def assign(self, tps: list[TopicPartition]) -> None:
        assert len(tps) == 1

    def assignment(self) -> set[TopicPartition]:
        return set()

    async def getmany(self, **_: Any) -> dict[Any, list[Any]]:
        self._servers.do("getmany")
        data = {"commandId": self._servers.log[-1]["commandId"]}
        return {0: [type("Answer", (), {"value": json.dumps({"type": "SYMBOL", "data": data})})]}


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Servers:
    servers = Servers()

    def client(*_: Any, **__: Any) -> Client:
        return Client(servers)

    async def require_topics(_: list[str]) -> None:
        servers.do("require_topics")

    for name in ("Postgres", "EventProducer", "AIOKafkaConsumer"):
        monkeypatch.setattr(reference_data, name, client)
    monkeypatch.setattr(reference_data, "require_topics", require_topics)
    return servers


async def halt() -> Any:
    return await set_status(SETTINGS, "AAPL", "HALTED")


async def test_the_table_follows_the_log(servers: Servers) -> None:
    published = await halt()
    assert published is not None
    assert published.is_answered
    assert servers.done.index("send") < servers.done.index("set_symbol_status") < servers.done.index("getmany")
    assert servers.status == servers.log[-1]["status"] == "HALTED"
    assert servers.done[-1] == "stop"


@pytest.mark.parametrize("step", ["start", "partition_count", "seek_to_end"])
async def test_without_kafka_nothing_is_changed(servers: Servers, step: str) -> None:
    """One sentence, no connection left, and log and table as they were."""
    servers.fail[step] = KafkaConnectionError("refused")
    with pytest.raises(SetupError, match=r"Kafka is not reachable at 127\.0\.0\.1:1; start it"):
        await halt()
    assert servers.status == "TRADING"
    assert servers.log == []
    assert "stop" in servers.done


@pytest.mark.parametrize("error", [KafkaTimeoutError(), TopicAuthorizationFailedError()])
async def test_what_kafka_has_not_acknowledged_is_not_in_the_table(servers: Servers, error: KafkaError) -> None:
    """Nobody knows whether the log has it, and the sentence says that it can be given again."""
    servers.fail["send"] = error
    with pytest.raises(SetupError, match=r"rules of AAPL .* may have them or not; .* give the command again"):
        await halt()
    assert servers.status == "TRADING"
    assert "stop" in servers.done
    del servers.fail["send"]
    await halt()
    assert servers.status == "HALTED"


async def test_a_database_that_goes_after_the_log_has_it_is_told_apart(servers: Servers) -> None:
    """The sentence says what the log has, why the table has not, and what to do; again, it brings both together."""
    away = Unavailable("the database is out of reach; try again shortly")
    away.__cause__ = OSError("connection refused")
    servers.fail["set_symbol_status"] = away
    with pytest.raises(SetupError) as told:
        await halt()
    for part in ("AAPL is HALTED", "(connection refused)", "do not sync", "give this command again"):
        assert part in str(told.value)
    assert servers.log[-1]["status"] == "HALTED"
    assert servers.done[-1] == "stop"
    del servers.fail["set_symbol_status"]
    await halt()
    assert servers.status == servers.log[-1]["status"] == "HALTED"


async def test_who_cannot_be_heard_has_not_answered(servers: Servers) -> None:
    """Kafka goes after it has acknowledged: the change is made, in the log and in the table."""
    servers.fail["getmany"] = KafkaConnectionError("gone")
    published = await halt()
    assert published is not None
    assert not published.is_answered
    assert servers.status == servers.log[-1]["status"] == "HALTED"


@pytest.mark.parametrize("publish", [publish_symbols, sync_symbols])
@pytest.mark.parametrize(
    ("step", "sentence"), [("partition_count", "Kafka is not reachable"), ("send", "has not acknowledged")]
)
async def test_publishing_all_symbols_tells_it_too(
    servers: Servers, publish: Callable[[Settings], Any], step: str, sentence: str
) -> None:
    servers.fail[step] = KafkaConnectionError("refused")
    with pytest.raises(SetupError, match=sentence):
        await publish(SETTINGS)
    assert servers.log == []
