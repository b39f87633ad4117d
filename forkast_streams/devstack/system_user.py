"""The system user as whom Postgres runs when we are root, which it refuses to be."""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import stat
import subprocess
from pathlib import Path

from forkast_streams.errors import SetupError

logger = logging.getLogger(__name__)

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


def let_pass(folder: Path) -> None:
    """Let every user pass through the parents of ``folder``, without letting them list the parents."""
    for parent in folder.resolve().parents:
        mode = stat.S_IMODE(parent.stat().st_mode)
        if not mode & stat.S_IXOTH:
            logger.info("letting user %s pass through %s", USER_NAME, parent)
            parent.chmod(mode | stat.S_IXOTH)


def give(path: Path, user: pwd.struct_passwd) -> None:
    """Make ``path`` belong to ``user``."""
    os.chown(path, user.pw_uid, user.pw_gid)
