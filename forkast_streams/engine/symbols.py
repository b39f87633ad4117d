"""A symbol's trading rules, and the exact way between decimals and integer ticks and lots."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

# What Grid.units answers for a value that is no multiple of the step within the limits.
OUT_OF_RANGE: Final = 0
OFF_GRID: Final = -1

TRADING: Final = "TRADING"
HALTED: Final = "HALTED"
STATUSES: Final = frozenset({TRADING, HALTED})

_DECIMAL_TEXT = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?", re.ASCII)
_CACHE_MAX = 65_536


class Grid:
    """The multiples of one step: decimals outside, integers inside.

    Attributes:
        step: distance between two values, such as the tick size 0.01.
        maximum: the largest value.
    """

    __slots__ = ("_decimals", "_scale", "_step_units", "_texts", "_units", "maximum", "step")

    def __init__(self, step: Decimal, maximum: Decimal) -> None:
        self.step = step
        self.maximum = maximum
        self._decimals = max(0, -int(step.normalize().as_tuple().exponent))
        self._scale = 10**self._decimals
        self._step_units = int(step.scaleb(self._decimals))
        self._units: dict[int | str | Decimal, int] = {}
        self._texts: dict[int, str] = {}

    def units(self, value: int | str | Decimal) -> int:
        """Return ``value`` in steps, ``OUT_OF_RANGE`` or ``OFF_GRID``.

        Raises:
            ValueError: the text is no plain decimal number.
        """
        units = self._units.get(value)
        if units is None:
            units = self._parse(value)
            if len(self._units) >= _CACHE_MAX:
                self._units.clear()
            self._units[value] = units
        return units

    def text(self, units: int) -> str:
        """Return ``units`` steps as decimal text with the grid's fixed number of decimals."""
        text = self._texts.get(units)
        if text is None:
            whole, fraction = divmod(units * self._step_units, self._scale)
            text = f"{whole}.{fraction:0{self._decimals}d}" if self._decimals else str(whole)
            if len(self._texts) >= _CACHE_MAX:
                self._texts.clear()
            self._texts[units] = text
        return text

    def _parse(self, value: int | str | Decimal) -> int:
        number = decimal_of(value)
        if not 0 < number <= self.maximum:
            return OUT_OF_RANGE
        if number % self.step:
            return OFF_GRID
        return int(number / self.step)


def decimal_of(value: int | str | Decimal) -> Decimal:
    """Return ``value`` exactly.

    Raises:
        ValueError: the text is no plain decimal number, or the number is not finite.
    """
    if isinstance(value, str) and not _DECIMAL_TEXT.fullmatch(value):
        raise ValueError("a number as text must look like 101.25")
    number = Decimal(value)
    if not number.is_finite():
        raise ValueError("a number must be finite")
    return number


class Symbol:
    """The trading rules of one symbol and the last sequence it gave out."""

    __slots__ = ("id", "lots", "name", "sequence", "status", "ticks")

    def __init__(self, symbol_id: int, name: str, ticks: Grid, lots: Grid, status: str) -> None:
        self.id = symbol_id
        self.name = name
        self.ticks = ticks
        self.lots = lots
        self.status = status
        self.sequence = 0
