"""Values of a slow source, kept fresh beside the requests that use them and served stale while the source is away."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from forkast_streams.errors import Unavailable

log = logging.getLogger(__name__)

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")

# Seconds between attempts while the source is away, and seconds the old value is served after such an attempt.
_RETRY_S = 1.0
_STALE_SERVED_S = 5.0
# Seconds a caller waits for a value that is read again while there is an old one.
_PATIENCE_S = 0.25


@dataclass(slots=True)
class _Entry(Generic[ValueT]):
    value: ValueT
    refresh_at: float
    fresh_until: float
    stale_until: float


class StaleCache(Generic[KeyT, ValueT]):
    """Remembers what ``load`` answered.

    A value that is used is read again in the background once it is ``refresh_s`` old. One older than ``fresh_s`` is
    read again before it is used; should the source be away then, or need more than a quarter of a second, the old one
    serves for up to ``stale_s``.

    Args:
        load: reads a value; None when there is none, Unavailable when the source is away.
        size_max: the most values kept.
    """

    def __init__(
        self,
        load: Callable[[KeyT], Awaitable[ValueT | None]],
        *,
        refresh_s: float,
        fresh_s: float,
        stale_s: float,
        size_max: int = 10_000,
    ) -> None:
        self._load = load
        self._refresh_s = refresh_s
        self._fresh_s = fresh_s
        self._stale_s = stale_s
        self._size_max = size_max
        self._entries: OrderedDict[KeyT, _Entry[ValueT]] = OrderedDict()
        self._loads: dict[KeyT, asyncio.Task[ValueT | None]] = {}

    def peek(self, key: KeyT) -> ValueT | None:
        """The value if it may be used as it is; never waits."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        now = time.monotonic()
        if now >= entry.fresh_until:
            return None
        if now >= entry.refresh_at:
            self._loading(key)
        return entry.value

    def stale(self, key: KeyT) -> ValueT | None:
        """The value if it may be used while the source is away."""
        entry = self._entries.get(key)
        return entry.value if entry is not None and time.monotonic() < entry.stale_until else None

    async def get(self, key: KeyT) -> ValueT | None:
        """The value; None when the source has none.

        Raises:
            Unavailable: the source is away, and there is no old value that may serve.
        """
        value = self.peek(key)
        if value is not None:
            return value
        task = self._loading(key)
        stale = self.stale(key)
        if stale is None:
            return await asyncio.shield(task)
        done, _ = await asyncio.wait({task}, timeout=_PATIENCE_S)
        if not done:
            # Nobody else has to find out that the source is slow; the read goes on, and tells what it finds.
            self._serve_stale(key)
            return stale
        if isinstance(task.exception(), Unavailable):
            return stale
        return task.result()

    async def reload(self, key: KeyT) -> ValueT | None:
        """The value as the source has it now.

        Raises:
            Unavailable: the source is away.
        """
        return await asyncio.shield(self._loading(key))

    def is_loading(self, key: KeyT) -> bool:
        """Whether the value is being read again."""
        return key in self._loads

    def forget(self, key: KeyT) -> None:
        """Read the value again before it is used the next time; a read under way may have seen the old one."""
        self._entries.pop(key, None)
        self._loads.pop(key, None)

    def close(self) -> None:
        """Stop reading."""
        for task in list(self._loads.values()):
            task.cancel()

    def _loading(self, key: KeyT) -> asyncio.Task[ValueT | None]:
        """The read of a value that is under way, or a new one: many requests wait for one read."""
        task = self._loads.get(key)
        if task is None:
            task = self._loads[key] = asyncio.create_task(self._read(key))
            task.add_done_callback(lambda task: self._loaded(key, task))
        return task

    async def _read(self, key: KeyT) -> ValueT | None:
        asked = time.monotonic()
        value = await self._load(key)
        if self._loads.get(key) is not asyncio.current_task():
            return value
        if value is None:
            self._entries.pop(key, None)
            return None
        self._entries[key] = _Entry(value, asked + self._refresh_s, asked + self._fresh_s, asked + self._stale_s)
        self._entries.move_to_end(key)
        while len(self._entries) > self._size_max:
            self._entries.popitem(last=False)
        return value

    def _loaded(self, key: KeyT, task: asyncio.Task[ValueT | None]) -> None:
        if self._loads.get(key) is task:
            del self._loads[key]
        if task.cancelled() or (exc := task.exception()) is None:
            return
        if not isinstance(exc, Unavailable):
            log.error("a value could not be read again", exc_info=exc)
        if (entry := self._serve_stale(key)) is not None:
            entry.refresh_at = time.monotonic() + _RETRY_S

    def _serve_stale(self, key: KeyT) -> _Entry[ValueT] | None:
        """Let an old value serve at once for a while, instead of every request finding out that the source is away."""
        entry = self._entries.get(key)
        if entry is not None:
            until = min(time.monotonic() + _STALE_SERVED_S, entry.stale_until)
            entry.fresh_until = max(entry.fresh_until, until)
        return entry
