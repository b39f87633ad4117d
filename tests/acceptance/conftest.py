"""One running exchange for all acceptance tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.running import Exchange


@pytest.fixture(scope="session")
def exchange() -> Iterator[Exchange]:
    """One exchange, stopped by Ctrl-C at the end with nothing left behind."""
    with tempfile.TemporaryDirectory(prefix="forkast-up-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        exchange = Exchange(folder)
        try:
            yield exchange.start()
        finally:
            exchange.stop()
            for process in exchange.processes():
                process.kill()
