"""Kafka, Postgres and Redis of one data folder, started and stopped together."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Literal

from forkast_streams.devstack.jars import ensure_jars
from forkast_streams.devstack.kafka import Kafka
from forkast_streams.devstack.ports import LOOPBACK, becomes_free, free_ports, is_free, require_free
from forkast_streams.devstack.postgres import Postgres
from forkast_streams.devstack.redis import Redis
from forkast_streams.devstack.server import Server, ServerStatus
from forkast_streams.devstack.state import FolderLock, StackState, choose_ports
from forkast_streams.errors import SetupError

logger = logging.getLogger(__name__)

KILLED_PORT_WAIT_S = 3.0

PortsChoice = Literal["default", "auto"] | Mapping[str, int]


class Stack:
    """The three servers of ``data_dir``.

    What runs is known from the folder, so any process can ask for `status` and `env`, or `stop` servers
    that were started with ``detach``. A start after a crash of any part brings everything back.

    Args:
        data_dir: folder of all data, logs and process files; made by `start`.
        ports: ``"default"``: 9092, 5432, 6379; ``"auto"``: free ones; a mapping such as
            ``{"kafka": 9192}``; None: as at the last start, else default. Ports are recorded in the folder,
            so automatic ones stay the same.

    Usable as a context manager, which starts and stops it.
    """

    def __init__(self, data_dir: Path | str, ports: PortsChoice | None = None) -> None:
        self.data_dir = Path(data_dir).expanduser().resolve()
        self._choice = ports
        self._state_file = self.data_dir / "stack.json"
        self._lock = FolderLock(self.data_dir / "stack.lock")
        self._servers: tuple[Server, ...] | None = None

    @property
    def is_managed(self) -> bool:
        """Whether this object has started the servers to stop them again, and no other may."""
        return self._lock.held

    def start(self, *, detach: bool = False, progress: Callable[[str], None] | None = None) -> None:
        """Start the servers that do not run and wait until all answer.

        Args:
            detach: leave the servers running for other processes to use and stop; otherwise this process
                manages the folder until `stop` or its end, and no other process may.
            progress: called with a sentence for each step, from several threads but never at once.

        Raises:
            SetupError: a server cannot be started; those that this call started are stopped again.
        """
        report = _one_at_a_time(progress)
        self._make_folder()
        held = self._lock.held
        if not held:
            self._lock.acquire()
        try:
            ensure_jars(show_progress=progress is not None)
            servers = self._settle_ports()
            self._start_all(servers, report)
        except BaseException:
            if not held:
                self._lock.release()
            raise
        if detach:
            self._lock.release()

    def stop(self) -> None:
        """Stop the servers and wait until their processes are gone; what does not run is left alone.

        Raises:
            SetupError: another process manages them.
        """
        if not self._state_file.exists():
            self._lock.release()
            return
        if not self._lock.held:
            self._lock.acquire()
        try:
            in_parallel([server.stop for server in self._known_servers()])
        finally:
            self._lock.release()

    def status(self) -> list[ServerStatus]:
        """Look at each server; empty if this folder has no stack."""
        if not self._state_file.exists():
            return []
        return [server.status() for server in self._known_servers()]

    def env(self) -> dict[str, str]:
        """Return ``KAFKA_BROKERS``, ``REDIS_URL`` and ``DATABASE_URL`` of these servers.

        Raises:
            SetupError: this folder has no stack yet.
        """
        kafka, postgres, redis = self._known_servers()
        assert isinstance(postgres, Postgres)
        try:
            database_url = postgres.url
        except OSError as error:
            raise self._no_stack() from error
        return {
            "KAFKA_BROKERS": f"{LOOPBACK}:{kafka.port}",
            "REDIS_URL": f"redis://{LOOPBACK}:{redis.port}",
            "DATABASE_URL": database_url,
        }

    def server(self, name: str) -> Server:
        """Return ``kafka``, ``postgres`` or ``redis``, for tests that stop or start it alone."""
        return next(server for server in self._known_servers() if server.name == name)

    def __enter__(self) -> Stack:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def _make_folder(self) -> None:
        try:
            for folder in (self.data_dir, self.data_dir / "log", self.data_dir / "run"):
                folder.mkdir(parents=True, exist_ok=True)
            (self.data_dir / "stack.lock").touch()
        except OSError as error:
            raise SetupError(
                f"{error.filename} cannot be written ({error.strerror}): use a --data-dir that is yours"
            ) from error

    def _settle_ports(self) -> tuple[Server, ...]:
        """Choose the ports, check that they are free, record them."""
        recorded = StackState.load(self._state_file)
        state = choose_ports(self._choice, recorded)
        running: set[str] = set()
        if recorded is not None:
            servers = _servers(self.data_dir, recorded)
            running = {server.name for server in servers if server.process()}
            for server in servers:
                if server.ended_by_itself:
                    becomes_free(server.port, KILLED_PORT_WAIT_S)
            if running and state.ports != recorded.ports:
                raise SetupError(
                    f"the servers in {self.data_dir} still run on other ports: "
                    f"run `forkast stack down --data-dir {self.data_dir}` first"
                )
        ports = dict(state.ports)
        for name, port in state.ports.items():
            if name.removesuffix("_controller") in running:
                continue
            if state.mode == "auto" or name == "kafka_controller":
                if not is_free(port):
                    ports[name] = free_ports(1, avoid=ports.values())[0]
            else:
                require_free(port, name.capitalize())
        state = StackState(state.mode, ports)
        state.save(self._state_file)
        # Servers that this object already knows keep their processes, which are its to reap.
        known = self._servers
        if known is None or state != recorded:
            known = _servers(self.data_dir, state)
        self._servers = known
        return known

    def _start_all(self, servers: Sequence[Server], report: Callable[[str], None]) -> None:
        stopped = [server for server in servers if server.process() is None]

        def start(server: Server) -> None:
            began = time.monotonic()
            server.report = report
            if server in stopped:
                report(f"{server.title} is starting")
            server.start()
            report(f"{server.title} is ready on {LOOPBACK}:{server.port} ({time.monotonic() - began:.1f} s)")

        try:
            in_parallel([lambda server=server: start(server) for server in servers])  # type: ignore[misc]
        except BaseException:
            in_parallel([server.stop for server in stopped])
            raise

    def _known_servers(self) -> tuple[Server, ...]:
        if self._servers is None:
            state = StackState.load(self._state_file)
            if state is None:
                raise self._no_stack()
            self._servers = _servers(self.data_dir, state)
        return self._servers

    def _no_stack(self) -> SetupError:
        return SetupError(
            f"there is no stack in {self.data_dir}: start one with `forkast stack up --data-dir {self.data_dir}`"
        )


def _servers(data_dir: Path, state: StackState) -> tuple[Server, ...]:
    ports = state.ports
    return (
        Kafka(data_dir, ports["kafka"], ports["kafka_controller"]),
        Postgres(data_dir, ports["postgres"]),
        Redis(data_dir, ports["redis"]),
    )


def in_parallel(calls: Sequence[Callable[[], None]]) -> None:
    """Make the calls in threads, wait for all, raise the first error."""
    if not calls:
        return
    with ThreadPoolExecutor(len(calls), thread_name_prefix="stack") as pool:
        futures = [pool.submit(call) for call in calls]
    for future in futures:
        future.result()


def _one_at_a_time(progress: Callable[[str], None] | None) -> Callable[[str], None]:
    lock = threading.Lock()

    def report(sentence: str) -> None:
        logger.info("%s", sentence)
        if progress is not None:
            with lock:
                progress(sentence)

    return report
