"""The operators' commands find the servers of the exchange they are called beside."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from forkast_streams.cli import app, main
from forkast_streams.cli.servers import settings_of_exchange
from forkast_streams.devstack import Stack
from forkast_streams.kafka_security import KafkaSecurity
from forkast_streams.storage.postgres import Postgres, prepare_database

_VARIABLES = ("KAFKA_BROKERS", "REDIS_URL", "DATABASE_URL")


@pytest.fixture
def beside(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """A shell in which no server is named, with the data folder of the running stack."""
    asyncio.run(prepare_database(stack.env()["DATABASE_URL"], demo_users=True))
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FORKAST_DATA_DIR", str(stack.data_dir))
    return stack


def _symbols() -> Result:
    return CliRunner().invoke(app, ["symbols", "list"])


def test_the_stack_of_the_data_folder_is_found_and_named(beside: Stack) -> None:
    listed = _symbols()
    assert listed.exit_code == 0
    assert "AAPL" in listed.output
    assert f"Using the servers of {beside.data_dir}" in listed.output.replace("\n", "")


def test_what_enters_another_kafka_is_left_out_for_the_stack(beside: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which speaks plain text on this machine; a file that is not there is nothing to it."""
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SSL")
    monkeypatch.setenv("KAFKA_SSL_CAFILE", "/nonexistent")
    settings = settings_of_exchange()
    assert settings.database_url == beside.env()["DATABASE_URL"]
    assert settings.kafka_security == KafkaSecurity()


@pytest.mark.usefixtures("beside")
def test_a_server_that_the_environment_names_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    listed = _symbols()
    assert listed.exit_code != 0
    assert "Using the servers" not in listed.output


@pytest.mark.usefixtures("beside")
def test_a_server_that_is_out_of_reach_is_told_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setattr("sys.argv", ["forkast", "symbols", "list"])
    with pytest.raises(SystemExit, match="1"):
        main()
    told = capsys.readouterr().err
    assert "the database is out of reach" in told
    assert "Connection refused" in told


async def _row(postgres: Postgres, name: str) -> tuple[Any, ...]:
    [row] = await postgres.fetch('SELECT id, status, "updatedAt" FROM "Symbol" WHERE symbol = %(name)s', {"name": name})
    return row


def test_without_kafka_a_halt_is_one_sentence_and_changes_nothing(
    beside: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = beside.env()["DATABASE_URL"]
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("KAFKA_BROKERS", "127.0.0.1:1")

    async def row() -> tuple[Any, ...]:
        async with Postgres(url) as postgres:
            return await _row(postgres, "AAPL")

    before = asyncio.run(row())
    for command in (["halt", "AAPL"], ["sync"]):
        monkeypatch.setattr("sys.argv", ["forkast", "symbols", *command])
        with pytest.raises(SystemExit, match="1"):
            main()
        told = capsys.readouterr().err
        assert told.strip().startswith("Kafka is not reachable at 127.0.0.1:1")
        assert len(told.splitlines()) == 1, told
    assert asyncio.run(row()) == before


def test_a_folder_without_a_stack_changes_nothing(
    beside: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert beside.data_dir != tmp_path
    monkeypatch.setenv("FORKAST_DATA_DIR", str(tmp_path))
    assert "Using the servers" not in _symbols().output
    assert list(tmp_path.iterdir()) == []
