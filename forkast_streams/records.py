"""Records of the log as they come in and as they go out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple, Protocol

from msgspec import Struct

Headers = Sequence[tuple[str, bytes]]


class EventRecord(Protocol):
    """What the keeper and the sink read of a consumed record; aiokafka's ConsumerRecord is one."""

    @property
    def offset(self) -> int:
        """Place in the partition."""

    @property
    def timestamp(self) -> int:
        """When the log took the record, in milliseconds."""

    @property
    def key(self) -> bytes | None:
        """The symbol id as text."""

    @property
    def value(self) -> bytes | None:
        """The event's JSON, or the command's."""


class InputRecord(EventRecord, Protocol):
    """What the engine reads of a consumed record; aiokafka's ConsumerRecord is one."""

    @property
    def headers(self) -> Headers:
        """Names and values."""


class TransactionMark(Struct, frozen=True, gc=False):
    """Stands where the log has Kafka's mark of the end of a transaction, which takes an offset and is no record."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: None = None
    value: None = None
    headers: Headers = ()


class LastRead(NamedTuple):
    """What a state knows of the last record that it was made of, by which the log is known again after a restart.

    Attributes:
        latest_ms: when the log took it, in milliseconds, or later; None: unknown.
        digest: its `record_digest`; None: unknown.
    """

    latest_ms: int | None = None
    digest: str | None = None


def record_digest(record: EventRecord) -> str:
    """Tells a record from any other that may be at its offset, were the log cut and written on."""
    key, value = record.key or b"", record.value or b""
    return blake2b(b"%d %d " % (record.timestamp, len(key)) + key + value, digest_size=16).hexdigest()


class OutputRecord(Struct, frozen=True, gc=False):
    """A record to send; ``timestamp`` in milliseconds."""

    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: Headers = ()


@dataclass(slots=True)
class Outputs:
    """What a batch of input records leads to.

    Attributes:
        events: records for ``orders.exchange``, same partition.
        dead: records for ``orders.dead``, same partition.
        strays: records for ``orders.new`` that came on a foreign partition, with the partition they belong to.
    """

    events: list[OutputRecord] = field(default_factory=list)
    dead: list[OutputRecord] = field(default_factory=list)
    strays: list[tuple[int, OutputRecord]] = field(default_factory=list)
