"""Strict decoding of JSON bodies: every field known, given once and of its type, numbers read exactly. No I/O."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from functools import cache
from operator import is_not
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import astuple

from forkast_streams.errors import ApiError

_FIELD_NAME = re.compile(r"[A-Za-z0-9_]{1,40}", re.ASCII)
_NAME_IN_BODY = re.compile(rb'"(\w+)"\s*:')

BodyT = TypeVar("BodyT", bound=Struct)


@cache
def _reader(kind: type[Struct]) -> tuple[msgspec.json.Decoder[Any], tuple[object, ...]]:
    """What decodes a type of body, and what its fields are when a body does not have them.

    For a field that a body must have that is nothing that a body can give.
    """
    defaults = tuple(field.default for field in msgspec.structs.fields(kind))
    return msgspec.json.Decoder(kind, float_hook=Decimal), defaults


def decode_body(kind: type[BodyT], body: bytes) -> BodyT:
    """Decode the body of a request, a trader's or another one, strictly.

    Raises:
        ApiError: 400, with a code and the field at fault.
    """
    decoded = decode_shape(kind, body)
    # A name has a colon behind it, and what is not the default was given: when these are as many, no name comes twice.
    given = sum(map(is_not, astuple(decoded), _reader(kind)[1]))
    if body.count(b":") != given:
        refuse_repeated_fields(body)
    return decoded


def decode_shape(kind: type[BodyT], body: bytes) -> BodyT:
    """As ``decode_body``, but for fields that are there twice: of those the last one counts."""
    try:
        return _reader(kind)[0].decode(body)  # type: ignore[no-any-return]
    except msgspec.ValidationError as exc:
        raise _shape_error(str(exc)) from None
    except (msgspec.DecodeError, ValueError, RecursionError, ArithmeticError):
        raise _no_json() from None


def refuse_repeated_fields(body: bytes) -> None:
    """Refuse a body in which any object, also one within another, has a field twice.

    Raises:
        ApiError: 400.
    """
    # Without escapes each name stands there as it is, before a colon; other names are no fields and refused by now.
    names = _NAME_IN_BODY.findall(body)
    if len(set(names)) == len(names) and b"\\" not in body:
        return
    try:
        json.loads(body, object_pairs_hook=_without_repeats, parse_float=_unread, parse_int=_unread)
    except (ValueError, RecursionError, ArithmeticError):
        raise _no_json() from None


def _no_json() -> ApiError:
    return ApiError(400, "INVALID_JSON", "the body must be one JSON object in UTF-8")


def _without_repeats(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ApiError(400, "DUPLICATE_FIELD", "a field must be given once")


def _unread(_text: str) -> None:
    """Numbers are not looked at here, and a long one must not cost time."""


def _shape_error(message: str) -> ApiError:
    """The decoder's complaint in our words and codes, without a value of the request in it."""
    quoted = re.findall(r"`([^`]*)`", message)
    path = quoted[-1].removeprefix("$.") if quoted and quoted[-1].startswith("$.") else None
    # By their beginnings: further on, a message can quote the request.
    if message.startswith("Object contains unknown field"):
        name = quoted[0] if quoted and _FIELD_NAME.fullmatch(quoted[0]) else None
        return ApiError(400, "UNKNOWN_FIELD", "the body has a field that this request does not know", field=name)
    if message.startswith("Object missing required field"):
        return ApiError(400, "MISSING_FIELD", f"{quoted[0]} is missing", field=quoted[0])
    if message.startswith("Invalid enum value"):
        return ApiError(400, "INVALID_ENUM", f"{path} has none of its possible values", field=path)
    if path is None:
        return ApiError(400, "BODY_NOT_OBJECT", "the body must be a JSON object")
    return ApiError(400, "INVALID_TYPE", f"{path} has the wrong type", field=path)
