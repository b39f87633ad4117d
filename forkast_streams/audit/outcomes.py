"""What became of one input, held against what must become of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from forkast_streams.audit.commands import KEY_BYTES_MAX, VALUE_BYTES_MAX, Command, Verdict
from forkast_streams.audit.evidence import ORDERS_DEAD, ORDERS_EXCHANGE, ORDERS_NEW
from forkast_streams.audit.findings import Findings
from forkast_streams.audit.records import Record
from forkast_streams.audit.signatures import REFUSALS

Violate = Callable[[str, str, str, Record | None], None]

# How an engine says from where it has forwarded a record: partition and offset.
_ORIGIN = re.compile(rb"([0-9]{1,9}):([0-9]{1,18})")
# Which commands an owner ends an order with, by the reason in its CANCEL; every other reason is a rule's.
_OWNERS_REASONS = {
    "USER": ("CANCEL",), "AMEND": ("AMEND",), "REPLACED": ("REPLACE",), "CANCEL_ALL": ("CANCEL_ALL",),
}  # fmt: skip
# Events that name the user who has sent the command, by the commands they can answer.
_OWNERS_EVENTS = {"ORDER": (None, "REPLACE"), "AMEND": ("AMEND",), "CANCEL_ALL": ("CANCEL_ALL",)}


class Input:
    """A record of ``orders.new`` and what must become of it.

    Attributes:
        clock: the time of the log, milliseconds.
        is_dropped: whether nothing happens here: it is a stray, or one that was forwarded before.
        is_known_id: whether the exchange remembers the id of the new order.
        expected: the events of the reference; None when there is no answer to compare with.
        is_unanswerable: whether the reference has failed at it.
        is_forwarded: whether it says that an engine forwarded it.
        origin: partition and offset from where, if they are such as an engine writes.
        refusal: why its writer may not send it; None when he may, or when nobody has asked.
        may_be_broken: whether it may be refused as no command before anybody asks who has written it.
        may_be_silent: whether it need have no dead letter though it has no event here.
    """

    __slots__ = (
        "clock", "command", "expected", "is_dropped", "is_forwarded", "is_known_id", "is_unanswerable",
        "may_be_broken", "may_be_silent", "origin", "record", "refusal", "verdict",
    )  # fmt: skip

    def __init__(self, record: Record, verdict: Verdict, command: Command, clock: int) -> None:
        self.record = record
        self.verdict = verdict
        self.command = command
        self.clock = clock
        self.is_dropped = False
        self.is_known_id = False
        self.is_unanswerable = False
        self.refusal: str | None = None
        self.may_be_broken = verdict is not Verdict.VALID
        self.may_be_silent = False
        self.expected: Sequence[tuple[str, dict[str, Any]]] | None = None
        self.is_forwarded = False
        self.origin: tuple[int, int] | None = None
        for name, text in record.headers:
            if name == "forwarded-from":
                found = _ORIGIN.fullmatch(text or b"")
                self.is_forwarded = True
                self.origin = None if found is None else (int(found[1]), int(found[2]))

    def has_wrong_origin(self, partition: int, partitions: int, home: int) -> bool:
        """Whether it says that an engine forwarded it to ``partition``, and none can have done that.

        One forwards to ``home`` alone, from another partition.
        """
        if self.origin is None:
            return self.is_forwarded
        return self.origin[0] >= partitions or self.origin[0] == partition or home != partition

    @property
    def needs_nothing(self) -> bool:
        """Whether it is settled before any event is there."""
        return self.is_dropped or self.verdict is Verdict.INVALID or self.expected == []

    def refuse(self, refusal: str) -> None:
        """Its writer may not send it, so there must be a dead letter that says so."""
        self.refusal = refusal
        self.verdict = Verdict.INVALID

    def check_reason(self, letter: Record, violate: Violate) -> None:
        """Check that a dead letter is for the record's signature if that is wrong, and only then."""
        reason = reason_of(letter)
        is_right = reason == self.refusal if reason in REFUSALS else self.refusal is None or self.may_be_broken
        # Of what nobody can read nobody knows for whom it acts.
        if not is_right and (self.command or self.verdict is Verdict.INVALID):
            told = "is not to be refused for its signature" if self.refusal is None else f"is {self.refusal}"
            message = f"the dead letter's reason is {reason}, and by the producers' keys the input {told}."
            violate("I-2", message, ORDERS_DEAD, letter)

    def check_copy(self, letter: Record, violate: Violate) -> None:
        """Check that a dead letter is the input with its own bytes."""
        record, headers = self.record, dict(letter.headers)
        copies = (
            (letter.key, record.key, KEY_BYTES_MAX, headers.get("key-bytes")),
            (letter.value, record.value, VALUE_BYTES_MAX, headers.get("value-bytes")),
        )
        if not all(_is_copy(*copy) for copy in copies):
            violate("I-2", "the dead letter has not the bytes of its input.", ORDERS_DEAD, letter)
        if headers.get("timestamp") != b"%d" % record.timestamp:
            violate("I-15", "the dead letter has not the time of its input.", ORDERS_DEAD, letter)


def _is_copy(copy: bytes | None, whole: bytes | None, most: int, told: bytes | None) -> bool:
    """Whether a dead letter has so much of its input's key or value as it must, and tells the length of more."""
    if whole is None or len(whole) <= most:
        return copy == whole and told is None
    return copy == whole[:most] and told == b"%d" % len(whole)


class Answer:
    """An event of ``orders.exchange``.

    Attributes:
        is_new: whether its sequence was not seen before.
        is_last: whether it is the last one of its command.

    Raises:
        KeyError, TypeError: it has not the form of one.
    """

    __slots__ = ("count", "data", "index", "is_new", "kind", "offset", "partition", "record", "sequence", "symbol_id",
                 "timestamp")  # fmt: skip

    def __init__(self, record: Record, event: dict[str, Any], partition: int) -> None:
        source = event["source"]
        self.record = record
        self.kind: str = event["type"]
        self.symbol_id: int = event["symbolId"]
        self.sequence: int = event["sequence"]
        self.timestamp: int = event["timestamp"]
        self.offset: int = source["offset"]
        self.index: int = source["index"]
        self.count: int = source["count"]
        self.data: dict[str, Any] = event["data"]
        self.is_new = True
        self.partition: int = source["partition"]
        numbers = (self.symbol_id, self.sequence, self.timestamp, self.offset, self.index, self.count)
        if not all(type(number) is int for number in numbers) or not isinstance(self.data, dict):
            raise TypeError("a number of the envelope is none")
        if self.partition != partition:
            raise ValueError(f"its source is partition {self.partition}")

    @property
    def is_last(self) -> bool:
        """Whether the command is answered to its end with this event."""
        return self.index + 1 == self.count


def check_answer(current: Input, group: Sequence[Answer], violate: Violate, findings: Findings) -> None:
    """Compare the events of an input with those of the reference, and what they say of time and users."""
    expected = current.expected
    may_be_silent = current.command.get("command") == "HEARTBEAT" if expected is None else not expected
    if not group:
        if not may_be_silent:
            message = "the input has no outcome, neither events nor a dead letter."
            violate("I-2", message, ORDERS_NEW, current.record)
        return
    looked = findings.looked
    looked["I-15"] += len(group)
    looked["I-19"] += 1
    for answer in group:
        if answer.timestamp != current.clock:
            message = f"the event's time is {answer.timestamp}, the log's was {current.clock}."
            violate("I-15", message, ORDERS_EXCHANGE, answer.record)
        if current.is_known_id and answer.kind == "ORDER":
            message = f"order {answer.data.get('id')} was accepted before and is accepted again."
            violate("I-19", message, ORDERS_EXCHANGE, answer.record)
        _check_owner(current.command, answer, violate)
    _check_places(current, group, violate)
    if expected is not None:
        looked["I-5"] += len(group)
        _check_against_reference(group, expected, violate)


def _check_places(current: Input, group: Sequence[Answer], violate: Violate) -> None:
    """Check keys and that the events of the command are numbered from the first to the last."""
    key = b"%d" % current.command["symbolId"]
    for at, answer in enumerate(group):
        if (answer.index, answer.count) != (at, len(group)):
            message = f"it is event {at + 1} of {len(group)} of its command, it says {answer.index + 1} of"
            violate("I-2", f"{message} {answer.count}.", ORDERS_EXCHANGE, answer.record)
        if answer.record.key != key:
            violate("I-2", f"its key must be {key.decode()}.", ORDERS_EXCHANGE, answer.record)


def _check_against_reference(
    group: Sequence[Answer], expected: Sequence[tuple[str, dict[str, Any]]], violate: Violate
) -> None:
    for at, answer in enumerate(group):
        if at >= len(expected):
            message = f"the reference has {len(expected)} events for this command."
            violate("I-5", message, ORDERS_EXCHANGE, answer.record)
            return
        data = answer.data
        if "message" in data:
            data = {name: value for name, value in data.items() if name != "message"}
        if (answer.kind, data) != expected[at]:
            kind, wanted = expected[at]
            violate("I-5", f"the reference has {kind} {wanted}.", ORDERS_EXCHANGE, answer.record)
    if len(group) < len(expected):
        kind, wanted = expected[len(group)]
        message = f"after this event the reference has {kind} {wanted}."
        violate("I-5", message, ORDERS_EXCHANGE, group[-1].record)


def _check_owner(command: Command, answer: Answer, violate: Violate) -> None:
    kind, data, sent = answer.kind, answer.data, command.get("command")
    commands: tuple[str | None, ...] | None
    if kind == "CANCEL":
        commands = _OWNERS_REASONS.get(data.get("reason", ""))
    elif kind == "REJECT":
        commands = (sent,) if sent != "SYMBOL" else None
    else:
        commands = _OWNERS_EVENTS.get(kind)
    if commands is None:
        return
    if sent not in commands or data.get("userId") != command.get("userId"):
        message = f"the event names user {data.get('userId')}, the command {sent or 'NEW'} is user"
        violate("I-17", f"{message} {command.get('userId')}'s.", ORDERS_EXCHANGE, answer.record)


def reason_of(letter: Record) -> str:
    """The code for which a dead letter's input was refused."""
    return (dict(letter.headers).get("reason") or b"").decode(errors="replace")


def check_letter(letter: Record, partition: int, violate: Violate) -> int | None:
    """Check the headers of a dead letter; return the offset of its input, None when it does not say one."""
    headers = dict(letter.headers)
    offset = headers.get("offset", b"")
    is_named = headers.get("topic") == b"orders.new" and headers.get("partition") == b"%d" % partition
    if not (is_named and offset.isdigit() and headers.get("reason") and headers.get("message")):
        violate("I-2", "the dead letter does not say which input it is, or why.", ORDERS_DEAD, letter)
        return None
    return int(offset)
