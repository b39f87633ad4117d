"""What a measurement was made on: figures without it compare to nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from forkast_streams.compiled import is_compiled

_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts about the machine.

    Attributes:
        cpu: model name.
        cores: logical processors.
        memory_gib: size of the memory.
        python: implementation and version.
        system: operating system and kernel.
        compiled: whether the engine is compiled, as `make setup` does where there is a C compiler.
        commit: of the checkout, with ``+`` when files differ from it; None outside of git.
        load: runnable processes over 1, 5 and 15 minutes before the run.
    """

    cpu: str
    cores: int
    memory_gib: float
    python: str
    system: str
    compiled: bool
    commit: str | None
    load: tuple[float, float, float]


def this_machine() -> Machine:
    """Look at the machine as it is now."""
    return Machine(
        cpu=_cpu_model(),
        cores=os.cpu_count() or 1,
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        system=f"{platform.system()} {platform.release()}",
        compiled=is_compiled(),
        commit=_commit(),
        load=load_average(),
    )


def load_average() -> tuple[float, float, float]:
    """Runnable processes over 1, 5 and 15 minutes."""
    one, five, fifteen = (round(load, 2) for load in psutil.getloadavg())
    return one, five, fifteen


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _commit() -> str | None:
    try:
        revision = _git("rev-parse", "--short=10", "HEAD")
        return revision + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
