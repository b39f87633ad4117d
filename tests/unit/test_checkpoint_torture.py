"""Whatever happened to the changelog, what comes back is a state of an uninterrupted run, or an error."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from functools import lru_cache

import msgspec
import pytest

from forkast_streams import checkpoint
from forkast_streams.checkpoint import Checkpointer, Rows, recover
from forkast_streams.engine_partition import EnginePartition
from forkast_streams.errors import CorruptLog
from tests.simulation.checks import contents
from tests.support.changelogs import table_of
from tests.support.flows import PARTITIONS, Record, home_of, mixed_flow, records_of

HOME = home_of(1)
STEP = 23
RECORDS = records_of(mixed_flow(700, seed=11))

Log = list[tuple[bytes, bytes | None]]
Table = dict[bytes, bytes]


@pytest.fixture(autouse=True)
def small_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits so small that rotations, drops, chunks and merged journal rows all happen within a short flow."""
    monkeypatch.setattr(checkpoint, "CHECKPOINT_CHUNK_BYTES", 700)
    monkeypatch.setattr(checkpoint, "BASE_SLICE_MIN", 20)
    monkeypatch.setattr(checkpoint, "JOURNAL_ROWS_MAX", 5)


def state_hash(state: EnginePartition) -> str:
    """Of everything a checkpoint must bring back: head, entries, used order ids, books in order of priority."""
    books = {
        str(symbol_id): [
            [(order.id, order.price_ticks, order.remaining, order.rank) for order in side]
            for side in (market.book.bids, market.book.asks)
        ]
        for symbol_id, market in state.engine.markets.items()
    }
    whole = (state.next_offset, contents(state), books)
    return hashlib.sha256(msgspec.json.encode(whole, enc_hook=str, order="deterministic")).hexdigest()


@lru_cache(maxsize=1)
def uninterrupted() -> dict[int, str]:
    """The hash of an engine that was never interrupted, by the offset it has reached."""
    state = EnginePartition(HOME, PARTITIONS)
    hashes = {0: state_hash(state)}
    for record in RECORDS:
        state.process([record])
        hashes[state.next_offset] = state_hash(state)
    return hashes


def as_log(rows: Rows) -> Log:
    return [*((key, None) for key in rows.drops), *rows.puts]


def run(state: EnginePartition, cuts: Checkpointer, records: list[Record], *, step: int = STEP) -> Iterator[Log]:
    """Process ``records`` with a checkpoint every ``step``; the changelog of each."""
    for at in range(0, len(records), step):
        state.process(records[at : at + step])
        yield as_log(cuts.cut(state))


def changelog(*, step: int = STEP) -> Log:
    """The changelog of a run through all records."""
    pieces = run(EnginePartition(HOME, PARTITIONS), Checkpointer(HOME, writer=1), RECORDS, step=step)
    return [row for piece in pieces for row in piece]


def restored(table: Table) -> EnginePartition:
    """The state that ``table`` holds."""
    found = recover(table)
    if found.newest is None:
        return EnginePartition(HOME, PARTITIONS)
    return EnginePartition.restore(HOME, found.newest.reached, found.head, found.entries.items(), found.journal)


def test_at_every_record_the_state_hash_is_that_of_an_uninterrupted_run() -> None:
    """Wherever the changelog ends, also in the middle of a segment, drops or journal."""
    log = changelog()
    assert any(value is None for _, value in log), "the flow must be long enough for drops"
    reached = set()
    for cut in range(len(log) + 1):
        state = restored(table_of(log[:cut]))
        assert state_hash(state) == uninterrupted()[state.next_offset]
        reached.add(state.next_offset)
    assert reached == {0, *range(STEP, len(RECORDS), STEP), len(RECORDS)}


@pytest.mark.parametrize("seed", range(10))
def test_segments_out_of_order_and_twice_give_the_same_state(seed: int) -> None:
    """A table has no order; and rows that a producer has sent again are the same rows."""
    log = changelog()
    table = table_of(log)
    rows = list(table.items())
    rows += random.Random(seed).sample(rows, len(rows) // 2)
    random.Random(seed).shuffle(rows)
    assert state_hash(restored(dict(rows))) == state_hash(restored(table)) == uninterrupted()[len(RECORDS)]


@pytest.mark.parametrize("seed", range(8))
def test_compaction_at_any_moment_of_the_recovery_changes_nothing(seed: int) -> None:
    """The cleaner takes out rows whose tombstone comes later, and tombstones, while the log is being read.

    So a reader sees of each dropped row: both, neither, only the tombstone, or only the row.
    """
    chance = random.Random(seed)
    log = changelog()
    dropped = {key for key, value in log if value is None}
    for cut in sorted(chance.sample(range(len(log) + 1), 25)):
        prefix = log[:cut]
        gone = {key for key, value in prefix if value is None}
        cleaned = [
            (key, value) for key, value in prefix if not (key in gone and key in dropped and chance.random() < 0.5)
        ]
        state = restored(table_of(cleaned))
        assert state.next_offset == restored(table_of(prefix)).next_offset
        assert state_hash(state) == uninterrupted()[state.next_offset]


@pytest.mark.parametrize("seed", range(12))
def test_zombies_late_segments_and_drops_do_no_harm(seed: int) -> None:
    """A worker that lost its partition goes on for a while; its rows and drops come between those of the owner.

    Both started from the same rows. Whatever the interleaving, each prefix gives a state of the uninterrupted run, at
    least as far as the owner's last whole segment; and the next owner goes on from there.
    """
    chance = random.Random(seed)
    start = chance.randrange(10, 20) * STEP
    first = list(run(EnginePartition(HOME, PARTITIONS), Checkpointer(HOME, writer=1), RECORDS[:start]))
    log = [row for piece in first for row in piece]
    table = table_of(log)
    owner, zombie = restored(table), restored(table)
    step = chance.choice([7, STEP, 31])
    late = list(run(zombie, Checkpointer.resume(HOME, 3, recover(table)), RECORDS[start : start + 150], step=step))
    of_owner = list(run(owner, Checkpointer.resume(HOME, 2, recover(table)), RECORDS[start:]))
    assert any(value is None for piece in late for _, value in piece), "the zombie must drop something"
    reached = start
    while of_owner or late:
        is_owners = bool(of_owner) and (not late or chance.random() < 0.7)
        piece = (of_owner if is_owners else late).pop(0)
        log += piece
        if is_owners:
            reached = min(reached + STEP, len(RECORDS))
        state = restored(table_of(log))
        assert state.next_offset >= reached
        assert state_hash(state) == uninterrupted()[state.next_offset]
    assert reached == len(RECORDS)


def test_a_damaged_byte_anywhere_is_refused() -> None:
    """One bit of any row flips, or the row is cut short: an older chain is used, or the worker stops; nothing else."""
    chance = random.Random(1)
    table = table_of(changelog())
    outcomes = set()
    for key in sorted(table) * 4:
        value = bytearray(table[key])
        if chance.random() < 0.8:
            value[chance.randrange(len(value))] ^= 1 << chance.randrange(8)
        else:
            del value[chance.randrange(len(value)) :]
        try:
            state = restored(table | {key: bytes(value)})
        except CorruptLog:
            outcomes.add("stopped")
            continue
        assert state_hash(state) == uninterrupted()[state.next_offset]
        outcomes.add("older" if state.next_offset < len(RECORDS) else "not needed")
    assert outcomes == {"stopped", "older", "not needed"}


def test_local_folder_that_is_behind_is_filled_from_the_changelog() -> None:
    """Faust replays from the offset that the folder was written with: any older copy and the rest give the newest."""
    log = changelog()
    whole = table_of(log)
    for behind in range(0, len(log), 5):
        local = table_of(log[:behind])
        for key, value in log[behind:]:
            if value is None:
                local.pop(key, None)
            else:
                local[key] = value
        assert local == whole
    assert state_hash(restored(whole)) == uninterrupted()[len(RECORDS)]
