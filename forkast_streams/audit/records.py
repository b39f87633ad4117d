"""A record of a topic, as it is consumed and as it stands in a dump."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

Headers = tuple[tuple[str, bytes], ...]


class Record(Struct, gc=False, frozen=True, omit_defaults=True):
    """One record; its bytes are base64 in a dump. ``timestamp`` in milliseconds.

    Attributes:
        is_control: whether it is a mark of Kafka's own, as the end of a transaction, which no reader is shown.
    """

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    is_control: bool = False

    def digest(self) -> bytes:
        """16 bytes that are equal for records of the same key, value and headers."""
        hashed = hashlib.blake2b(self.value or b"", digest_size=16)
        hashed.update(repr((self.key, self.value is None, self.headers)).encode() if self.headers else self.key or b"")
        return hashed.digest()

    def readable(self, where: str) -> dict[str, Any]:
        """All of it for a person: bytes as text, what is no text escaped."""
        return {
            "where": f"{where} offset {self.offset}",
            "timestamp": self.timestamp,
            "key": _text(self.key),
            "value": _text(self.value),
            "headers": {name: _text(value) for name, value in self.headers},
        }


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", "backslashreplace")


class Feed:
    """Records one after the other, with a look at the next one; more can be added when they have arrived.

    Args:
        on_record: called for each record taken.

    Attributes:
        reached: the offset from which on `extend` must have the records.
        marks: how many marks of Kafka's own there are between the record taken last and the next one.
    """

    def __init__(self, on_record: Callable[[], None] | None = None) -> None:
        self.reached = 0
        self.marks = 0
        self._source: Iterator[Record] = iter(())
        self._next: Record | None = None
        self._on_record = on_record

    def extend(self, source: Iterator[Record]) -> None:
        """Go on with ``source`` instead of what is left of the one before; it begins at ``reached``."""
        self._source = source

    def peek(self) -> Record | None:
        """The next record, still to be taken; None when there is none for now."""
        while self._next is None and (record := next(self._source, None)) is not None:
            self.reached = record.offset + 1
            if record.is_control:
                self.marks += 1
            else:
                self._next = record
        return self._next

    def take(self) -> Record:
        """Take the record that ``peek`` has shown."""
        record, self._next, self.marks = self._next, None, 0
        assert record is not None, "peek shows whether there is a record"
        if self._on_record is not None:
            self._on_record()
        return record
