"""A short part of the fault matrix on one exchange; ``make chaos`` runs all of it, each on an exchange of its own."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from tests.chaos.exchange import Exchange
from tests.chaos.scenario import Result, run
from tests.chaos.scenarios import SCENARIOS

# Poison, a kill of an engine, a broker that dies; the acceptance tests kill each role, and those of the sink the sink.
_SHORT = ("F-21", "F-1", "F-8")


def test_what_breaks_comes_back_and_the_log_is_right() -> None:
    """Each fault ends within its limits with every event equal to a naive replay and the tables equal to the log."""

    async def run_short(folder: Path) -> list[Result]:
        exchange = Exchange(folder)
        try:
            await exchange.start()
            # The last one's audit judges the whole log, and what all clients were told.
            return [
                await run(SCENARIOS[name], exchange, seed, quick=True, audited=name == _SHORT[-1])
                for seed, name in enumerate(_SHORT)
            ]
        finally:
            await exchange.stop()

    with tempfile.TemporaryDirectory(prefix="forkast-chaos-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        # Postgres has a user of its own when we are root.
        folder.chmod(0o755)
        results = asyncio.run(run_short(folder))
    assert [(result.name, result.failures) for result in results] == [(name, []) for name in _SHORT]
    assert sum(result.verdict.events for result in results) > 1_000
