"""The audit that never ends: nothing ends it, and who stands still makes it red."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from forkast_streams.audit import follow
from forkast_streams.audit.capture import ENGINE_GROUP, SINK_GROUP, Exchange
from forkast_streams.audit.evidence import ORDERS_DEAD, ORDERS_EXCHANGE, ORDERS_NEW, Row, TablesCut
from forkast_streams.audit.follow import Follower, metrics
from forkast_streams.audit.records import Record
from forkast_streams.audit.standstill import STANDSTILL_S
from forkast_streams.errors import SetupError
from tests.support.audit_world import HOME, World, _sums, order_id
from tests.support.flows import PARTITIONS, order_command, symbol_command


class Servers:
    """Kafka and Postgres of a world, in the place of the clients that the follower makes.

    Attributes:
        answered: how many inputs the engine has committed, whose events are all that is there.
        stored: how many events the sink has stored.
        fails: raised when the tables are read.
    """

    def __init__(self) -> None:
        self.world = World()
        self.world.send_command(symbol_command(1))
        for number in range(1, 10):
            self.world.send_command(order_command(id=order_id(number)))
        self.world.process()
        self.answered = self.stored = len(self.world.inputs[HOME])
        self.fails: Exception | None = None
        self.now = 0.0
        self.partitions, self.later_columns = PARTITIONS, list[str]()

    def committed(self, group: str, _: str) -> dict[int, int]:
        committed = dict.fromkeys(range(PARTITIONS), 0)
        return committed | {HOME: {ENGINE_GROUP: self.answered, SINK_GROUP: self.stored}[group]}

    def ends(self, topic: str) -> dict[int, int]:
        ends = dict.fromkeys(range(PARTITIONS), 0)
        return ends | {HOME: {ORDERS_NEW: len(self.world.inputs[HOME]), ORDERS_DEAD: 0}.get(topic, self.answered)}

    def records(self, topic: str, partition: int, start: int, end: int) -> Iterator[Record]:
        topics = {ORDERS_NEW: self.world.inputs, ORDERS_EXCHANGE: self.world.events, ORDERS_DEAD: self.world.letters}
        return iter(self.world._numbered(topics[topic][partition])[start:end])

    def cut(self, committed: dict[int, int]) -> TablesCut:
        if self.fails is not None:
            raise self.fails
        world = World()
        world.events[HOME] = self.world.events[HOME][: self.stored]
        tables = world.derive().tables
        assert tables is not None
        tables.orders, tables.trades, tables.committed = _sums(world.rows["Order"]), {}, committed
        return tables

    def rows(self, *_: object) -> Iterator[Row]:
        return iter(())

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def servers() -> Servers:
    return Servers()


@pytest.fixture
def follower(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[Follower]:
    """A follower of these servers."""
    monkeypatch.setattr(follow, "KafkaLog", lambda _: servers)
    monkeypatch.setattr(follow, "TablesSnapshot", lambda _: servers)
    follower = Follower(Exchange(["kafka"], "postgresql://", None), clock=lambda: servers.now)
    yield follower
    follower.close()


def _engine_stops(servers: Servers) -> None:
    servers.answered = servers.stored = 5


def _sink_stops(servers: Servers) -> None:
    servers.stored = 5


@pytest.mark.parametrize(("stops", "who"), [(_engine_stops, "the engine"), (_sink_stops, "the sink")])
def test_who_stands_still_makes_it_red(
    servers: Servers, follower: Follower, stops: Callable[[Servers], None], who: str
) -> None:
    """After more than a minute without getting on; it is green again when the work goes on."""
    stops(servers)
    for servers.now in (0.0, STANDSTILL_S):
        follower.run_pass()
        assert follower.why_not_ready is None
    servers.now += 1
    follower.run_pass()
    assert f"{who} has stood at 5 of 10 of partition {HOME}" in (follower.why_not_ready or "")
    assert "forkast_audit_ok 0" in list(metrics(follower))
    servers.answered = servers.stored = 10
    follower.run_pass()
    assert follower.why_not_ready is None
    assert not follower.findings.violations


@pytest.mark.parametrize("failure", [SetupError("Postgres cannot be read"), ZeroDivisionError("a mistake")])
def test_no_failure_ends_it(servers: Servers, follower: Follower, failure: Exception) -> None:
    """Whatever a pass fails with is the reason why it is not ready, until one is through again."""
    servers.fails = failure
    follower.run_pass()
    assert str(failure) in (follower.why_not_ready or "")
    servers.fails = None
    follower.run_pass()
    assert (follower.why_not_ready, follower.passes) == (None, 1)
