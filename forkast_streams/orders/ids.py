"""Random ids of orders and commands."""

from __future__ import annotations

import os

# Ids whose random bytes are asked for together: a call of the system for each costs more than all else about an id.
_AT_ONCE = 256
_BYTES = 16
_DIGITS = 2 * _BYTES
# The digit behind the second dash begins with the bits 10, as the variant of RFC 9562 wants it.
_VARIANT = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}


class RandomIds:
    """Version 4 UUIDs as text, of the system's random bytes as ``uuid.uuid4`` makes them."""

    def __init__(self) -> None:
        self._digits = ""
        self._at = 0

    def dashed(self) -> str:
        """An id as orders have it."""
        at = self._at
        if at == len(self._digits):
            self._digits, at = os.urandom(_AT_ONCE * _BYTES).hex(), 0
        self._at = end = at + _DIGITS
        one = self._digits[at:end]
        return f"{one[:8]}-{one[8:12]}-4{one[13:16]}-{_VARIANT[one[16]]}{one[17:20]}-{one[20:]}"

    def hex(self) -> str:
        """An id without dashes."""
        return self.dashed().replace("-", "")


_ids = RandomIds()
random_hex, random_uuid = _ids.hex, _ids.dashed
