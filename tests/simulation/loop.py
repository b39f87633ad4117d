"""An asyncio event loop that takes one step when it is told to, at a simulated time."""

from __future__ import annotations

import asyncio
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from itertools import count
from typing import Any


class SimLoop(asyncio.AbstractEventLoop):
    """What tasks, futures, events, semaphores and time-outs need of a loop; one for each simulated process.

    Args:
        clock: the simulated time in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = count()
        self._tasks: list[asyncio.Task[Any]] = []
        self._is_halted = False

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._clock() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def time(self) -> float:
        return self._clock()

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Ignore what asyncio reports of tasks nobody waits for: a process watches its own tasks."""

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is skipped when its time comes."""

    def next_timer(self) -> float | None:
        """When the first timer is due."""
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        return timers[0][0] if timers else None

    def is_ready(self) -> bool:
        """Whether there is something to run now."""
        if self._ready:
            return True
        timers = self._timers
        return bool(timers) and timers[0][0] <= self._clock()

    def run_some(self, most: int) -> None:
        """Run up to ``most`` callbacks that are ready."""
        ready, timers, now = self._ready, self._timers, self._clock()
        while timers and timers[0][0] <= now:
            ready.append(heapq.heappop(timers)[2])
        events._set_running_loop(self)
        try:
            while ready and most and not self._is_halted:
                most -= 1
                handle = ready.popleft()
                if not handle.cancelled():
                    handle._run()
        finally:
            events._set_running_loop(None)

    def halt(self) -> None:
        """Run nothing any more, not even what is ready."""
        self._is_halted = True

    def discard(self) -> None:
        """Close the coroutines that will never go on, so that none is closed by chance later."""
        self._ready.clear()
        self._timers.clear()
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                with suppress(BaseException):
                    task.get_coro().close()
            elif not task.cancelled():
                task.exception()
        self._tasks.clear()
        self._ready.clear()
