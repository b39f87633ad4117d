"""Fixtures for every test: one set of real servers for the whole run."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from forkast_streams.compiled import require_fresh
from forkast_streams.devstack import Stack
from forkast_streams.errors import SetupError
from forkast_streams.supervisor import unwind_on_ending_signals
from tests.integration.exchange import fresh_stack

_LOG_CHARACTERS = 20_000


def pytest_sessionstart() -> None:
    """Test no compiled module of another source."""
    try:
        require_fresh()
    except SetupError as exc:
        pytest.exit(str(exc), returncode=pytest.ExitCode.USAGE_ERROR)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a test that fails what its workers have logged; their files are gone after the next runs."""
    report = yield
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if report.failed and isinstance(folder, Path):
        for log in sorted(folder.rglob("*.log")):
            report.sections.append((f"the end of {log.name}", log.read_text(errors="replace")[-_LOG_CHARACTERS:]))
    return report


@pytest.fixture(scope="session", autouse=True)
def _finalizers_on_signals() -> Iterator[None]:
    """Let SIGTERM and a terminal that closes end the run as Ctrl-C does, so that servers are stopped then, too."""
    before = unwind_on_ending_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Kafka, Postgres and Redis on free ports, shared by the run; make topics and names of your own."""
    with fresh_stack() as stack:
        yield stack


@pytest.fixture(scope="session")
def stack_env(stack: Stack) -> dict[str, str]:
    """The servers' addresses under the names that processes read: ``KAFKA_BROKERS`` and so on."""
    return stack.env()
