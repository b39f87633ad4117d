"""Signed records: what a signature covers, whom it lets act, and that every replay judges as the first time did."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import uuid
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from forkast_streams.engine_partition import EnginePartition
from forkast_streams.errors import InvalidRecord
from forkast_streams.limits import SIGNATURE_AGE_MS_MAX, SIGNATURE_AHEAD_MS_MAX
from forkast_streams.producer_keys import KeyFile, KeyRing, ProducerKey, Span
from forkast_streams.record_signatures import SIGNATURE_HEADER, STRAY_HEADER, Signer, verify
from forkast_streams.records import Outputs
from forkast_streams.topics import ORDERS_NEW
from tests.support.flows import PARTITIONS, START_MS, Record, home_of, order_command, symbol_command

HOME = home_of(1)
BEGIN = START_MS + 1_000
END = START_MS + 500_000
SECRETS = {name: hashlib.sha256(name.encode()).digest() for name in ("oms-1", "partner-1", "late-1", "ended-1")}
OMS = ProducerKey("oms-1", "oms", SECRETS["oms-1"], "*", BEGIN, symbols=True)
PARTNER = ProducerKey("partner-1", "partner", SECRETS["partner-1"], frozenset({1, 2}), BEGIN)
ENDED = ProducerKey("ended-1", "oms", SECRETS["ended-1"], "*", BEGIN, END)
KEYS = (OMS, PARTNER, ENDED)
OPTIONAL = KeyRing(KeyFile(keys=KEYS))
REQUIRED = KeyRing(KeyFile(keys=KEYS, required=(Span(BEGIN, END),)))
VALUE = json.dumps(order_command()).encode()
NOW = START_MS + 50_000


def signed(key_id: str, value: bytes = VALUE, *, at: int = NOW, headers: Iterable[tuple[str, bytes]] = ()) -> Any:
    """The headers of a record of symbol 1, with the signature of a key made at a moment."""
    signer = Signer(key_id, SECRETS.get(key_id, bytes(32)), lambda: at)
    return (*headers, signer.header(ORDERS_NEW, b"1", value, headers))


FORWARDED = signed("oms-1", headers=[(STRAY_HEADER, b"3:7")])


def judge(
    headers: Iterable[tuple[str, bytes]],
    *,
    keys: KeyRing = REQUIRED,
    key: bytes | None = b"1",
    value: bytes | None = VALUE,
    at: int = NOW,
    topic: str = ORDERS_NEW,
    user_id: int | None = 1,
    defines_symbol: bool = False,
) -> str | None:
    """The code with which a record is refused, or None."""
    try:
        verify(headers, key, value, at, keys, topic=topic, user_id=user_id, defines_symbol=defines_symbol)
    except InvalidRecord as exc:
        return exc.code
    return None


def test_the_message_is_what_the_documentation_says() -> None:
    """Other languages build it from this; nothing of ours is used to compute the expectation."""
    name, header = Signer("oms-1", bytes(range(32)), lambda: 1_700_000_000_123).header(ORDERS_NEW, b"17", b'{"a":1}')
    message = b'forkast-1:orders.new:1700000000123:2:170:{"a":1}'
    assert name == "signature"
    assert header.decode() == f"oms-1 1700000000123 {hmac.new(bytes(range(32)), message, 'sha256').hexdigest()}"


@pytest.mark.parametrize(
    ("case", "code"),
    [
        ({"headers": ()}, "UNSIGNED"),
        ({"headers": (("other", b"x"),)}, "UNSIGNED"),
        ({"headers": signed("oms-1")}, None),
        ({"headers": signed("partner-1")}, None),
        ({"headers": signed("partner-1"), "user_id": 3}, "USER_NOT_ALLOWED"),
        ({"headers": signed("partner-1"), "user_id": None}, None),
        ({"headers": signed("partner-1"), "user_id": None, "defines_symbol": True}, "USER_NOT_ALLOWED"),
        ({"headers": signed("ended-1"), "user_id": None, "defines_symbol": True}, "USER_NOT_ALLOWED"),
        ({"headers": signed("oms-1"), "user_id": None, "defines_symbol": True}, None),
        ({"headers": signed("oms-1"), "value": VALUE + b" "}, "BAD_SIGNATURE"),
        ({"headers": signed("oms-1"), "value": None}, "BAD_SIGNATURE"),
        ({"headers": signed("oms-1"), "key": b"11"}, "BAD_SIGNATURE"),
        ({"headers": signed("oms-1"), "key": None}, "BAD_SIGNATURE"),
        ({"headers": signed("oms-1"), "topic": "orders.exchange"}, "BAD_SIGNATURE"),
        ({"headers": signed("unknown-1")}, "BAD_SIGNATURE"),
        ({"headers": signed("oms-1") + signed("oms-1")}, "BAD_SIGNATURE"),
        ({"headers": ((SIGNATURE_HEADER, b""),)}, "BAD_SIGNATURE"),
        # A header may have no value at all.
        ({"headers": ((SIGNATURE_HEADER, None),)}, "BAD_SIGNATURE"),
        ({"headers": ((STRAY_HEADER, None), *signed("oms-1"))}, None),
        ({"headers": ((SIGNATURE_HEADER, b"\xff" * 90),)}, "BAD_SIGNATURE"),
        ({"headers": ((SIGNATURE_HEADER, b"oms-1 1 " + b"0" * 64),)}, "BAD_SIGNATURE"),
        ({"headers": ((SIGNATURE_HEADER, signed("oms-1")[0][1] + b"\n"),)}, "BAD_SIGNATURE"),
        ({"headers": ((SIGNATURE_HEADER, signed("oms-1")[0][1].replace(b"oms-1", b"ended-1")),)}, "BAD_SIGNATURE"),
        ({"headers": signed("oms-1", at=NOW - SIGNATURE_AGE_MS_MAX)}, None),
        ({"headers": signed("oms-1", at=NOW - SIGNATURE_AGE_MS_MAX - 1)}, "BAD_SIGNATURE"),
        ({"headers": signed("oms-1", at=NOW + SIGNATURE_AHEAD_MS_MAX)}, None),
        ({"headers": signed("oms-1", at=NOW + SIGNATURE_AHEAD_MS_MAX + 1)}, "BAD_SIGNATURE"),
        ({"headers": (), "at": BEGIN - 1}, None),
        ({"headers": ((SIGNATURE_HEADER, b"x"),), "at": BEGIN - 1}, None),
        ({"headers": (), "at": BEGIN}, "UNSIGNED"),
        ({"headers": (), "at": END - 1}, "UNSIGNED"),
        ({"headers": (), "at": END}, None),
        ({"headers": signed("ended-1", at=END - 1), "at": END - 1}, None),
        ({"headers": signed("ended-1", at=END - 1), "at": END}, "BAD_SIGNATURE"),
        ({"headers": (), "keys": OPTIONAL}, None),
        ({"headers": signed("oms-1"), "keys": OPTIONAL, "value": b"{}"}, "BAD_SIGNATURE"),
        ({"headers": signed("partner-1"), "keys": OPTIONAL, "user_id": 3}, "USER_NOT_ALLOWED"),
        ({"headers": FORWARDED}, None),
        ({"headers": ((STRAY_HEADER, b"3:8"), FORWARDED[1])}, "BAD_SIGNATURE"),
        ({"headers": ((STRAY_HEADER, b"3:7"), *signed("oms-1"))}, "BAD_SIGNATURE"),
        ({"headers": signed("partner-1", headers=[(STRAY_HEADER, b"3:7")])}, "USER_NOT_ALLOWED"),
        ({"headers": signed("oms-1", at=1, headers=[(STRAY_HEADER, b"3:7")])}, None),
    ],
)  # fmt: skip
def test_verdicts(case: dict[str, Any], code: str | None) -> None:
    assert judge(**case) == code


def test_no_bit_of_a_signature_or_record_can_be_changed() -> None:
    headers = signed("oms-1")
    text = headers[0][1]
    for at in range(len(text)):
        forged = text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :]
        assert judge(((SIGNATURE_HEADER, forged),)) == "BAD_SIGNATURE"
    for at in range(len(VALUE)):
        assert judge(headers, value=VALUE[:at] + bytes([VALUE[at] ^ 1]) + VALUE[at + 1 :]) == "BAD_SIGNATURE"


def test_what_moves_between_the_parts_changes_the_signature() -> None:
    """Key, origin and value stand next to each other in the message; their lengths keep them apart."""
    signer = Signer("oms-1", SECRETS["oms-1"], lambda: NOW)
    parts = [(b"1", b"23", b""), (b"12", b"3", b""), (b"", b"123", b""), (b"1", b"3", b"2"), (b"1", b"0:23", b"")]
    signatures = {
        signer.header(ORDERS_NEW, key, value, [(STRAY_HEADER, origin)] if origin else [])
        for key, value, origin in parts
    }
    assert len(signatures) == len(parts)


# -- the engine ------------------------------------------------------------------------------------------------------


def record(offset: int, at: int, command: dict[str, Any], key_id: str | None = None) -> Record:
    """A record of the log, signed when the log took it."""
    value, key = json.dumps(command).encode(), str(command["symbolId"]).encode()
    headers: tuple[tuple[str, bytes], ...] = ()
    if key_id is not None:
        # The keys of the made-up histories share one secret.
        headers = (Signer(key_id, SECRETS.get(key_id, SECRETS["late-1"]), lambda: at).header(ORDERS_NEW, key, value),)
    return Record(offset, at, key, value, headers)


def codes(outputs: Outputs) -> list[str]:
    return [dict(letter.headers)["reason"].decode() for letter in outputs.dead]


def engine(keys: KeyRing | None) -> EnginePartition:
    """A partition with symbol 1, defined before anything was judged."""
    state = EnginePartition(HOME, PARTITIONS)
    state.use_keys(keys)
    state.process([record(0, START_MS, symbol_command(1))])
    return state


def test_a_refused_record_is_a_dead_letter_and_the_partition_goes_on() -> None:
    state = engine(REQUIRED)
    order = order_command(userId=3)
    records = [
        record(1, NOW, order),
        record(2, NOW, order, "partner-1"),
        replace(record(3, NOW, order, "oms-1"), value=json.dumps(order | {"quantity": 11}).encode()),
        record(4, NOW, symbol_command(1, status="HALTED"), "partner-1"),
        record(5, NOW, order, "oms-1"),
    ]
    outputs = state.process(records)
    assert codes(outputs) == ["UNSIGNED", "USER_NOT_ALLOWED", "BAD_SIGNATURE", "USER_NOT_ALLOWED"]
    assert [json.loads(event.value or b"")["type"] for event in outputs.events] == ["ORDER"]


def test_a_stray_is_judged_where_it_is_found_and_signed_again_by_the_engine() -> None:
    """Neither an unsigned stray nor one whose origin somebody made up gets into the home partition."""
    foreign = EnginePartition((HOME + 1) % PARTITIONS, PARTITIONS)
    foreign.use_keys(REQUIRED)
    order = order_command()
    outputs = foreign.process([record(0, NOW, order), record(1, NOW, order, "partner-1")])
    assert codes(outputs) == ["UNSIGNED"]
    [(partition, stray)] = outputs.strays
    assert partition == HOME
    resigned = (*stray.headers, Signer("oms-1", SECRETS["oms-1"], lambda: NOW).header(
        ORDERS_NEW, stray.key, stray.value, stray.headers
    ))  # fmt: skip
    home = engine(REQUIRED)
    taken = [Record(1, NOW + 90_000, stray.key, stray.value, headers) for headers in (stray.headers, resigned)]
    outputs = home.process([replace(each, offset=at) for at, each in enumerate([*taken, taken[1]], start=1)])
    assert codes(outputs) == ["UNSIGNED"]
    assert len(outputs.events) == 1


def test_a_forwarded_record_acts_once_wherever_it_is_written_again() -> None:
    """At home, and on each other partition, whose engine would give it an origin of its own and sign that."""
    origin = (STRAY_HEADER, b"%d:0" % ((HOME + 1) % PARTITIONS))
    value = json.dumps({"command": "CANCEL_ALL", "symbolId": 1, "userId": 1}).encode()
    headers = signed("oms-1", value, headers=[origin])
    home = engine(REQUIRED)
    arrivals = [Record(at, NOW + 3_600_000 * at, b"1", value, headers) for at in (1, 2)]
    assert len(home.process(arrivals).events) == 1
    for partition in range(PARTITIONS):
        if partition != HOME:
            elsewhere = EnginePartition(partition, PARTITIONS)
            elsewhere.use_keys(REQUIRED)
            outputs = elsewhere.process([replace(arrivals[1], offset=0)])
            assert (codes(outputs), outputs.strays) == (["INVALID_ORIGIN"], [])


def test_without_keys_no_signature_is_looked_at() -> None:
    outputs = engine(None).process([Record(1, NOW, b"1", VALUE, ((SIGNATURE_HEADER, b"nonsense"),))])
    assert not outputs.dead


def test_a_replayed_record_makes_no_second_order() -> None:
    """Not at once, because its id is known, and not after the id is forgotten, because the signature is old."""
    state = engine(REQUIRED)
    order = record(1, NOW, order_command(id=str(uuid.UUID(int=9))), "oms-1")
    outputs = state.process([replace(order, offset=at, timestamp=NOW + at) for at in range(1, 4)])
    assert [json.loads(event.value or b"")["type"] for event in outputs.events] == ["ORDER", "REJECT", "REJECT"]
    late = [replace(order, offset=at, timestamp=NOW + SIGNATURE_AGE_MS_MAX + at) for at in (4, 5)]
    assert codes(state.process(late)) == ["BAD_SIGNATURE"] * 2


def test_the_documented_function_signs() -> None:
    """The Python in docs/security.md, as it stands there."""
    text = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    producer_key = f"oms-1:{base64.b64encode(SECRETS['oms-1']).decode()}"
    header = namespace["signature"](producer_key, b"1", VALUE)
    now = int(header[1].split()[1])
    keys = KeyRing(KeyFile(keys=(msgspec.structs.replace(OMS, valid_from=0),)))
    assert judge([header], keys=keys, at=now) is None
    assert judge([header], keys=keys, at=now, value=b"{}") == "BAD_SIGNATURE"
