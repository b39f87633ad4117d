"""What a stack's folder remembers between runs: its ports, and who manages it now."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from forkast_streams.devstack.ports import free_ports
from forkast_streams.devstack.server import write_atomic
from forkast_streams.errors import SetupError

PortsMode = Literal["default", "auto", "fixed"]

DEFAULT_PORTS: Mapping[str, int] = {"kafka": 9092, "postgres": 5432, "redis": 6379}
# Nobody but the broker itself talks to its controller, so any port serves.
HIDDEN_PORTS = ("kafka_controller",)
PORT_NAMES = (*DEFAULT_PORTS, *HIDDEN_PORTS)


@dataclass(frozen=True, slots=True)
class StackState:
    """The content of ``stack.json``.

    Attributes:
        mode: how the ports were chosen.
        ports: TCP port by name, see `PORT_NAMES`.
    """

    mode: PortsMode
    ports: Mapping[str, int]

    @classmethod
    def load(cls, file: Path) -> StackState | None:
        """Read the file; None if there is none.

        Raises:
            SetupError: its content is not what `save` writes.
        """
        try:
            content = json.loads(file.read_text("utf-8"))
            ports = {name: int(content["ports"][name]) for name in PORT_NAMES}
            if content["mode"] not in ("default", "auto", "fixed"):
                raise ValueError(content["mode"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise SetupError(f"{file} is damaged: delete it, the next start writes it anew") from error
        return cls(content["mode"], ports)

    def save(self, file: Path) -> None:
        """Write the file at once or not at all."""
        write_atomic(file, json.dumps({"mode": self.mode, "ports": dict(self.ports)}, indent=2) + "\n")


def choose_ports(
    choice: Literal["default", "auto"] | Mapping[str, int] | None, recorded: StackState | None
) -> StackState:
    """Settle the ports of the next start.

    Args:
        choice: ``"default"`` the servers' well-known ports; ``"auto"`` free ones; a mapping of names of
            `PORT_NAMES` to ports, the others as recorded or well-known; None as recorded, else well-known.
        recorded: what the last start settled. Ports once chosen automatically are kept.
    """
    if recorded is not None and (choice is None or choice == recorded.mode):
        return recorded
    if choice == "auto":
        return StackState("auto", dict(zip(PORT_NAMES, free_ports(len(PORT_NAMES)), strict=True)))
    ports: dict[str, int] = dict(DEFAULT_PORTS)
    mode: PortsMode = "default"
    if isinstance(choice, Mapping):
        if unknown := choice.keys() - set(PORT_NAMES):
            raise SetupError(f"there is no server {', '.join(sorted(unknown))}: ports are for {', '.join(PORT_NAMES)}")
        mode, ports = "fixed", {**ports, **(recorded.ports if recorded else {}), **choice}
    for name in HIDDEN_PORTS:
        if name not in ports:
            ports[name] = free_ports(1, avoid=ports.values())[0]
    return StackState(mode, ports)


class FolderLock:
    """Held by the one process that manages the stack of a folder; the system releases it if that dies."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stream: IO[str] | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._stream is not None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            SetupError: another process has it.
        """
        stream = self._file.open("a+", encoding="ascii")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            stream.seek(0)
            holder = stream.read().strip() or "another process"
            stream.close()
            raise SetupError(
                f"the servers in {self._file.parent} are managed by process {holder}: stop that one, "
                "or use another --data-dir"
            ) from error
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        self._stream = stream

    def release(self) -> None:
        """Give the lock back."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
