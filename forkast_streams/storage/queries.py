"""Named SQL: each statement is a file of its own beside this module."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

_PARAMETER = re.compile(r"%\((\w+)\)s")


@cache
def query(name: str) -> str:
    """The text of ``sql/<name>.sql``.

    Raises:
        FileNotFoundError: there is no query of this name.
    """
    return resources.files("forkast_streams.storage").joinpath("sql", f"{name}.sql").read_text("utf-8")


@cache
def prepared(name: str) -> tuple[str, str]:
    """The statement that prepares the query of this name on a connection, and the one that runs it there then.

    The latter has the query's parameters, by their names.

    Raises:
        FileNotFoundError: there is no query of this name.
    """
    text = query(name)
    places = {parameter: place for place, parameter in enumerate(dict.fromkeys(_PARAMETER.findall(text)), start=1)}
    numbered = _PARAMETER.sub(lambda found: f"${places[found[1]]}", text)
    arguments = ", ".join(f"%({parameter})s" for parameter in places)
    return f"PREPARE {name} AS {numbered}", f"EXECUTE {name} ({arguments})"
