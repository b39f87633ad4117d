"""The system user as whom Postgres runs when we are root, which it refuses to be."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
import subprocess
from pathlib import Path

from forkast_streams.errors import SetupError

# The name the package of the Postgres programs uses for the same purpose.
USER_NAME = "pgserver"


def server_user() -> pwd.struct_passwd | None:
    """Return the user to switch to, made if need be; None if we are an ordinary user ourselves."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(USER_NAME)
    command = ["useradd", "--system", "--no-create-home", "--shell", "/bin/sh", USER_NAME]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        # Another program may have made the user meanwhile.
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(USER_NAME)
        raise SetupError(
            f"Postgres does not run as root and the system user {USER_NAME} cannot be made ({error}): "
            "start as an ordinary user"
        ) from error
    return pwd.getpwnam(USER_NAME)


def let_pass(folder: Path) -> list[Path]:
    """Let every user pass through the parents of ``folder``, without letting them list the parents; return the changed.

    They stay so: the servers need it for as long as they run, and nobody is there when they end.
    """
    changed = []
    for parent in folder.resolve().parents:
        mode = stat.S_IMODE(parent.stat().st_mode)
        if not mode & stat.S_IXOTH:
            parent.chmod(mode | stat.S_IXOTH)
            changed.append(parent)
    return changed


def give(path: Path, user: pwd.struct_passwd) -> None:
    """Make ``path`` belong to ``user``."""
    os.chown(path, user.pw_uid, user.pw_gid)
