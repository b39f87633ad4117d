"""Records on foreign partitions: each is forwarded to its own partition, in order, once apart from repeats.

What was sent, what arrived and what was refused instead is kept in small files, one of each for two partitions, so that
partitions can be audited by different processes and in any order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, zip_longest
from pathlib import Path
from struct import Struct
from typing import Any

from forkast_streams.audit.findings import Findings
from forkast_streams.audit.records import Record

Entry = tuple[Any, ...]

_ENTRY = Struct(">q16s")
_FLUSH_BYTES = 4096 * _ENTRY.size


def _digest(record: Record) -> bytes:
    # What is forwarded has the key and the value of the original and a header of its own.
    content = b"%d:" % (-1 if record.value is None else len(record.value))
    return hashlib.blake2b(content + (record.value or b"") + b":" + (record.key or b""), digest_size=16).digest()


class StrayLedger:
    """The files of a folder; call ``flush`` before another process compares them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pending: dict[str, bytearray] = {}
        self._compared: dict[str, tuple[int, int]] = {}

    def sent(self, source: int, home: int, record: Record) -> None:
        """``record`` of partition ``source`` belongs to ``home``."""
        self._add(f"sent-{source}-{home}", record.offset, record)

    def arrived(self, source: int, home: int, offset: int, record: Record) -> None:
        """``record`` says that it was forwarded to ``home`` from ``offset`` of ``source``."""
        self._add(f"arrived-{source}-{home}", offset, record)

    def refused(self, source: int, home: int, record: Record) -> None:
        """``record`` of partition ``source``, which belongs to ``home``, has a dead letter there instead of a copy."""
        self._add(f"refused-{source}-{home}", record.offset, record)

    def _add(self, name: str, offset: int, record: Record) -> None:
        entries = self._pending.setdefault(name, bytearray())
        entries += _ENTRY.pack(offset, _digest(record))
        if len(entries) >= _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was added."""
        for name, entries in self._pending.items():
            with (self._folder / name).open("ab") as file:
                file.write(entries)
        self._pending.clear()

    def compare(
        self,
        findings: Findings,
        required: Mapping[int, int],
        reached: Mapping[int, int],
        unread: Callable[[int], Iterable[Record]],
    ) -> None:
        """Check what was not compared before.

        Args:
            findings: where violations go.
            required: by partition the offset before which everything must have been forwarded.
            reached: by partition the offset before which its input was read.
            unread: the inputs of a partition behind that, not judged yet: what it lacks may be there.
        """
        pairs = {path.name.partition("-")[2] for path in self._folder.glob("*-*-*")}
        coming: dict[int, set[Entry]] = {}
        for pair in sorted(pairs):
            source, home = map(int, pair.split("-"))
            for at_source, at_home in self._pairs(pair, required[source]):
                is_due = False
                if at_source is not None and at_home is None and at_source[0] < required[source]:
                    if home not in coming:
                        coming[home] = set(chain.from_iterable(map(_copies, unread(home))))
                    if (b"%d:%d" % (source, at_source[0]), at_source[1]) in coming[home]:
                        continue
                    is_due = True
                _check(findings, source, home, at_source, at_home, is_due=is_due, reached=reached[source])

    def _pairs(self, pair: str, required: int) -> Iterator[tuple[Entry | None, Entry | None]]:
        """What was sent, and what arrived in its place."""
        sent_before, arrived_before = self._compared.get(pair, (0, 0))
        refused = {offset for offset, _ in _read(self._folder / f"refused-{pair}", 0)}
        every_sent = enumerate(_read(self._folder / f"sent-{pair}", sent_before), sent_before + 1)
        sent = ((count, entry) for count, entry in every_sent if entry[0] not in refused)
        arrived = enumerate(_read(self._folder / f"arrived-{pair}", arrived_before), arrived_before + 1)
        for at_source, at_home in zip_longest(sent, arrived, fillvalue=(0, None)):
            if at_source[1] and at_home[1]:
                if required <= at_source[1][0] < at_home[1][0]:
                    # It may be refused yet, which then explains that it did not arrive.
                    return
                self._compared[pair] = at_source[0], at_home[0]
            yield at_source[1], at_home[1]


def _check(
    findings: Findings, source: int, home: int, sent: Entry | None, arrived: Entry | None, *, is_due: bool, reached: int
) -> None:
    """Hold a stray against what arrived in its place.

    Args:
        findings: where violations go.
        source: the partition where it was sent.
        home: the one it belongs to.
        sent: what ``source`` has next; None when it has no more so far.
        arrived: what ``home`` has next; None when it has no more so far.
        is_due: whether ``sent`` must have arrived.
        reached: offset of ``source`` before which every stray is known.
    """
    findings.looked["I-2"] += 1
    if sent and arrived and sent != arrived:
        message = f"orders.new-{source} offset {sent[0]} belongs to partition {home}, where offset {arrived[0]}"
        findings.violate("I-2", f"{message} of it arrived next; one was lost, changed or made up.")
    elif sent and is_due:
        message = f"orders.new-{source} offset {sent[0]} belongs to partition {home} and never got there."
        findings.violate("I-2", message)
    elif arrived and not sent and arrived[0] < reached:
        message = f"orders.new-{home} has a record forwarded from offset {arrived[0]} of partition {source}"
        findings.violate("I-2", f"{message}, where there is no such stray.")


def _copies(record: Record) -> Iterator[Entry]:
    """Of what a record says to be a copy: the origin, and the digest of the record itself."""
    return ((value, _digest(record)) for name, value in record.headers if name == "forwarded-from")


def _read(path: Path, skip: int) -> Iterator[Entry]:
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(skip * _ENTRY.size)
        while chunk := file.read(_FLUSH_BYTES):
            yield from _ENTRY.iter_unpack(chunk)
