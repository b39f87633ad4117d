"""The ``forkast`` command itself."""

from __future__ import annotations

import subprocess
import sys

from typer.testing import CliRunner

from forkast_streams.cli import app


def test_every_command_has_its_line_in_the_help() -> None:
    """The help names them all, and each of them has its own."""
    runner = CliRunner()
    lines = runner.invoke(app, ["--help"]).output.splitlines()
    for name in ("up", "init", "worker", "book", "audit", "bench", "order", "keys", "replay", "stack", "symbols"):
        assert any(line.split()[1:2] == [name] for line in lines), name
        one = runner.invoke(app, [name, "--help"])
        assert one.exit_code == 0
        assert f"forkast {name}" in one.output
        assert "--install-completion" not in one.output


def test_unknown_command_is_answered_with_the_one_that_was_meant() -> None:
    """A slip of the keyboard gets a proposal."""
    refused = CliRunner().invoke(app, ["wroker"])
    assert refused.exit_code == 2
    assert "Did you mean 'worker'?" in refused.output


def test_a_worker_does_not_load_the_other_commands() -> None:
    """What only the audit and the replays need would be a third of the time in which a worker starts."""
    script = "import sys, forkast_streams.cli.worker; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "forkast_streams.cli.worker" in loaded
    assert [name for name in loaded if name.startswith(("forkast_streams.audit", "forkast_streams.replay"))] == []
