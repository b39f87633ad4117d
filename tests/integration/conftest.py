"""An exchange of market data alone, for the tests of books and streams."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from forkast_streams.market_data.feed import LocalFeed
from forkast_streams.storage.redis import connect
from tests.integration.market_data import Exchange, run_exchange


@pytest.fixture(params=["keeper's process", "another process"])
def feed(request: pytest.FixtureRequest) -> LocalFeed | None:
    """Whether streams are served by the process that publishes, or by another one."""
    return LocalFeed() if request.param == "keeper's process" else None


@pytest.fixture
async def exchange(stack_env: dict[str, str], feed: LocalFeed | None) -> AsyncIterator[Exchange]:
    """An exchange on an empty Redis."""
    redis = connect(stack_env["REDIS_URL"])
    await redis.flushall()
    await redis.aclose()
    async with run_exchange(stack_env["REDIS_URL"], feed=feed) as exchange:
        yield exchange
