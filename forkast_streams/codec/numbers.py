"""Numbers of requests, commands and events: JSON numbers or decimal text, read exactly, written as decimal text."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import Final

from forkast_streams.engine.commands import Number
from forkast_streams.engine.symbols import DECIMAL_TEXT_MAX, EXACT, decimal_of
from forkast_streams.errors import InvalidRecord

_NUMBER_TYPES: Final = frozenset({int, str, Decimal})
# Longer integers Python does not write as text without being asked how long they are.
_WORD_BITS: Final = 64


def number_of(field: str, value: object) -> Number:
    """``value`` if it is a number or the text of one.

    Raises:
        InvalidRecord: it is something else.
    """
    # bool is an int to isinstance, and True would be found as 1 in every cache of numbers.
    if type(value) not in _NUMBER_TYPES:
        raise InvalidRecord("INVALID_TYPE", f"{field} must be a number or a decimal string")
    if type(value) is str and (len(value) > DECIMAL_TEXT_MAX or not _is_decimal_text(value)):
        raise InvalidRecord("INVALID_TYPE", f"{field} as text must be a plain decimal number such as 101.25")
    return value  # type: ignore[return-value]


@lru_cache(maxsize=65_536)
def _is_decimal_text(text: str) -> bool:
    try:
        decimal_of(text)
    except ValueError:
        return False
    return True


def decimal_text(number: Number) -> str:
    """A number as plain decimal text without superfluous zeros."""
    if type(number) is int and number.bit_length() < _WORD_BITS:
        return str(number)
    # Wider than the language's default, which would round the longest amounts of money.
    return f"{decimal_of(number).normalize(EXACT):f}"
