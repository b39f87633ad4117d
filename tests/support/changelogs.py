"""What a table holds that has read a changelog."""

from __future__ import annotations

from collections.abc import Iterable

Row = tuple[bytes, bytes | None]


def table_of(log: Iterable[Row]) -> dict[bytes, bytes]:
    """The newest value of each key, without those that were deleted."""
    table: dict[bytes, bytes] = {}
    for key, value in log:
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value
    return table
