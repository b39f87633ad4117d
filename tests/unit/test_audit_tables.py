"""The audit catches tables, books and answers to clients that are not what the log says."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from forkast_streams.audit import run
from forkast_streams.audit.capture import Exchange, sample_books
from forkast_streams.audit.dump import DumpEvidence, write_dump
from forkast_streams.audit.evidence import BookAnswer, Row
from forkast_streams.audit.records import Record
from forkast_streams.audit.table_check import Overwritten, check_tables
from forkast_streams.errors import SetupError
from forkast_streams.limits import SEEN_WINDOW_MS
from tests.support.audit_world import HOME, World, order_id, plain_world, true_world
from tests.support.flows import PARTITIONS, order_command, symbol_command
from tests.unit.test_audit import broken


@pytest.fixture
def world() -> World:
    """A true world of the test's own."""
    return copy.deepcopy(true_world())


@pytest.mark.parametrize("column", range(16))
def test_changed_order_row_is_caught(world: World, column: int) -> None:
    """Whatever column it is; the row is shown as it is and as it must be."""
    row = world.rows["Order"][3]
    row[column] = "12345678" if row[column] != "12345678" else "1"
    assert "I-11" in broken(world)


@pytest.mark.parametrize("column", range(9))
def test_changed_trade_row_is_caught(world: World, column: int) -> None:
    """Whatever column it is."""
    world.rows["Trade"][3][column] = "12345678"
    assert "I-11" in broken(world)


@pytest.mark.parametrize("table", ["Order", "Trade"])
def test_missing_and_extra_rows_are_caught(world: World, table: str) -> None:
    """A row too few and a row too many are told with the row."""
    row = world.rows[table].pop(5)
    first = world.audit().first["I-11"]
    assert row[0] in first.message
    assert first.record is not None
    assert first.record["is"] is None
    assert first.record["must be"]["id"] == row[0]
    world.rows[table] += [row, [order_id(99), *row[1:]]]
    first = world.audit().first["I-11"]
    assert first.record is not None
    assert first.record["is"]["id"] == order_id(99)
    assert first.record["must be"] is None


def test_wrong_rows_of_many_symbols_are_found_in_few_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each symbol counts, and the log is not read again for each of them."""
    world, symbols = World(), 30
    for symbol_id in range(1, symbols + 1):
        world.send_command(symbol_command(symbol_id))
        world.send_command(order_command(symbol_id, id=order_id(symbol_id)))
    world.process().derive()
    for row in world.rows["Order"]:
        row[5] = "1"
    read, numbered = itertools.count(), World._numbered

    def counted(world: World, records: list[Record]) -> list[Record]:
        next(read)
        return numbered(world, records)

    monkeypatch.setattr(World, "_numbered", counted)
    assert world.audit().violations == {"I-11": symbols}
    assert next(read) < 2 * PARTITIONS + 5


def test_an_id_that_is_used_again_has_the_log_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first order's row is gone, so the sums differ for ever; an audit that follows remembers by how much."""
    world, judged = World(), []
    world.send_command(symbol_command(1))
    # Those between come late enough to have the exchange forget the first.
    for number in (1, 2, 3, 1):
        world.send_command(order_command(id=order_id(number)))
        world.send_command({"command": "CANCEL", "symbolId": 1, "orderId": order_id(number), "userId": 1})
        world._clock += 2 * SEEN_WINDOW_MS
    world.process().derive()
    monkeypatch.setattr(run, "check_tables", lambda *what: judged.append(what))
    assert broken(world) == set()
    [(evidence, rows, findings)] = judged
    overwritten: Overwritten = {}
    reads: list[str] = []
    records = evidence.records

    def read(topic: str, *place: int) -> Iterator[Record]:
        reads.append(topic)
        return records(topic, *place)

    monkeypatch.setattr(evidence, "records", read)
    for _ in range(3):
        check_tables(evidence, rows, findings, overwritten)
    assert (len(reads), findings.violations["I-11"]) == (1, 0)
    evidence.cut.tables.orders[1].total += 1
    world.rows["Order"][0][5] = "12345678"
    check_tables(evidence, rows, findings, overwritten)
    assert findings.violations["I-11"] == 1


def test_wrong_progress_is_caught(world: World) -> None:
    """Sequences that are not those of the events, tables ahead of the log, commits ahead of the tables."""
    tables = world.tables
    assert tables is not None
    tables.sequences[1] -= 1
    assert broken(world) == {"I-11"}
    tables.sequences[1] += 1
    tables.committed[HOME] += 1
    assert broken(world) == {"I-18"}
    tables.next_offsets[HOME] += 1
    assert broken(world) == {"I-11"}


def test_a_dump_that_was_cut_short_is_none(tmp_path: Path) -> None:
    """Into a folder that has one: records and rows of both together would accuse an exchange that is right."""
    world = plain_world()
    write_dump(tmp_path, world.evidence(), lambda table: iter(world.rows[table]), lambda: None)
    assert run.audit_evidence(DumpEvidence(tmp_path), folder=tmp_path)[0].is_clean

    def ended(_: str) -> Iterator[Row]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dump(tmp_path, world.evidence(), ended, lambda: None)
    with pytest.raises(SetupError, match=r"has no whole dump .*; write one"):
        DumpEvidence(tmp_path)


def test_tables_are_compared_at_their_own_progress(world: World) -> None:
    """Tables that are behind the log are right when they are what the log was there."""
    events = world.events[HOME]
    world.events[HOME] = events[:250]
    world.derive()
    world.events[HOME] = events
    world.books = []
    assert broken(world) == set()
    tables = world.tables
    assert tables is not None
    tables.next_offsets[HOME] += 1
    assert "I-11" in broken(world)


@pytest.mark.parametrize("side", ["buy", "sell"])
@pytest.mark.parametrize("change", ["price", "quantity", "orders", "missing", "extra", "sequence", "beyond"])
def test_wrong_book_is_caught(world: World, side: str, change: str) -> None:
    """A level that is not what the events make it, at any of the moments that were looked at."""
    answer = next(answer for answer in world.books[5:] if len(answer.buy) > 1 and len(answer.sell) > 1)
    levels = getattr(answer, side)
    price, quantity, orders = levels[1]
    match change:
        case "price":
            levels[1] = ("100.77", quantity, orders)
        case "quantity":
            levels[1] = (price, "12345", orders)
        case "orders":
            levels[1] = (price, quantity, orders + 1)
        case "missing":
            levels.pop()
        case "extra":
            levels.append(("0.01" if side == "buy" else "999.00", "1", 1))
        case "sequence":
            answer.sequence -= 1
        case _:
            answer.sequence += 10**6
    assert broken(world) == {"I-12"}


def test_missing_book_is_caught(world: World) -> None:
    """A symbol that has events has a book, though an empty one; one that has none need not have one."""
    world.books.append(BookAnswer(77, 0, [], []))
    assert broken(world) == set()
    world.books.append(BookAnswer(1, 0, [], []))
    assert broken(world) == {"I-12"}


@pytest.mark.parametrize(("missing", "settle_s", "sequence"), [(2, 60.0, 5), (9, 0.0, 0)])
async def test_a_book_that_is_not_there_is_waited_for(missing: int, settle_s: float, sequence: int) -> None:
    """For as long as there is patience; then it is an answer as well."""
    asked = itertools.count()

    async def book(_: web.Request) -> web.Response:
        if next(asked) < missing:
            return web.json_response({"error": {"code": "NOT_FOUND"}}, status=404)
        return web.json_response({"orderBookSnapShotId": 5, "buy": [], "sell": []})

    keeper = web.Application()
    keeper.add_routes([web.get("/order-book/1", book)])
    async with TestServer(keeper) as server:
        exchange = Exchange([], None, str(server.make_url("")).rstrip("/"), settle_s=settle_s)
        assert await sample_books(exchange, [1], moments=0) == [BookAnswer(1, sequence, [], [])]


async def test_a_keeper_that_is_away_for_a_moment_is_waited_for_whatever_other_books_took() -> None:
    """Patience with books that are not there is shared by them, as there may be many; with the keeper it is not."""
    answers = iter([503, 200])

    async def book(request: web.Request) -> web.Response:
        status = 404 if request.match_info["id"] == "1" else next(answers)
        return web.json_response({"orderBookSnapShotId": 5, "buy": [], "sell": []}, status=status)

    keeper = web.Application()
    keeper.add_routes([web.get("/order-book/{id}", book)])
    async with TestServer(keeper) as server:
        exchange = Exchange([], None, str(server.make_url("")).rstrip("/"), settle_s=0.2)
        found = await sample_books(exchange, [1, 2], moments=0)
    assert found == [BookAnswer(1, 0, [], []), BookAnswer(2, 5, [], [])]


def test_order_that_a_client_was_told_of_is_missed(world: World) -> None:
    """An acknowledged order that is nowhere in the log is lost; refused ones and other answers are not."""
    world.journal = [
        {"status": 201, "orderId": order_id(7_001), "userId": 1},
        {"status": 503, "orderId": order_id(8_001), "userId": 1},
        {"status": 200},
    ]
    assert broken(world) == set()
    world.journal.append({"status": 201, "orderId": order_id(8_002), "userId": 1})
    findings = world.audit()
    assert findings.violations.keys() == {"I-1"}
    assert order_id(8_002) in findings.first["I-1"].message


def test_order_in_the_name_of_another_user_is_caught(world: World) -> None:
    """The user in the log is the one that was let in."""
    world.journal = [{"status": 201, "orderId": order_id(7_001), "userId": 2}]
    assert broken(world) == {"I-17"}


def test_two_orders_for_one_client_order_id_are_caught(world: World) -> None:
    """A client that sent the same thing twice must have been given the same order."""
    world.journal = [
        {"status": 201, "orderId": order_id(number), "userId": 1, "clientOrderId": "a"} for number in (7_001, 7_001)
    ]
    assert broken(world) == set()
    world.journal.append({"status": 201, "orderId": order_id(7_002), "userId": 1, "clientOrderId": "a"})
    assert broken(world) == {"I-19"}


def test_client_order_id_may_be_used_again_after_a_day(world: World) -> None:
    """Where the journal says when its answers came."""
    day = 86_400_000
    world.journal = [
        {"status": 201, "orderId": order_id(number), "userId": 1, "clientOrderId": "a", "at": at}
        for number, at in ((7_001, 5), (7_002, 5 + day))
    ]
    assert broken(world) == set()
    # The files of several clients may be joined in any order.
    world.journal.reverse()
    assert broken(world) == set()
    # An answer may come some time after its order was claimed.
    world.journal[0]["at"] -= 60_000
    assert broken(world) == set()
    world.journal[0]["at"] -= 1
    assert broken(world) == {"I-19"}


@pytest.mark.parametrize(
    ("uses", "invariants"),
    [
        # The second one is in no log.
        ([(7_001, 0), (7_003, 48), (7_002, 1)], {"I-1", "I-19"}),
        ([(7_001, 23), (7_002, 25), (7_001, 0)], set()),
        ([(7_001, 0), (7_001, 23), (7_002, 25)], set()),
    ],
)
def test_uses_of_a_client_order_id_may_stand_in_any_order(
    world: World, uses: list[tuple[int, int]], invariants: set[str]
) -> None:
    """Numbers of orders and hours; a retry does not make the first use a later one."""
    world.journal = [
        {"status": 201, "orderId": order_id(number), "userId": 1, "clientOrderId": "a", "at": hours * 3_600_000}
        for number, hours in uses
    ]
    assert broken(world) == invariants


def test_what_is_refused_with_the_id_of_a_told_order_is_no_order() -> None:
    """Another user's order with the same id is refused, whoever was told of the first."""
    world = World()
    world.send_command(symbol_command(1))
    for user_id in (1, 2):
        world.send_command(order_command(id=order_id(1), userId=user_id))
    world.process()
    world.journal = [{"status": 201, "orderId": order_id(1), "userId": 1}]
    assert broken(world) == set()
    world.journal = [{"status": 201, "orderId": order_id(1), "userId": 2}]
    assert broken(world) == {"I-17"}


def test_a_lost_order_is_not_found_in_what_another_user_was_refused() -> None:
    """Nobody had that id before."""
    world = World()
    world.send_command(symbol_command(1))
    world.send_command(order_command(id=order_id(1), userId=2, quantity=0.5))
    world.process()
    assert b'"REJECT"' in (world.events[HOME][-1].value or b"")
    world.journal = [{"status": 201, "orderId": order_id(1), "userId": 1}]
    assert broken(world) == {"I-1"}


def test_a_lost_order_is_not_found_in_another_command() -> None:
    """One that has its id in a field that it does not use."""
    world = World()
    world.send_command(symbol_command(1))
    cancel = {"command": "CANCEL", "symbolId": 1, "orderId": order_id(2), "userId": 1, "id": order_id(1)}
    world.send_command(cancel)
    world.process()
    world.journal = [{"status": 201, "orderId": order_id(1), "userId": 1}]
    assert broken(world) == {"I-1"}
