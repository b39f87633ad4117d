"""Named SQL: each statement is a file of its own beside this module."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def query(name: str) -> str:
    """The text of ``sql/<name>.sql``.

    Raises:
        FileNotFoundError: there is no query of this name.
    """
    return resources.files("forkast_streams.storage").joinpath("sql", f"{name}.sql").read_text("utf-8")
