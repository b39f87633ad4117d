"""Signed records: what a signature covers, whom it lets act, and that every replay judges as the first time did."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import re
import uuid
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from forkast_streams.checkpoint import Checkpointer, recover
from forkast_streams.engine_partition import EnginePartition
from forkast_streams.errors import CorruptLog, InvalidRecord, SetupError
from forkast_streams.limits import SIGNATURE_AGE_MS_MAX, SIGNATURE_AHEAD_MS_MAX
from forkast_streams.producer_keys import KeyFile, KeyFileWatch, KeyRing, ProducerKey, Span, read_key_file
from forkast_streams.record_signatures import SIGNATURE_HEADER, STRAY_HEADER, Signer, verify
from forkast_streams.records import OutputRecord, Outputs
from forkast_streams.topics import ORDERS_NEW
from tests.unit.flows import PARTITIONS, START_MS, Record, home_of, mixed_flow, order_command, symbol_command

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


def test_without_keys_no_signature_is_looked_at() -> None:
    outputs = engine(None).process([Record(1, NOW, b"1", VALUE, ((SIGNATURE_HEADER, b"nonsense"),))])
    assert not outputs.dead


# -- keys that change ------------------------------------------------------------------------------------------------


class File:
    """A key file that changes, and the time at which a watch looks at it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now_s = 0.0
        self.versions = 0

    def write(self, content: KeyFile | bytes) -> None:
        raw = content if isinstance(content, bytes) else msgspec.json.encode(content)
        self.versions += 1
        # White space makes every version's size another one, however coarse the file system's times are.
        self.path.write_bytes(raw + b" " * self.versions)

    def watch(self, *, can_sign: bool = True) -> KeyFileWatch:
        return KeyFileWatch(self.path, can_sign=can_sign, monotonic=lambda: self.now_s)


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "keys.json")


def key_histories(chance: random.Random) -> list[KeyFile]:
    """A file's versions, one a second of the log's time from BEGIN on; each new word of it is 10 s ahead."""
    content = KeyFile(keys=(replace_key(OMS, valid_from=BEGIN + 5_000),))
    versions = []
    for second in range(40):
        at = BEGIN + second * 1_000 + 10_000
        change = chance.random()
        if change < 0.15:
            late = ProducerKey(f"late-{second}", "late", SECRETS["late-1"], "*", at)
            content = msgspec.structs.replace(content, keys=(*content.keys, late))
        elif change < 0.3:
            open_keys = [key for key in content.keys[1:] if key.valid_until is None]
            if open_keys:
                gone = chance.choice(open_keys)
                ended = replace_key(gone, valid_until=max(at, gone.valid_from))
                content = msgspec.structs.replace(
                    content, keys=tuple(ended if key is gone else key for key in content.keys)
                )
        elif change < 0.45:
            *spans, last = content.required or (Span(0, 0),)
            if last.until is not None:
                content = msgspec.structs.replace(content, required=(*content.required, Span(at)))
            else:
                content = msgspec.structs.replace(content, required=(*spans, Span(last.since, max(at, last.since))))
        versions.append(content)
    return versions


def replace_key(key: ProducerKey, **changes: Any) -> ProducerKey:
    return msgspec.structs.replace(key, **changes)


def outcome(outputs: Outputs) -> list[OutputRecord]:
    return [*outputs.events, *outputs.dead]


@pytest.mark.parametrize("seed", range(8))
def test_a_replay_with_the_last_file_judges_as_each_version_did(seed: int, file: File) -> None:
    """The engine follows the file while the log grows; a replay of it all, and one from a checkpoint, agree."""
    chance = random.Random(seed)
    versions = key_histories(chance)
    commands = list(mixed_flow(400, seed=seed))
    log = [record(0, START_MS, commands[0])]
    for offset, command in enumerate(commands[1:], start=1):
        at = BEGIN + offset * 100
        key_id = chance.choice([None, "oms-1", f"late-{chance.randint(0, 39)}"])
        log.append(record(offset, at, command, key_id))

    file.write(versions[0])
    watch = file.watch()
    live = EnginePartition(HOME, PARTITIONS)
    live.use_keys(watch.newest)
    checkpointer = Checkpointer(HOME, 1)
    rows: dict[Any, bytes] = {}
    seen: list[OutputRecord] = []
    after_checkpoint: list[OutputRecord] = []
    for second, version in enumerate(versions):
        file.write(version)
        file.now_s += 1.5
        live.producer_keys = watch.keys_for(HOME, live.producer_keys, live.clock)
        made = outcome(live.process(log[second * 10 : second * 10 + 10]))
        seen += made
        after_checkpoint += made
        if second == 20:
            rows |= dict(checkpointer.cut(live).puts)
            after_checkpoint = []
    assert watch.why_not_ready() is None
    refused = [output for output in seen if dict(output.headers).get("reason")]
    assert refused
    assert len(refused) < len(seen)

    final = read_key_file(file.path)
    again = EnginePartition(HOME, PARTITIONS)
    again.use_keys(final)
    assert sorted_outputs(again.process(log)) == sorted(map(repr, seen))

    recovered = recover(rows)
    assert recovered.newest is not None
    resumed = EnginePartition.restore(
        HOME, recovered.newest.reached, recovered.head, recovered.entries.items(), recovered.journal
    )
    resumed.use_keys(final)
    assert sorted_outputs(resumed.process(log[resumed.next_offset :])) == sorted(map(repr, after_checkpoint))


def sorted_outputs(outputs: Outputs) -> list[str]:
    return sorted(map(repr, outcome(outputs)))


CONTRADICTIONS = {
    "a key taken out": KeyFile(keys=(PARTNER, ENDED)),
    "a secret exchanged": KeyFile(keys=(replace_key(OMS, secret=bytes(32)), PARTNER, ENDED)),
    "other users": KeyFile(keys=(OMS, replace_key(PARTNER, users="*"), ENDED)),
    "an earlier begin": KeyFile(keys=(replace_key(OMS, valid_from=BEGIN - 1), PARTNER, ENDED)),
    "an end in the past": KeyFile(keys=(replace_key(OMS, valid_until=NOW), PARTNER, ENDED)),
    "a key from the past on": KeyFile(keys=(*KEYS, replace_key(OMS, id="late-1", valid_from=NOW))),
    "required from the past on": KeyFile(keys=KEYS, required=(Span(NOW),)),
    "symbols allowed": KeyFile(keys=(OMS, replace_key(PARTNER, symbols=True), ENDED)),
}
CONTINUATIONS = {
    "the same": KeyFile(keys=KEYS),
    "another order of keys": KeyFile(keys=KEYS[::-1]),
    "a later key": KeyFile(keys=(*KEYS, replace_key(OMS, id="late-1", valid_from=NOW + 1))),
    "a later end": KeyFile(keys=(replace_key(OMS, valid_until=NOW + 1), PARTNER, ENDED)),
    "another end that is still to come": KeyFile(keys=(OMS, PARTNER, replace_key(ENDED, valid_until=END - 1))),
    "required later": KeyFile(keys=KEYS, required=(Span(NOW + 1, NOW + 2),)),
}


def judged_until_now(keys: KeyRing | None) -> EnginePartition:
    state = engine(keys)
    state.process([record(1, NOW, order_command(), "oms-1")])
    return state


def restored(state: EnginePartition) -> EnginePartition:
    recovered = recover(dict(Checkpointer(HOME, 1).cut(state).puts))
    assert recovered.newest is not None
    return EnginePartition.restore(
        HOME, recovered.newest.reached, recovered.head, recovered.entries.items(), recovered.journal
    )


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_file_that_rewrites_the_past_is_refused(name: str, file: File) -> None:
    """At a start with a sentence; while the engine runs it goes on with what it knows, and is not ready."""
    state = judged_until_now(OPTIONAL)
    with pytest.raises(CorruptLog, match=f"orders.new-{HOME} were judged"):
        restored(state).use_keys(KeyRing(CONTRADICTIONS[name]))
    file.write(CONTRADICTIONS[name])
    watch = file.watch()
    assert watch.keys_for(HOME, OPTIONAL, state.clock) is OPTIONAL
    assert f"orders.new-{HOME} were judged" in (watch.why_not_ready() or "")
    assert watch.keys_for(HOME + 1, OPTIONAL, START_MS) is watch.newest
    file.write(KeyFile(keys=KEYS))
    file.now_s += 2
    assert watch.keys_for(HOME, OPTIONAL, state.clock) is watch.newest
    assert watch.why_not_ready() is None


@pytest.mark.parametrize("name", CONTINUATIONS)
def test_a_file_that_goes_on_is_taken(name: str, file: File) -> None:
    state = judged_until_now(OPTIONAL)
    restored(state).use_keys(KeyRing(CONTINUATIONS[name]))
    file.write(CONTINUATIONS[name])
    watch = file.watch()
    assert watch.keys_for(HOME, OPTIONAL, state.clock) is watch.newest


def test_keys_cannot_be_forgotten_nor_come_too_late() -> None:
    with pytest.raises(CorruptLog, match="FORKAST_PRODUCER_KEYS"):
        restored(judged_until_now(OPTIONAL)).use_keys(None)
    with pytest.raises(CorruptLog, match="begin later"):
        restored(judged_until_now(None)).use_keys(OPTIONAL)
    restored(judged_until_now(None)).use_keys(KeyRing(KeyFile(keys=(replace_key(OMS, valid_from=NOW + 1),))))


@pytest.mark.parametrize("broken", [b"", b"[]", b'{"version":2}', b'{"keys":[{"id":"a"}]}', b'{"keyz":[]}', None])
def test_a_file_that_breaks_while_the_engine_runs_changes_nothing(file: File, broken: bytes | None) -> None:
    file.write(KeyFile(keys=KEYS))
    watch = file.watch()
    before = watch.keys_for(HOME, None, NOW)
    if broken is None:
        file.path.unlink()
    else:
        file.write(broken)
    file.now_s += 0.5
    assert watch.keys_for(HOME, before, NOW) is before
    assert watch.why_not_ready() is None
    file.now_s += 1
    assert watch.keys_for(HOME, before, NOW) is before
    assert "the producers' keys" in (watch.why_not_ready() or "")
    with pytest.raises(SetupError, match="the producers' keys"):
        read_key_file(file.path)
    file.write(KeyFile(keys=KEYS))
    file.now_s += 2
    assert watch.keys_for(HOME, before, NOW) is not before
    assert watch.why_not_ready() is None


def test_an_engine_without_a_key_is_not_ready_where_signatures_are_required(file: File) -> None:
    file.write(KeyFile(keys=KEYS, required=(Span(BEGIN),)))
    assert "FORKAST_PRODUCER_KEY" in (file.watch(can_sign=False).why_not_ready() or "")
    assert file.watch().why_not_ready() is None


@pytest.mark.parametrize(
    "key",
    [
        replace_key(OMS, id="Oms"),
        replace_key(OMS, secret=b"short"),
        replace_key(OMS, valid_until=BEGIN - 1),
        replace_key(OMS, valid_from=-1),
        replace_key(PARTNER, id="oms-1"),
    ],
)
def test_a_key_that_cannot_be_meant_is_refused(file: File, key: ProducerKey) -> None:
    file.write(KeyFile(keys=(OMS, key) if key.producer == "partner" else (key,)))
    with pytest.raises(SetupError, match="no key file"):
        read_key_file(file.path)


def test_secrets_are_in_no_repr(file: File) -> None:
    assert repr(OMS.secret) not in repr(KeyFile(keys=KEYS))


@pytest.mark.parametrize("text", ["x", "oms-1:", "oms-1:AAAA", "OMS:" + "A" * 43 + "=", "oms-1:!" + "A" * 42 + "="])
def test_a_key_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SetupError, match="FORKAST_PRODUCER_KEY"):
        Signer.from_env({"FORKAST_PRODUCER_KEY": text})


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
    keys = KeyRing(KeyFile(keys=(replace_key(OMS, valid_from=0),)))
    assert judge([header], keys=keys, at=now) is None
    assert judge([header], keys=keys, at=now, value=b"{}") == "BAD_SIGNATURE"
