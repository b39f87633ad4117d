"""The simulated consumer group of a role: who has which partition, and whose commits count."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from tests.simulation.world import Channel, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.shell import Worker


class StaleMember(Exception):
    """A commit of a worker that is no member any more, or of an earlier generation."""


class Assignment(NamedTuple):
    """The partitions of a worker in a generation of the group."""

    generation: int
    partitions: tuple[int, ...]


class Group:
    """The coordinator's side of the group.

    Attributes:
        role: name of the role.
        committed: offsets by partition: a hint, the states are the truth.
        on_commit: called with partition and offset of every commit that counts.
    """

    def __init__(self, world: World, role: str, topic: str, partitions: int) -> None:
        self.world = world
        self.role = role
        self.topic = topic
        self.partitions = partitions
        self.generation = 0
        self.committed: dict[int, int] = {}
        self.members: list[Worker] = []
        self.on_commit: Callable[[int, int], None] = lambda *_: None
        self._joining: dict[Worker, asyncio.Future[Assignment]] = {}
        self._static: dict[str, Assignment] = {}
        self._channels: dict[Worker, Channel] = {}
        self._generations: dict[Worker, int] = {}

    def join(self, worker: Worker) -> asyncio.Future[Assignment]:
        """Ask for partitions; the answer comes when all members have asked."""
        future: asyncio.Future[Assignment] = worker.loop.create_future()
        self._channels.setdefault(worker, worker.channel())
        returned = self._static.pop(worker.name, None)
        if worker not in self.members:
            self.members.append(worker)
            # A static member that was away for a short while has its partitions back at once.
            if returned is not None and returned.generation == self.generation and not self._joining:
                self._answer(worker, future, returned)
                return future
        self._joining[worker] = future
        self.rebalance()
        return future

    def rebalance(self) -> None:
        """Take the partitions from all members and give them anew."""
        for member in self.members:
            if member not in self._joining:
                self._channels[member].push(partial(self._tell, member, self._generations[member]))
        if self.members and all(member in self._joining for member in self.members):
            self._assign()

    def _tell(self, member: Worker, generation: int) -> None:
        if member.alive and member not in self._joining and self._generations[member] == generation:
            self.world.counts[f"rebalance in mid-batch: {self.role}"] += member.is_in_batch
            self.world.counts[f"rebalance before the checkpoint: {self.role}"] += member.is_ahead_of_checkpoint
            member.rebalance.set()

    def _assign(self) -> None:
        self.generation += 1
        self._static.clear()
        shares: list[list[int]] = [[] for _ in self.members]
        for partition in range(self.partitions):
            self.world.rng.choice(shares).append(partition)
        joining, self._joining = self._joining, {}
        for member, share in zip(self.members, shares, strict=True):
            self._answer(member, joining[member], Assignment(self.generation, tuple(share)))

    def _answer(self, worker: Worker, future: asyncio.Future[Assignment], assignment: Assignment) -> None:
        def arrive() -> None:
            if worker.alive and not future.done():
                future.set_result(assignment)

        self._generations[worker] = assignment.generation
        self._channels[worker].push(arrive)

    def is_joining(self, worker: Worker) -> bool:
        """Whether the worker has asked for partitions and waits for the others to do so."""
        return worker in self._joining

    def remove(self, worker: Worker) -> None:
        """A member left, or was silent for longer than the session's time-out."""
        if worker in self.members:
            self.members.remove(worker)
            self._joining.pop(worker, None)
            self.rebalance()

    def lost(self, worker: Worker) -> None:
        """A member was killed; it may be back, under its name, before anybody notices."""
        if worker in self.members:
            self.members.remove(worker)
            if worker not in self._joining:
                self._static[worker.name] = worker.assignment
            self._joining.pop(worker, None)

    def expire(self, name: str) -> None:
        """A killed member was not back in time."""
        if self._static.pop(name, None) is not None or self._joining:
            self.rebalance()

    def commit(self, worker: Worker, generation: int, offsets: dict[int, int]) -> None:
        """Take note of ``offsets``.

        Raises:
            StaleMember: nobody of the group in this generation asked for it.
        """
        if generation != self.generation or (worker.alive and worker not in self.members):
            raise StaleMember
        for partition, offset in offsets.items():
            self.committed[partition] = offset
            self.on_commit(partition, offset)
        if worker.alive:
            self.world.point(f"{self.role}: committed", worker)
