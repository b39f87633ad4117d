"""Keeps one process a role running: starts it, starts it again after a crash, stops it in order."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from subprocess import SubprocessError
from typing import Any

import aiohttp

from forkast_streams.config import Settings
from forkast_streams.devstack.ports import free_ports, require_free
from forkast_streams.devstack.server import open_log, write_atomic
from forkast_streams.errors import SetupError
from forkast_streams.limits import STOP_S_MAX
from forkast_streams.roles import ROLES

_READY_POLL_S = 0.1
# A worker that stops on SIGTERM makes its last checkpoint; it ends by itself within STOP_S_MAX whatever happens.
_KILL_AFTER_S = STOP_S_MAX + 3.0
_BACKOFF_FIRST_S = 0.2
_BACKOFF_MAX_S = 5.0
_PR_SET_PDEATHSIG = 1
_PORTS_FILE = "roles.json"


def ending_signals() -> list[signal.Signals]:
    """What ends us besides Ctrl-C: SIGTERM, and unless nohup holds it off the SIGHUP of a terminal that closes."""
    held_off = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGTERM] if held_off else [signal.SIGTERM, signal.SIGHUP]


def unwind_on_ending_signals() -> dict[signal.Signals, Any]:
    """Let them end this program as Ctrl-C does, so that what it has started is stopped; return the former handlers."""
    return {number: signal.signal(number, signal.default_int_handler) for number in ending_signals()}


def choose_ports(data_dir: Path, host: str, *, auto: bool | None) -> dict[str, int]:
    """The port of each role: free ones (auto), the default ones, or (None) those of the last start in ``data_dir``.

    Raises:
        SetupError: a port of ``host`` is taken, or the record of the last start is damaged.
    """
    recorded = _recorded_ports(data_dir / _PORTS_FILE) if auto is None else None
    if recorded is not None:
        ports = recorded
    elif auto:
        ports = dict(zip(ROLES, free_ports(len(ROLES), host=host), strict=True))
    else:
        ports = {role.name: role.port for role in ROLES.values()}
    for role, port in ports.items():
        require_free(port, role, host)
    return ports


def record_ports(data_dir: Path, ports: Mapping[str, int]) -> None:
    """Keep the ports for the next start in ``data_dir``, which this process must manage."""
    write_atomic(data_dir / _PORTS_FILE, json.dumps(ports))


def signing_secret(data_dir: Path) -> str:
    """The secret of the exchange in ``data_dir``, made at its first start; only its owner can read the file.

    Raises:
        SetupError: the file cannot be read or is empty, and signed requests would be refused without a word.
    """
    file = data_dir / "signing-secret"
    try:
        if not file.exists():
            write_atomic(file, token_hex(32), mode=0o600)
        secret = file.read_text().strip()
    except OSError as exc:
        raise SetupError(f"{file} cannot be read: {exc.strerror}; let this user read it.") from exc
    if not secret:
        raise SetupError(
            f"{file} is empty: bring it back from a copy, or delete it; the next start makes another one then, and API "
            "keys that sign requests must be made anew."
        )
    return secret


def _recorded_ports(file: Path) -> dict[str, int] | None:
    try:
        content = json.loads(file.read_text("utf-8"))
        ports = {role: int(content[role]) for role in ROLES}
        if not all(0 < port < 65_536 for port in ports.values()):
            raise ValueError(ports)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise SetupError(f"{file} is damaged: delete it, the next start writes it anew") from error
    return ports


class RoleProcess:
    """One worker as a child process, with its log in ``data_dir/logs``, named by its role and instance."""

    def __init__(self, role: str, port: int, settings: Settings) -> None:
        self.role = role
        self.port = port
        self.url = f"http://{settings.reached_at}:{port}"
        number = "" if settings.instance == "1" else f"-{settings.instance}"
        self.log = settings.data_dir / "logs" / f"{role}{number}.log"
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the worker; on Linux it ends by itself should this process be killed.

        Raises:
            OSError: the system has no process, memory or open file left for it, or its log cannot be written.
            SubprocessError: the new process could not be made ready.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        env = os.environ | {
            "KAFKA_BROKERS": self._settings.kafka_brokers,
            "REDIS_URL": self._settings.redis_url,
            "DATABASE_URL": self._settings.database_url,
            "FORKAST_DATA_DIR": str(self._settings.data_dir),
            "FORKAST_HOST": self._settings.host,
            "FORKAST_INSTANCE": self._settings.instance,
            "FORKAST_DEMO_USERS": str(int(self._settings.demo_users)),
            "FORKAST_SIGNING_SECRET": self._settings.signing_secret,
        }
        with open_log(self.log) as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "forkast_streams", "worker", self.role, "--port", str(self.port),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=env,
                start_new_session=True, preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )  # fmt: skip

    @property
    def pid(self) -> int | None:
        """The process that runs now, None between two."""
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    async def wait(self) -> int:
        """Return the exit status."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> int | None:
        """Ask the worker to finish, kill it when it does not; return its exit status."""
        if self._process is None or self._process.returncode is not None:
            return None if self._process is None else self._process.returncode
        with suppress(ProcessLookupError):
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), _KILL_AFTER_S)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        return self._process.returncode

    async def is_ready(self, session: aiohttp.ClientSession) -> bool:
        """Whether the worker answers that it does its work."""
        try:
            async with session.get(f"{self.url}/ready") as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False


class Supervisor:
    """Runs role processes until a signal.

    Args:
        processes: what to run.
        report: takes a sentence about what happens.
    """

    def __init__(self, processes: list[RoleProcess], report: Callable[[str], None]) -> None:
        self._processes = processes
        self._report = report
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Let `run` stop all processes and return."""
        self._stopping.set()

    async def run(self, on_ready: Callable[[], None], *, signals: bool = True) -> None:
        """Start all, call ``on_ready`` once all are ready, and return when all are stopped.

        Args:
            on_ready: called once.
            signals: whether SIGINT and the `ending_signals` stop them; `stop` always does.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, *ending_signals()) if signals else ():
            loop.add_signal_handler(number, self.stop)
        keepers = [asyncio.create_task(self._keep_running(process)) for process in self._processes]
        announcer = asyncio.create_task(self._announce(on_ready))
        await self._stopping.wait()
        self._report("Stopping the workers ...")
        announcer.cancel()
        await asyncio.gather(*(process.stop() for process in self._processes))
        await asyncio.gather(announcer, *keepers, return_exceptions=True)

    async def _announce(self, on_ready: Callable[[], None]) -> None:
        await asyncio.gather(*(_is_ready(process) for process in self._processes))
        on_ready()

    async def _keep_running(self, process: RoleProcess) -> None:
        backoff = _BACKOFF_FIRST_S
        while not self._stopping.is_set():
            try:
                await process.start()
            except (OSError, SubprocessError) as exc:
                what = f"could not be started ({exc})"
            else:
                if self._stopping.is_set():
                    # It was not there yet when all were stopped.
                    await process.stop()
                getting_ready = asyncio.create_task(_is_ready(process))
                status = await process.wait()
                if getting_ready.done():
                    # It did its work: a worker that is killed now and then is in no crash loop, and comes back at once.
                    backoff = _BACKOFF_FIRST_S
                getting_ready.cancel()
                what = f"ended with status {status}"
            if self._stopping.is_set():
                return
            self._report(f"{process.role} {what}; starting it again in {backoff:g} s. Its log: {process.log}")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), backoff)
            backoff = min(backoff * 2, _BACKOFF_MAX_S)


async def _is_ready(process: RoleProcess) -> None:
    """Return when the process says that it is ready."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
        while not await process.is_ready(session):  # noqa: ASYNC110 - another process gets ready
            await asyncio.sleep(_READY_POLL_S)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
