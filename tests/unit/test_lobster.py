"""A LOBSTER recording, sent through the engine, comes out as it was recorded."""

from __future__ import annotations

import gzip
import json
import lzma
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from forkast_streams.engine_partition import EnginePartition
from forkast_streams.errors import CorruptLog, SetupError
from forkast_streams.naive_book import NaiveExchange
from forkast_streams.replay.flow import Flow, Step, make_flow
from forkast_streams.replay.lobster import BookState, MessageType, read_book_states, read_messages
from forkast_streams.replay.report import ReplayReport
from forkast_streams.replay.session import due_at, due_end
from tests.support.flows import records_of, symbol_command
from tests.support.recordings import HOUR, TEN_LEVELS, TEN_LEVELS_BOOK, MadeUpDay, made_up_day

real_files = pytest.mark.skipif(
    not HOUR.exists(), reason="LOBSTER's samples are not here (FORKAST_LOBSTER_DATA); made-up recordings stand in"
)


def flow_of(messages: Path, *, run: str = "test") -> Flow:
    return make_flow(read_messages(messages), symbol_id=1, run=run)


def events_of(flow: Flow) -> list[dict[str, Any]]:
    """The engine's events for a flow on a fresh symbol."""
    commands = [symbol_command(1), *(step.command for step in flow.steps)]
    return [json.loads(event.value or b"") for event in EnginePartition(0, 1).process(records_of(commands)).events]


def report_of(flow: Flow, states: list[BookState] | None = None) -> ReplayReport:
    report = ReplayReport(flow, states=states)
    for event in events_of(flow):
        report.add(event)
    return report


@real_files
def test_hour_of_nasdaq_comes_out_as_recorded() -> None:
    """Every visible execution at its price, the right maker but where Nasdaq passed others over, never crossed."""
    flow = flow_of(HOUR)
    summary = report_of(flow).summary()
    assert (summary.rows, summary.skipped, summary.orders_unseen) == (91_997, 2_201, 80)
    assert summary.answered == summary.commands
    assert (summary.executions, summary.at_file_price) == (4_067, 4_067)
    assert summary.at_head == summary.executions - summary.passed_over == 4_059
    assert (summary.trades, summary.trades_elsewhere, summary.crossed, summary.rejections) == (4_067, 0, 0, {})
    assert summary.final_levels == summary.final_levels_equal == 224


@real_files
def test_naive_exchange_keeps_the_hours_book_too() -> None:
    """The reference reaches the file's final book by itself."""
    flow, naive = flow_of(HOUR), NaiveExchange()
    naive.process(symbol_command(1), 0)
    for step in flow.steps:
        naive.process(step.command, 0)
    assert depth_of(naive) == flow.final_levels


def depth_of(naive: NaiveExchange) -> dict[str, dict[Decimal, Decimal]]:
    levels: dict[str, dict[Decimal, Decimal]] = {"BUY": {}, "SELL": {}}
    for side, orders in naive.books[1].sides.items():
        for order in orders:
            assert order.price is not None
            levels[side][order.price] = levels[side].get(order.price, Decimal(0)) + order.open
    return levels


@real_files
def test_book_is_the_files_after_every_message() -> None:
    """All 998 states of ten levels are equal; a level is taken from the file only when it comes into view."""
    summary = report_of(flow_of(TEN_LEVELS), read_book_states(TEN_LEVELS_BOOK)).summary()
    assert (summary.states, summary.states_equal) == (998, 998)
    assert summary.state_levels == 998 * 20
    assert summary.state_levels_taken < summary.state_levels / 50


@pytest.mark.parametrize("seed", range(5))
def test_made_up_day_comes_out_as_recorded(seed: int, tmp_path: Path) -> None:
    """Prices, makers, final book and every state are those of the recording."""
    messages, states = made_up_day(seed=seed).save(tmp_path)
    summary = report_of(flow_of(messages), read_book_states(states)).summary()
    assert summary.executions > 100
    assert summary.at_file_price == summary.at_head == summary.executions
    assert summary.trades_elsewhere == summary.crossed == summary.passed_over == 0
    assert summary.orders_unseen > 0
    assert summary.final_levels == summary.final_levels_equal > 0
    assert summary.states == summary.states_equal == summary.rows - 1


@pytest.mark.parametrize("dropped", [MessageType.PLACED, MessageType.DELETED, MessageType.EXECUTED])
def test_lost_command_shows_in_the_comparison(dropped: MessageType, tmp_path: Path) -> None:
    """A book that misses one command is found to differ from the file's."""
    day = MadeUpDay()
    for price in (999_900, 999_800, 1_000_100, 1_000_200):
        first = day.place(1 if price < 1_000_000 else -1, price, 10)
        day.place(1 if price < 1_000_000 else -1, price, 10)
    day.delete(first)
    day.execute(min(day.orders), 10)
    day.place(1, 999_900, 5)
    paths = day.save(tmp_path)
    messages = read_messages(paths[0])
    flow = make_flow(messages, symbol_id=1, run="test")
    lost = max(at for at, step in enumerate(flow.steps) if messages[step.row].type is dropped)
    sent = [step for at, step in enumerate(flow.steps) if at != lost]
    report = ReplayReport(flow, states=read_book_states(paths[1]))
    for event in events_of(replace(flow, steps=sent)):
        report.add(event)
    assert not report.is_complete
    assert report.summary().final_levels_equal < report.summary().final_levels
    if lost < len(flow.steps) - 1:
        assert report.summary().states_equal < report.summary().states
        assert report.comparison.differences[0].row >= flow.steps[lost].row


def test_messages_become_the_commands_that_repeat_them(tmp_path: Path) -> None:
    """Placed, reduced, executed, deleted: limit order, amendment to the new total, IOC of the other side, cancel."""
    day = MadeUpDay()
    order_id = day.place(1, 5_853_300, 18)
    day.reduce(order_id, 3)
    day.execute(order_id, 5)
    day.reduce(order_id, 2)
    day.execute_hidden()
    day.delete(order_id)
    steps = flow_of(day.save(tmp_path)[0]).steps
    maker_id = steps[0].command["id"]
    assert maker_id.endswith(f"-{order_id:012d}")
    told = [{k: v for k, v in step.command.items() if k not in ("symbolId", "commandId", "id")} for step in steps]
    limit = {"type": "LIMIT", "price": "585.33"}
    assert told == [
        limit | {"side": "BUY", "quantity": 18, "timeInForce": "GTC", "userId": 1},
        {"command": "AMEND", "orderId": maker_id, "userId": 1, "quantity": 15},
        limit | {"side": "SELL", "quantity": 5, "timeInForce": "IOC", "userId": 2},
        {"command": "AMEND", "orderId": maker_id, "userId": 1, "quantity": 13},
        {"command": "CANCEL", "orderId": maker_id, "userId": 1},
    ]


def test_order_known_only_from_its_end_is_placed_before_the_next_id(tmp_path: Path) -> None:
    """It gets the size that is taken from it, and the place in the queue that its id gives it."""
    day = MadeUpDay()
    day.place(1, 999_800, 1)
    unseen = day.arrive(1, 999_900, 9)
    later = day.place(1, 999_900, 4)
    day.execute(unseen, 6)
    day.delete(unseen)
    day.execute(later, 4)
    flow = flow_of(day.save(tmp_path)[0])
    placed = [(step.row, step.command["id"][-12:], step.command["quantity"]) for step in flow.steps[1:3]]
    assert placed == [(1, f"{unseen:012d}", 9), (1, f"{later:012d}", 4)]
    assert flow.unseen == 1
    assert report_of(flow).summary().at_head == 2


def test_order_that_is_passed_over_goes_to_the_back_of_its_queue(tmp_path: Path) -> None:
    """The difference is counted once, and what follows is as recorded."""
    day = MadeUpDay()
    first, second = (day.place(-1, 1_000_100, 10) for _ in range(2))
    day.execute(second, 4)
    day.execute(second, 6)
    day.execute(first, 10)
    summary = report_of(flow_of(day.save(tmp_path)[0])).summary()
    assert (summary.executions, summary.at_file_price, summary.at_head, summary.passed_over) == (3, 3, 2, 1)
    assert summary.final_levels == summary.trades_elsewhere == 0


def test_ids_repeat_under_the_same_name_only(tmp_path: Path) -> None:
    """A run's name makes its order ids: the same file under another name shares none with it."""
    messages, _ = made_up_day(200).save(tmp_path)
    again = [{step.command.get("id") for step in flow_of(messages, run=run).steps} - {None} for run in "aab"]
    assert again[0] == again[1]
    assert again[0].isdisjoint(again[2])


def test_foreign_commands_and_repeats_do_not_count_as_answers(tmp_path: Path) -> None:
    """Events that came again change nothing, and other people's commands answer none of ours."""
    flow = flow_of(made_up_day(200).save(tmp_path)[0])
    events = events_of(flow)
    report = ReplayReport(flow)
    for event in events[:50] + events[:40] + events[50:]:
        report.add(event)
    foreign = {"id": "x", "side": "BUY", "price": "1.00", "quantity": "1", "commandId": "theirs"}
    source = {"partition": 0, "offset": 10**6, "index": 0, "count": 1}
    last = events[-1]["sequence"]
    report.add({"type": "ORDER", "symbolId": 1, "sequence": last + 1, "source": source, "data": foreign})
    assert report.is_complete
    assert report.summary().events == last + 1
    with pytest.raises(CorruptLog, match="events are missing"):
        report.add({"type": "ORDER", "symbolId": 1, "sequence": last + 3, "source": source, "data": foreign})


def test_compressed_file_reads_the_same(tmp_path: Path) -> None:
    """``.csv.xz`` gives the messages of ``.csv``."""
    plain, _ = made_up_day(100).save(tmp_path)
    packed = tmp_path / "message.csv.xz"
    packed.write_bytes(lzma.compress(plain.read_bytes()))
    assert read_messages(packed) == read_messages(plain)


@pytest.mark.parametrize(
    "content", ["34200.1,1,5,10,5853300\n", "34200.1,8,5,10,5853300,1\n", "time,type,id,size,price,direction\n"]
)
def test_other_files_are_refused_with_their_line(content: str, tmp_path: Path) -> None:
    """What is no message file says which line is not, and what it should have."""
    path = tmp_path / "other.csv"
    path.write_text("34200.0,1,4,10,5853300,1\n" + content)
    with pytest.raises(SetupError, match=r"line 2 does not have 6 columns"):
        read_messages(path)


def test_a_further_column_and_empty_lines_change_nothing(tmp_path: Path) -> None:
    """Some files have them, in the middle or at the end."""
    row = b"34200.0,1,4,10,5853300,1"
    (tmp_path / "six.csv").write_bytes(row + b"\n" + row + b"\n")
    (tmp_path / "seven.csv").write_bytes(row + b",null\n\n" + row + b",\n\n")
    assert read_messages(tmp_path / "seven.csv") == read_messages(tmp_path / "six.csv")
    (tmp_path / "book.csv").write_bytes(b"5859400,200,5853300,18\n\n")
    assert len(read_book_states(tmp_path / "book.csv")) == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("packed.csv.gz", gzip.compress(b"34200.0,1,4,10,5853300,1\n" * 10)),
        ("cut.csv.xz", lzma.compress(b"34200.0,1,4,10,5853300,1\n" * 5_000)[:-20]),
        ("plain.csv.xz", b"34200.0,1,4,10,5853300,1\n"),
    ],
    ids=["gz", "cut", "plain"],
)
def test_a_file_of_another_format_is_one_sentence(name: str, content: bytes, tmp_path: Path) -> None:
    """Packed otherwise, cut off, or not packed at all."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SetupError, match=rf"{name} cannot be read \(.+\); name a LOBSTER file"):
        read_messages(tmp_path / name)


def test_missing_file_is_one_sentence(tmp_path: Path) -> None:
    """A file that is not there is an error with its name."""
    with pytest.raises(SetupError, match=r"gone\.csv cannot be read"):
        read_messages(tmp_path / "gone.csv")


@pytest.mark.parametrize(
    ("speed", "elapsed_s", "end"), [(None, 0.0, 4), (1.0, 0.0, 1), (1.0, 2.0, 3), (10.0, 0.5, 4), (0.5, 2.0, 2)]
)
def test_speed_decides_how_many_steps_are_due(speed: float | None, elapsed_s: float, end: int) -> None:
    """Steps are due at the recording's gaps divided by the speed, and at once without one."""
    steps = [Step(row, row * 1_000_000_000, {}) for row in (5, 6, 7, 10)]
    assert due_end(steps, 0, elapsed_s, speed) == end
    assert end == len(steps) or due_at(steps, end, speed) > elapsed_s
