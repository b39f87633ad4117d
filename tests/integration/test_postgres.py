"""The pool on a real server."""

from __future__ import annotations

import asyncio
import time

from forkast_streams.storage.postgres import Postgres


async def test_an_answer_that_the_loop_is_not_told_of_is_found(stack_env: dict[str, str]) -> None:
    """A connection that the loop has lost, as after a crash of the server, costs a moment and is not used again."""
    async with Postgres(stack_env["DATABASE_URL"], connections=1) as postgres:
        assert await postgres.fetch("SELECT 1") == [(1,)]
        pool = postgres._pool
        assert pool is not None
        async with asyncio.timeout(10):
            while not pool._free:  # noqa: ASYNC110 - the ping may have it
                await asyncio.sleep(0.01)
        connection = pool._free[0]
        asyncio.get_running_loop().remove_reader(connection._fileno)
        started = time.monotonic()
        # Slower than the first look at the socket, which would find the answer without being told.
        assert await postgres.fetch("SELECT 2 FROM pg_sleep(0.2)") == [(2,)]
        assert time.monotonic() - started < 5.0
        assert connection.closed
        assert await postgres.fetch("SELECT 3") == [(3,)]
