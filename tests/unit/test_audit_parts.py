"""The parts of the audit: what is a command, which ids are known, digests on disk, dumps, and the command line."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from forkast_streams.audit import window
from forkast_streams.audit.commands import Verdict, read_input
from forkast_streams.audit.digests import _BLOCK_ENTRIES, DigestFile, DigestSeries
from forkast_streams.audit.evidence import TOPICS, Cut
from forkast_streams.audit.reference import Reference
from forkast_streams.audit.rows import as_sent, decimal_text
from forkast_streams.cli import app
from forkast_streams.codec import decode_command
from forkast_streams.engine.id_keys import order_key
from forkast_streams.engine.seen_ids import SeenIds
from forkast_streams.errors import InvalidRecord
from forkast_streams.limits import SEEN_IDS_MAX, SEEN_WINDOW_MS
from tests.support.audit_world import World
from tests.support.flows import PARTITIONS, home_of, mixed_flow, order_command, symbol_command

_ODD_VALUES: list[Any] = [
    None, "", "x", 0, 1, -1, 1.5, True, [], {}, "1", "1.5", " 1", "1e5", 2**31, 2**64, 10**400, "BUY", "LIMIT", "GTC",
    "IOC", "NONE", 86_400_000, 2**53, "CANCEL", "AMEND", "SYMBOL", "TRADING", "HALTED", str(uuid.UUID(int=5)),
    str(uuid.UUID(int=5)).upper(),
    "a" * 36, "a" * 37, "STOP", "é", "\0", "0.00000001", "0.000000001", 10**6, "1_0", "\u0661",
]  # fmt: skip
_FIELDS = [
    "symbolId", "command", "id", "orderId", "userId", "type", "side", "quantity", "price", "timeInForce",
    "clientOrderId", "commandId", "symbol", "tickSize", "lotSize", "status", "unknown", "quoteQuantity", "stopPrice",
    "expiresAt", "postOnly", "displayQuantity", "selfTradePrevention", "timeout", "minQuantity", "maxQuantity",
    "minNotional", "priceCollar", "maxOpenOrders", "keepStatus",
]  # fmt: skip


def _is_taken(value: bytes) -> bool:
    try:
        decode_command(value)
    except InvalidRecord:
        return False
    return True


@pytest.mark.parametrize("seed", range(40))
def test_what_is_a_command_agrees_with_the_codec(seed: int) -> None:
    """Whatever is in the fields, the exchange takes what is judged valid and refuses what is judged invalid."""
    chance = random.Random(seed)
    change = {"command": "AMEND", "symbolId": 1, "orderId": str(uuid.UUID(int=1)), "userId": 1, "price": 5}
    for_all = {"symbolId": 1, "userId": 1, "timeout": 5}
    commands = [
        order_command(), symbol_command(1), change, change | {"command": "CANCEL"},
        order_command(id=str(uuid.UUID(int=2)), command="REPLACE", orderId=change["orderId"]),
        *(for_all | {"command": command} for command in ("CANCEL_ALL", "CANCEL_AFTER", "HEARTBEAT")),
    ]  # fmt: skip
    open_verdicts = 0
    for _ in range(300):
        command = dict(chance.choice(commands))
        for _ in range(chance.choice([0, 1, 1, 2])):
            command[chance.choice(_FIELDS)] = chance.choice(_ODD_VALUES)
        value = json.dumps(command).encode()
        if chance.random() < 0.1:
            value = value[: chance.randrange(len(value))]
        verdict, read = read_input(value)
        open_verdicts += verdict is Verdict.OPEN
        is_taken = _is_taken(value)
        assert verdict is Verdict.OPEN or (verdict is Verdict.VALID) == is_taken, value
        if is_taken:
            assert read.items() >= {"symbolId": command["symbolId"]}.items()
    assert open_verdicts < 100


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (None, Verdict.INVALID),
        (b"", Verdict.INVALID),
        (b"\x1f\x8b\x08", Verdict.INVALID),
        (b"[" * 100_000, Verdict.INVALID),
        (b'"text"', Verdict.INVALID),
        (b'{"symbolId":1,"type":"LIMIT","price":NaN}', Verdict.INVALID),
        (json.dumps(order_command()).encode().replace(b'"price": 100', b'"price": 1e400'), Verdict.VALID),
        (json.dumps(order_command()).encode()[:-1] + b',"price":1e400}', Verdict.OPEN),
        (json.dumps(order_command()).encode()[:-1] + b',"symbol\\u0049d":1}', Verdict.OPEN),
        (json.dumps(order_command()).encode()[:-1] + b',"junk":1,"junk":{"price":2,"price":"\xff"}}', Verdict.VALID),
        (json.dumps(order_command(clientOrderId="a")).encode()[:-1] + b', "junk" : ":"}', Verdict.VALID),
        (json.dumps(order_command()).encode()[:-1] + b',"junk":"\xff"}', Verdict.VALID),
        (json.dumps(order_command()).encode()[:-1] + b',"junk":1e99999999999999999999}', Verdict.VALID),
        (json.dumps(order_command()).encode()[:-1] + b',"junk":' + b"[" * 30_000 + b"]" * 30_000 + b"}", Verdict.OPEN),
        (json.dumps(order_command()).encode() + b" " * 65_536, Verdict.INVALID),
        (json.dumps({"command": "HEARTBEAT"}).encode(), Verdict.INVALID),
    ],
)
def test_odd_values_are_judged(value: bytes | None, verdict: Verdict) -> None:
    """Numbers are read from their text; what stands in fields that no command has does not matter."""
    assert read_input(value)[0] is verdict


@pytest.mark.parametrize(
    ("command", "verdict"),
    [
        ({"command": "HEARTBEAT"}, Verdict.VALID),
        ({"command": "CANCEL_ALL", "userId": 1}, Verdict.VALID),
        ({"command": "CANCEL_ALL"}, Verdict.INVALID),
        ({"command": "CANCEL_AFTER", "userId": 1, "timeout": 0}, Verdict.VALID),
        ({"command": "CANCEL_AFTER", "userId": 1, "timeout": "1"}, Verdict.INVALID),
        ({"command": "CANCEL_AFTER", "userId": 1, "timeout": 86_400_001}, Verdict.INVALID),
        ({"command": "CANCEL_ALL", "userId": 1, "timeout": "1"}, Verdict.OPEN),
        (order_command(command="REPLACE", orderId=str(uuid.UUID(int=2))), Verdict.VALID),
        (order_command(command="REPLACE"), Verdict.INVALID),
        (order_command(command="REPLACE", orderId=str(uuid.UUID(int=1))), Verdict.INVALID),
        (order_command(type="STOP", price=None, stopPrice=5), Verdict.VALID),
        (order_command(timeInForce="GTD", expiresAt=5), Verdict.VALID),
        (order_command(timeInForce="GTD", expiresAt="5"), Verdict.INVALID),
        (order_command(type="MARKET", price=None, quantity=None, quoteQuantity="5"), Verdict.VALID),
        (order_command(postOnly=True, displayQuantity=3, selfTradePrevention="NONE"), Verdict.VALID),
        (order_command(postOnly=1), Verdict.OPEN),
        (symbol_command(1, status="CANCEL_ONLY"), Verdict.VALID),
        (symbol_command(1, priceCollar="0.1", maxOpenOrders=5), Verdict.VALID),
        (symbol_command(1, priceCollar="-0.1"), Verdict.OPEN),
        (symbol_command(1, keepStatus=True), Verdict.VALID),
        (symbol_command(1, keepStatus=1), Verdict.OPEN),
        ({"command": "EXPLODE"}, Verdict.INVALID),
    ],
)
def test_commands_of_the_lifecycles_are_judged(command: dict[str, Any], verdict: Verdict) -> None:
    """By the wire with stops, icebergs and the other commands; what it leaves open is open."""
    value = json.dumps({"symbolId": 1} | command).encode()
    assert read_input(value)[0] is verdict


def test_the_window_is_the_engines() -> None:
    """For random ids and times both know the same ids, through many generations."""
    assert (window.DAY_MS, window.GENERATION_IDS) == (SEEN_WINDOW_MS, SEEN_IDS_MAX)
    chance = random.Random(1)
    engine, known = SeenIds(), window.OrderIdWindow()
    now, rotations = 1, 0
    for _ in range(5_000):
        now += chance.choice([0, 1, 1, 60_000, 3_600_000])
        order_id = str(uuid.UUID(int=chance.randrange(200)))
        known.now = now
        before = engine.generation
        assert engine.add(order_key(order_id), now) == (order_id not in known)
        rotations += engine.generation - before
        known.add(order_id)
        assert len(known) == len(engine.current) + len(engine.previous)
    assert rotations > 10


def test_a_full_generation_makes_room() -> None:
    """At most two generations are held, and an id that rests is known for ever."""
    known = window.OrderIdWindow(generation_ids=10)
    ids = [str(uuid.UUID(int=number)) for number in range(25)]
    for order_id in ids:
        known.add(order_id)
    assert [order_id in known for order_id in ids] == [False] * 10 + [True] * 15
    known.resting = {ids[0]}
    assert ids[0] in known
    assert ids[1] not in known


def test_the_reference_forgets_ids_as_the_engine_does() -> None:
    """A forgotten id makes a new order; one that still rests does not."""
    reference = Reference(window.OrderIdWindow(generation_ids=2))
    commands = [
        symbol_command(1),
        *(order_command(id=str(uuid.UUID(int=n)), quantity=1) for n in (1, 2, 3, 4, 5, 1, 2)),
    ]
    kinds = []
    for number, command in enumerate(commands):
        resting = {str(uuid.UUID(int=2))} if number == 7 else set()
        kinds += [kind for kind, _ in reference.process(command, resting, number) or []]
    assert kinds == ["SYMBOL", *["ORDER"] * 6, "REJECT"]


def test_digests_are_found_again() -> None:
    """Of series that share a file, dense and sparse, in memory and on disk."""
    file = DigestFile()
    series = {name: DigestSeries(file) for name in range(3)}
    chance = random.Random(3)
    known: dict[tuple[int, int], bytes] = {}
    for key in range(_BLOCK_ENTRIES * 5):
        for name, of_name in series.items():
            if name == 0 or chance.random() < 0.5:
                known[name, key] = chance.randbytes(16)
                of_name.append(key, known[name, key])
    for name, of_name in series.items():
        for key in (-1, *range(_BLOCK_ENTRIES * 5), 10**9):
            assert of_name.get(key) == known.get((name, key))
    file.close()


@pytest.mark.parametrize(
    ("text", "plain"),
    [("10.00", "10"), ("0.0100", "0.01"), ("1E+3", "1000"), ("-0", "0"), ("-0.50", "-0.5"), ("100", "100")],
)
def test_decimals_have_one_text(text: str, plain: str) -> None:
    """Without exponent and zeros at the end, as Postgres trims them."""
    assert decimal_text(text) == plain


@pytest.mark.parametrize(("text", "held"), [("5", "5"), ("1E+70", None), ("x", None), (None, None), ("NaN", None)])
def test_rejected_numbers_are_held_or_not(text: str | None, held: str | None) -> None:
    """A number out of all proportion is none in the table."""
    assert as_sent(text) == held


def _dump(world: World, folder: Path) -> None:
    """Write a world as a dump, partly compressed."""
    folder.mkdir()
    ends: dict[str, dict[int, int]] = {topic: {} for topic in TOPICS}
    for topic, records in zip(TOPICS, (world.inputs, world.events, world.letters), strict=True):
        for partition, of_partition in records.items():
            ends[topic][partition] = len(of_partition)
            numbered = [msgspec.structs.replace(record, offset=at) for at, record in enumerate(of_partition)]
            lines = b"".join(msgspec.json.encode(record) + b"\n" for record in numbered)
            if partition % 2:
                (folder / f"{topic}-{partition}.jsonl").write_bytes(lines)
            else:
                (folder / f"{topic}-{partition}.jsonl.gz").write_bytes(gzip.compress(lines))
    for table, rows in world.rows.items():
        (folder / f"{table}.jsonl").write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    cut = Cut(PARTITIONS, ends, ends[TOPICS[0]], world.tables, world.books)
    (folder / "cut.json").write_bytes(msgspec.json.encode(cut))


@pytest.fixture
def world() -> World:
    """One symbol's true log."""
    world = World()
    for command in mixed_flow(300, seed=8):
        world.send_command(command)
    return world.process().derive()


def test_command_line_judges_a_dump(world: World, tmp_path: Path) -> None:
    """Exit status 0 and a table when all holds; 1 and the record when not; the report says the same."""
    _dump(world, tmp_path / "true")
    report = tmp_path / "report.json"
    result = CliRunner().invoke(app, ["audit", "--from", str(tmp_path / "true"), "--json", str(report)])
    assert result.exit_code == 0, result.output
    assert "holds" in result.stdout
    assert "broken" not in result.stdout
    told = json.loads(report.read_text())
    assert (told["clean"], told["invariants"]["I-5"]["violations"]) == (True, 0)
    assert told["invariants"]["I-11"]["lookedAt"] > 100
    world.edit(home_of(1), 100, userId=77)
    _dump(world, tmp_path / "damaged")
    result = CliRunner().invoke(app, ["audit", "--from", str(tmp_path / "damaged"), "--json", str(report)])
    assert result.exit_code == 1
    assert f"orders.exchange-{home_of(1)} offset 100" in result.stdout
    told = json.loads(report.read_text())
    assert told["clean"] is False
    assert told["invariants"]["I-5"]["first"]["record"]["value"].startswith("{")


def test_command_line_says_when_it_cannot_judge(world: World, tmp_path: Path) -> None:
    """No dump, or half of one: exit status 2 and a sentence."""
    result = CliRunner().invoke(app, ["audit", "--from", str(tmp_path)])
    assert result.exit_code == 2
    assert "--dump" in result.stderr
    _dump(world, tmp_path / "half")
    path = tmp_path / "half" / f"orders.exchange-{home_of(1)}.jsonl"
    path = path if path.exists() else path.with_name(path.name + ".gz")
    path.write_bytes(path.read_bytes()[:-7])
    result = CliRunner().invoke(app, ["audit", "--from", str(tmp_path / "half")])
    assert result.exit_code == 2
    assert path.name.removesuffix(".gz") in result.stderr


@pytest.mark.parametrize("emptied", [TOPICS, TOPICS[1:2]], ids=["all", "events"])
def test_a_dump_that_lacks_records_is_not_whole(world: World, emptied: tuple[str, ...], tmp_path: Path) -> None:
    """Though its files can be read, as all three of a partition without a record among them."""
    world.tables, world.books = None, []
    _dump(world, tmp_path / "dump")
    for topic in emptied:
        [path] = (tmp_path / "dump").glob(f"{topic}-{home_of(1)}.*")
        path.write_bytes(b"" if path.suffix == ".jsonl" else gzip.compress(b""))
    result = CliRunner().invoke(app, ["audit", "--from", str(tmp_path / "dump")])
    assert result.exit_code == 2
    assert f"-{home_of(1)} of the dump ends at offset 0 instead of" in result.stderr


@pytest.mark.parametrize(("flag", "invariant"), [("--no-tables", "I-11"), ("--no-books", "I-12")])
def test_a_dump_is_judged_without_its_tables_or_books(world: World, flag: str, invariant: str, tmp_path: Path) -> None:
    """What is left out is not looked at, however wrong it is; the books go with the tables."""
    world.rows["Order"][3][5] = "1"
    world.books[0].buy.append(("0.01", "1", 1))
    _dump(world, tmp_path / "dump")
    report = tmp_path / "report.json"
    CliRunner().invoke(app, ["audit", "--from", str(tmp_path / "dump"), "--json", str(report), flag])
    found = {name: one["violations"] for name, one in json.loads(report.read_text())["invariants"].items()}
    assert found[invariant] == found["I-12"] == 0
    assert bool(found["I-11"]) == (flag == "--no-books")


@pytest.mark.parametrize("is_damaged", [False, True])
def test_the_status_is_that_of_the_exchange_though_nobody_reads(world: World, is_damaged: bool, tmp_path: Path) -> None:
    """The report is written, too, when what is printed goes nowhere, as into ``head``."""
    if is_damaged:
        world.edit(home_of(1), 100, userId=77)
    _dump(world, tmp_path / "dump")
    report = tmp_path / "report.json"
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "forkast_streams", "audit", "--from", str(tmp_path / "dump")]
    result = subprocess.run(
        [*command, "--json", str(report)], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    os.close(writing)
    assert result.returncode == int(is_damaged), result.stderr
    assert json.loads(report.read_text())["clean"] is not is_damaged


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_report_that_cannot_be_written_is_one_sentence(world: World, is_damaged: bool, tmp_path: Path) -> None:
    """Nothing is audited for a folder that is not there; the status of a broken exchange is that, whatever fails."""
    if is_damaged:
        world.edit(home_of(1), 100, userId=77)
    _dump(world, tmp_path / "dump")
    command = ["audit", "--from", str(tmp_path / "dump"), "--json"]
    result = CliRunner().invoke(app, [*command, str(tmp_path / "gone" / "report.json")])
    assert result.exit_code == 2
    assert "no folder" in result.stderr
    assert "Audit" not in result.stdout
    result = CliRunner().invoke(app, [*command, str(tmp_path)])
    assert result.exit_code == (1 if is_damaged else 2)
    assert "cannot be written" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "flags",
    [["--port", "99999"], ["--journal", "j"], ["--json", "r.json"], ["--dump", "d"], ["--from", "d"]],
)
def test_following_refuses_what_it_cannot_do(flags: list[str]) -> None:
    """Instead of leaving it out without a word."""
    result = CliRunner().invoke(app, ["audit", "--follow", *flags])
    assert result.exit_code == 2
    assert "Usage" in result.stderr


def test_levels_are_exact() -> None:
    """Sums of lots are decimals, not floats."""
    world = World()
    world.send_command(symbol_command(1, lotSize="0.1"))
    for number in range(1, 4):
        world.send_command(order_command(id=str(uuid.UUID(int=number)), quantity="0.1"))
    world.process().derive()
    assert Decimal(world.books[-1].buy[0][1]) == Decimal("0.3")
    assert world.audit().is_clean
