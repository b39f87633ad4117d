"""Fixtures for every test: one set of real servers for the whole run."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from forkast_streams.compiled import require_fresh
from forkast_streams.devstack import Stack
from forkast_streams.errors import SetupError
from tests.integration.exchange import fresh_stack


def pytest_sessionstart() -> None:
    """Test no compiled module of another source."""
    try:
        require_fresh()
    except SetupError as exc:
        pytest.exit(str(exc), returncode=pytest.ExitCode.USAGE_ERROR)


@pytest.fixture(scope="session", autouse=True)
def _finalizers_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the run as Ctrl-C does, so that servers are stopped then, too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Kafka, Postgres and Redis on free ports, shared by the run; make topics and names of your own."""
    with fresh_stack() as stack:
        yield stack


@pytest.fixture(scope="session")
def stack_env(stack: Stack) -> dict[str, str]:
    """The servers' addresses under the names that processes read: ``KAFKA_BROKERS`` and so on."""
    return stack.env()
