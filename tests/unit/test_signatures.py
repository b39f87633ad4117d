"""Signed requests: what a signature covers, how long it counts, and that it counts once."""

from __future__ import annotations

import hashlib
import hmac
from types import SimpleNamespace
from typing import Any

import pytest

from forkast_streams import signatures
from forkast_streams.api_keys import ApiKey
from forkast_streams.auth import User
from forkast_streams.signatures import UsedSignatures, is_timely, sealed, signature, signing_key

SECRET, ID = "s" * 43, "0123456789abcdef01234567"
KEY = signing_key(SECRET)
REQUEST: dict[str, Any] = {"timestamp": "1800000000000", "method": "POST", "path": "/orders?x=1", "body": b"{}"}


def test_signature_is_what_the_docs_say() -> None:
    """Computed here from the words of docs/api.md."""
    key = hmac.new(SECRET.encode(), b"forkast request signing v1", hashlib.sha256).digest()
    text = b"1800000000000\nPOST\n/orders?x=1\n{}"
    assert signature(KEY, **REQUEST) == hmac.new(key, text, hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        {"timestamp": "1800000000001"},
        {"method": "PUT"},
        {"path": "/orders?x=2"},
        {"path": "/orders?x=1\n{}", "body": b""},
        {"body": b"{ }"},
    ],
)
def test_every_part_is_signed(change: dict[str, Any]) -> None:
    """And nothing can move from one part to the next."""
    key = ApiKey(User(1, "a"), b"", KEY)
    given = signature(KEY, **REQUEST)
    assert key.has_signed(given, **REQUEST)
    assert not key.has_signed(given, **(REQUEST | change))


@pytest.mark.parametrize("given", ["", "0" * 64, "é" * 64, signature(KEY, **REQUEST).upper(), "0" * 10_000])
def test_anything_else_is_no_signature(given: str) -> None:
    """Text that is no ASCII, too."""
    assert not ApiKey(User(1, "a"), b"", KEY).has_signed(given, **REQUEST)


def test_key_that_can_not_sign_has_signed_nothing() -> None:
    """A key made without a sealing secret."""
    assert not ApiKey(User(1, "a"), b"", None).has_signed(signature(KEY, **REQUEST), **REQUEST)


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        ("1800000000000", True),
        ("1799999995000", True),
        ("1799999994999", False),
        ("1800000001000", True),
        ("1800000001001", False),
        ("", False),
        ("1800000000", False),
        ("+180000000000", False),
        ("1800000000000 ", False),
        ("١٨٠٠٠٠٠٠٠٠٠٠٠", False),
    ],
)
def test_window(timestamp: str, expected: bool) -> None:
    """Five seconds back, one ahead, in milliseconds."""
    assert is_timely(timestamp, 1_800_000_000_000, 5_000) is expected


def test_sealed_key_tells_nothing_and_opens_again() -> None:
    """Only with the same secret and for the same id."""
    stored = sealed(KEY, ID, "x" * 32)
    assert stored != KEY
    assert sealed(stored, ID, "x" * 32) == KEY
    assert sealed(stored, ID, "y" * 32) != KEY
    assert sealed(stored, ID[::-1], "x" * 32) != KEY


def test_signature_counts_once_until_it_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is remembered longer than its request is timely."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(signatures.time, "monotonic", lambda: clock.now)
    used_before = UsedSignatures(5_000)
    assert used_before.is_first_use("a")
    for clock.now in (0.0, 3.0, 6.0, 6.9):
        assert not used_before.is_first_use("a")
    clock.now = 7.0
    assert used_before.is_first_use("a")


def test_full_memory_takes_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """To forget one early would let it be used again."""
    monkeypatch.setattr(signatures, "_REMEMBERED_MAX", 3)
    used_before = UsedSignatures(5_000)
    for used in "abc":
        assert used_before.is_first_use(used)
    with pytest.raises(OverflowError):
        used_before.is_first_use("d")
    assert not used_before.is_first_use("a")
