"""The OMS as a process on real servers: what it takes, what it refuses, and who sees what."""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from redis import Redis

from forkast_streams.config import Settings
from forkast_streams.devstack import Stack
from forkast_streams.reference_data import publish_symbols
from forkast_streams.storage.postgres import prepare_database
from forkast_streams.topics import ORDERS_NEW, ensure_topics
from tests.integration.exchange import Worker, end_offsets, wait_until

JSON = "application/json"
VALID = {"symbolId": 1, "type": "LIMIT", "side": "BUY", "quantity": 10, "price": 101.25}


@pytest.fixture(scope="module")
def env(stack_env: dict[str, str]) -> dict[str, str]:
    """The servers, with topics, tables, symbols and demo users."""
    asyncio.run(ensure_topics(stack_env["KAFKA_BROKERS"].split(",")))
    asyncio.run(prepare_database(stack_env["DATABASE_URL"], demo_users=True))
    asyncio.run(publish_symbols(Settings.from_env(stack_env)))
    return stack_env


@pytest.fixture(scope="module")
def oms(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A running OMS."""
    worker = Worker("oms", env, tmp_path_factory.mktemp("oms") / "oms")
    worker.start().wait_ready()
    yield worker
    worker.end()


def call(
    oms: Worker,
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    user: str | None = "alice",
    password: str | None = None,
    content_type: str | None = JSON,
    headers: dict[str, str] | None = None,
) -> tuple[int, Any, dict[str, str]]:
    """Send a request; return status, decoded body and headers."""
    request = urllib.request.Request(f"http://127.0.0.1:{oms.port}{path}", method=method, data=body)
    if content_type is not None:
        request.add_header("Content-Type", content_type)
    if user is not None:
        email = f"{user}@example.com"
        token = base64.b64encode(f"{email}:{password or email}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    for name, value in (headers or {}).items():
        request.add_header(name, value)
    try:
        with urllib.request.urlopen(request, timeout=15) as response:
            return response.status, json.loads(response.read()), dict(response.headers)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read()), dict(error.headers)


def place(oms: Worker, *, user: str = "alice", **changes: Any) -> str:
    """Place a valid order, changed in some fields; return its id."""
    status, body, _ = call(oms, "POST", "/orders", json.dumps(VALID | changes).encode(), user=user)
    assert status == 201, body
    return str(body["orderId"])


def changed(**changes: Any) -> bytes:
    """A valid body with changed fields; None takes a field out."""
    return json.dumps({name: value for name, value in (VALID | changes).items() if value is not None}).encode()


def with_number(field: str, text: str) -> bytes:
    """A valid body in which a number stands as this very text."""
    return changed(**{field: "@"}).replace(b'"@"', text.encode())


BAD_BODIES = [
    ("empty", b"", "INVALID_JSON"),
    ("trailing", changed() + b" x", "INVALID_JSON"),
    ("not UTF-8", b'{"type":"\xff"}', "INVALID_JSON"),
    ("byte order mark", b"\xef\xbb\xbf" + changed(), "INVALID_JSON"),
    ("null", b"null", "BODY_NOT_OBJECT"),
    ("list", b"[]", "BODY_NOT_OBJECT"),
    ("text", b'"order"', "BODY_NOT_OBJECT"),
    ("deep", b"[" * 10_000, "BODY_NOT_OBJECT"),
    ("repeated field", changed()[:-1] + b',"price":1}', "DUPLICATE_FIELD"),
    ("somebody else", changed(userId=2), "UNKNOWN_FIELD"),
    ("own status", changed(status="FILLED"), "UNKNOWN_FIELD"),
    ("own fill", changed(filledQuantity=10), "UNKNOWN_FIELD"),
    ("own time", changed(createdAt=1), "UNKNOWN_FIELD"),
    ("no symbol", changed(symbolId=None), "MISSING_FIELD"),
    ("no quantity", changed(quantity=None), "QUANTITY_REQUIRED"),
    ("no type", changed(type=None), "MISSING_FIELD"),
    ("symbol as text", changed(symbolId="1"), "INVALID_TYPE"),
    ("symbol true", changed(symbolId=True), "INVALID_TYPE"),
    ("half a symbol", changed(symbolId=1.5), "INVALID_TYPE"),
    ("symbol 0", changed(symbolId=0), "UNKNOWN_SYMBOL"),
    ("unknown symbol", changed(symbolId=999_999), "UNKNOWN_SYMBOL"),
    ("lower case", changed(type="limit"), "INVALID_ENUM"),
    ("unknown type", changed(type="TRAILING"), "INVALID_ENUM"),
    ("unknown side", changed(side="HOLD"), "INVALID_ENUM"),
    ("unknown time in force", changed(timeInForce="DAY"), "INVALID_ENUM"),
    ("quantity true", changed(quantity=True), "INVALID_TYPE"),
    ("quantity list", changed(quantity=[10]), "INVALID_TYPE"),
    ("quantity object", changed(quantity={"$gt": 0}), "INVALID_TYPE"),
    ("quantity with underscore", changed(quantity="1_000"), "INVALID_TYPE"),
    ("other digits", changed(quantity="١٢"), "INVALID_TYPE"),
    ("blanks", changed(quantity=" 5 "), "INVALID_TYPE"),
    ("quantity 0", changed(quantity=0), "INVALID_QUANTITY"),
    ("quantity -0", with_number("quantity", "-0"), "INVALID_QUANTITY"),
    ("quantity below 0", changed(quantity=-1), "INVALID_QUANTITY"),
    ("too much", changed(quantity=9007199254740993), "INVALID_QUANTITY"),
    ("half a lot", changed(quantity=0.5), "INVALID_LOT"),
    ("NaN", with_number("price", "NaN"), "INVALID_JSON"),
    ("infinity", with_number("price", "-Infinity"), "INVALID_JSON"),
    ("NaN as text", changed(price="NaN"), "INVALID_TYPE"),
    ("1e400", with_number("price", "1e400"), "INVALID_PRICE"),
    ("1e36", with_number("price", "1e36"), "INVALID_PRICE"),
    ("price 0", changed(price=0), "INVALID_PRICE"),
    ("price -0.0", with_number("price", "-0.0"), "INVALID_PRICE"),
    ("1e-30", with_number("price", "1e-30"), "INVALID_TICK"),
    ("off the grid", changed(price=101.255), "INVALID_TICK"),
    ("a float's noise", with_number("price", "0.30000000000000004"), "INVALID_TICK"),
    ("price true", changed(price=True), "INVALID_TYPE"),
    ("no price", changed(price=None), "PRICE_REQUIRED"),
    ("market with price", changed(type="MARKET"), "PRICE_NOT_ALLOWED"),
    ("market with price 0", changed(type="MARKET", price=0), "PRICE_NOT_ALLOWED"),
    ("NUL", changed(clientOrderId="a\x00b"), "INVALID_VALUE"),
    ("line break", changed(clientOrderId="a\n"), "INVALID_VALUE"),
    ("long client id", changed(clientOrderId="a" * 37), "INVALID_VALUE"),
    ("many fields", json.dumps({f"f{n}": n for n in range(1_000)}).encode(), "UNKNOWN_FIELD"),
]


@pytest.mark.parametrize(("body", "code"), [row[1:] for row in BAD_BODIES], ids=[row[0] for row in BAD_BODIES])
def test_bad_body_is_refused_with_its_code(oms: Worker, body: bytes, code: str) -> None:
    """400, one error format, nothing of the input in the message but numbers."""
    status, answer, headers = call(oms, "POST", "/orders", body)
    assert (status, answer["error"]["code"]) == (400, code)
    assert set(answer) == {"error"}
    assert headers["Content-Type"] == "application/json; charset=utf-8"


def test_bad_bodies_leave_the_log_alone(oms: Worker, env: dict[str, str]) -> None:
    """No refused request has written a command."""
    before = asyncio.run(end_offsets(env, ORDERS_NEW))
    for _, body, _ in BAD_BODIES:
        call(oms, "POST", "/orders", body)
    assert asyncio.run(end_offsets(env, ORDERS_NEW)) == before


@pytest.mark.parametrize(
    ("method", "path", "body", "options", "expected"),
    [
        ("POST", "/orders", changed(), {"content_type": "text/plain"}, (415, "UNSUPPORTED_MEDIA_TYPE")),
        ("POST", "/orders", b"\x1f\x8b", {"headers": {"Content-Encoding": "gzip"}}, (415, "UNSUPPORTED_MEDIA_TYPE")),
        ("POST", "/orders", changed(clientOrderId="a" * 20_000), {}, (413, "BODY_TOO_LARGE")),
        ("DELETE", "/orders", b'{"symbolId":7}', {}, (400, "BODY_NOT_ALLOWED")),
        ("DELETE", "/orders?symbolId=7", changed(clientOrderId="a" * 20_000), {}, (400, "BODY_NOT_ALLOWED")),
        ("PUT", "/orders", changed(), {}, (405, "METHOD_NOT_ALLOWED")),
        ("PATCH", "/orders/batch", b"{}", {}, (405, "METHOD_NOT_ALLOWED")),
        ("GET", "/nowhere", None, {}, (404, "NOT_FOUND")),
        ("GET", "/orders?page=0", None, {}, (400, "INVALID_TYPE")),
        ("GET", "/orders?page=-1", None, {}, (400, "INVALID_TYPE")),
        ("GET", "/orders?page=1e9", None, {}, (400, "INVALID_TYPE")),
        ("GET", "/orders?page=1000001&limit=1", None, {}, (400, "OUT_OF_RANGE")),
        ("GET", "/orders?page=10001&limit=100", None, {}, (400, "OUT_OF_RANGE")),
        ("GET", "/orders?limit=101", None, {}, (400, "OUT_OF_RANGE")),
        ("GET", "/orders?page=1&page=2", None, {}, (400, "DUPLICATE_PARAM")),
        ("GET", "/orders?before=x", None, {}, (400, "INVALID_ID")),
        ("GET", "/orders?before=client:a&before=client:a", None, {}, (400, "DUPLICATE_PARAM")),
        ("GET", "/orders?before=00000000-0000-4000-8000-000000000001", None, {}, (404, "NOT_FOUND")),
        ("GET", "/orders/x", None, {}, (400, "INVALID_ID")),
        ("GET", "/orders/{00000000-0000-0000-0000-000000000000}", None, {}, (400, "INVALID_ID")),
        ("GET", "/orders/00000000000000000000000000000000", None, {}, (400, "INVALID_ID")),
        ("GET", "/orders", None, {"user": None}, (401, "UNAUTHORIZED")),
        ("GET", "/orders", None, {"password": "wrong"}, (401, "UNAUTHORIZED")),
        ("GET", "/orders", None, {"user": "nobody"}, (401, "UNAUTHORIZED")),
        ("GET", "/orders", None, {"user": "Alice"}, (401, "UNAUTHORIZED")),
    ],
)
def test_bad_request_is_refused(
    oms: Worker, method: str, path: str, body: bytes | None, options: dict[str, Any], expected: tuple[int, str]
) -> None:
    """Each kind has its status and code, and every answer the headers of all answers."""
    status, answer, headers = call(oms, method, path, body, **options)
    assert (status, answer["error"]["code"]) == expected
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "aiohttp" not in headers["Server"]


def test_unknown_user_and_wrong_password_get_the_same_answer(oms: Worker) -> None:
    """Nobody learns which e-mails have an account."""
    assert call(oms, "GET", "/orders", user="nobody")[:2] == call(oms, "GET", "/orders", password="wrong")[:2]


def test_only_the_owner_reads_amends_and_cancels(oms: Worker) -> None:
    """For anybody else an order is exactly as unknown as one that never was."""
    order_id, unknown = place(oms, user="alice"), str(uuid.uuid4())
    for method, body in (("GET", None), ("DELETE", None), ("PATCH", b'{"quantity":5}')):
        foreign = call(oms, method, f"/orders/{order_id}", body, user="bob")[:2]
        assert foreign == call(oms, method, f"/orders/{unknown}", body, user="bob")[:2]
        assert foreign[0] == 404
        assert call(oms, method, f"/orders/{order_id}", body, user=None)[0] == 401
        assert call(oms, method, f"/orders/{order_id}", body, user="alice")[0] in (200, 202)
    assert all(order["userId"] == 2 for order in call(oms, "GET", "/orders", user="bob")[1]["orders"])


@pytest.mark.parametrize("price", ["101.25", '"101.25"', '"101.250"', "1.0125e2", "101.2500"])
def test_price_comes_back_exactly_however_it_was_sent(oms: Worker, price: str) -> None:
    """A JSON number or a decimal string; the order has it as decimal text."""
    status, answer, _ = call(oms, "POST", "/orders", with_number("price", price))
    assert status == 201
    assert call(oms, "GET", f"/orders/{answer['orderId']}")[1]["price"] == "101.25"


def test_fraction_of_a_lot_size_below_one(oms: Worker) -> None:
    """0.001 BTC is an order."""
    order_id = place(oms, symbolId=6, quantity="0.001", price=65000)
    assert call(oms, "GET", f"/orders/{order_id}")[1]["quantity"] == 0.001


def require_newest_first(listed: list[dict[str, Any]], placed: list[str]) -> None:
    """``listed`` has each of the orders once, and those of one millisecond in any order, but the same each time."""
    assert sorted(order["id"] for order in listed) == sorted(placed)
    times = {order["id"]: order["createdAt"] for order in listed}
    assert [times[order_id] for order_id in placed] == sorted(times.values()), "the log's time goes one way"
    assert listed == sorted(listed, key=lambda order: (order["createdAt"], order["id"]), reverse=True)


def walked(oms: Worker, *, user: str, limit: int) -> list[dict[str, Any]]:
    """All orders of a user, each page before the last order of the one before it."""
    listed: list[dict[str, Any]] = []
    page = call(oms, "GET", f"/orders?limit={limit}", user=user)[1]["orders"]
    while page:
        listed += page
        page = call(oms, "GET", f"/orders?limit={limit}&before={listed[-1]['id']}", user=user)[1]["orders"]
    return listed


def test_pages_have_every_order_once_whether_persisted_or_not(oms: Worker, env: dict[str, str], tmp_path: Path) -> None:
    """Before the sink has seen any of them, while it works, and after: the same orders, newest first."""
    placed = [place(oms, user="jack", price=10 + number) for number in range(25)]

    def require_all_listed() -> None:
        pages = [call(oms, "GET", f"/orders?page={page}&limit=10", user="jack")[1]["orders"] for page in (1, 2, 3, 4)]
        require_newest_first([order for page in pages for order in page], placed)
        require_newest_first(walked(oms, user="jack", limit=10), placed)

    require_all_listed()
    engine, sink = Worker("engine", env, tmp_path / "engine"), Worker("sink", env, tmp_path / "sink")
    try:
        engine.start()
        sink.start()
        wait_until(lambda: _has_row(env, placed[-1]), "the last order's row")
        require_all_listed()
    finally:
        engine.end()
        sink.end()


def _has_row(env: dict[str, str], order_id: str) -> bool:
    with closing(psycopg2.connect(env["DATABASE_URL"])) as connection, connection.cursor() as cursor:
        cursor.execute('SELECT FROM "Order" WHERE id = %s', (order_id,))
        return cursor.rowcount == 1


def test_flushed_redis_hides_no_order(oms: Worker, env: dict[str, str]) -> None:
    """What this process took it can show, with Redis empty."""
    order_id = place(oms, user="irene")
    with Redis.from_url(env["REDIS_URL"]) as redis:
        redis.flushall()
    assert call(oms, "GET", f"/orders/{order_id}", user="irene")[0] == 200
    assert order_id in [order["id"] for order in call(oms, "GET", "/orders", user="irene")[1]["orders"]]


def test_outage_of_postgres_stops_no_order_entry(oms: Worker, stack: Stack) -> None:
    """With credential and symbols known, orders are taken and read; the list says 503 with Retry-After.

    An older order is not read, because its row may have said more than what was kept when it was placed; but it can be
    cancelled.
    """
    older = place(oms, user="hank", clientOrderId="older")
    postgres = stack.server("postgres")
    postgres.stop()
    try:
        assert call(oms, "GET", f"/orders/{older}", user="hank")[0] == 503
        assert call(oms, "DELETE", f"/orders/{older}", user="hank")[0] == 202
        assert call(oms, "DELETE", "/orders/client:older", user="hank")[1]["orderId"] == older
        assert call(oms, "GET", "/orders/client:older", user="hank")[0] == 503
        assert call(oms, "DELETE", "/orders/client:older", user="grace")[0] == 503
        assert call(oms, "DELETE", "/orders?symbolId=1", user="hank")[0] == 202

        def is_read() -> bool:
            return bool(call(oms, "GET", f"/orders/{place(oms, user='hank')}", user="hank")[0] == 200)

        wait_until(is_read, "a new order being read")
        status, body, headers = call(oms, "GET", "/orders", user="hank")
        assert (status, body["error"]["code"]) == (503, "UNAVAILABLE")
        assert headers["Retry-After"]
        assert call(oms, "GET", "/orders", user="grace")[0] == 503
    finally:
        postgres.start()
    wait_until(lambda: call(oms, "GET", "/orders", user="hank")[0] == 200, "the list being back")


def test_pages_of_a_batch_that_has_no_rows_yet(oms: Worker) -> None:
    """All its orders are of one moment; each is on one page, in the order of a longer page."""
    body = json.dumps({"orders": [json.loads(changed())] * 60}).encode()
    status, answer, _ = call(oms, "POST", "/orders/batch", body, user="irene")
    assert status == 200
    placed = {result["orderId"] for result in answer["results"]}

    def page(number: int, limit: int) -> list[str]:
        orders = call(oms, "GET", f"/orders?page={number}&limit={limit}", user="irene")[1]["orders"]
        return [order["id"] for order in orders]

    pages = [order_id for number in range(1, 11) for order_id in page(number, 10)]
    assert placed <= set(pages)
    assert pages == page(1, 100)
    assert pages == [order["id"] for order in walked(oms, user="irene", limit=10)][:100]


def test_outage_of_kafka_is_answered_with_503(oms: Worker, stack: Stack) -> None:
    """Never 201, never a hang: the answer comes within 10 s and says that the outcome is unknown; /ready says why."""
    kafka = stack.server("kafka")
    kafka.stop()
    try:
        status, body, headers = call(oms, "POST", "/orders", changed())
        assert (status, body["error"]["code"]) == (503, "LOG_UNAVAILABLE")
        assert "unknown" in body["error"]["message"]
        assert uuid.UUID(body["error"]["orderId"]).version == 4
        assert headers["Retry-After"]
        status, body, _ = call(oms, "GET", "/ready")
        assert (status, body["reasons"][0][:22]) == (503, "Kafka has not answered")
    finally:
        kafka.start()
    wait_until(lambda: call(oms, "POST", "/orders", changed())[0] == 201, "orders being taken again")
    wait_until(lambda: call(oms, "GET", "/ready")[0] == 200, "the OMS being ready again")
