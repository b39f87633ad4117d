"""Signed requests: what is signed, how old it may be, and that it counts once. No I/O.

The client signs ``timestamp, method, path with query`` and the body, joined by line feeds, with HMAC-SHA256 under its
signing key. A line feed can stand in none of the first three, so no two requests have one text.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections import OrderedDict

SIGNING_KEY_LABEL = b"forkast request signing v1"
_SEALING_LABEL = b"forkast signing key seal v1\0"
AHEAD_MS_MAX = 1_000
_TIMESTAMP = re.compile(r"[1-9][0-9]{12}", re.ASCII)
_SIGNATURE = re.compile(r"[0-9a-f]{64}", re.ASCII)
_REMEMBERED_MAX = 500_000


def signing_key(secret: str) -> bytes:
    """The key that a client signs with: it follows from the secret, and the secret does not follow from it."""
    return hmac.digest(secret.encode(), SIGNING_KEY_LABEL, hashlib.sha256)


def sealed(key: bytes, key_id: str, sealing_secret: str) -> bytes:
    """A signing key as it is stored, or a stored one as it is used: sealing twice gives the key back.

    The key is combined with 32 bytes that follow from the sealing secret and the key's id alone. An id is drawn at
    random and used once, so these bytes hide one key only, and the table without the secret tells nothing.
    """
    pad = hmac.digest(sealing_secret.encode(), _SEALING_LABEL + key_id.encode(), hashlib.sha256)
    return bytes(one ^ other for one, other in zip(key, pad, strict=True))


def signature(key: bytes, timestamp: str, method: str, path: str, body: bytes) -> str:
    """The signature of a request, 64 hexadecimal digits.

    Args:
        key: the signing key.
        timestamp: epoch milliseconds as they stand in the header.
        method: such as ``POST``.
        path: the path with the query, exactly as sent.
        body: empty for a request without one.
    """
    return hmac.digest(
        key, b"\n".join((timestamp.encode(), method.encode(), path.encode(), body)), hashlib.sha256
    ).hex()


def is_signature(text: str) -> bool:
    """Whether ``text`` has the form of a signature."""
    return _SIGNATURE.fullmatch(text) is not None


def is_timely(timestamp: str, now_ms: int, window_ms: int) -> bool:
    """Whether a request of this time counts now: not older than the window, and hardly ahead."""
    if not _TIMESTAMP.fullmatch(timestamp):
        return False
    return now_ms - window_ms <= int(timestamp) <= now_ms + AHEAD_MS_MAX


class UsedSignatures:
    """The signatures that were used, for as long as their requests would be timely.

    Args:
        window_ms: how old a request may be.
    """

    def __init__(self, window_ms: int) -> None:
        self.kept_s = (window_ms + AHEAD_MS_MAX) / 1_000 + 1.0
        self._used: OrderedDict[str, float] = OrderedDict()

    def is_first_use(self, used: str) -> bool:
        """Whether ``used`` was not used before; it is now.

        Raises:
            OverflowError: there is no room to remember it, so whether it comes again could not be told.
        """
        now = time.monotonic()
        while self._used and next(iter(self._used.values())) <= now:
            self._used.popitem(last=False)
        if used in self._used:
            return False
        if len(self._used) >= _REMEMBERED_MAX:
            raise OverflowError
        self._used[used] = now + self.kept_s
        return True
