"""The keys of those who may write ``orders.new``: a file in which nothing that once held is ever taken back.

The engine must judge a record at every replay as it did the first time. So all that the file says holds for a span
of the log's time: a key has a time from which and one until which it is valid, and so have the spans in which
signatures are required. What a record is judged by is then a pure function of the record and the file, as long as
the file only ever says something new about times that no engine has reached. `KeyRing.digest` is how that is
checked: it is kept in the engine's checkpoints and compared with the file at every start and change.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from forkast_streams.errors import SetupError
from forkast_streams.undecodable import UNDECODABLE

log = logging.getLogger(__name__)

KEY_ID = re.compile(r"[a-z0-9-]{1,64}", re.ASCII)
SECRET_BYTES = 32
# Seconds between two looks at whether the file has changed.
LOOK_S = 1.0


class ProducerKey(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """One producer's key.

    Attributes:
        id: name of the key on the wire.
        producer: whose it is.
        secret: 32 bytes, base64 in the file.
        users: ids of the users the producer may act for, or ``*``.
        symbols: whether it may define symbols.
        valid_from: ms of the log's time; the first at which the key is valid.
        valid_until: the first at which it is not any more; None: no end is known yet.
    """

    id: str
    producer: str
    secret: bytes
    users: Literal["*"] | frozenset[int]
    valid_from: int
    valid_until: int | None = None
    symbols: bool = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"

    def is_valid_at(self, timestamp: int) -> bool:
        """Whether records that the log took at ``timestamp`` may be signed with it."""
        return self.valid_from <= timestamp and (self.valid_until is None or timestamp < self.valid_until)


class Span(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A span of the log's time, in ms: the first that belongs to it, and the first that does not any more."""

    since: int
    until: int | None = None


class KeyFile(Struct, frozen=True, forbid_unknown_fields=True):
    """The file's content.

    Attributes:
        keys: all keys there have ever been.
        required: the spans in which a record must be signed.
    """

    version: Literal[1] = 1
    keys: tuple[ProducerKey, ...] = ()
    required: tuple[Span, ...] = ()


class KeyRing:
    """What a file says, ready to judge records.

    Attributes:
        judges_from: the log's time in ms from which signatures are looked at: the first of which the file says
            anything. Before it all records pass, as they did when there was no file.
    """

    def __init__(self, content: KeyFile) -> None:
        self.content = content
        self._keys = {key.id: key for key in content.keys}
        spans = [(key.valid_from, key.valid_until) for key in content.keys]
        spans += [(span.since, span.until) for span in content.required]
        self._times = sorted(time_ms for span in spans for time_ms in span if time_ms is not None)
        self._digests: dict[int, str] = {}
        # Without a word in the file there is nothing to judge by, ever.
        self.judges_from: float = self._times[0] if self._times else float("inf")

    def find(self, key_id: str) -> ProducerKey | None:
        """The key with this id."""
        return self._keys.get(key_id)

    def requires_at(self, timestamp: int) -> bool:
        """Whether records that the log took at ``timestamp`` must be signed."""
        return any(
            span.since <= timestamp and (span.until is None or timestamp < span.until) for span in self.content.required
        )

    def digest(self, clock: int) -> str:
        """A text that is the same for two files exactly when they judge all times up to ``clock`` alike."""
        passed = bisect_right(self._times, clock)
        if passed == 0:
            return ""
        digest = self._digests.get(passed)
        if digest is None:
            digest = self._digests[passed] = self._digest(clock)
        return digest

    def _digest(self, clock: int) -> str:
        def end(until: int | None) -> int | None:
            return until if until is not None and until <= clock else None

        keys = [
            [
                key.id,
                hashlib.sha256(key.secret).hexdigest(),
                key.users if key.users == "*" else sorted(key.users),
                key.symbols,
                key.valid_from,
                end(key.valid_until),
            ]
            for key in sorted(self.content.keys, key=lambda key: key.id)
            if key.valid_from <= clock
        ]
        required = sorted([span.since, end(span.until) or 0] for span in self.content.required if span.since <= clock)
        return hashlib.sha256(msgspec.json.encode([keys, required])).hexdigest()[:32]


def keys_digest(keys: KeyRing | None, clock: int) -> str:
    """`KeyRing.digest`; empty when there are no keys, as for keys that say nothing about times up to ``clock``."""
    return "" if keys is None else keys.digest(clock)


def read_key_file(path: Path) -> KeyRing:
    """Read the keys.

    Raises:
        SetupError: the file cannot be read or is no key file.
    """
    try:
        content = msgspec.json.decode(path.read_bytes(), type=KeyFile)
    except OSError as exc:
        raise SetupError(
            f"the producers' keys ({path}) cannot be read: {exc.strerror}; make the file with `forkast keys new`."
        ) from None
    except UNDECODABLE as exc:
        # msgspec names fields and types, never values.
        raise SetupError(f"the producers' keys ({path}) are no key file: {exc}.") from None
    _check(content, path)
    return KeyRing(content)


def _check(content: KeyFile, path: Path) -> None:
    spans = [(key.id, key.valid_from, key.valid_until) for key in content.keys]
    spans += [("required", span.since, span.until) for span in content.required]
    for name, since, until in spans:
        if since < 0 or (until is not None and until < since):
            raise SetupError(f"the producers' keys ({path}) are no key file: {name} ends before it begins.")
    for key in content.keys:
        if not KEY_ID.fullmatch(key.id) or len(key.secret) != SECRET_BYTES:
            raise SetupError(
                f"the producers' keys ({path}) are no key file: a key needs an id of a-z, 0-9 and '-', and a secret "
                f"of {SECRET_BYTES} bytes in base64."
            )
    if len({key.id for key in content.keys}) != len(content.keys):
        raise SetupError(f"the producers' keys ({path}) are no key file: two keys have one id.")


class KeyFileWatch:
    """Follows a key file: what is written into it is known within a second or so, without a restart.

    A file that cannot be read, or that takes back what it said of times an engine has reached, changes nothing: the
    engine goes on with what it knows, and `why_not_ready` says so.

    Args:
        path: of the file.
        can_sign: whether this engine signs what it forwards.
        monotonic: a clock in seconds.

    Attributes:
        newest: what the file said when it could last be read.
    """

    def __init__(self, path: Path, *, can_sign: bool, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._can_sign = can_sign
        self._monotonic = monotonic
        self._mark = self._read_mark()
        self._looked_at = monotonic()
        self.newest = read_key_file(path)
        self._problem: str | None = None
        self._refused: dict[int, str] = {}

    def keys_for(self, partition: int, current: KeyRing | None, clock: int) -> KeyRing:
        """The keys that ``partition``, which has reached ``clock`` with ``current``, goes on with."""
        self._look()
        newest = self.newest
        if current is newest or current is None or current.digest(clock) == newest.digest(clock):
            self._refused.pop(partition, None)
            return newest
        sentence = contradiction(partition, clock)
        if self._refused.get(partition) != sentence:
            if partition not in self._refused:
                log.error("%s; partition %d goes on with the keys it has", sentence, partition)
            self._refused[partition] = sentence
        return current

    def why_not_ready(self) -> str | None:
        """What is wrong with the file, or None."""
        if not self._can_sign and any(span.until is None for span in self.newest.content.required):
            return "signatures are required and this engine has no key for what it forwards (FORKAST_PRODUCER_KEY)"
        return self._problem or next(iter(self._refused.values()), None)

    def _look(self) -> None:
        now = self._monotonic()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        mark = self._read_mark()
        if mark == self._mark:
            # It may have been away, and have come back as it was.
            self._problem = None
            return
        try:
            self.newest = read_key_file(self._path)
        except SetupError as exc:
            if self._problem != str(exc):
                self._problem = str(exc)
                log.warning("%s Until it is mended the engine goes on with the keys it has.", exc)
            return
        self._mark, self._problem = mark, None
        log.info("read the producers' keys again: %d keys", len(self.newest.content.keys))

    def _read_mark(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size


def contradiction(partition: int, clock: int) -> str:
    """The sentence for keys that do not say of the past what the keys said that records were judged by."""
    return (
        f"the producers' keys say something else about the time up to {clock} than the keys by which the records of "
        f"orders.new-{partition} were judged; give back what was taken out, and let what is new begin later"
    )
