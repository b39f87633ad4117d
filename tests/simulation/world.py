"""The scheduler: which process or which message in the network takes the next step, and when a process dies."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from functools import partial
from random import Random
from typing import Any, TypeVar

from tests.simulation.loop import SimLoop

ResultT = TypeVar("ResultT")

START_MS = 1_700_000_000_000
_CALLBACKS_AT_ONCE_MAX = 8


class Killed(BaseException):
    """The process died here; nothing of it may catch this."""


class Violation(AssertionError):
    """A promise is broken."""


class Channel:
    """Messages on their way in one direction: they arrive in order, each at a moment of the scheduler's choice."""

    __slots__ = ("_world", "held_until", "is_active", "owner", "queue")

    def __init__(self, world: World, owner: Process) -> None:
        self._world = world
        self.owner = owner
        self.queue: deque[Callable[[], None]] = deque()
        self.held_until = 0
        self.is_active = False

    def push(self, effect: Callable[[], None]) -> None:
        """Send a message; ``effect`` is what its arrival does."""
        self.queue.append(effect)
        if not self.is_active:
            self.is_active = True
            self._world.active.append(self)

    def cut(self, keep: int) -> None:
        """Lose all messages but the next ``keep``."""
        while len(self.queue) > keep:
            self.queue.pop()


class Process:
    """A process of the exchange: an event loop, which ends for good when the process is killed.

    Attributes:
        kind: engine, keeper, sink, oms or clients.
        paused_until: the step until which it is stopped (SIGSTOP); its messages in the network travel on.
    """

    def __init__(self, world: World, kind: str, name: str) -> None:
        self.world = world
        self.kind = kind
        self.name = name
        self.loop = SimLoop(lambda: world.now)
        self.alive = True
        self.paused_until = 0
        self.channels: list[Channel] = []
        world.processes.append(self)
        world.everyone.append(self)

    def __repr__(self) -> str:
        return self.name

    def spawn(self, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run ``coro``; an exception that leaves it ends the process."""
        task = self.loop.create_task(coro)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        if not self.alive or task.cancelled():
            return
        exc = task.exception()
        if isinstance(exc, Violation):
            self.world.failure = self.world.failure or exc
        elif exc is not None and not isinstance(exc, Killed):
            self.world.on_stopped(self, "a task", exc)

    def channel(self) -> Channel:
        """A channel that is cut when the process dies."""
        channel = Channel(self.world, self)
        self.channels.append(channel)
        return channel


class World:
    """All that happens, in one order that the seed decides.

    Attributes:
        now: seconds since the start, for timers and the log's append time.
        clock_skew_s: by how much the workers' own clocks are wrong.
        processes: those that are alive.
        everyone: those that are dead, too.
        active: channels with messages under way.
        failure: the first violation inside a process, where an exception would be taken for the process's own.
        counts: how often what happened.
    """

    def __init__(self, seed: int, *, trace: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.now = 0.0
        self.clock_skew_s = 0.0
        self.steps = 0
        self.processes: list[Process] = []
        self.everyone: list[Process] = []
        self.active: list[Channel] = []
        self.current: Process | None = None
        self.failure: Exception | None = None
        self.counts: Counter[str] = Counter()
        self.armed: dict[str, set[int]] = {}
        self.reached: Counter[str] = Counter()
        self.is_calm = False
        self.delay_chance = 0.0
        self.on_stopped: Callable[[Process, str, BaseException], None] = self._fail
        self.on_killed: Callable[[Process], None] = lambda _: None
        self._trace = trace

    def log(self, text: str, *args: object) -> None:
        """Tell what happens to whoever follows this run."""
        if self._trace is not None:
            self._trace(f"{self.steps:6} {self.now:8.3f}s " + text.format(*args))

    def _fail(self, process: Process, what: str, exc: BaseException) -> None:
        self.failure = self.failure or Violation(f"{process} stopped by itself, {what}: {exc!r}")
        self.failure.__cause__ = exc

    def step(self) -> None:
        """Let one process or one message go on; when there is none, let time pass to the next timer."""
        self.steps += 1
        rng = self.rng
        self.now += rng.random() * 0.002
        runnable = [p for p in self.processes if p.paused_until <= self.steps and p.loop.is_ready()]
        pick = int(rng.random() * (len(runnable) + len(self.active))) if runnable or self.active else -1
        if pick < 0:
            self._pass_time()
        elif pick < len(runnable):
            self._run(runnable[pick], rng.randint(1, _CALLBACKS_AT_ONCE_MAX))
        else:
            self._deliver(pick - len(runnable))
        if self.failure is not None:
            raise self.failure

    def _run(self, process: Process, callbacks: int) -> None:
        self.current = process
        try:
            process.loop.run_some(callbacks)
        finally:
            self.current = None

    def _deliver(self, index: int) -> None:
        channel = self.active[index]
        if channel.held_until > self.steps and not self.is_calm:
            return
        if channel.queue:
            channel.queue.popleft()()
        if not channel.queue:
            channel.is_active = False
            # The effect may have made other channels active, but only behind this one.
            self.active[index] = self.active[-1]
            self.active.pop()
        elif self.delay_chance and self.rng.random() < self.delay_chance:
            channel.held_until = self.steps + self.rng.randint(10, 400)
            self.counts["messages delayed"] += 1

    def _pass_time(self) -> None:
        timers = [t for p in self.processes if p.paused_until <= self.steps and (t := p.loop.next_timer()) is not None]
        if timers:
            self.now = max(self.now, min(timers))

    def request(
        self, process: Process, there: Channel, back: Channel, effect: Callable[[], ResultT]
    ) -> asyncio.Future[ResultT]:
        """Send a request; its effect happens once it has arrived, the answer comes later still.

        Raises:
            Exception: through the future, what ``effect`` raises; a `Violation` ends the run.
            Killed: the process is dead and only unwinding.
        """
        if not process.alive:
            raise Killed
        future: asyncio.Future[ResultT] = process.loop.create_future()

        def arrive() -> None:
            try:
                answer = partial(future.set_result, effect())
            except Violation:
                raise
            except Exception as exc:
                answer = partial(future.set_exception, exc)
            back.push(partial(_answer, process, future, answer))

        there.push(arrive)
        return future

    def point(self, name: str, process: Process) -> None:
        """A place where a process may die: it does when the seed has chosen this passage.

        Raises:
            Killed: the process died, and it is the one that runs now.
        """
        self.reached[name] += 1
        passages = self.armed.get(name)
        if passages and self.reached[name] in passages and process.alive and not self.is_calm:
            self.counts[f"crash: {name}"] += 1
            self.log("{} dies: {}", process, name)
            self.kill(process)
            if self.current is process:
                raise Killed

    def kill(self, process: Process) -> None:
        """End a process (SIGKILL): what it has sent may still arrive, in whole or in part, and late."""
        process.alive = False
        process.loop.halt()
        self.processes.remove(process)
        for channel in process.channels:
            if channel.queue:
                channel.cut(self.rng.randint(0, min(5, len(channel.queue))))
                channel.held_until = self.steps + self.rng.choice([0, 0, 30, 300, 2000])
        self.on_killed(process)


def _answer(process: Process, future: asyncio.Future[Any], answer: Callable[[], None]) -> None:
    if process.alive and not future.done():
        answer()
