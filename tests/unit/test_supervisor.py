"""The supervisor keeps roles running, whatever a start comes to."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import SubprocessError

import pytest
from yarl import URL

from forkast_streams import supervisor as supervisor_module
from forkast_streams.config import Settings
from forkast_streams.devstack.ports import free_ports
from forkast_streams.errors import SetupError
from forkast_streams.roles import ROLES, create_app
from forkast_streams.supervisor import (
    RoleProcess,
    Supervisor,
    choose_ports,
    ending_signals,
    record_ports,
    signing_secret,
)


class Starts(RoleProcess):
    """A worker whose starts come to what a test says; it never gets ready."""

    def __init__(self, folder: Path, *starts: Callable[[], None]) -> None:
        super().__init__("engine", 1, Settings(data_dir=folder))
        self.starts = iter(starts)

    async def start(self) -> None:
        """Do what comes next."""
        next(self.starts)()

    async def wait(self) -> int:
        """It ends at once."""
        return 1


def fails(error: Exception) -> Callable[[], None]:
    def start() -> None:
        raise error

    return start


async def test_start_that_fails_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process left to the system, or no log folder, is an evil that passes; the role must not be gone for good."""
    monkeypatch.setattr(supervisor_module, "_BACKOFF_FIRST_S", 0.01)
    told: list[str] = []
    full = OSError(errno.EAGAIN, "Resource temporarily unavailable")
    process = Starts(
        tmp_path, fails(full), fails(SubprocessError("Exception occurred in preexec_fn.")), lambda: supervisor.stop()
    )
    supervisor = Supervisor([process], told.append)
    await asyncio.wait_for(supervisor.run(lambda: None, signals=False), 10)
    assert [sentence.partition(";")[0] for sentence in told] == [
        f"engine could not be started ({full})",
        "engine could not be started (Exception occurred in preexec_fn.)",
        "Stopping the workers ...",
    ]


class Sleeper(RoleProcess):
    """A worker that takes its time to start, and runs until it is stopped."""

    def __init__(self, folder: Path) -> None:
        super().__init__("engine", 1, Settings(data_dir=folder))
        self.starting, self.go_on, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.runs = False

    async def start(self) -> None:
        """Be there when a test says so."""
        self.starting.set()
        await self.go_on.wait()
        self.runs = True

    async def wait(self) -> int:
        """Until it is stopped."""
        await self.ended.wait()
        return 0

    async def stop(self) -> int | None:
        """As the real one: what is not there cannot be stopped."""
        if self.runs:
            self.ended.set()
        self.go_on.set()
        return 0 if self.runs else None


async def test_worker_that_comes_up_while_all_are_stopped_is_stopped_too(tmp_path: Path) -> None:
    """Ctrl-C right after a start must not wait for it for ever."""
    process = Sleeper(tmp_path)
    supervisor = Supervisor([process], lambda _: None)
    running = asyncio.create_task(supervisor.run(lambda: None, signals=False))
    await process.starting.wait()
    supervisor.stop()
    await asyncio.wait_for(running, 10)
    assert process.ended.is_set()


@pytest.fixture
def hangup() -> Iterator[None]:
    """No nohup around the tests, and the handlers afterwards as they were: a loop that closes forgets them."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("hangup")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_that_end_a_program_stop_the_roles(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C, a request to end, and a terminal that closes."""
    told: list[str] = []
    supervisor = Supervisor([Starts(tmp_path, lambda: os.kill(os.getpid(), number))], told.append)
    asyncio.run(asyncio.wait_for(supervisor.run(lambda: None), 10))
    assert "Stopping the workers ..." in told


@pytest.mark.usefixtures("hangup")
def test_nohup_holds_off_the_terminal() -> None:
    """A program that is to go on without its terminal does."""
    assert ending_signals() == [signal.SIGTERM, signal.SIGHUP]
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert ending_signals() == [signal.SIGTERM]


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://localhost:3001"),
        ("0.0.0.0", "http://localhost:3001"),
        ("::1", "http://[::1]:3001"),
        ("::", "http://[::1]:3001"),
        ("fd00::2", "http://[fd00::2]:3001"),
        ("exchange.example.com", "http://exchange.example.com:3001"),
    ],
)
def test_role_is_looked_for_where_it_listens(tmp_path: Path, host: str, url: str) -> None:
    """By the supervisor, and by what Faust says of it."""
    settings = Settings(host=host, data_dir=tmp_path)
    assert RoleProcess("oms", 3001, settings).url == url
    assert create_app("oms", settings).conf.canonical_url == URL(url)


def test_ports_are_those_of_the_last_start_that_managed_the_folder(tmp_path: Path) -> None:
    """One that only looked for free ones, and was refused then, leaves them as they were."""
    ports = dict(zip(ROLES, free_ports(len(ROLES)), strict=True))
    record_ports(tmp_path, ports)
    assert choose_ports(tmp_path, "127.0.0.1", auto=True) != ports
    assert choose_ports(tmp_path, "127.0.0.1", auto=None) == ports
    assert [file.name for file in tmp_path.iterdir()] == ["roles.json"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"engine": 3000}', '{"engine": 1, "oms": 2, "keeper": 3, "sink": 0}']
)
def test_damaged_record_of_the_ports_gives_the_remedy(tmp_path: Path, content: str) -> None:
    """Only for who asks for what it holds."""
    (tmp_path / "roles.json").write_text(content)
    with pytest.raises(SetupError, match=r"roles\.json is damaged: delete it"):
        choose_ports(tmp_path, "127.0.0.1", auto=None)
    assert len(set(choose_ports(tmp_path, "127.0.0.1", auto=True).values())) == len(ROLES)


def test_signing_secret_of_the_embedded_stack_is_made_once(tmp_path: Path) -> None:
    """It is random, stays the same, and is nobody else's to read."""
    secret = signing_secret(tmp_path)
    assert len(secret) == 64
    assert signing_secret(tmp_path) == secret
    assert (tmp_path / "signing-secret").stat().st_mode & 0o077 == 0
    assert [file.name for file in tmp_path.iterdir()] == ["signing-secret"]


def test_an_empty_signing_secret_is_refused(tmp_path: Path) -> None:
    """As a full disk left it; no signed request would be taken, and nobody would be told why."""
    (tmp_path / "signing-secret").write_text("\n")
    with pytest.raises(SetupError, match=r"signing-secret is empty: bring it back .* or delete it"):
        signing_secret(tmp_path)


async def test_a_large_log_makes_room_at_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of the servers do: what a worker says before it ends must not fill the disk over the years."""
    monkeypatch.setattr("forkast_streams.devstack.server.LOG_BYTES_MAX", 3)
    monkeypatch.setattr(supervisor_module.sys, "executable", "/bin/true")
    process = RoleProcess("engine", 1, Settings(data_dir=tmp_path))
    for content in ("old", "large", ""):
        process.log.parent.mkdir(exist_ok=True)
        with process.log.open("a") as log:
            log.write(content)
        await process.start()
        assert await process.wait() == 0
    assert sorted(file.name for file in process.log.parent.iterdir()) == ["engine.log", "engine.log.old"]
    assert process.log.with_suffix(".log.old").read_text() == "oldlarge"
