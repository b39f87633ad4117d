"""A worker's disk and the segment table on it: what Faust's RocksDB store and its recovery are to the product."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, ItemsView
from typing import Any
from unittest.mock import patch

import faust
from faust.types import TP

from tables.segments import SegmentTable
from tests.simulation.log import SimLog
from tests.simulation.world import Process, Violation

OFFSET_KEY = b"__faust\0offset__"
_REPLAYED_AT_ONCE_MAX = 40


class WriteBatch:
    """As `rocksdict.WriteBatch`: changes that take effect together."""

    def __init__(self, raw_mode: bool = False) -> None:
        assert raw_mode
        self.changes: list[tuple[bytes, bytes | None]] = []

    def put(self, key: bytes, value: bytes) -> None:
        """Set a key."""
        self.changes.append((key, value))

    def delete(self, key: bytes) -> None:
        """Remove a key."""
        self.changes.append((key, None))


class Folder:
    """The files of one partition; they outlive the process."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    def items(self) -> ItemsView[bytes, bytes]:
        """All keys with their values."""
        return self.rows.items()

    def apply(self, changes: list[tuple[bytes, bytes | None]]) -> None:
        """Make changes, all at once."""
        for key, value in changes:
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value

    @property
    def replayed_to(self) -> int:
        """The changelog offset from which a recovery goes on."""
        raw = self.rows.get(OFFSET_KEY)
        return 0 if raw is None else int(raw) + 1


class Disk:
    """The folders of one worker, by partition."""

    def __init__(self) -> None:
        self._folders: dict[int, Folder] = {}
        self._old: dict[int, dict[bytes, bytes]] = {}

    def folder(self, partition: int) -> Folder:
        """The partition's folder, empty at first."""
        return self._folders.setdefault(partition, Folder())

    def folders(self) -> list[Folder]:
        """All folders that are there."""
        return list(self._folders.values())

    def lose(self) -> None:
        """The folders are gone."""
        self._folders.clear()

    def back_up(self) -> None:
        """Keep a copy of all folders as they are."""
        self._old = {partition: dict(folder.rows) for partition, folder in self._folders.items()}

    def restore_backup(self) -> None:
        """Put the copy back: the folders are behind now."""
        self._folders.clear()
        for partition, rows in self._old.items():
            self.folder(partition).rows = dict(rows)


class _Database:
    """A process's handle of a folder."""

    def __init__(self, process: Process, folder: Folder, on_write: Callable[[WriteBatch], None]) -> None:
        self._process = process
        self._folder = folder
        self._on_write = on_write

    def items(self) -> ItemsView[bytes, bytes]:
        return self._folder.items()

    def write(self, batch: WriteBatch) -> None:
        self._process.world.point(f"{self._process.kind}: checkpoint acknowledged, not on disk", self._process)
        self._on_write(batch)
        self._folder.apply(batch.changes)
        self._process.world.point(f"{self._process.kind}: checkpoint on disk, input not acknowledged", self._process)


class _Store:
    offset_key = OFFSET_KEY

    def __init__(self, open_partition: Callable[[int], _Database], disk: Disk) -> None:
        self._db_for_partition = open_partition
        self._disk = disk

    def persisted_offset(self, tp: TP) -> int | None:
        """The last changelog offset that is in the folder."""
        at = self._disk.folder(tp.partition).replayed_to
        return at - 1 if at else None


class _Topic:
    def __init__(self, name: str) -> None:
        self._name = name

    def get_topic_name(self) -> str:
        return self._name


class SimTable(SegmentTable):
    """The product's segment table on a simulated disk."""

    def __init__(self, app: Any, name: str) -> None:
        with patch.object(faust.Table, "__init__", lambda *_, **__: None):
            super().__init__(app, name)
        process = app.process
        self.app = app
        self._process: Process = process
        self._log: SimLog = app.log
        self._topic = _Topic(f"forkast-{app.role.name}-{name}-changelog")
        self.replayed_to: dict[int, int] = {}
        self._callbacks: list[Callable[[], Awaitable[None]]] = []
        self._sim_store = _Store(lambda p: _Database(process, app.disk.folder(p), self._check_write), app.disk)

    @property
    def data(self) -> Any:
        """The store."""
        return self._sim_store

    @property
    def changelog_topic(self) -> Any:
        """The topic behind the table."""
        return self._topic

    def on_recover(self, fun: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        """Call ``fun`` when the folders are up to date."""
        self._callbacks.append(fun)
        return fun

    async def recovered(self) -> None:
        """Let the agent load."""
        for callback in self._callbacks:
            await callback()

    async def replay(self, partition: int, is_interrupted: Callable[[], bool]) -> None:
        """Bring the folder up to where the changelog ends now, as Faust does, in steps during which more can happen."""
        process, log, world = self._process, self._log.of(self._topic.get_topic_name(), partition), self._process.world
        folder, end = self.app.disk.folder(partition), log.end
        self.replayed_to[partition] = end
        self.app.tables.recovery.active_highwaters[self._changelog_tp(partition)] = end - 1
        channels = process.channel(), process.channel()
        while folder.replayed_to < end and not is_interrupted():
            most = world.rng.randint(1, _REPLAYED_AT_ONCE_MAX)
            position = folder.replayed_to
            records = await world.request(
                process,
                *channels,
                lambda at=position, n=most: log.read(at, n, before=end),  # type: ignore[misc]
            )
            changes = [(record.key or b"", record.value) for record in records]
            reached = records[-1].offset if records else end - 1
            folder.apply([*changes, (OFFSET_KEY, b"%d" % reached)])
            world.point(f"{process.kind}: during recovery", process)

    def _check_write(self, batch: WriteBatch) -> None:
        """A folder must never hold a row that the changelog does not."""
        for key, value in batch.changes:
            if key != OFFSET_KEY and value is not None:
                partition = int(key.split(b".")[0])
                if key not in self._log.of(self._topic.get_topic_name(), partition).keys:
                    raise Violation(f"{self._process} has row {key!r} on its disk before the changelog has it (I-18)")
