"""Whether the writer of a record may do what its command says, read from docs/security.md.

The key file is read by the code that all share; what follows from it is decided here anew, so that a mistake of the
engine's in checking a signature shows as a wrong verdict.
"""

from __future__ import annotations

import hmac
from pathlib import Path

from forkast_streams.audit.commands import Command
from forkast_streams.audit.evidence import ORDERS_NEW
from forkast_streams.audit.records import Record
from forkast_streams.producer_keys import KeyFile, ProducerKey, read_key_file

# The reasons of dead letters that only somebody with the keys can judge.
REFUSALS = frozenset({"UNSIGNED", "BAD_SIGNATURE", "USER_NOT_ALLOWED"})

# How long before the log took a record it may have been signed, and how long after, ms.
SIGNED_BEFORE_MS_MAX, SIGNED_AFTER_MS_MAX = 60_000, 10_000
_TIME_DIGITS_MAX = 15
_WITHOUT_USER = ("HEARTBEAT", "SYMBOL")


def read_keys(path: Path | None) -> KeyFile | None:
    """The content of the engines' key file; None where engines have none.

    To be read after the cut is taken: the file speaks of times to come, so it says all then that the cut's records
    were judged by.

    Raises:
        SetupError: the file cannot be read or is no key file.
    """
    return None if path is None else read_key_file(path).content


class Signatures:
    """Judges records by a key file."""

    def __init__(self, file: KeyFile) -> None:
        self._keys = {key.id: key for key in file.keys}
        self._required = file.required
        moments = [key.valid_from for key in file.keys] + [span.since for span in file.required]
        # Before the first moment of which the file speaks nobody looked at signatures, right or wrong.
        self._begins = min(moments, default=None)

    def refusal(self, record: Record, command: Command) -> str | None:
        """The reason for which the record of a command must be refused; None when its writer may send it."""
        taken_at = record.timestamp
        if self._begins is None or taken_at < self._begins:
            return None
        signatures = [text for name, text in record.headers if name == "signature"]
        if not signatures:
            is_required = any(_holds(span.since, span.until, taken_at) for span in self._required)
            return "UNSIGNED" if is_required else None
        origin = dict(record.headers).get("forwarded-from", b"")
        key = self._writer(signatures[0], record, origin) if len(signatures) == 1 else None
        if key is None:
            return "BAD_SIGNATURE"
        return None if _may(key, command, is_forwarded=bool(origin)) else "USER_NOT_ALLOWED"

    def _writer(self, signature: bytes, record: Record, origin: bytes) -> ProducerKey | None:
        """The key that has signed the record, in time and while it was valid."""
        key_id, _, rest = signature.partition(b" ")
        time, _, digest = rest.partition(b" ")
        key = self._keys.get(key_id.decode("ascii", "replace"))
        if key is None or not _holds(key.valid_from, key.valid_until, record.timestamp):
            return None
        if not (time.isdigit() and len(time) <= _TIME_DIGITS_MAX and time[:1] != b"0"):
            return None
        # What an engine has forwarded may have waited for as long as there was no engine.
        if not origin and not -SIGNED_AFTER_MS_MAX <= record.timestamp - int(time) <= SIGNED_BEFORE_MS_MAX:
            return None
        return key if digest == _digest(key.secret, time, record, origin) else None


def _digest(secret: bytes, time: bytes, record: Record, origin: bytes) -> bytes:
    """The signature's digits, as docs/security.md has them."""
    key, value = record.key or b"", record.value or b""
    lengths = [str(len(key)).encode(), str(len(origin)).encode()]
    parts = [b"forkast-1", ORDERS_NEW.encode(), time, lengths[0], key + lengths[1], origin + value]
    return hmac.new(secret, b":".join(parts), "sha256").hexdigest().encode()


def _may(key: ProducerKey, command: Command, *, is_forwarded: bool) -> bool:
    """Whether a key's owner may send the command."""
    kind = command.get("command")
    if kind == "SYMBOL" and not key.symbols:
        return False
    if key.users == "*":
        return True
    return not is_forwarded and (kind in _WITHOUT_USER or command.get("userId") in key.users)


def _holds(since: int, until: int | None, moment: int) -> bool:
    return since <= moment and (until is None or moment < until)
