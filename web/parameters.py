"""Path and query parameters, read strictly."""

from __future__ import annotations

import re

from aiohttp import web

from forkast_streams.errors import ApiError

_INTEGER = re.compile(r"[1-9][0-9]{0,9}", re.ASCII)


def symbol_id_of(request: web.Request) -> int:
    """The ``symbolId`` of the path.

    Raises:
        ApiError: it is no positive integer.
    """
    text = request.match_info["symbolId"]
    if not _INTEGER.fullmatch(text):
        raise ApiError(400, "INVALID_ID", "symbolId must be a positive integer", field="symbolId")
    return int(text)


def text_parameter(request: web.Request, name: str) -> str | None:
    """A query parameter; None when it is not there.

    Raises:
        ApiError: 400, it is there twice.
    """
    values = request.query.getall(name, [])
    if len(values) > 1:
        raise ApiError(400, "DUPLICATE_PARAM", f"{name} must be given once", field=name)
    return values[0] if values else None


def integer_parameter(request: web.Request, name: str, *, default: int, most: int) -> int:
    """A query parameter from 1 to ``most``, or its default when it is not there.

    Raises:
        ApiError: 400, it is there twice, is no positive integer, or is out of range.
    """
    text = text_parameter(request, name)
    if text is None:
        return default
    if not _INTEGER.fullmatch(text):
        raise ApiError(400, "INVALID_TYPE", f"{name} must be a positive integer", field=name)
    number = int(text)
    if number > most:
        raise ApiError(400, "OUT_OF_RANGE", f"{name} must be at most {most}", field=name)
    return number


def optional_symbol_id(request: web.Request) -> int | None:
    """The query parameter ``symbolId``; None when it is not there.

    Raises:
        ApiError: 400, it is there twice, is no positive integer, or another parameter is there.
    """
    for name in request.query:
        if name != "symbolId":
            # A misspelt name must not make one symbol into all of them.
            raise ApiError(400, "UNKNOWN_PARAM", "the only parameter here is symbolId")
    if "symbolId" not in request.query:
        return None
    return integer_parameter(request, "symbolId", default=0, most=2**31 - 1)
