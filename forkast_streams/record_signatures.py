"""Signatures of the records of ``orders.new``: who wrote a record, when, and that nobody changed it.

Whoever can write ``orders.new`` can act for any user, and Kafka does not tell a reader who wrote. With keys
(`forkast_streams.producer_keys`) a record says it itself, in its header ``signature``::

    <key id> <signed at, ms since the epoch> <HMAC-SHA256 of the message, 64 hexadecimal digits>

The message is, without spaces or line ends between the parts, each length in bytes as decimal text::

    "forkast-1:" topic ":" signed-at ":" length of key ":" key length of origin ":" origin value

``origin`` is the record's header ``forwarded-from``, which only engines set, else empty.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import time
from collections.abc import Callable, Iterable, Mapping

from forkast_streams.errors import InvalidRecord, SetupError
from forkast_streams.limits import SIGNATURE_AGE_MS_MAX, SIGNATURE_AHEAD_MS_MAX
from forkast_streams.producer_keys import KEY_ID, SECRET_BYTES, KeyRing, ProducerKey
from forkast_streams.secret_settings import read_secret

SIGNATURE_HEADER = "signature"
STRAY_HEADER = "forwarded-from"

_SIGNATURE = re.compile(rb"([a-z0-9-]{1,64}) ([1-9][0-9]{0,14}) ([0-9a-f]{64})")


def signature_of(
    secret: bytes, topic: str, key: bytes | None, value: bytes | None, signed_at: int, origin: bytes = b""
) -> bytes:
    """The HMAC of a record, as hexadecimal text."""
    key = key or b""
    prefix = b"forkast-1:%b:%d:%d:%b%d:%b" % (topic.encode(), signed_at, len(key), key, len(origin), origin)
    return hmac.digest(secret, prefix + (value or b""), "sha256").hex().encode()


class Signer:
    """Signs the records of one process.

    Args:
        key_id: names the secret to the verifier.
        secret: 32 bytes.
        now_ms: the wall clock, ms since the epoch.
    """

    def __init__(
        self, key_id: str, secret: bytes, now_ms: Callable[[], int] = lambda: int(time.time() * 1_000)
    ) -> None:
        self.key_id = key_id
        self._id = key_id.encode()
        self._secret = secret
        self._now_ms = now_ms

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Signer | None:
        """The signer with the key of ``FORKAST_PRODUCER_KEY`` or ``FORKAST_PRODUCER_KEY_FILE``; None without one.

        Raises:
            SetupError: it is no key.
        """
        text = read_secret(env, "FORKAST_PRODUCER_KEY")
        if not text:
            return None
        key_id, _, encoded = text.partition(":")
        try:
            secret = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            secret = b""
        if not KEY_ID.fullmatch(key_id) or len(secret) != SECRET_BYTES:
            raise SetupError("FORKAST_PRODUCER_KEY is no key; set what `forkast keys new` printed: ID:SECRET.")
        return cls(key_id, secret)

    def header(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes]] = ()
    ) -> tuple[str, bytes]:
        """The header that signs a record with these other headers."""
        signed_at = self._now_ms()
        signature = signature_of(self._secret, topic, key, value, signed_at, _origin(headers))
        return SIGNATURE_HEADER, b"%b %d %b" % (self._id, signed_at, signature)


def verify(
    headers: Iterable[tuple[str, bytes]],
    key: bytes | None,
    value: bytes | None,
    log_timestamp: int,
    keys: KeyRing,
    *,
    topic: str,
    user_id: int | None,
    defines_symbol: bool = False,
) -> None:
    """Check that a record's writer may do what its command says. A pure function of its arguments.

    Args:
        headers: names and values.
        key: of the record.
        value: of the record.
        log_timestamp: when the log took the record, in ms; all validity is in this time.
        keys: what is known of the producers' keys.
        topic: where the record was written.
        user_id: whom the command acts for; None: for nobody.
        defines_symbol: whether the command changes trading rules.

    Raises:
        InvalidRecord: ``UNSIGNED``, ``BAD_SIGNATURE`` or ``USER_NOT_ALLOWED``.
    """
    if log_timestamp < keys.judges_from:
        return
    signatures = [text for name, text in headers if name == SIGNATURE_HEADER]
    if not signatures:
        if keys.requires_at(log_timestamp):
            raise InvalidRecord("UNSIGNED", "the record must have the header 'signature' of a producer's key")
        return
    origin = _origin(headers)
    signer = _signer_of(signatures, topic, key, value, log_timestamp, origin, keys)
    if defines_symbol and not signer.symbols:
        raise InvalidRecord("USER_NOT_ALLOWED", f"key {signer.id} may not define symbols")
    if signer.users == "*":
        return
    if origin:
        raise InvalidRecord("USER_NOT_ALLOWED", f"key {signer.id} may not forward records of others")
    if user_id is not None and user_id not in signer.users:
        raise InvalidRecord("USER_NOT_ALLOWED", f"key {signer.id} may not act for user {user_id}")


def _signer_of(
    signatures: list[bytes],
    topic: str,
    key: bytes | None,
    value: bytes | None,
    log_timestamp: int,
    origin: bytes,
    keys: KeyRing,
) -> ProducerKey:
    # A header may have no value at all.
    found = _SIGNATURE.fullmatch(signatures[0] or b"") if len(signatures) == 1 else None
    if found is None:
        raise _bad("the header 'signature' must be there once: key id, time in ms, HMAC-SHA256 in hexadecimal digits")
    key_id, signed_at, given = found[1].decode(), int(found[2]), found[3]
    signer = keys.find(key_id)
    if signer is None or not signer.is_valid_at(log_timestamp):
        raise _bad(f"key {key_id} is unknown, or was not valid when the log took the record")
    expected = signature_of(signer.secret, topic, key, value, signed_at, origin)
    if not hmac.compare_digest(expected, given):
        raise _bad(f"the record is not what key {key_id} has signed")
    # What an engine forwards may have waited long; a repeat of it is dropped by the offset in its origin.
    age = log_timestamp - signed_at
    if not origin and not -SIGNATURE_AHEAD_MS_MAX <= age <= SIGNATURE_AGE_MS_MAX:
        raise _bad(f"the record was signed {age} ms before the log took it; at most {SIGNATURE_AGE_MS_MAX} are allowed")
    return signer


def _bad(sentence: str) -> InvalidRecord:
    return InvalidRecord("BAD_SIGNATURE", sentence)


def _origin(headers: Iterable[tuple[str, bytes]]) -> bytes:
    # The last one counts, as it does for the engine.
    origin = b""
    for name, text in headers:
        if name == STRAY_HEADER:
            origin = text or b""
    return origin
