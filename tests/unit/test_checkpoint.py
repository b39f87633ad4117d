"""Checkpoints: at whatever record the changelog ends, the state comes back and goes on as if nothing had been."""

from __future__ import annotations

import pytest

from forkast_streams import checkpoint
from forkast_streams.checkpoint import Checkpointer, recover
from forkast_streams.engine_partition import EnginePartition
from forkast_streams.errors import CorruptLog
from forkast_streams.limits import CHECKPOINT_CHUNK_BYTES
from forkast_streams.records import OutputRecord
from tests.support.changelogs import table_of
from tests.support.flows import PARTITIONS, START_MS, Record, home_of, mixed_flow, records_of

HOME = home_of(1)
STEP = 37


@pytest.fixture
def small_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits so small that rotations, drops, chunks and merged journal rows all happen within a short flow."""
    monkeypatch.setattr(checkpoint, "CHECKPOINT_CHUNK_BYTES", 700)
    monkeypatch.setattr(checkpoint, "BASE_SLICE_MIN", 20)
    monkeypatch.setattr(checkpoint, "JOURNAL_ROWS_MAX", 5)


def run_with_changelog(
    records: list[Record], *, step: int = STEP
) -> tuple[list[tuple[bytes, bytes | None]], list[OutputRecord]]:
    """Process ``records`` with a checkpoint every ``step``; return the changelog and all events."""
    state = EnginePartition(HOME, PARTITIONS)
    checkpointer = Checkpointer(HOME, writer=1)
    changelog: list[tuple[bytes, bytes | None]] = []
    events = []
    for at in range(0, len(records), step):
        events += state.process(records[at : at + step]).events
        rows = checkpointer.cut(state)
        changelog += [(key, None) for key in rows.drops]
        changelog += rows.puts
    return changelog, events


def restored(table: dict[bytes, bytes]) -> EnginePartition:
    """The state that ``table`` holds."""
    found = recover(table)
    if found.newest is None:
        return EnginePartition(HOME, PARTITIONS)
    return EnginePartition.restore(HOME, found.newest.reached, found.head, found.entries.items(), found.journal)


@pytest.mark.usefixtures("small_rows")
def test_changelog_cut_at_every_record_recovers_to_the_same_events() -> None:
    """A changelog that ends at any record gives a state from which the rest of the input gives the same events."""
    records = records_of(mixed_flow(1500))
    changelog, events = run_with_changelog(records)
    emitted = _events_up_to_each_offset(records)
    assert any(value is None for _, value in changelog), "the flow must be long enough for drops"
    reached = []
    for cut in range(len(changelog) + 1):
        state = restored(table_of(changelog[:cut]))
        at = state.next_offset
        reached.append(at)
        rest = state.process(records[at : at + 60]).events
        start = emitted[at]
        assert rest == events[start : start + len(rest)]
    assert reached == sorted(reached)
    assert reached[-1] == len(records)


def _events_up_to_each_offset(records: list[Record]) -> list[int]:
    state = EnginePartition(HOME, PARTITIONS)
    counts = [0]
    for record in records:
        counts.append(counts[-1] + len(state.process([record]).events))
    return counts


@pytest.mark.usefixtures("small_rows")
def test_crash_and_resume_after_each_checkpoint_equals_an_uninterrupted_run() -> None:
    """Restoring and going on with new writers, again and again, changes neither events nor state."""
    records = records_of(mixed_flow(1500, seed=3))
    uninterrupted = EnginePartition(HOME, PARTITIONS)
    expected = uninterrupted.process(records).events
    table: dict[bytes, bytes] = {}
    events = []
    for run, at in enumerate(range(0, len(records), STEP)):
        found = recover(table)
        state = restored(table)
        checkpointer = Checkpointer.resume(HOME, run, found)
        events += state.process(records[at : at + STEP]).events
        rows = checkpointer.cut(state)
        table = table_of([*table.items(), *((key, None) for key in rows.drops), *rows.puts])
    final = restored(table)
    assert events == expected
    assert final.head() == uninterrupted.head()
    assert _book_of(final) == _book_of(uninterrupted)


def _book_of(state: EnginePartition) -> list[tuple[object, ...]]:
    book = state.engine.markets[1].book
    return [(o.id, o.price_ticks, o.remaining, o.rank) for side in (book.bids, book.asks) for o in side]


@pytest.mark.usefixtures("small_rows")
def test_damaged_newest_segment_is_refused_and_the_older_chain_is_used() -> None:
    """One flipped byte in the newest segment: the checksum refuses it, the state before it comes back."""
    records = records_of(mixed_flow(600, seed=5))
    changelog, _ = run_with_changelog(records)
    table = table_of(changelog)
    newest = recover(table).newest
    assert newest is not None
    damaged = max(key for key in table if b".s." in key)
    table[damaged] = table[damaged][:-1] + bytes([table[damaged][-1] ^ 1])
    older = recover(table).newest
    assert older is not None
    assert older.reached < newest.reached
    assert restored(table).next_offset == older.reached


@pytest.mark.usefixtures("small_rows")
def test_late_segment_of_a_zombie_does_no_harm() -> None:
    """Rows that a paused worker adds after its partition moved do not disturb the new owner's chain."""
    records = records_of(mixed_flow(900, seed=7))
    changelog, _ = run_with_changelog(records[:300])
    table = table_of(changelog)
    owner, zombie = restored(table), restored(table)
    owner_cuts = Checkpointer.resume(HOME, 2, recover(table))
    zombie_cuts = Checkpointer.resume(HOME, 3, recover(table))
    zombie.process(records[300:333])
    late = zombie_cuts.cut(zombie)
    for at in range(300, 900, STEP):
        owner.process(records[at : min(at + STEP, 900)])
        rows = owner_cuts.cut(owner)
        table = table_of([*table.items(), *((key, None) for key in rows.drops), *rows.puts])
    table = table_of([*table.items(), *((key, None) for key in late.drops), *late.puts])
    assert restored(table).head() == owner.head()


def test_rows_without_any_complete_chain_are_not_taken_for_a_state() -> None:
    """What is left of a damaged changelog gives no state; the agent then insists on the whole input."""
    changelog, _ = run_with_changelog(records_of(mixed_flow(200)))
    table = {key: value[:-1] for key, value in table_of(changelog).items()}
    found = recover(table)
    assert found.newest is None
    assert found.row_keys == list(table)


@pytest.mark.usefixtures("small_rows")
def test_missing_journal_row_is_an_error() -> None:
    """A used order id that got lost could be used again, so it must stop the worker."""
    changelog, _ = run_with_changelog(records_of(mixed_flow(400)))
    table = table_of(changelog)
    del table[next(key for key in table if b".j." in key)]
    with pytest.raises(CorruptLog, match="order ids"):
        restored(table)


@pytest.mark.parametrize("ids", [1, 1_000, 20_000, 32_767, 32_768, 40_000])
def test_a_row_of_the_journal_fits_into_a_record(ids: int) -> None:
    """However many ids come between two cuts: 65,535 of them merged are more than a broker takes."""
    state, checkpointer = EnginePartition(HOME, PARTITIONS), Checkpointer(HOME, writer=1)
    used, table = 0, dict[bytes, bytes]()
    for _ in range(4):
        for number in range(used, used + ids):
            state.engine.seen.add((number, 1), START_MS)
        used, state.next_offset = used + ids, state.next_offset + 1
        rows = checkpointer.cut(state)
        assert max(len(key) + len(value) for key, value in rows.puts) <= CHECKPOINT_CHUNK_BYTES + 100
        table |= dict(rows.puts)
    again = restored(table)
    assert len(again.engine.seen.current) == used
    assert not again.engine.seen.add((used - 1, 1), START_MS)


@pytest.mark.usefixtures("small_rows")
def test_number_of_segments_is_bounded_however_long_the_history() -> None:
    """Segments are dropped as the base rotates: what stays is two rotations and the one under way."""
    changelog, _ = run_with_changelog(records_of(mixed_flow(20_000)))
    table = table_of(changelog)
    cuts = 20_000 // STEP
    segments = {tuple(key.split(b".")[2:4]) for key in table if b".s." in key}
    assert len(segments) <= 3 * (checkpoint.BASE_SLICES_MAX + 1) < cuts / 5


@pytest.mark.usefixtures("small_rows")
def test_segment_under_the_name_of_a_later_one_is_refused() -> None:
    """A wrong name would make the worker skip input; the checksum covers the name as well."""
    records = records_of(mixed_flow(600, seed=5))
    changelog, _ = run_with_changelog(records)
    table = table_of(changelog)
    newest = recover(table).newest
    assert newest is not None
    for key in [key for key in table if key.split(b".")[1:3] == [b"s", b"%020d" % newest.reached]]:
        partition, kind, reached, *rest = key.split(b".")
        table[b".".join([partition, kind, b"%020d" % (int(reached) + 7), *rest])] = table[key]
    assert recover(table).newest == newest
