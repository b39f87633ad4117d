"""Random ids of orders and commands."""

from __future__ import annotations

import os

# Ids whose random bytes are asked for together: a call of the system for each costs more than all else about an id.
_AT_ONCE = 256
_BYTES = 16
# The bits that say: version 4, random, of RFC 9562.
_KEPT = ~(0xF000 << 64 | 0xC000 << 48)
_VERSION_4 = 4 << 76 | 0x8000 << 48


class RandomIds:
    """Version 4 UUIDs as text, of the system's random bytes as ``uuid.uuid4`` makes them."""

    def __init__(self) -> None:
        self._bytes = b""
        self._at = 0

    def hex(self) -> str:
        """An id without dashes."""
        at = self._at
        if at == len(self._bytes):
            self._bytes, at = os.urandom(_AT_ONCE * _BYTES), 0
        self._at = at + _BYTES
        return f"{int.from_bytes(self._bytes[at : at + _BYTES]) & _KEPT | _VERSION_4:032x}"

    def dashed(self) -> str:
        """An id as orders have it."""
        text = self.hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


_ids = RandomIds()
random_hex, random_uuid = _ids.hex, _ids.dashed
