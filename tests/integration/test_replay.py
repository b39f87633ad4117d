"""``forkast replay`` on a real Kafka and a real engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from forkast_streams.cli.replay import app
from forkast_streams.errors import SetupError
from forkast_streams.storage.postgres import prepare_database
from forkast_streams.topics import ORDERS_EXCHANGE, ORDERS_NEW, ensure_topics
from tests.integration.exchange import PARTITIONS, Worker, produce, read_topic, wait_until
from tests.support.flows import symbol_command
from tests.support.recordings import made_up_day

# Symbols that no other test uses.
FRESH, REUSED, HALTED, NEVER_DEFINED = range(9_200, 9_204)


@pytest.fixture(scope="module")
def exchange(stack_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A running engine that knows the symbols; the servers' addresses."""
    asyncio.run(ensure_topics(stack_env["KAFKA_BROKERS"].split(","), partitions=PARTITIONS))
    statuses = {FRESH: "TRADING", REUSED: "TRADING", HALTED: "HALTED"}
    definitions = [
        (symbol_id, json.dumps(symbol_command(symbol_id, status=status)).encode())
        for symbol_id, status in statuses.items()
    ]
    asyncio.run(produce(stack_env, ORDERS_NEW, definitions))
    worker = Worker("engine", stack_env, tmp_path_factory.mktemp("replay") / "engine")
    worker.start().wait_ready()
    wait_until(lambda: symbols_with_events(stack_env) >= statuses.keys(), "the definition of the symbols")
    yield stack_env
    worker.end()


def symbols_with_events(env: dict[str, str]) -> set[int]:
    events = asyncio.run(read_topic(env, ORDERS_EXCHANGE))
    return {int(record.key) for records in events.values() for record in records}


def replay(env: dict[str, str], *arguments: object) -> Result:
    return CliRunner().invoke(app, ["lobster", *map(str, arguments)], env=env, catch_exceptions=False)


def figures(env: dict[str, str], *arguments: object) -> dict[str, Any]:
    result = replay(env, *arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_recording_comes_out_as_recorded(exchange: dict[str, str], tmp_path: Path) -> None:
    """Through producer, log and engine: all executions, all states, nothing else."""
    messages, states = made_up_day(3_000).save(tmp_path)
    found = figures(exchange, messages, "--symbol", FRESH, "--orderbook", states)
    assert found["answered"] == found["commands"] > 2_500
    assert found["at_head"] == found["at_file_price"] == found["executions"] > 100
    assert found["states"] == found["states_equal"] == 2_999
    assert found["final_levels"] == found["final_levels_equal"]
    assert (found["crossed"], found["trades_elsewhere"], found["rejections"]) == (0, 0, {})


def test_recording_can_be_sent_again(exchange: dict[str, str], tmp_path: Path) -> None:
    """Under another name it trades again, with a warning that the book is not empty; under the same one it is known."""
    messages, _ = made_up_day(300).save(tmp_path)
    first = replay(exchange, messages, "--symbol", REUSED, "--run", "one", "--speed", "1000")
    assert "Warning" not in first.output
    assert "visible executions at the file's price" in first.output
    again = replay(exchange, messages, "--symbol", REUSED, "--run", "two")
    assert "orders rest in the book" in " ".join(again.output.split())
    repeated = figures(exchange, messages, "--symbol", REUSED, "--run", "one")
    assert repeated["trades"] == 0
    assert repeated["rejections"]["DUPLICATE_ORDER"] > 100


def test_symbol_that_takes_no_orders_is_refused(exchange: dict[str, str], tmp_path: Path) -> None:
    """A halted, an undefined and an unknown symbol: a sentence each, before anything is sent."""
    messages, _ = made_up_day(10).save(tmp_path)
    asyncio.run(prepare_database(exchange["DATABASE_URL"], demo_users=False))
    for symbol, sentence in [(HALTED, "is HALTED"), (NEVER_DEFINED, "is not defined"), ("NOPE", "there is no symbol")]:
        with pytest.raises(SetupError, match=sentence):
            replay(exchange, messages, "--symbol", symbol)


@pytest.mark.parametrize("speed", ["0", "-1", "nan", "inf", "fast"])
def test_speed_is_a_number_or_max(speed: str, tmp_path: Path) -> None:
    """Anything else is a usage error."""
    result = replay({}, tmp_path / "none.csv", "--symbol", "1", "--speed", speed)
    assert result.exit_code == 2
    assert "a number above 0, or max" in result.output
