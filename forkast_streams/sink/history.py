"""The tables' place in a partition of ``orders.exchange``, and how they get further."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import psycopg2.errors

from forkast_streams.errors import CorruptLog, SetupError
from forkast_streams.records import EventRecord
from forkast_streams.repeats import RecentEvents
from forkast_streams.sink.fold import Write, fold
from forkast_streams.storage.postgres import Postgres
from forkast_streams.storage.queries import query

# Of the connections that write: an order that changes is found by its key. Planned while the tables are empty, the
# statement would read them from end to end for as long as the connection lives.
PLAN_OPTIONS: Mapping[str, str] = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}

_OLD_TABLES = "the database's tables are of an earlier version; run `forkast init` once to bring them up to this one."

_encode = msgspec.json.Encoder().encode


class PartitionHistory:
    """The tables' place in one partition, and the only way to write what comes next.

    Args:
        postgres: where the tables are.
        topic: whose place it is.
        partition: of the topic.
        statements: bounds how many histories write at a time; the rows of others are made meanwhile.

    Attributes:
        next_offset: the first offset that is not in the tables.
        sequences: last sequence of each symbol that is in the tables.
        last_digest: `record_digest` of the last record that is in the tables; None: there is none, or an earlier
            version of the sink has written it.
    """

    def __init__(self, postgres: Postgres, topic: str, partition: int, statements: asyncio.Semaphore) -> None:
        self._postgres = postgres
        self._statements = statements
        self._key = {"topic": topic, "partition": partition}
        self._name = f"{topic}-{partition}"
        self.next_offset = 0
        self.sequences: dict[int, int] = {}
        self.last_digest: str | None = None
        self._recent = RecentEvents()

    async def load(self) -> None:
        """Read the place from the tables; wait for Postgres if need be.

        Raises:
            SetupError: the tables are not there, or of an earlier version.
        """
        try:
            await self._postgres.retrying(f"start of {self._name}", self._load)
        except psycopg2.errors.UndefinedTable as exc:
            raise SetupError("the database has no tables; run `forkast init` once to create them.") from exc
        except psycopg2.errors.UndefinedColumn as exc:
            raise SetupError(_OLD_TABLES) from exc

    async def _load(self) -> None:
        await self._postgres.fetch(query("start_progress"), self._key)
        self.next_offset, self.sequences, self.last_digest = await self._read()

    async def _read(self) -> tuple[int, dict[int, int], str | None]:
        rows = await self._postgres.fetch(query("read_progress"), self._key)
        if not rows:
            raise CorruptLog(
                f'the progress of {self._name} is gone from "SinkProgress"; restore the tables, or empty them all.'
            )
        [(next_offset, sequences, last_digest)] = rows
        return next_offset, {int(symbol_id): sequence for symbol_id, sequence in sequences.items()}, last_digest

    async def write(self, records: Sequence[EventRecord]) -> None:
        """Put ``records`` into the tables, all or none; wait for Postgres as long as it takes.

        Raises:
            CorruptLog: the log has a hole or two events with one sequence, an order that trades was never there, or
                another worker writes this partition, too.
            SetupError: the tables are of an earlier version.
        """
        write = fold(records, self.next_offset, self.sequences, self._recent)
        if write.next_offset == write.first_offset:
            return
        place = {
            "first_offset": write.first_offset,
            "next_offset": write.next_offset,
            "last_digest": write.last_digest,
        }
        rows = {kind: _encode(of_kind).decode() for kind, of_kind in msgspec.structs.asdict(write.rows).items()}
        parameters = self._key | place | rows
        try:
            async with self._statements:
                await self._postgres.retrying(f"writing {self._name}", lambda: self._apply(write, parameters))
        except psycopg2.errors.UndefinedColumn as exc:
            raise SetupError(_OLD_TABLES) from exc
        self.next_offset, self.last_digest = write.next_offset, write.last_digest
        self.sequences.update((row.symbol_id, row.sequence) for row in write.rows.sequences)

    async def _apply(self, write: Write, parameters: Mapping[str, Any]) -> None:
        [(moved,)] = await self._postgres.fetch_prepared("persist_events", parameters)
        if moved:
            return
        next_offset, _, last_digest = await self._read()
        # An earlier attempt whose answer was lost has done it.
        if next_offset == write.next_offset and last_digest == write.last_digest:
            return
        if next_offset == write.first_offset:
            raise CorruptLog(
                f"{self._name} changes an order between offsets {write.first_offset} and {write.next_offset} that is "
                'not in "Order"; the tables do not belong to this log: restore them or empty them all.'
            )
        raise CorruptLog(
            f"{self._name} is written up to {next_offset} in the tables, expected {write.first_offset}; another worker "
            "writes it, too, and this one stops."
        )
