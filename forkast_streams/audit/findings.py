"""What was looked at and what was found wrong, by invariant."""

from __future__ import annotations

from collections import Counter
from typing import Any

from msgspec import Struct, field

from forkast_streams.audit.records import Record

# In the words of the promise; docs/audit.md says what is looked at for each.
INVARIANTS: dict[str, str] = {
    "I-1": "No acknowledged order is lost",
    "I-2": "Every input has exactly one outcome",
    "I-3": "Sequences have no gap",
    "I-4": "Repeats are byte-identical",
    "I-5": "Equal to a reference replay",
    "I-6": "Quantity is conserved",
    "I-7": "Trade prices are legal",
    "I-8": "Price-time priority",
    "I-9": "The book is never crossed at rest",
    "I-10": "The end of an order is its end",
    "I-11": "Postgres is the replayed log",
    "I-12": "The book API is the replayed log",
    "I-15": "Time is the log's",
    "I-17": "Only the owner acts",
    "I-18": "Offsets are continuous, commits honest",
    "I-19": "An order id is one order",
    "I-20": "The exchange has caught up",
}


class Finding(Struct):
    """A violation: the invariant, a sentence, and the record it was seen at, in full."""

    invariant: str
    message: str
    record: dict[str, Any] | None = None


class Findings(Struct):
    """Counts by invariant, and the first violation of each.

    Attributes:
        looked: how many records or rows each invariant was checked on.
        violations: how often it was broken.
        first: the first violation of each broken invariant.
    """

    looked: Counter[str] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)
    first: dict[str, Finding] = field(default_factory=dict)

    def violate(self, invariant: str, message: str, where: str = "", record: Record | None = None) -> None:
        """Count a violation; ``where`` is the record's topic and partition, as in ``orders.new-3``."""
        self.violations[invariant] += 1
        if invariant not in self.first:
            shown = None if record is None else record.readable(where)
            self.first[invariant] = Finding(invariant, message, shown)

    def merge(self, other: Findings) -> None:
        """Take in what another part of the audit found."""
        self.looked.update(other.looked)
        self.violations.update(other.violations)
        for invariant, finding in other.first.items():
            self.first.setdefault(invariant, finding)

    @property
    def is_clean(self) -> bool:
        """Whether no invariant was broken."""
        return not self.violations
