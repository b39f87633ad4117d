"""What middlewares note of a request."""

from __future__ import annotations

from typing import TypeVar

from aiohttp import web

NoteT = TypeVar("NoteT")


def peek(request: web.BaseRequest, key: web.RequestKey[NoteT]) -> NoteT | None:
    """As ``request.get(key)``, which raises and catches an error when nothing is there."""
    note: NoteT | None = request._state.get(key)  # noqa: SLF001 - has no public name
    return note
