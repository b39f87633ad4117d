"""Apache Kafka as one KRaft process that is broker and controller."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import shutil
import socket
import struct
import subprocess
import uuid
from pathlib import Path

from forkast_streams.devstack.jars import LOCK_FILE, cache_dir, ensure_jars
from forkast_streams.devstack.java import find_java
from forkast_streams.devstack.ports import LOOPBACK
from forkast_streams.devstack.server import Server
from forkast_streams.errors import SetupError

JAVA_OPTIONS = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    # The quick compiler alone starts sooner, takes less of the cores the exchange needs, and costs a broker
    # that mostly moves bytes no throughput.
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
    f"-Dlog4j2.configurationFile={Path(__file__).with_name('log4j2.properties')}",
)
MESSAGE_BYTES_MAX = 4 << 20
PROBE_TIMEOUT_S = 1.0
FORMAT_TIMEOUT_S = 60.0

METADATA_REQUEST = 3
METADATA_VERSION = 4


def start_cache() -> Path:
    """Where the cache is, or would be, with which Java starts Kafka quickly: beside the jars it was made of."""
    return cache_dir() / f"start-{hashlib.sha256(LOCK_FILE.read_bytes()).hexdigest()[:12]}.aot"


class Kafka(Server):
    """The broker on ``port``; its controller listens on ``controller_port``, for itself only."""

    name = "kafka"
    title = "Kafka"
    # What a subclass with users or other features formats the storage with.
    format_options: tuple[str, ...] = ()

    def __init__(self, data_dir: Path, port: int, controller_port: int) -> None:
        super().__init__(data_dir, port)
        self.controller_port = controller_port
        # What its storage is formatted for, once.
        self.cluster_id = new_cluster_id()
        self._logs = self.folder / "data"
        self._config = self.folder / "server.properties"

    def prepare(self) -> None:
        """Fetch the jars, write the configuration, format the storage once."""
        _require_usable(self.folder)
        ensure_jars()
        self.folder.mkdir(exist_ok=True)
        self._config.write_text(self._properties(self._logs), "utf-8")
        if (self._logs / "meta.properties").exists():
            return
        if self._logs.exists() and any(self._logs.iterdir()):
            raise SetupError(
                f"{self._logs} holds files but no meta.properties, so it is no Kafka storage: move it away"
            )
        self._format()

    def command(self) -> list[str]:
        """Return the broker's command line."""
        return [*self._java(), "kafka.Kafka", str(self._config)]

    def popen_options(self) -> dict[str, object]:
        """Let Java take paths as they are: in the C locale it knows ASCII alone."""
        return {"env": os.environ | {"LC_ALL": "C.UTF-8"}}

    def answers(self) -> bool:
        """Ask for the cluster's brokers; a broker that is still fenced does not name itself."""
        return self.count_brokers() > 0

    def count_brokers(self) -> int:
        """How many brokers this one knows, itself among them; 0 when it does not answer."""
        with (
            contextlib.suppress(OSError, struct.error),
            socket.create_connection((LOOPBACK, self.port), PROBE_TIMEOUT_S) as connection,
        ):
            return _count_brokers(connection)
        return 0

    def _java(self) -> list[str]:
        class_path = ":".join(map(str, ensure_jars()))
        cache = start_cache()
        quick = ["-XX:+IgnoreUnrecognizedVMOptions", f"-XX:AOTCache={cache}"] if cache.exists() else []
        return [str(find_java()), *JAVA_OPTIONS, *quick, "-cp", class_path]

    def _format(self) -> None:
        """Format under another name and rename: a half-formatted storage never counts."""
        fresh = self.folder / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        config = self.folder / "format.properties"
        config.write_text(self._properties(fresh), "utf-8")
        tool = [
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={self.cluster_id}",
            "--config",
            str(config),
            *self.format_options,
        ]
        with self._open_log() as log:
            done = subprocess.run(  # type: ignore[call-overload]
                [*self._java(), *tool],
                stdout=log,
                stderr=log,
                timeout=FORMAT_TIMEOUT_S,
                check=False,
                **self.popen_options(),
            )
        if done.returncode != 0:
            raise self.failure("could not format its storage")
        config.unlink()
        # Only an empty folder can be in the way here.
        fresh.replace(self._logs)

    def _properties(self, logs: Path) -> str:
        return "".join(f"{key}={_escape(value)}\n" for key, value in self._settings(logs).items())

    def _settings(self, logs: Path) -> dict[str, object]:
        """The broker's settings with its storage in ``logs``; a subclass has others."""
        broker, controller = f"{LOOPBACK}:{self.port}", f"{LOOPBACK}:{self.controller_port}"
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            # Named here and not kept in the storage, so that a folder may move to other ports.
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{broker}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": logs,
            # The exchange makes its topics itself, with their settings.
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "share.coordinator.state.topic.num.partitions": 1,
            # One worker after the other joins on one machine; waiting for more would only delay it.
            "group.initial.rebalance.delay.ms": 0,
            # Tests kill workers and wait until the group notices.
            "group.min.session.timeout.ms": 2_000,
            # After kill -9 the broker is let in again when its former session is over; 9 s by default.
            "broker.session.timeout.ms": 3_000,
            "broker.heartbeat.interval.ms": 500,
            # The log is the truth: nothing is deleted by age.
            "log.retention.ms": -1,
            "message.max.bytes": MESSAGE_BYTES_MAX,
            "replica.fetch.max.bytes": MESSAGE_BYTES_MAX,
            "num.network.threads": 2,
            "num.io.threads": 4,
            "num.recovery.threads.per.data.dir": 2,
            "controlled.shutdown.enable": "true",
        }


def new_cluster_id() -> str:
    """Make up what brokers and their storage know each other by."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _escape(value: object) -> str:
    """Escape what Java's property files take for their own: backslashes, and all but ASCII as UTF-16 units."""
    text = str(value).replace("\\", "\\\\").encode("utf-16-be")
    units = (unit for (unit,) in struct.iter_unpack(">H", text))
    return "".join(chr(unit) if 0x20 <= unit < 0x7F else f"\\u{unit:04x}" for unit in units)


def _require_usable(folder: Path) -> None:
    """Refuse paths that Kafka would take for others, before it writes there."""
    if "," in str(folder):
        raise SetupError(f"{folder} has a comma in its path, where Kafka begins another folder: use another --data-dir")
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise SetupError(f"{folder!r} is no text in UTF-8, as Java needs it: use another --data-dir") from None


def _count_brokers(connection: socket.socket) -> int:
    """Send a metadata request for no topics and return the number of brokers in the answer.

    Kafka's protocol, ``Metadata`` version 4: header (key, version, correlation id, no client id), an empty
    array of topics, no auto-creation; the answer has correlation id, throttle time, array of brokers.
    """
    request = struct.pack(">hhihib", METADATA_REQUEST, METADATA_VERSION, 1, -1, 0, 0)
    connection.settimeout(PROBE_TIMEOUT_S)
    connection.sendall(struct.pack(">i", len(request)) + request)
    answer = b""
    while len(answer) < 16 and (received := connection.recv(4096)):
        answer += received
    _size, _correlation, _throttle, brokers = struct.unpack_from(">iiii", answer)
    return int(brokers)
