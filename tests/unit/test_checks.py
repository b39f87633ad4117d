"""What ``make check`` asks of the source holds: lint, format, types and the direction of imports."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _commands() -> list[str]:
    target = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert target is not None
    return [line.strip().removeprefix("$(BIN)/") for line in target[1].splitlines()]


@pytest.mark.parametrize("command", _commands())
def test_check_passes(command: str) -> None:
    """By the programs beside this one; their answer is what one reads."""
    program, *arguments = command.split()
    path = Path(sys.executable).parent / program
    done = subprocess.run([path, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
