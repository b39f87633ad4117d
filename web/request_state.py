"""What middlewares note of a request: as its own items, without what these look at and wrap at each access."""

from __future__ import annotations

from typing import TypeVar

from aiohttp import web

NoteT = TypeVar("NoteT")


def peek(request: web.BaseRequest, key: web.RequestKey[NoteT]) -> NoteT | None:
    """As ``request.get(key)``, which raises and catches an error when nothing is there."""
    noted: NoteT | None = request._state.get(key)  # noqa: SLF001 - has no public name
    return noted


def note(request: web.BaseRequest, key: web.RequestKey[NoteT], value: NoteT) -> None:
    """As ``request[key] = value``."""
    request._state[key] = value  # noqa: SLF001 - has no public name
