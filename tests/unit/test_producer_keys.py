"""Producers' keys that change while engines run, and files of them that cannot be meant."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agents.match_orders import give_keys
from forkast_streams.checkpoint import Checkpointer, recover
from forkast_streams.engine_partition import EnginePartition
from forkast_streams.errors import CorruptLog, SetupError
from forkast_streams.producer_keys import KeyFile, KeyFileWatch, KeyRing, ProducerKey, Span, read_key_file
from forkast_streams.record_signatures import Signer
from forkast_streams.records import OutputRecord, Outputs
from tests.support.flows import PARTITIONS, START_MS, mixed_flow, order_command, symbol_command
from tests.unit.test_record_signatures import (
    BEGIN,
    END,
    ENDED,
    HOME,
    KEYS,
    NOW,
    OMS,
    OPTIONAL,
    PARTNER,
    SECRETS,
    engine,
    record,
)


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


def test_a_partition_that_is_kept_over_a_rebalance_goes_on(file: File) -> None:
    """Though the log has got further since its keys were looked at, and whatever the file says by then."""
    file.write(KeyFile(keys=KEYS))
    watch = file.watch()
    kept, fresh = EnginePartition(HOME, PARTITIONS), EnginePartition(HOME + 1, PARTITIONS)
    give_keys({HOME: kept}, watch)
    kept.process([record(0, START_MS, symbol_command(1)), record(1, NOW, order_command(), "oms-1")])
    give_keys({HOME: kept, HOME + 1: fresh}, watch)
    kept.use_keys(watch.newest)
    assert kept.producer_keys is fresh.producer_keys is watch.newest

    keys = kept.producer_keys
    file.write(CONTRADICTIONS["a key taken out"])
    contradicting = file.watch()
    give_keys({HOME: kept}, contradicting)
    assert kept.producer_keys is keys
    with pytest.raises(CorruptLog):
        give_keys({HOME: restored(kept)}, contradicting)


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


def test_a_file_that_was_away_and_comes_back_as_it_was_is_good_again(file: File) -> None:
    file.write(KeyFile(keys=KEYS))
    watch = file.watch()
    ring = watch.keys_for(HOME, None, NOW)
    away = file.path.rename(file.path.with_suffix(".away"))
    file.now_s += 2
    assert watch.keys_for(HOME, ring, NOW) is ring
    assert "the producers' keys" in (watch.why_not_ready() or "")
    away.rename(file.path)
    file.now_s += 2
    assert watch.keys_for(HOME, ring, NOW) is ring
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
