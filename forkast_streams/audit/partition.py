"""Audits one partition: its inputs, events and dead letters side by side, each read once and in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from forkast_streams.audit.commands import Command, Verdict, read_input
from forkast_streams.audit.digests import DigestFile, DigestSeries
from forkast_streams.audit.evidence import ORDERS_DEAD, ORDERS_EXCHANGE, ORDERS_NEW
from forkast_streams.audit.findings import Findings
from forkast_streams.audit.fold import SymbolFold
from forkast_streams.audit.outcomes import Answer, Input, check_answer, check_letter, reason_of
from forkast_streams.audit.records import Feed, Record
from forkast_streams.audit.reference import Reference
from forkast_streams.audit.signatures import REFUSALS, Signatures
from forkast_streams.audit.strays import StrayLedger
from forkast_streams.audit.watch import BookWatch, TableWatch
from forkast_streams.errors import SetupError
from forkast_streams.topics import partition_for

_decode = msgspec.json.Decoder().decode

_BROKEN_EVENT = (KeyError, TypeError, ValueError, ArithmeticError, AttributeError, AssertionError)


class PartitionAudit:
    """The state of the audit of a partition; `advance` takes it on as far as there are records.

    Attributes:
        inputs, events, letters: the three topics' records, to be extended before `advance`.
        findings: what was found so far.
        folds: the symbols, by id.
        tables: compares the tables; see `TableWatch`.
        books: compares published books; see `BookWatch`.
        next_input: the offset behind the last input that was read.
        signatures: judges who has written the inputs; None: whoever could is believed.
    """

    def __init__(
        self,
        partition: int,
        partitions: int,
        ledger: StrayLedger,
        *,
        later_columns: Sequence[str] = (),
        on_record: Callable[[], None] | None = None,
        on_input: Callable[[Command], None] | None = None,
        on_accepted: Callable[[dict[str, Any]], None] | None = None,
        reference: Reference | None = None,
        signatures: Signatures | None = None,
    ) -> None:
        self.partition = partition
        self.inputs, self.events, self.letters = Feed(on_record), Feed(on_record), Feed(on_record)
        self.findings = Findings()
        self.folds: dict[int, SymbolFold] = {}
        self.tables = TableWatch()
        self.books = BookWatch(self.folds, self.findings)
        self.signatures = signatures
        self._partitions = partitions
        self._ledger = ledger
        self._later_columns = later_columns
        self._on_input = on_input
        self._on_accepted = on_accepted
        self._reference = reference or Reference()
        self._file = DigestFile()
        self._digests: dict[int, DigestSeries] = {}
        self._letter_digests = DigestSeries(self._file)
        self._forwarded: dict[int, int] = {}
        self._letters_due: deque[Input] = deque()
        self._clock = 0
        self.next_input = 0
        self._next_event = 0
        self._next_letter = 0
        self._last_letter = -1
        self._current: Input | None = None
        self._answer: Answer | None = None
        self._folded: Record | None = None
        self._group: list[Answer] = []

    def advance(self, required: int) -> None:
        """Check all inputs that have their outcome; those before ``required`` must have it.

        Raises:
            SetupError: records were refused for their signatures, and there are none to judge that by.
        """
        while (current := self._current or self._next()) is not None:
            self._current = current
            is_closed = self._collect(current.record.offset)
            is_complete = bool(self._group) and self._group[-1].is_last
            if not (is_closed or is_complete or current.record.offset < required or current.needs_nothing):
                break
            self._judge(current)
            self._current = None
            self._group.clear()
            self._check_letters()
        self._collect_rest()
        self._check_letters()
        while self._letters_due and self._letters_due[0].record.offset < required:
            self._violate_missing_letter(self._letters_due.popleft())

    def expect_no_more(self, input_end: int) -> None:
        """Report events and letters that are left though every input before ``input_end`` was there before them."""
        if (event := self.events.peek()) is not None:
            self._violate("I-2", "the event's input does not exist.", ORDERS_EXCHANGE, event)
        if (letter := self.letters.peek()) is not None:
            offset = check_letter(letter, self.partition, self._violate)
            if offset is None or offset >= input_end:
                self._violate("I-2", "the dead letter's input does not exist.", ORDERS_DEAD, letter)

    def reached(self, input_end: int) -> int:
        """The offset before which all inputs were read: that of the first unanswered one, or ``input_end``."""
        return input_end if self.inputs.peek() is None else self.next_input

    def is_home_of(self, symbol_id: int) -> bool:
        """Whether the symbol's records are on this partition."""
        return partition_for(symbol_id, self._partitions) == self.partition

    def close(self) -> None:
        """Give temporary files back."""
        self._file.close()

    def _next(self) -> Input | None:
        """Take the next input and decide what must become of it."""
        record = self.inputs.peek()
        if record is None:
            return None
        expected = self.next_input + self.inputs.marks
        self.inputs.take()
        self.findings.looked["I-18"] += 1
        if record.offset != expected:
            message = f"offset {record.offset} follows where {expected} was expected."
            self._violate("I-18", message, ORDERS_NEW, record)
        self.next_input = record.offset + 1
        self._clock = max(self._clock, record.timestamp)
        verdict, command = read_input(record.value)
        current = Input(record, verdict, command, self._clock)
        if command and verdict is not Verdict.INVALID:
            refusal = None if self.signatures is None else self.signatures.refusal(record, command)
            if refusal is not None:
                current.refuse(refusal)
        if current.verdict is not Verdict.INVALID:
            self._route(current)
        if current.verdict is Verdict.VALID and not current.is_dropped:
            self._ask_reference(current)
        return current

    def _route(self, current: Input) -> None:
        """Find out whether the exchange takes the command here."""
        record, command = current.record, current.command
        symbol_id = command.get("symbolId")
        if not isinstance(symbol_id, int) or record.key != b"%d" % symbol_id:
            current.verdict = Verdict.INVALID if command else Verdict.OPEN
            return
        home = partition_for(symbol_id, self._partitions)
        if current.has_wrong_origin(self.partition, self._partitions, home):
            current.verdict = Verdict.INVALID
            return
        if self._is_repeated_stray(current):
            current.is_dropped = True
            return
        if home != self.partition:
            self._ledger.sent(self.partition, home, record)
            current.is_dropped = True
            return
        if symbol_id not in self._reference.symbols and command.get("command") != "SYMBOL":
            current.verdict = Verdict.INVALID
        if self._on_input is not None:
            self._on_input(command)

    def _is_repeated_stray(self, current: Input) -> bool:
        if current.origin is None:
            return False
        source, offset = current.origin
        if offset <= self._forwarded.get(source, -1):
            return True
        self._forwarded[source] = offset
        self._ledger.arrived(source, self.partition, offset, current.record)
        return False

    def _collect(self, offset: int) -> bool:
        """Take the events of the input at ``offset``; say whether events of a later one are there."""
        while (record := self.events.peek()) is not None:
            answer = self._read_event(record)
            if answer is None:
                continue
            if answer.is_new and answer.offset > offset:
                return True
            self._take_event(answer)
            if not answer.is_new:
                continue
            if answer.offset == offset:
                self._group.append(answer)
            else:
                self._violate("I-2", f"it answers input {answer.offset} again.", ORDERS_EXCHANGE, record)
        return False

    def _collect_rest(self) -> None:
        """Without inputs to answer there can still be repeats."""
        if self._current is None:
            self._collect(self.next_input - 1)

    def _read_event(self, record: Record) -> Answer | None:
        """The event in hand, told apart from a repeat; None when it is none, and is done with."""
        if record.offset < self._next_event:
            return self._answer
        self.findings.looked["I-3"] += 1
        try:
            answer = Answer(record, _decode(record.value or b""), self.partition)
        except _BROKEN_EVENT as exc:
            self._violate("I-2", f"it is no event: {exc!r}.", ORDERS_EXCHANGE, record)
            self._pass(self.events.take())
            return None
        series = self._digests.get(answer.symbol_id)
        if series is None:
            series = self._digests[answer.symbol_id] = DigestSeries(self._file)
        fold = self._fold(answer.symbol_id)
        answer.is_new = answer.sequence > fold.sequence
        if not answer.is_new:
            self._check_repeat(series.get(answer.sequence), record)
        elif answer.sequence != fold.sequence + 1:
            message = f"symbol {answer.symbol_id} goes on with {answer.sequence} after {fold.sequence}."
            self._violate("I-3", message, ORDERS_EXCHANGE, record)
        self._answer = answer
        self._next_event = record.offset + 1
        return answer

    def _check_repeat(self, digest: bytes | None, record: Record) -> None:
        self.findings.looked["I-4"] += 1
        if digest is None:
            self._violate("I-3", "the event comes after later ones.", ORDERS_EXCHANGE, record)
        elif digest != record.digest():
            self._violate("I-4", "the event differs from the one with its sequence.", ORDERS_EXCHANGE, record)

    def _take_event(self, answer: Answer) -> None:
        """Fold a new event in; of a repeat only count the place."""
        record = self.events.take()
        if answer.is_new:
            self._digests[answer.symbol_id].append(answer.sequence, record.digest())
            self._folded = record
            fold = self.folds[answer.symbol_id]
            try:
                fold.apply(answer.kind, answer.data, answer.sequence, answer.timestamp, is_last=answer.is_last)
            except _BROKEN_EVENT as exc:
                self._violate("I-2", f"the event is incomplete: {exc!r}.", ORDERS_EXCHANGE, record)
            if fold.at_rest:
                self.books.passed(fold)
        self._pass(record)

    def _pass(self, record: Record) -> None:
        """The event's place in the log is behind us."""
        self.tables.passed(record.offset + 1, self.folds)

    def _fold(self, symbol_id: int) -> SymbolFold:
        fold = self.folds.get(symbol_id)
        if fold is None:
            fold = self.folds[symbol_id] = SymbolFold(symbol_id, self._violate_at_event, self._later_columns)
        return fold

    def _violate_at_event(self, invariant: str, message: str) -> None:
        self._violate(invariant, message, ORDERS_EXCHANGE, self._folded)

    def _judge(self, current: Input) -> None:
        """Hold what became of an input against what must become of it."""
        self.findings.looked["I-2"] += 1
        if self._on_accepted is not None:
            for answer in self._group:
                if answer.kind == "ORDER":
                    self._on_accepted(answer.data)
        if current.is_dropped or current.verdict is Verdict.INVALID:
            for answer in self._group[:1]:
                self._violate("I-2", "the input is no command for this place.", ORDERS_EXCHANGE, answer.record)
        is_open = current.verdict is Verdict.OPEN
        if current.is_dropped and not is_open:
            return
        if is_open and self._group and not current.is_dropped:
            current.verdict = Verdict.VALID
            self._ask_reference(current)
        current.may_be_silent = is_open and (current.is_dropped or current.command.get("command") == "HEARTBEAT")
        if current.verdict is not Verdict.VALID:
            self._letters_due.append(current)
        elif current.command and not current.is_unanswerable:
            check_answer(current, self._group, self._violate, self.findings)

    def _ask_reference(self, current: Input) -> None:
        """Let the reference process a command, whose events were not folded yet unless its verdict was open."""
        command = current.command
        if not command:
            return
        resting = _Resting(self.folds, {answer.data.get("id") for answer in self._group})
        current.is_known_id = self._reference.knows_id(command, resting, current.clock)
        try:
            current.expected = self._reference.process(command, resting, current.clock)
        except _BROKEN_EVENT as exc:
            current.is_unanswerable = True
            message = f"the reference cannot process this command: {exc!r}."
            self._violate("I-5", message, ORDERS_NEW, current.record)

    def _check_letters(self) -> None:
        """Match dead letters with the inputs that must have one."""
        while (letter := self.letters.peek()) is not None:
            offset = check_letter(letter, self.partition, self._violate)
            if offset is not None and offset <= self._last_letter:
                self.findings.looked["I-4"] += 1
                if self._letter_digests.get(offset) != letter.digest():
                    self._violate("I-4", "the dead letter differs from the one before.", ORDERS_DEAD, letter)
            elif offset is not None:
                if offset >= self.next_input or (self._current is not None and offset >= self._current.record.offset):
                    return
                self._take_letter(offset, letter)
            self.letters.take()

    def _take_letter(self, offset: int, letter: Record) -> None:
        due, reason = self._letters_due, reason_of(letter)
        if self.signatures is None and reason in REFUSALS:
            raise SetupError(
                f"{ORDERS_DEAD}-{self.partition} offset {letter.offset} says that a record was refused as {reason}, "
                "which only producers' keys tell; set FORKAST_PRODUCER_KEYS to the file that the engines have."
            )
        while due and due[0].record.offset < offset:
            self._violate_missing_letter(due.popleft())
        if due and due[0].record.offset == offset:
            refused = due.popleft()
            refused.check_copy(letter, self._violate)
            refused.check_reason(letter, self._violate)
            if refused.is_dropped:
                home = partition_for(refused.command["symbolId"], self._partitions)
                self._ledger.refused(self.partition, home, refused.record)
        else:
            why = f"its writer may send it, so it is not {reason}" if reason in REFUSALS else "is answered by events"
            self._violate("I-2", f"the input is a command and {why}.", ORDERS_DEAD, letter)
        self._last_letter = offset
        self._letter_digests.append(offset, letter.digest())

    def _violate_missing_letter(self, current: Input) -> None:
        if not current.may_be_silent:
            message = "the input has no outcome, neither events nor a dead letter."
            self._violate("I-2", message, ORDERS_NEW, current.record)

    def _violate(self, invariant: str, message: str, topic: str, record: Record | None) -> None:
        self.findings.violate(invariant, message, f"{topic}-{self.partition}", record)

    def count_looked(self) -> None:
        """Add what the folds looked at to the findings; call once, at the end."""
        looked = self.findings.looked
        for fold in self.folds.values():
            for invariant in ("I-6", "I-10", "I-17"):
                looked[invariant] += fold.events
            looked["I-7"] += fold.trades
            looked["I-8"] += fold.trades
            looked["I-9"] += fold.commands


class _Resting:
    """The ids of all live orders of a partition, as they were before the events of a command were folded."""

    def __init__(self, folds: dict[int, SymbolFold], folded: set[object]) -> None:
        self._folds = folds
        self._folded = folded

    def __contains__(self, order_id: object) -> bool:
        return order_id not in self._folded and any(order_id in fold.live for fold in self._folds.values())
