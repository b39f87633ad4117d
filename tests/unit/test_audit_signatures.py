"""The audit judges by the producers' keys who may write, as the engine does and without its code."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from forkast_streams.audit import signatures
from forkast_streams.audit.evidence import ORDERS_DEAD, Cut
from forkast_streams.audit.findings import Findings
from forkast_streams.audit.kafka_log import for_other_processes
from forkast_streams.audit.records import Record
from forkast_streams.audit.run import Plan
from forkast_streams.audit.signatures import REFUSALS, Signatures
from forkast_streams.errors import InvalidRecord, SetupError
from forkast_streams.kafka_security import Brokers, KafkaSecurity, kafka_arguments
from forkast_streams.limits import SIGNATURE_AGE_MS_MAX, SIGNATURE_AHEAD_MS_MAX
from forkast_streams.producer_keys import KeyFile, KeyRing, Span
from forkast_streams.record_signatures import SIGNATURE_HEADER, STRAY_HEADER, Signer, verify
from forkast_streams.topics import ORDERS_NEW
from tests.support.audit_world import FOREIGN, HOME, World, order_id
from tests.support.flows import START_MS, order_command, symbol_command
from tests.unit.test_record_signatures import BEGIN, END, KEYS, OMS, PARTNER, SECRETS

# Signed from the first record on, by keys that are as old.
OLD = [msgspec.structs.replace(key, valid_from=START_MS) for key in (OMS, PARTNER)]
FILE = KeyFile(keys=tuple(OLD), required=(Span(START_MS),))
OPTIONAL = KeyFile(keys=tuple(OLD))


def signer(key_id: str, at: int = START_MS) -> Signer:
    return Signer(key_id, SECRETS.get(key_id, bytes(32)), lambda: at)


def send(world: World, command: dict[str, Any], key_id: str | None, *, partition: int = HOME, sent: Any = None) -> None:
    """Append a command that a key has signed; ``sent``: another one in its place, under that signature."""
    value, key = json.dumps(command).encode(), b"%d" % command["symbolId"]
    headers = () if key_id is None else (signer(key_id).header(ORDERS_NEW, key, value),)
    world.send(value if sent is None else json.dumps(sent).encode(), partition=partition, key=key, headers=headers)


def signed_world(keys: KeyFile | None = FILE) -> World:
    """All who may write and all who may not, among records that are no commands, and strays of both kinds."""
    world = World()
    world.keys, world.signer = keys, signer("oms-1")
    send(world, symbol_command(1), "oms-1")
    send(world, order_command(id=order_id(1), side="SELL", userId=2), "partner-1")
    send(world, order_command(id=order_id(2)), None)
    send(world, order_command(id=order_id(3), userId=3), "partner-1")
    send(world, order_command(id=order_id(4)), "oms-1", sent=order_command(id=order_id(4), quantity=11))
    send(world, order_command(id=order_id(5)), "unknown-1")
    send(world, symbol_command(1, status="HALTED"), "partner-1")
    world.send(b"{", partition=HOME)
    world.send(json.dumps(order_command(symbol_id=3)).encode(), partition=HOME)
    send(world, order_command(symbol_id=77), None)
    send(world, order_command(id=order_id(6), userId=4), "oms-1")
    # What no command says of a user who matters, and what the wire leaves open.
    send(world, {"command": "HEARTBEAT", "symbolId": 1}, "partner-1")
    send(world, {"command": "HEARTBEAT", "symbolId": 1, "userId": 9, "price": []}, "partner-1")
    send(world, order_command(id=order_id(7), postOnly=1), None)
    send(world, order_command(id=order_id(8), price=90), "oms-1", partition=FOREIGN)
    send(world, order_command(id=order_id(9), price=90), None, partition=FOREIGN)
    send(world, order_command(id=order_id(10), price=90), "partner-1", partition=FOREIGN)
    return world.process().derive()


def reasons(world: World, partition: int = HOME) -> list[str]:
    return [dict(letter.headers)["reason"].decode() for letter in world.letters[partition]]


@pytest.fixture
def world() -> World:
    return signed_world()


def broken(findings: Findings) -> set[str]:
    return set(findings.violations)


def test_a_log_that_was_judged_by_keys_passes(world: World) -> None:
    """Each refusal is there, and no record of those who may write was refused."""
    assert set(reasons(world)) >= REFUSALS
    assert reasons(world, FOREIGN) == ["UNSIGNED"]
    findings = world.audit()
    assert findings.is_clean, findings.first
    assert findings.looked["I-5"] >= 6


@pytest.mark.parametrize("keys", [OPTIONAL, KeyFile(), None], ids=["not required", "no key", "no file"])
def test_so_does_the_same_log_under_other_keys(keys: KeyFile | None) -> None:
    """Where signatures are not required, and where nobody looks at them."""
    world = signed_world(keys)
    assert "UNSIGNED" not in reasons(world)
    assert ("BAD_SIGNATURE" in reasons(world)) is (keys is OPTIONAL)
    assert world.audit().is_clean, world.audit().first


def test_without_the_keys_it_says_what_it_needs(world: World) -> None:
    """It neither believes the engine nor calls what it cannot judge broken."""
    world.keys = None
    with pytest.raises(SetupError, match="set FORKAST_PRODUCER_KEYS") as refused:
        world.audit()
    assert f"{ORDERS_DEAD}-" in str(refused.value)


def test_a_file_that_cannot_be_read_is_told(world: World, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot be read"):
        world.audit(producer_keys=tmp_path / "none.json")


def refuse(world: World, at: int, reason: str) -> None:
    """Let the engine have refused an input that it has answered with events, or for another reason."""
    record = world.inputs[HOME][at]
    world.events[HOME] = [
        event for event in world.events[HOME] if json.loads(event.value or b"")["source"]["offset"] != at
    ]
    for place in range(len(world.events[HOME])):
        event = world.event(HOME, place)
        world.put(HOME, place, event | {"sequence": place + 1})
    headers = {"reason": reason, "message": "because", "topic": ORDERS_NEW, "partition": HOME, "offset": at}
    headers["timestamp"] = record.timestamp
    told = tuple((name, str(value).encode()) for name, value in headers.items())
    letters = [each for each in world.letters[HOME] if dict(each.headers)["offset"] != b"%d" % at]
    letters.append(Record(0, record.timestamp, record.key, record.value, told))
    world.letters[HOME] = sorted(letters, key=lambda letter: int(dict(letter.headers)["offset"]))


@pytest.mark.parametrize("reason", sorted(REFUSALS))
def test_a_record_of_one_who_may_write_that_was_refused_is_found(world: World, reason: str) -> None:
    """The last order that a key has signed for its user, which the engine is made to have refused."""
    [at] = [at for at, record in enumerate(world.inputs[HOME]) if order_id(6).encode() in (record.value or b"")]
    assert broken(world.audit()) == set()
    refuse(world, at, reason)
    world.tables, world.books = None, []
    findings = world.audit()
    assert "I-2" in findings.violations
    [letter] = [each for each in world.letters[HOME] if dict(each.headers)["offset"] == b"%d" % at]
    assert dict(letter.headers)["reason"].decode() == reason


def test_a_letter_for_a_right_signature_is_called_that(world: World) -> None:
    """A heartbeat that leads to no event: only its letter is wrong, and its sentence says how."""
    [at] = [at for at, r in enumerate(world.inputs[HOME]) if r.value == b'{"command": "HEARTBEAT", "symbolId": 1}']
    refuse(world, at, "BAD_SIGNATURE")
    findings = world.audit()
    assert broken(findings) == {"I-2"}
    assert "its writer may send it, so it is not BAD_SIGNATURE" in findings.first["I-2"].message


def test_a_wrong_reason_is_found(world: World) -> None:
    """Refused it must be, and for what is wrong: another refusal, and a reason of the record itself."""
    places = {reason: at for at, reason in enumerate(reasons(world))}
    for of, told in [("UNSIGNED", "BAD_SIGNATURE"), ("BAD_SIGNATURE", "INVALID_FIELD"), ("INVALID_JSON", "UNSIGNED")]:
        letters, at = list(world.letters[HOME]), places[of]
        headers = tuple(
            (name, told.encode() if name == "reason" else value) for name, value in letters[at].headers
        )  # fmt: skip
        world.letters[HOME][at] = msgspec.structs.replace(letters[at], headers=headers)
        findings = world.audit()
        assert broken(findings) == {"I-2"}, (of, told)
        assert told in findings.first["I-2"].message
        world.letters[HOME] = letters


@pytest.mark.parametrize("key_id", [None, "partner-1", "unknown-1"])
def test_a_record_that_should_have_been_refused_is_found(key_id: str | None) -> None:
    """An engine that takes what nobody may send, as one without the keys would."""
    world = World()
    send(world, symbol_command(1), "oms-1")
    send(world, order_command(userId=3), key_id)
    world.process()
    assert world.audit().is_clean
    world.keys = FILE
    findings = world.audit()
    assert broken(findings) == {"I-2"}
    assert findings.violations["I-2"] == 2


def test_a_forged_record_breaks_no_promise_to_a_client(world: World) -> None:
    """Who was told of an order is not confused by a refused record with its id, of another user."""
    world.journal = [{"status": 201, "orderId": order_id(6), "userId": 4}]
    forged = World()
    forged.keys, forged.signer, forged.journal = world.keys, world.signer, world.journal
    send(forged, symbol_command(1), "oms-1")
    send(forged, order_command(id=order_id(6), userId=5), "unknown-1")
    send(forged, order_command(id=order_id(6), userId=4), "oms-1")
    forged.process().derive()
    assert forged.audit().is_clean, forged.audit().first


# -- the same verdict as the engine's --------------------------------------------------------------------------------


def cases(count: int) -> Iterator[tuple[Record, dict[str, Any]]]:
    """Records signed and not, in time and not, changed and not."""
    chance = random.Random(7)
    commands = [
        order_command(userId=1), order_command(userId=3), symbol_command(1), {"command": "HEARTBEAT", "symbolId": 1},
        {"command": "CANCEL_ALL", "symbolId": 1, "userId": 2},
    ]  # fmt: skip
    for _ in range(count):
        command = chance.choice(commands)
        value, key = json.dumps(command).encode(), chance.choice([b"1", b"1", None])
        at = chance.choice([BEGIN, END]) + chance.choice([-1, 0, 1, 50_000])
        ages = [0, SIGNATURE_AGE_MS_MAX, SIGNATURE_AGE_MS_MAX + 1, -SIGNATURE_AHEAD_MS_MAX, -SIGNATURE_AHEAD_MS_MAX - 1]
        origin = chance.choice([(), (), ((STRAY_HEADER, b"3:7"),), ((STRAY_HEADER, b""),)])
        ids = chance.choices(["oms-1", "partner-1", "ended-1", "other-1"], k=chance.choice([0, 1, 1, 1, 1, 2]))
        signed = [signer(each, at - chance.choice(ages)).header(ORDERS_NEW, key, value, origin) for each in ids]
        headers = [*origin, *signed]
        match chance.randrange(8):
            case 0 if signed:
                text = headers[-1][1]
                place = chance.randrange(len(text))
                headers[-1] = (SIGNATURE_HEADER, text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :])
            case 1 if signed:
                headers[-1] = (SIGNATURE_HEADER, chance.choice([b"", b"oms-1", b"oms-1  ", headers[-1][1] + b" "]))
            case 2:
                headers.append((STRAY_HEADER, b"3:8"))
            case 3:
                value += b" "
        yield Record(0, at, key, value, tuple(headers)), command


def engines_verdict(record: Record, command: dict[str, Any], keys: KeyRing) -> str | None:
    try:
        verify(
            record.headers,
            record.key,
            record.value,
            record.timestamp,
            keys,
            topic=ORDERS_NEW,
            user_id=command.get("userId"),
            defines_symbol=command.get("command") == "SYMBOL",
        )
    except InvalidRecord as exc:
        return exc.code
    return None


def test_audit_and_engine_agree() -> None:
    """Neither shares the other's code; all verdicts come up."""
    came_up = set()
    for file in (KeyFile(keys=KEYS), KeyFile(keys=KEYS, required=(Span(BEGIN, END),)), KeyFile()):
        judge, keys = Signatures(file), KeyRing(file)
        for record, command in cases(3_000):
            verdict = judge.refusal(record, command)
            assert verdict == engines_verdict(record, command, keys), record
            came_up.add(verdict)
    assert came_up == {None, *REFUSALS}


@pytest.mark.parametrize("time", [b"01700000000000", b"0", b"+5", b"1 5", b"1" * 16, "٣".encode()])
def test_a_time_has_one_text(time: bytes) -> None:
    """Forwarded, so that no age forbids it, and signed as it stands there."""
    record = Record(0, BEGIN, b"1", b"{}", ((STRAY_HEADER, b"3:7"),))
    digest = signatures._digest(SECRETS["oms-1"], time, record, b"3:7")
    signed = (SIGNATURE_HEADER, b"oms-1 " + time + b" " + digest)
    record = msgspec.structs.replace(record, headers=(*record.headers, signed))
    assert Signatures(KeyFile(keys=KEYS)).refusal(record, {}) == "BAD_SIGNATURE"
    assert engines_verdict(record, {}, KeyRing(KeyFile(keys=KEYS))) == "BAD_SIGNATURE"


def test_the_window_is_the_engines() -> None:
    window = (signatures.SIGNED_BEFORE_MS_MAX, signatures.SIGNED_AFTER_MS_MAX)
    assert window == (SIGNATURE_AGE_MS_MAX, SIGNATURE_AHEAD_MS_MAX)


# -- other processes -------------------------------------------------------------------------------------------------


def test_other_processes_get_security_and_keys_and_nothing_that_signs() -> None:
    """A signer and a TLS context in use cannot be handed over, and readers need no signer."""
    security = KafkaSecurity("SASL_SSL", "PLAIN", "audit", "geheim")
    brokers = Brokers(["a:1", "b:2"], security, signer("oms-1"))
    assert kafka_arguments(brokers)["ssl_context"] is not None
    plan = Plan(Cut(1, {}, {}), Path(), for_other_processes(brokers), keys=FILE)
    there = pickle.loads(pickle.dumps(plan))
    assert there.keys == FILE
    assert isinstance(there.brokers, Brokers)
    assert there.brokers.signer is None
    mine, theirs = kafka_arguments(brokers), kafka_arguments(there.brokers)
    assert mine.pop("ssl_context") is not theirs.pop("ssl_context")
    assert mine == theirs
    assert for_other_processes(["a:1"]) == ["a:1"]
