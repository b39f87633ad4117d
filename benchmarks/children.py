"""Measurements in a process of their own: a fresh memory, and nothing else on its interpreter."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent


def measure_in_child(module: str, *arguments: object) -> Any:
    """Run ``python -m benchmarks.MODULE ARGUMENTS`` and return what it printed last, a line of JSON.

    Raises:
        RuntimeError: it failed; the message has its last words.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    env = os.environ | {"PYTHONPATH": str(_ROOT)}
    done = subprocess.run(command, cwd=_ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[2:])} ended with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def collect_as_a_worker_does() -> None:
    """Set the garbage collector as `forkast worker` does, with all that exists so far out of its sight."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
