"""The development stack with its real servers."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from forkast_streams.devstack import PortTaken, Stack
from forkast_streams.devstack import postgres as postgres_module
from forkast_streams.devstack import server as server_module
from forkast_streams.devstack.jars import cache_dir, ensure_jars
from forkast_streams.devstack.kafka import Kafka, start_cache
from forkast_streams.devstack.ports import free_ports
from forkast_streams.devstack.postgres import Postgres
from forkast_streams.devstack.redis import Redis
from forkast_streams.devstack.state import PORT_NAMES, StackState
from forkast_streams.errors import SetupError

SERVERS = ("kafka", "postgres", "redis")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A fresh folder that the user of Postgres can pass to when we are root."""
    folder = Path(tempfile.mkdtemp(prefix="forkast-devstack-"))
    yield folder
    with contextlib.suppress(SetupError):
        Stack(folder).stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def own_stack(folder: Path) -> Iterator[Stack]:
    """A stack that a test may stop and damage."""
    stack = Stack(folder, "auto")
    stack.start()
    yield stack
    stack.stop()


def eventually(condition: Callable[[], bool], within_s: float = 20) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every living process that has the folder in its command line or works in it."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                continue
            if str(folder) in " ".join(process.cmdline()) or process.cwd().startswith(str(folder)):
                found.append(process)
    return found


async def write_and_read(env: dict[str, str], *, write: bool) -> tuple[bytes | None, int, str | None]:
    """Put one value into each server if told so; return what each has."""
    brokers = env["KAFKA_BROKERS"]
    if write:
        admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
        await admin.start()
        await admin.create_topics([NewTopic("kept", 1, 1)])
        await admin.close()
        async with AIOKafkaProducer(bootstrap_servers=brokers, acks="all") as producer:
            await producer.send_and_wait("kept", b"value")
    async with AIOKafkaConsumer("kept", bootstrap_servers=brokers, auto_offset_reset="earliest") as consumer:
        value = (await consumer.getone()).value
    with contextlib.closing(psycopg2.connect(env["DATABASE_URL"])) as database, database.cursor() as cursor:
        if write:
            cursor.execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
            database.commit()
        cursor.execute("SELECT n FROM kept")
        row = cursor.fetchone()
    with redis.Redis.from_url(env["REDIS_URL"], decode_responses=True) as cache:
        if write:
            cache.set("kept", "value")
        cached = cache.get("kept")
    assert row is not None
    return value, row[0], cached


async def test_data_and_ports_survive_a_restart(own_stack: Stack, folder: Path) -> None:
    """All three servers answer, and after a stop and a start of another `Stack` they have what they had."""
    assert [status.name for status in own_stack.status() if status.answers] == list(SERVERS)
    env = own_stack.env()
    assert await write_and_read(env, write=True) == (b"value", 7, "value")
    own_stack.stop()
    with Stack(folder, "auto") as again:
        assert again.env() == env
        assert await write_and_read(env, write=False) == (b"value", 7, "value")


def test_stop_leaves_no_process(own_stack: Stack, folder: Path) -> None:
    """Not of the servers, not of the children that Postgres gives sessions of their own."""
    family = processes_of(folder)
    assert len(family) > len(SERVERS)
    own_stack.stop()
    assert not processes_of(folder)
    assert not [process for process in family if process.is_running()]
    assert not any(status.pid for status in own_stack.status())
    own_stack.stop()


@pytest.mark.parametrize("new_object", [False, True], ids=["same object", "another object"])
async def test_start_repairs_what_was_killed(own_stack: Stack, folder: Path, *, new_object: bool) -> None:
    """After kill -9 of all three servers a start brings them back with their data on their ports."""
    env = own_stack.env()
    await write_and_read(env, write=True)
    for status in own_stack.status():
        assert status.pid is not None
        os.kill(status.pid, signal.SIGKILL)
    eventually(lambda: not any(status.pid for status in own_stack.status()))
    if new_object:
        own_stack._lock.release()
        own_stack = Stack(folder)
    try:
        own_stack.start()
        assert own_stack.env() == env
        assert await write_and_read(env, write=False) == (b"value", 7, "value")
    finally:
        own_stack.stop()


def test_start_replaces_one_killed_server_and_keeps_the_others(own_stack: Stack) -> None:
    """The processes of the others stay."""
    before = {status.name: status.pid for status in own_stack.status()}
    assert before["redis"] is not None
    os.kill(before["redis"], signal.SIGKILL)
    eventually(lambda: own_stack.server("redis").process() is None)
    own_stack.start()
    after = {status.name: status.pid for status in own_stack.status()}
    assert after.pop("redis") != before.pop("redis")
    assert after == before


def test_a_recycled_pid_is_never_killed(folder: Path) -> None:
    """A pid file that names a process of another age, as after a restart of the machine, is stale."""
    server = Redis(folder, free_ports(1)[0])
    server.start()
    server.stop()
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        (folder / "run" / "redis.json").write_text(json.dumps({"pid": bystander.pid, "created": 1.0}))
        assert server.status().pid is None
        assert server.ended_by_itself
        server.stop()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.skipif(not Path("/proc").exists(), reason="without /proc there is nothing but the clock")
def test_a_clock_that_is_set_disowns_no_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of the machine's boot, by which others tell processes apart, moves with the clock."""
    server = Redis(folder, free_ports(1)[0])
    server.start()
    try:
        (before,) = [process.pid for process in processes_of(folder)]
        monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: time.time() + 3_600)
        assert server.status().pid == before
        monkeypatch.undo()
        recorded = json.loads((folder / "run" / "redis.json").read_text())
        for other in ({"boot": "before the machine was started again"}, {"created": recorded["created"] + 1}):
            (folder / "run" / "redis.json").write_text(json.dumps(recorded | other))
            assert server.status().pid is None
        # As earlier versions have written it.
        created = psutil.Process(before).create_time()
        (folder / "run" / "redis.json").write_text(json.dumps({"pid": before, "created": created}))
        assert server.status().pid == before
    finally:
        server.stop()
    assert not processes_of(folder)


def test_a_server_that_does_not_end_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that the system can not take away yet, as while a disk hangs, is no error without words."""
    monkeypatch.setattr(server_module, "STOP_DEADLINE_S", 0.05)
    server = Redis(folder, free_ports(1)[0])
    with subprocess.Popen(["sleep", "60"]) as child:
        server._child = child
        try:
            with pytest.raises(SetupError, match=rf"Redis \(pid {child.pid}\) has not ended .*kill -9 {child.pid}"):
                server.stop()
        finally:
            child.kill()


def test_a_lock_file_of_postgres_with_a_living_pid_is_stale(folder: Path) -> None:
    """After a restart of the machine the pid in the cluster's or the socket's may be anybody's."""
    server = Postgres(folder, free_ports(1)[0])
    server.start()
    server.stop()
    cluster = folder / "postgres" / "data"
    # Of the server's own user: one of another's Postgres knows to be none of its kind.
    with subprocess.Popen(["sleep", "60"], **server.popen_options()) as bystander:
        for lock in (cluster / "postmaster.pid", folder / "postgres" / f".s.PGSQL.{server.port}.lock"):
            lock.write_text(f"{bystander.pid}\n{cluster}\n1\n{server.port}\n\n127.0.0.1\n\n")
        try:
            server.start()
            assert server.status().answers
            assert bystander.poll() is None
        finally:
            server.stop()
            bystander.kill()


def test_a_taken_port_is_named(folder: Path) -> None:
    """One sentence with the port, its holder and the remedy; nothing is started."""
    kafka, postgres = free_ports(2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"port {port} for Redis is taken by .*--ports auto") as raised:
            Stack(folder, {"kafka": kafka, "postgres": postgres, "redis": port}).start()
        assert raised.value.port == port
    assert not processes_of(folder)


def test_an_automatic_port_that_was_taken_since_is_replaced(own_stack: Stack, folder: Path) -> None:
    """The others stay as they are recorded."""
    own_stack.stop()
    before = own_stack.env()
    with socket.create_server(("127.0.0.1", own_stack.server("redis").port)), Stack(folder, "auto") as again:
        after = again.env()
    assert after.pop("REDIS_URL") != before.pop("REDIS_URL")
    assert after == before


def test_a_folder_has_one_stack(own_stack: Stack, folder: Path) -> None:
    """A second one can look, but not start or stop."""
    other = Stack(folder)
    assert other.env() == own_stack.env()
    for forbidden in (other.start, other.stop):
        with pytest.raises(SetupError, match=f"managed by process {os.getpid()}"):
            forbidden()


def test_a_half_made_storage_is_made_again(folder: Path) -> None:
    """Formatting under another name means that a crash in it leaves nothing that looks complete."""
    for server in ("kafka", "postgres"):
        (folder / server / "data.new").mkdir(parents=True)
        (folder / server / "data.new" / "meta.properties").write_text("half")
    if os.geteuid() == 0:
        (folder / "postgres" / "data.new").chmod(0o777)
    with Stack(folder, "auto") as stack:
        assert all(status.answers for status in stack.status())


@pytest.mark.parametrize("name", ["Müller é", "börse 😀", "back\\slash"])
def test_kafka_keeps_its_storage_in_a_folder_of_any_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """In the C locale, too, as services and cron have it; nothing is written beside the folder."""
    monkeypatch.setenv("LC_ALL", "C")
    data_dir = folder / name
    (data_dir / "log").mkdir(parents=True)
    Kafka(data_dir, *free_ports(2)).prepare()
    assert (data_dir / "kafka" / "data" / "meta.properties").exists()
    assert [each.name for each in folder.iterdir()] == [name]
    assert sorted(each.name for each in data_dir.iterdir()) == ["kafka", "log"]


@pytest.mark.parametrize(("name", "why"), [("a,b", "comma"), ("latin-\udce9", "UTF-8")])
def test_a_folder_that_kafka_can_not_take_is_refused(folder: Path, name: str, why: str) -> None:
    """Kafka would make two folders of it, and Java would ask for another one."""
    with pytest.raises(SetupError, match=f"{why}.*use another --data-dir"):
        Kafka(folder / name, *free_ports(2)).prepare()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("kind", [Kafka, Postgres])
def test_foreign_files_are_left_alone(folder: Path, kind: type[Kafka | Postgres]) -> None:
    """A folder that holds something else is named, and nothing is written to it."""
    server = kind(folder, *free_ports(2)) if kind is Kafka else kind(folder, *free_ports(1))
    (server.folder / "data").mkdir(parents=True)
    (server.folder / "data" / "letter").write_text("mine")
    with pytest.raises(SetupError, match="move it away"):
        server.start()
    assert [file.name for file in (server.folder / "data").iterdir()] == ["letter"]
    assert not processes_of(folder)


def test_a_broken_start_cache_only_costs_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Java looks at what it is given and starts without it."""
    cache = folder / "cache"
    (cache / cache_dir().name).mkdir(parents=True)
    for jar in ensure_jars():
        (cache / cache_dir().name / jar.name).symlink_to(jar)
    monkeypatch.setenv("FORKAST_CACHE", str(cache))
    start_cache().write_bytes(b"\x00" * 100_000)
    kafka = Kafka(folder, *free_ports(2))
    try:
        kafka.start()
        assert f"-XX:AOTCache={start_cache()}" in kafka.command()
    finally:
        kafka.stop()


def test_a_server_that_cannot_start_shows_its_log_and_stops_the_others(folder: Path) -> None:
    """The error has the log's last lines, where the server says why; the stack is not half up."""
    (folder / "redis" / "appendonlydir").mkdir(parents=True)
    (folder / "redis" / "appendonlydir" / "appendonly.aof.manifest").write_text("broken")
    with pytest.raises(SetupError, match=r"Redis ended while it started: read its log .*redis\.log(?s:.*)manifest"):
        Stack(folder, "auto").start()
    assert not processes_of(folder)


def forkast_stack(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the commands as a program of their own."""
    program = "from forkast_streams.cli.stack import app; app()"
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)


def test_commands_in_separate_processes_work_on_one_stack(folder: Path) -> None:
    """``up`` leaves the servers running, ``status`` and ``env`` find them, ``down`` stops them."""
    where = ("--data-dir", str(folder))
    assert forkast_stack("env", *where).returncode == 1
    up = forkast_stack("up", *where, "--ports", "auto", "--json")
    assert up.returncode == 0, up.stderr
    status = forkast_stack("status", *where, "--json")
    assert status.returncode == 0
    assert [server["answers"] for server in json.loads(status.stdout)] == [True] * 3
    exports = forkast_stack("env", *where).stdout
    shell = subprocess.run(["sh", "-c", f'{exports}\necho "$DATABASE_URL"'], capture_output=True, text=True, check=True)
    assert shell.stdout.strip() == json.loads(up.stdout)["DATABASE_URL"]
    assert forkast_stack("up", *where).returncode == 0
    assert forkast_stack("down", *where).returncode == 0
    assert forkast_stack("status", *where).returncode == 1
    assert not processes_of(folder)


def test_private_folders_that_are_opened_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For root: Postgres runs as another user, who has to pass, and whoever starts it is told that others can, too."""
    user = pwd.getpwuid(os.geteuid())
    monkeypatch.setattr(postgres_module, "server_user", lambda: user)
    monkeypatch.setattr(postgres_module, "_find_programs", lambda: folder)
    monkeypatch.setattr(Postgres, "_initdb", lambda _: None)
    private = folder / "private"
    private.mkdir(mode=0o700)
    folder.chmod(0o711)
    said: list[str] = []
    for _ in range(2):
        server = Postgres(private, 1)
        server.report = said.append
        server.prepare()
    assert said == [f"{private} now lets every user pass (chmod o+x), as Postgres runs as user pgserver"]
    assert private.stat().st_mode & 0o777 == 0o701


def test_a_look_at_the_servers_makes_no_user(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a start needs one."""
    StackState("auto", dict(zip(PORT_NAMES, free_ports(len(PORT_NAMES)), strict=True))).save(folder / "stack.json")
    monkeypatch.setattr(postgres_module, "server_user", lambda: pytest.fail("it makes the user"))
    assert [server.pid for server in Stack(folder).status()] == [None] * 3
    Stack(folder).stop()


def test_an_error_of_a_command_is_one_sentence(folder: Path) -> None:
    """No trace is shown."""
    failed = forkast_stack("env", "--data-dir", str(folder))
    assert failed.returncode == 1
    assert failed.stderr.startswith("forkast: there is no stack in")
    assert failed.stderr.count("\n") == 1
    assert failed.stdout == ""


async def test_the_shared_stack_answers(stack: Stack, stack_env: dict[str, str]) -> None:
    """The fixtures that other tests use."""
    assert all(status.answers for status in stack.status())
    admin = AIOKafkaAdminClient(bootstrap_servers=stack_env["KAFKA_BROKERS"])
    await admin.start()
    assert isinstance(await admin.list_topics(), list)
    await admin.close()
