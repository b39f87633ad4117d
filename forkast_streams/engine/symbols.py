"""A symbol's trading rules, and the exact way between decimals and integer ticks and lots."""

from __future__ import annotations

import re
from decimal import Context, Decimal
from itertools import count
from typing import Final

from librt.vecs import vec
from mypy_extensions import i64

from forkast_streams.engine.define_symbol import DefineSymbol
from forkast_streams.limits import PRICE_MAX, QUANTITY_MAX

# What Grid.units answers for a value that is no multiple of the step within the limits.
OUT_OF_RANGE: Final = 0
OFF_GRID: Final = -1

TRADING: Final = "TRADING"
HALTED: Final = "HALTED"
CANCEL_ONLY: Final = "CANCEL_ONLY"
STATUSES: Final = (TRADING, HALTED, CANCEL_ONLY)

_DECIMAL_TEXT = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?", re.ASCII)
# Characters of the longest number that is one.
DECIMAL_TEXT_MAX: Final = 42
# So many numbers, and as many texts, are remembered by a grid before it begins anew. Whoever sends orders chooses their
# numbers: they make a symbol, which has two grids, hold at most some 3 MiB. With a thousand prices a side as few are
# missed as with sixteen times the room, and to work one out takes half a microsecond.
_CACHE_MAX: Final = 4_096
# Bytes of a number that is remembered: a valid one may have a million zeros behind its point.
_CACHED_BYTES_MAX: Final = 128
_COLLAR_PARTS: Final = 100_000_000
# Numbers asked for recently, with the number of the grid that was asked and its answer; see Grid.units.
_RECENT: Final[i64] = 4_096
_RECENT_VALUES: Final[list[int | str | Decimal]] = [0] * 4_096
_RECENT_GRIDS: Final = vec[i64]([0] * 4_096)
_RECENT_UNITS: Final = vec[i64]([OUT_OF_RANGE] * 4_096)
_GRID_NUMBERS: Final = count(1)
# Wide enough for the largest amount of money in the smallest unit there can be.
EXACT: Final = Context(prec=80)


class Grid:
    """The multiples of one step: decimals outside, integers inside.

    Attributes:
        step: distance between two values, such as the tick size 0.01.
        maximum: the largest value.
    """

    __slots__ = (
        "_decimals",
        "_number",
        "_scale",
        "_step_units",
        "_texts",
        "_units",
        "_whole_max",
        "_whole_steps",
        "maximum",
        "step",
    )

    def __init__(self, step: Decimal, maximum: Decimal) -> None:
        self.step = step
        self.maximum = maximum
        self._decimals = max(0, -int(step.normalize().as_tuple().exponent))
        self._scale: int = 10**self._decimals
        self._step_units = int(step.scaleb(self._decimals))
        self._number: i64 = next(_GRID_NUMBERS)
        self._units: dict[int | str | Decimal, int] = {}
        self._texts: dict[int, str] = {}
        # How many steps make one, and the largest whole number; 0 where one is no multiple of the step.
        self._whole_steps: int = 0 if self._scale % self._step_units else self._scale // self._step_units
        self._whole_max = int(maximum)

    def units(self, value: int | str | Decimal) -> int:
        """Return ``value`` in steps, ``OUT_OF_RANGE`` or ``OFF_GRID``.

        Raises:
            ValueError: the text is no plain decimal number.
        """
        if type(value) is int and self._whole_steps != 0:
            return value * self._whole_steps if 0 < value <= self._whole_max else OUT_OF_RANGE
        # A Decimal is hashed anew each time, and the decoder gives the same one for the same text: so the number itself
        # is looked for first, by where it is, which decides nothing but how long this takes.
        at = ((i64(id(value)) >> 4) + self._number) & (_RECENT - 1)
        if _RECENT_VALUES[at] is value and _RECENT_GRIDS[at] == self._number:
            return _RECENT_UNITS[at]
        units = self._units.get(value)
        if units is None:
            units = self._parse(value)
            if units <= 0 or value.__sizeof__() > _CACHED_BYTES_MAX:
                return units
            if len(self._units) >= _CACHE_MAX:
                self._units.clear()
            self._units[value] = units
        _RECENT_VALUES[at], _RECENT_GRIDS[at], _RECENT_UNITS[at] = value, self._number, units
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
    """The trading rules of one symbol and the last sequence it gave out.

    Attributes:
        key: of its records.
        rules: as they were defined.
        status, max_open_orders: of the rules.
        quote_step: value of one lot at one tick, the unit of ``price_ticks * lots``.
        min_lots, max_lots, min_notional: the rules of sizes, in lots and in ``quote_step``.
        has_size_rules: whether there is one of these three.
        collar_parts: the price collar in parts of _COLLAR_PARTS; None when there is none.
        has_optional_rules: whether there is a rule of sizes, a collar or ``max_open_orders``; only then can an order
            with numbers of the grids break a rule.
        messages: sentences that say no more than these rules, by rejection code.
    """

    __slots__ = (
        "collar_parts",
        "has_optional_rules",
        "has_size_rules",
        "id",
        "key",
        "lots",
        "max_lots",
        "max_open_orders",
        "messages",
        "min_lots",
        "min_notional",
        "quote_step",
        "rules",
        "sequence",
        "status",
        "ticks",
    )

    def __init__(self, rules: DefineSymbol, sequence: int = 0) -> None:
        self.id = rules.symbol_id
        self.key = record_key(self.id)
        self.sequence = sequence
        self.ticks = Grid(rules.tick_size, PRICE_MAX)
        self.lots = Grid(rules.lot_size, QUANTITY_MAX)
        self.define(rules)

    @property
    def name(self) -> str:
        """What traders call it."""
        return self.rules.name

    def has_grids_of(self, rules: DefineSymbol) -> bool:
        """Whether ``rules`` have the tick and lot size of now."""
        return (self.ticks.step, self.lots.step) == (rules.tick_size, rules.lot_size)

    def define(self, rules: DefineSymbol) -> None:
        """Let ``rules``, of the same tick and lot size, be the symbol's from now on."""
        assert self.has_grids_of(rules), "other grids make another Symbol"
        self.rules = rules
        self.status = rules.status
        self.max_open_orders = rules.max_open_orders
        self.messages: dict[str, str] = {}
        self.quote_step = EXACT.multiply(rules.tick_size, rules.lot_size)
        self.min_lots = 0 if rules.min_quantity is None else _steps_up(rules.min_quantity, rules.lot_size)
        self.max_lots = (
            None if rules.max_quantity is None else int(EXACT.divide_int(rules.max_quantity, rules.lot_size))
        )
        self.min_notional = 0 if rules.min_notional is None else _steps_up(rules.min_notional, self.quote_step)
        self.collar_parts = None if rules.price_collar is None else int(rules.price_collar * _COLLAR_PARTS)
        self.has_size_rules = bool(self.min_lots or self.max_lots is not None or self.min_notional)
        self.has_optional_rules = (
            self.has_size_rules or self.collar_parts is not None or self.max_open_orders is not None
        )

    def collar(self, last_ticks: int | None) -> tuple[int, int] | None:
        """The lowest and the highest price, in ticks, around the last trade's; None when any price will do."""
        if self.collar_parts is None or last_ticks is None:
            return None
        # Narrower than a tick it would let no price but the last one be traded at any more.
        width = max(1, last_ticks * self.collar_parts // _COLLAR_PARTS)
        return last_ticks - width, last_ticks + width


def record_key(symbol_id: int) -> bytes:
    """The key of a symbol's records."""
    return str(symbol_id).encode()


def _steps_up(value: Decimal, step: Decimal) -> int:
    """The smallest number of steps that reach ``value``."""
    whole, rest = EXACT.divmod(value, step)
    return int(whole) + (1 if rest else 0)
