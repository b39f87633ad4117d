"""A whole exchange of real processes that scenarios break and that its supervisors bring back."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import psutil

from forkast_streams.cli.init import prepare
from forkast_streams.config import Settings
from forkast_streams.devstack import Stack
from forkast_streams.devstack.ports import free_ports
from forkast_streams.devstack.server import Server
from forkast_streams.supervisor import RoleProcess, Supervisor
from tests.chaos.cluster import Cluster
from tests.chaos.journal import Journal
from tests.integration.exchange import PARTITIONS

_START_S_MAX = 60.0


class Member:
    """One worker under a supervisor of its own, as ``forkast up`` runs it."""

    def __init__(self, role: str, instance: str, settings: Settings) -> None:
        self.name = f"{role}-{instance}"
        self.role = role
        settings = replace(settings, instance=instance)
        self.folder = settings.data_dir / self.name
        self.process = RoleProcess(role, free_ports(1)[0], settings)
        self.ends: list[str] = []
        self._supervisor: Supervisor | None = None
        self._running: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.process.url

    async def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        self._ready.clear()
        self._supervisor = Supervisor([self.process], self.ends.append)
        self._running = asyncio.create_task(self._supervisor.run(self._ready.set, signals=False))
        async with asyncio.timeout(_START_S_MAX):
            await self._ready.wait()

    async def stop(self) -> tuple[int | None, float]:
        """Stop it as its supervisor does; return the exit status and the seconds it took."""
        began = time.monotonic()
        if self._supervisor is None or self._running is None:
            return None, 0.0
        self._supervisor.stop()
        await self._running
        self._supervisor = None
        return self.process._process.returncode if self.process._process else None, time.monotonic() - began

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal to the process if it runs."""
        pid = self.process.pid
        if pid is None:
            return False
        os.kill(pid, number)
        return True

    def kill(self) -> bool:
        """End the process as a crash would; its supervisor starts it again."""
        return self.signal(signal.SIGKILL)

    async def crash(self) -> None:
        """End the process as a crash would and keep it down until `start`."""
        self.kill()
        await self.stop()

    def memory(self) -> int:
        """Resident bytes; 0 while it does not run."""
        pid = self.process.pid
        return 0 if pid is None else int(psutil.Process(pid).memory_info().rss)

    def lose_disk(self) -> None:
        """Delete the local state; call while it does not run."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Exchange:
    """Kafka, Postgres, Redis, two engines, sink, keeper and OMS in one folder.

    Args:
        folder: where all of it is.
        brokers: 1, or as many as a `Cluster` has.

    Attributes:
        repeats: events that were seen to come twice when the log was last looked at.
        unaudited: what clients were told since the last audit.
    """

    def __init__(self, folder: Path, brokers: int = 1) -> None:
        self.folder = folder
        self.stack = Stack(folder / "stack", "auto") if brokers == 1 else Cluster(folder / "stack")
        self.members: dict[str, Member] = {}
        self.env: dict[str, str] = {}
        self.repeats = 0
        self.unaudited = Journal()
        self._settings: Settings | None = None

    async def start(self) -> None:
        """Start the servers and the workers; return when all are ready."""
        await asyncio.to_thread(self.stack.start)
        self.env = self.stack.env()
        # The traders are demo users.
        self._settings = Settings.from_env(
            self.env | {"FORKAST_DATA_DIR": str(self.folder / "data"), "FORKAST_DEMO_USERS": "1"}
        )
        await prepare(self._settings, partitions=PARTITIONS, demo_users=True)
        for role, instance in (("engine", "1"), ("engine", "2"), ("sink", "1"), ("keeper", "1"), ("oms", "1")):
            self.add(role, instance)
        await asyncio.gather(*(member.start() for member in self.members.values()))

    def add(self, role: str, instance: str) -> Member:
        """Make another worker, not started yet."""
        assert self._settings is not None
        member = Member(role, instance, self._settings)
        self.members[member.name] = member
        return member

    async def stop(self) -> None:
        """Stop everything, whatever state it is in."""
        for member in self.members.values():
            member.signal(signal.SIGCONT)
        await asyncio.gather(*(member.stop() for member in self.members.values()), return_exceptions=True)
        await asyncio.to_thread(self.stack.stop)

    @property
    def engines(self) -> list[Member]:
        """The engine workers."""
        return [member for member in self.members.values() if member.role == "engine"]

    def member(self, role: str) -> Member:
        """The first worker of a role."""
        return self.members[f"{role}-1"]

    def server(self, name: str) -> Server:
        """One of the servers: ``kafka`` or the `BROKERS`, ``postgres``, ``redis``."""
        return self.stack.server(name)

    async def stop_server(self, name: str) -> None:
        """Stop a server in order."""
        await asyncio.to_thread(self.server(name).stop)

    async def start_server(self, name: str) -> None:
        """Start a server and return when it answers."""
        await asyncio.to_thread(self.server(name).start)

    async def signal_server(self, name: str, number: signal.Signals, *, family: bool = False) -> None:
        """Send a signal to a server's process, or to all of its processes; wait for the end that SIGKILL brings."""
        process = self.server(name).process()
        assert process is not None, f"{name} does not run"
        processes = [process, *process.children(recursive=True)] if family else [process]
        for each in processes:
            each.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGQUIT):
            while self.server(name).process() is not None:  # noqa: ASYNC110 - another process ends
                await asyncio.sleep(0.02)
            # Once more: the first look may have seen a zombie, this one reaps it.
            self.server(name).process()
