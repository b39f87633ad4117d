"""``forkast up`` leaves alone what it does not manage."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forkast_streams.cli import app
from forkast_streams.cli import up as command
from forkast_streams.devstack import stack as stack_module
from forkast_streams.devstack.server import _PidFile, write_atomic
from forkast_streams.devstack.state import StackState
from forkast_streams.errors import SetupError


def test_servers_that_a_start_refuses_to_use_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`forkast stack up` has left them running, on other ports than `forkast up` is asked for."""
    monkeypatch.setattr(stack_module, "ensure_jars", lambda **_: None)
    monkeypatch.setattr(command, "require_fresh", lambda: None)
    monkeypatch.setattr(command, "forget_servers", lambda _: None)
    monkeypatch.setattr(command, "unwind_on_ending_signals", dict)
    ports = {"kafka": 29092, "postgres": 25432, "redis": 26379, "kafka_controller": 29093}
    StackState("default", ports).save(tmp_path / "stack.json")
    (tmp_path / "run").mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as server:
        write_atomic(tmp_path / "run" / "redis.json", json.dumps(asdict(_PidFile.of(server.pid))))
        refused = CliRunner().invoke(app, ["up", "--data-dir", str(tmp_path), "--ports", "auto"])
        assert isinstance(refused.exception, SetupError)
        assert "still run on other ports" in str(refused.exception)
        assert "stopped" not in refused.output
        assert server.poll() is None
