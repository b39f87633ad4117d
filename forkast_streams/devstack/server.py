"""A server process that is started, watched and stopped by us, and by nobody else."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import stat
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, ClassVar

import psutil

from forkast_streams.errors import SetupError

logger = logging.getLogger(__name__)

START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 15.0
POLL_S = 0.03
LOG_TAIL_LINES = 15
LOG_BYTES_MAX = 16 << 20
# Without /proc a process's create time may be computed from the clock, which is corrected.
CREATE_TIME_TOLERANCE_S = 2.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What is known of one server.

    Attributes:
        name: ``kafka``, ``postgres`` or ``redis``.
        port: TCP port it listens on.
        pid: its process, None if it does not run.
        answers: whether it answers requests.
        log: file with its output.
    """

    name: str
    port: int
    pid: int | None
    answers: bool
    log: Path


@dataclass(frozen=True, slots=True)
class _PidFile:
    """Which process is ours: a pid alone may be another's after a while, its create time is not.

    Attributes:
        pid: its pid.
        created: ticks from the machine's boot to its start, which no clock that is set moves; where ``boot`` is None,
            as in files of earlier versions, seconds since the epoch.
        boot: id of the machine's boot; None where there is no /proc.
    """

    pid: int
    created: float
    boot: str | None = None

    @classmethod
    def of(cls, pid: int) -> _PidFile:
        boot = _boot_id()
        return cls(pid, _create_time(pid) if boot is None else _create_ticks(pid), boot)

    @classmethod
    def read(cls, file: Path) -> _PidFile | None:
        try:
            content = json.loads(file.read_text("utf-8"))
            boot = content.get("boot")
            return cls(int(content["pid"]), float(content["created"]), None if boot is None else str(boot))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def process(self) -> psutil.Process | None:
        """Return the living process, None if it ended."""
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(self.pid)
            if self._is_same() and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None

    def _is_same(self) -> bool:
        if self.boot is None:
            return abs(_create_time(self.pid) - self.created) <= CREATE_TIME_TOLERANCE_S
        return self.boot == _boot_id() and self.created == _create_ticks(self.pid)


def _boot_id() -> str | None:
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return None


def _create_ticks(pid: int) -> int:
    """Field 22 of the process's line; the second one is the program's name in parentheses, of any characters."""
    line = Path(f"/proc/{pid}/stat").read_bytes()
    return int(line.rpartition(b")")[2].split()[22 - 3])


def _create_time(pid: int) -> float:
    return psutil.Process(pid).create_time()


class Server(ABC):
    """A managed server: its folder under ``data_dir``, its port, its process.

    Subclasses say how its folder is prepared, how it is called and when it answers.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, data_dir: Path, port: int) -> None:
        self.data_dir = data_dir
        self.folder = data_dir / self.name
        self.port = port
        self.log = data_dir / "log" / f"{self.name}.log"
        # Takes a sentence about what a start does that its user has to know.
        self.report: Callable[[str], None] = logger.info
        self._pid_file = data_dir / "run" / f"{self.name}.json"
        # Kept so that a process that we started is also reaped by us.
        self._child: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @abstractmethod
    def prepare(self) -> None:
        """Bring the folder into a state the server can start from; called while it does not run."""

    @abstractmethod
    def command(self) -> list[str]:
        """Return the program and its arguments."""

    @abstractmethod
    def answers(self) -> bool:
        """Tell whether the server answers a request now."""

    def after_start(self) -> None:  # noqa: B027
        """Do what needs the running server, such as making a database; called at every start."""

    def popen_options(self) -> dict[str, object]:
        """Return further arguments of `subprocess.Popen`."""
        return {}

    def process(self) -> psutil.Process | None:
        """Return the process if it runs and was started by us, in whichever program run."""
        if self._child is not None:
            self._child.poll()
        recorded = _PidFile.read(self._pid_file)
        return recorded.process() if recorded else None

    @property
    def ended_by_itself(self) -> bool:
        """Whether the server ended without being stopped: killed, crashed, or with the machine."""
        return self._pid_file.exists() and self.process() is None

    def status(self) -> ServerStatus:
        """Look at the process and ask the server."""
        process = self.process()
        answers = process is not None and self.answers()
        return ServerStatus(self.name, self.port, process.pid if process else None, answers, self.log)

    def start(self) -> None:
        """Start the server and wait until it answers; one that already runs is taken over.

        Raises:
            SetupError: it ended or did not answer in time; the message shows the end of its log.
        """
        if self.process() is None:
            for folder in (self.log.parent, self._pid_file.parent):
                folder.mkdir(parents=True, exist_ok=True)
            self._reap()
            self.prepare()
            self._spawn()
        try:
            self._wait_ready(time.monotonic() + START_DEADLINE_S)
            self.after_start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server and all its processes: gently, and by force after a deadline.

        Raises:
            SetupError: a process of ours does not end even by force.
        """
        process = self.process()
        if process is not None:
            family = _family(process)
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(self.stop_signal)
            _wait_gone(family, STOP_DEADLINE_S)
            for survivor in [member for member in family if _lives(member)]:
                logger.warning("%s (pid %d) did not stop in time and is killed", self.title, survivor.pid)
                with contextlib.suppress(psutil.NoSuchProcess):
                    survivor.kill()
            _wait_gone(family, STOP_DEADLINE_S)
        self._reap()
        self._pid_file.unlink(missing_ok=True)

    def _reap(self) -> None:
        """Wait for a child that has ended: while its last threads end it is a zombie that cannot be reaped yet."""
        if self._child is not None:
            try:
                self._child.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                pid = self._child.pid
                raise SetupError(
                    f"{self.title} (pid {pid}) has not ended within {STOP_DEADLINE_S:.0f} s: end it with "
                    f"`kill -9 {pid}`, then try again"
                ) from None
            self._child = None

    def failure(self, what: str) -> SetupError:
        """Return an error that says ``what`` happened and shows the end of this run's log."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read()[-64_000:].decode("utf-8", "replace").splitlines()
        tail = "\n".join(f"    {line}" for line in lines[-LOG_TAIL_LINES:])
        remedy = f"read its log {self.log}, mend what it names and start again"
        return SetupError(f"{self.title} {what}: {remedy}" + (f"\n{tail}" if tail else ""))

    def _spawn(self) -> None:
        with self._open_log() as log:
            command = self.command()
            logger.debug("starting %s: %s", self.title, command)
            try:
                # A session of its own: Ctrl-C in a terminal reaches only the program that manages it.
                self._child = subprocess.Popen(  # type: ignore[call-overload]
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    **self.popen_options(),
                )
            except OSError as error:
                raise SetupError(f"{command[0]} cannot be run ({error.strerror}): run `make setup` again") from error
        assert self._child is not None
        write_atomic(self._pid_file, json.dumps(asdict(_PidFile.of(self._child.pid))))

    def _open_log(self) -> IO[bytes]:
        log = open_log(self.log)
        self._log_start = log.tell()
        return log

    def _wait_ready(self, deadline: float) -> None:
        while not self.answers():
            if self.process() is None:
                raise self.failure("ended while it started")
            if time.monotonic() > deadline:
                raise self.failure(f"did not answer on port {self.port} within {START_DEADLINE_S:.0f} s")
            time.sleep(POLL_S)


def open_log(file: Path) -> IO[bytes]:
    """Open the log of a process that starts; one that has grown large makes room for a new one, and is kept once."""
    if file.exists() and file.stat().st_size > LOG_BYTES_MAX:
        file.replace(file.with_suffix(".log.old"))
    return file.open("ab")


def write_atomic(file: Path, text: str, mode: int = 0o644, *, like: os.stat_result | None = None) -> None:
    """Write ``text`` so that a reader or a crash sees the old or the new content, never a part.

    Args:
        file: to write.
        text: its new content.
        mode: of a new file, less what the umask takes.
        like: whose owner, group and mode it gets instead, as far as this process may give them.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode if like is None else 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        if like is not None:
            _give_to(descriptor, like)
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)


def _give_to(descriptor: int, like: os.stat_result) -> None:
    mode = stat.S_IMODE(like.st_mode)
    try:
        os.fchown(descriptor, -1, like.st_gid)
        os.fchown(descriptor, like.st_uid, -1)
    except PermissionError:
        if os.fstat(descriptor).st_gid != like.st_gid:
            # What one group may read is not for another.
            mode &= ~stat.S_IRWXG
    os.fchmod(descriptor, mode)


def _family(process: psutil.Process) -> list[psutil.Process]:
    """Return the process and its descendants; Postgres gives each of them a session of its own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)]
    return [process]


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _wait_gone(processes: list[psutil.Process], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while any(map(_lives, processes)) and time.monotonic() < deadline:
        time.sleep(POLL_S)
