"""What `forkast symbols` sends and says: of rows that the engine refuses, of its answers, and when Kafka goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError, TopicAuthorizationFailedError
from psycopg2.errors import UndefinedTable
from typer.testing import CliRunner, Result

from forkast_streams import reference_data
from forkast_streams.cli import symbols as command_line
from forkast_streams.config import Settings
from forkast_streams.engine_partition import EnginePartition
from forkast_streams.errors import SetupError
from forkast_streams.producer_keys import KeyFile, KeyRing, Span
from forkast_streams.reference_data import publish_symbols, set_status, sync_symbols
from tests.support.flows import PARTITIONS, START_MS, Record, home_of, order_command

ROW = {
    "id": 7, "symbol": "AAPL", "tickSize": Decimal("0.01"), "lotSize": Decimal(1), "status": "TRADING",
    "minQuantity": None, "maxQuantity": None, "minNotional": None, "priceCollar": None, "maxOpenOrders": None,
}  # fmt: skip
SETTINGS = Settings.from_env({"KAFKA_BROKERS": "127.0.0.1:1"})


class Servers:
    """Kafka, an engine and Postgres, with one list of what was done; each step can be made to fail.

    Attributes:
        done: the steps that succeeded, in their order.
        fail: errors by step.
        row: the one of the table.
        log: SYMBOL commands that the log has.
        engine: reads them.
        answers: what it said since the consumer was asked last.
    """

    def __init__(self) -> None:
        self.done: list[str] = []
        self.fail: dict[str, Exception] = {}
        self.row = dict(ROW)
        self.log: list[dict[str, Any]] = []
        self.engine = EnginePartition(home_of(7), PARTITIONS)
        self.answers: list[Any] = []

    def do(self, step: str) -> None:
        if step in self.fail:
            raise self.fail[step]
        self.done.append(step)

    def take(self, value: bytes) -> None:
        """Let the log and the engine have a command."""
        self.log.append(json.loads(value))
        outputs = self.engine.process([Record(len(self.log) - 1, START_MS + len(self.log), b"7", value)])
        self.answers += [Answer("orders.exchange", event.value, event.headers) for event in outputs.events]
        self.answers += [Answer("orders.dead", letter.value, letter.headers) for letter in outputs.dead]

    @property
    def status(self) -> str:
        """The symbol's status in the engine."""
        return self.engine.engine.markets[7].symbol.status


class Answer(NamedTuple):
    topic: str
    value: bytes | None
    headers: Any


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
        assert (name, parameters) == ("symbols", {})
        self._servers.do(name)
        return [dict(self._servers.row)]

    # Kafka

    async def partition_count(self, _: str) -> int:
        self._servers.do("partition_count")
        return 1

    async def send(self, _: str, *, value: bytes, **__: Any) -> None:
        self._servers.do("send")
        self._servers.take(value)

    async def start(self) -> None:
        self._servers.do("start")

    async def stop(self) -> None:
        self._servers.do("stop")

    async def seek_to_end(self) -> None:
        self._servers.do("seek_to_end")

    def assign(self, tps: list[TopicPartition]) -> None:
        assert {tp.topic for tp in tps} == {"orders.exchange", "orders.dead"}

    def assignment(self) -> set[TopicPartition]:
        return set()

    async def getmany(self, **_: Any) -> dict[Any, list[Any]]:
        self._servers.do("getmany")
        answers, self._servers.answers = self._servers.answers, []
        await asyncio.sleep(0)
        return {0: answers}


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
    monkeypatch.setattr(reference_data, "_ANSWER_S_MAX", 0.05)
    monkeypatch.setattr(command_line, "settings_of_exchange", lambda: SETTINGS)
    return servers


async def halt() -> Any:
    return await set_status(SETTINGS, "AAPL", "HALTED")


def forkast(*arguments: str) -> Result:
    """``forkast symbols`` as it is called."""
    return CliRunner().invoke(command_line.app, arguments)


async def test_a_halt_is_told_once_the_engine_has_it(servers: Servers) -> None:
    published = await halt()
    assert published is not None
    assert (published.is_answered, published.status, servers.status) == (True, "HALTED", "HALTED")
    assert servers.done[-1] == "stop"


def test_a_table_behind_the_log_opens_no_halted_market(servers: Servers) -> None:
    """Neither `init` and `up` nor `sync` says a status for a symbol that is there; `resume` does."""
    asyncio.run(publish_symbols(SETTINGS))
    assert "AAPL is HALTED" in forkast("halt", "AAPL").output
    assert servers.row["status"] == "TRADING"
    asyncio.run(publish_symbols(SETTINGS))
    assert servers.status == "HALTED"
    servers.row["minQuantity"] = Decimal(5)
    assert "AAPL stays HALTED, as the log has it" in forkast("sync").output
    assert (servers.status, servers.engine.engine.markets[7].symbol.min_lots) == ("HALTED", 5)
    assert "AAPL is TRADING" in forkast("resume", "AAPL").output
    assert servers.status == "TRADING"


def test_a_symbol_that_is_new_gets_its_status_from_the_table(servers: Servers) -> None:
    servers.row["status"] = "CANCEL_ONLY"
    assert "stays" not in forkast("sync").output
    assert servers.status == "CANCEL_ONLY"


@pytest.mark.parametrize("command", [["halt", "AAPL"], ["sync"]])
def test_a_command_that_ends_as_a_dead_letter_is_no_success(servers: Servers, command: list[str]) -> None:
    """Signatures are required, and the operator's shell has no key: told at once, with the reason and the remedy."""
    servers.engine.producer_keys = KeyRing(KeyFile(required=(Span(0),)))
    refused = forkast(*command)
    assert isinstance(refused.exception, SetupError)
    for part in ("nothing has changed, for AAPL: UNSIGNED,", "set FORKAST_PRODUCER_KEY"):
        assert part in str(refused.exception)
    assert "from here on" not in refused.output
    assert "No engine" not in refused.output


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        ("priceCollar", Decimal(10), "priceCollar must be a fraction below 1"),
        ("symbol", "A" * 33, "symbol must be a name of 1 to 32 characters"),
        ("status", "OPEN", "status must be one of TRADING"),
        ("maxOpenOrders", 0, "maxOpenOrders must be a positive integer"),
        ("tickSize", Decimal("NaN"), "tickSize as text must be a plain decimal number"),
        ("minQuantity", Decimal(-1), "minQuantity must be between"),
    ],
)
async def test_a_row_that_the_engine_refuses_is_not_published(
    servers: Servers, column: str, value: Any, sentence: str
) -> None:
    """The table takes it, and it would become a dead letter: nothing is sent, and the sentence names the column."""
    servers.row[column] = value
    for publish in (publish_symbols, sync_symbols):
        with pytest.raises(SetupError, match=rf"\(id 7\): {sentence}.* Correct these columns"):
            await publish(SETTINGS)
    if column != "status":
        with pytest.raises(SetupError, match=sentence):
            await set_status(SETTINGS, "7", "HALTED")
    assert servers.log == []


@pytest.mark.parametrize("command", [["list"], ["sync"], ["halt", "AAPL"]])
def test_a_database_without_tables_is_a_sentence(servers: Servers, command: list[str]) -> None:
    servers.fail["symbols"] = UndefinedTable('relation "Symbol" does not exist\nLINE 3: FROM "Symbol"')
    refused = forkast(*command)
    assert str(refused.exception) == (
        'The database has no symbols (relation "Symbol" does not exist); run `forkast init`.'
    )


def test_rules_that_the_engine_refuses_are_no_success(servers: Servers) -> None:
    """Orders are open, and the row has another tick size: a halt does not halt, and says so."""
    forkast("sync")
    servers.take(json.dumps(order_command(7)).encode())
    servers.row["tickSize"] = Decimal("0.5")
    refused = forkast("halt", "AAPL")
    assert "The engine goes on with the rules it had, for AAPL" in str(refused.exception)
    assert "from here on" not in refused.output
    assert servers.status == "TRADING"


@pytest.mark.parametrize("step", ["start", "partition_count", "seek_to_end"])
async def test_without_kafka_nothing_is_changed(servers: Servers, step: str) -> None:
    """One sentence, no connection left, and the log as it was."""
    servers.fail[step] = KafkaConnectionError("refused")
    with pytest.raises(SetupError, match=r"Kafka is not reachable at 127\.0\.0\.1:1; start it"):
        await halt()
    assert servers.log == []
    assert "stop" in servers.done


@pytest.mark.parametrize("error", [KafkaTimeoutError(), TopicAuthorizationFailedError()])
async def test_what_kafka_has_not_acknowledged_can_be_given_again(servers: Servers, error: KafkaError) -> None:
    """Nobody knows whether the log has it, and the sentence says that it can be given again."""
    servers.fail["send"] = error
    with pytest.raises(SetupError, match=r"rules of AAPL .* may have them or not; .* give the command again"):
        await halt()
    assert "stop" in servers.done
    del servers.fail["send"]
    await halt()
    assert servers.status == "HALTED"


def test_who_cannot_be_heard_has_not_answered(servers: Servers) -> None:
    """Kafka goes after it has acknowledged: the log has the change, and nobody claims more."""
    servers.fail["getmany"] = KafkaConnectionError("gone")
    told = forkast("halt", "AAPL")
    assert servers.log[-1]["status"] == "HALTED"
    assert (told.exit_code, "is HALTED" in told.output) == (0, False)
    assert "No engine has answered yet for AAPL; the commands wait in the log" in told.output


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


@pytest.mark.parametrize("value", [b'{"commandId":"\xff"}', b"[" * 5_000, b"", None, b'{"commandId":3}'])
def test_a_dead_letter_of_anybody_is_passed_over(value: bytes | None) -> None:
    """It has the value of what was refused, whatever that is."""
    waiting = {"mine": object()}
    reference_data._take_dead_letter(SimpleNamespace(value=value, headers=()), cast("Any", waiting))
    assert list(waiting) == ["mine"]
