"""Who may do what: every route of the OMS against its owner, another user, nobody, and API keys.

Each check has users of its own, so that a worker has never seen their credentials (cold) or just has (warm). What is
aimed at is placed through another worker, for a worker that placed it would know its owner.
"""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import bcrypt
import psycopg2
import pytest
from psycopg2.extensions import make_dsn
from psycopg2.extras import execute_values
from redis import Redis

from forkast_streams.config import Settings
from forkast_streams.roles import create_app
from forkast_streams.storage.postgres import Postgres, prepare_database
from forkast_streams.topics import ORDERS_NEW, ensure_topics
from tests.integration.exchange import Worker, end_offsets, read_topic, wait_until

_FIRST_USER, _USERS = 40_000, 500
_NO_LIMITS = {f"FORKAST_RATE_{name}": "0" for name in ("USER", "ADDRESS", "LOGIN_FAILURES", "LOGIN_FAILURES_USER")}
_ORDER = {"symbolId": 1, "type": "LIMIT", "side": "BUY", "quantity": 10, "price": "0.01"}
_SAFE = ("GET", "HEAD")
_ORDERS = ("{order}", "{stored}", "client:{client}")
_INSERT_ORDER = """
INSERT INTO "Order" (id, "userId", "symbolId", type, side, price, quantity, sequence, "createdAt", "updatedAt")
VALUES (%(id)s, %(user_id)s, 1, 'LIMIT', 'BUY', 0.01, 10, 1, now() AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC')
"""
Cache = Literal["cold", "warm"]


@dataclass(frozen=True, slots=True)
class Row:
    """What is sent to a route, and what answers it.

    Attributes:
        path: with ``{order}``, ``{stored}``, ``{client}`` and ``{key}`` for what the owner has, as the body.
        status: of the owner's answer, and of anybody's on an open route.
        body: decoded; None is none.
        aims: the path names something of the owner, which nobody else has.
        is_open: needs no credential.
    """

    path: str
    status: int = 200
    body: Any = None
    aims: bool = False
    is_open: bool = False


def _of_order(suffix: str, status: int, body: Any = None) -> list[Row]:
    return [Row(f"/orders/{name}{suffix}", status, body, aims=True) for name in _ORDERS]


# Every route as the router has it; a new one without a row fails.
ROWS: dict[tuple[str, str], list[Row]] = {
    ("POST", "/orders"): [Row("/orders", 201, _ORDER)],
    ("GET", "/orders"): [Row("/orders")],
    ("DELETE", "/orders"): [Row("/orders", 202), Row("/orders?symbolId=1", 202)],
    ("POST", "/orders/batch"): [Row("/orders/batch", 200, {"orders": [_ORDER, _ORDER]})],
    ("POST", "/orders/batch-cancel"): [Row("/orders/batch-cancel", 200, {"ids": [*_ORDERS]})],
    ("POST", "/orders/cancel-after"): [Row("/orders/cancel-after?symbolId=1", 202, {"timeout": 0})],
    ("GET", "/orders/{id}"): _of_order("", 200),
    ("PATCH", "/orders/{id}"): _of_order("", 202, {"quantity": 5}),
    ("DELETE", "/orders/{id}"): _of_order("", 202),
    ("POST", "/orders/{id}/replace"): _of_order("/replace", 202, _ORDER),
    ("GET", "/symbols"): [Row("/symbols")],
    ("POST", "/api-keys"): [Row("/api-keys", 201, {"name": "robot", "scopes": ["read"]})],
    ("GET", "/api-keys"): [Row("/api-keys")],
    ("DELETE", "/api-keys/{id}"): [Row("/api-keys/{key}", aims=True)],
    ("GET", "/health"): [Row("/health", is_open=True)],
    ("GET", "/ready"): [Row("/ready", is_open=True)],
    ("GET", "/openapi.json"): [Row("/openapi.json", is_open=True)],
    ("GET", "/asyncapi.json"): [Row("/asyncapi.json", is_open=True)],
    ("GET", "/docs"): [Row("/docs", is_open=True)],
    ("GET", "/docs/{file}"): [Row("/docs/start.js", is_open=True)],
}
# What answers GET answers HEAD.
ROWS |= {("HEAD", path): rows for (method, path), rows in list(ROWS.items()) if method == "GET"}
CHECKS = [
    pytest.param(method, row, id=f"{method} {row.path}")
    for (method, _), rows in ROWS.items()
    for row in rows
    if not row.is_open
]
OPEN = [
    pytest.param(method, row, id=f"{method} {row.path}")
    for (method, _), rows in ROWS.items()
    for row in rows
    if row.is_open
]


@dataclass(frozen=True, slots=True)
class Credential:
    """What a request is sent with."""

    user_id: int
    headers: dict[str, str] = field(default_factory=dict)


def password_of(user_id: int, *, password: str | None = None) -> Credential:
    """A user's e-mail and password, which are the same, or another password."""
    email = f"user-{user_id}@example.com"
    token = base64.b64encode(f"{email}:{password or email}".encode()).decode()
    return Credential(user_id, {"Authorization": f"Basic {token}"})


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error."""
        return str(self.json["error"]["code"])


@dataclass(frozen=True, slots=True)
class Owned:
    """What a user has, or as things that do not exist nobody.

    Attributes:
        order: id of an order that is in the log, and not yet in the database.
        stored: id of one that is in the database.
        client: client order id of the former.
        key: id of an API key.
    """

    owner: Credential
    order: str
    stored: str
    client: str
    key: str

    def sends(self, worker: Worker, method: str, row: Row, credential: Credential | None) -> Answer:
        """Send the row's request at this user's things."""
        body = None if row.body is None else _filled(row.body, self)
        return send(worker, method, _filled(row.path, self), credential, body)


def _filled(template: Any, owned: Owned) -> Any:
    if isinstance(template, str):
        return template.format(order=owned.order, stored=owned.stored, client=owned.client, key=owned.key)
    if isinstance(template, dict):
        return {name: _filled(value, owned) for name, value in template.items()}
    return [_filled(value, owned) for value in template] if isinstance(template, list) else template


def send(worker: Worker, method: str, path: str, credential: Credential | None, body: Any = None) -> Answer:
    """Send a request with a JSON body or none."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{worker.port}{path}", data, method=method)
    request.add_header("Content-Type", "application/json")
    for name, value in (credential.headers if credential is not None else {}).items():
        request.add_header(name, value)
    try:
        with urllib.request.urlopen(request, timeout=15) as response:
            return Answer(response.status, response.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.read())


@dataclass(frozen=True, slots=True)
class World:
    """Two OMS workers, and users that nobody has been yet.

    Attributes:
        asked: gets the requests that are looked at.
        other: everything else.
    """

    env: dict[str, str]
    asked: Worker
    other: Worker
    user_ids: Iterator[int]

    def user(self) -> Credential:
        """A user that no worker has seen."""
        return password_of(next(self.user_ids))

    def owner(self) -> Owned:
        """A user with two orders and a key, whom ``asked`` has not seen."""
        user, client_order_id = self.user(), f"mine-{uuid.uuid4().hex[:20]}"
        placed = send(self.other, "POST", "/orders", user, _ORDER | {"clientOrderId": client_order_id})
        assert placed.status == 201, placed.body
        order_id = placed.json["orderId"]
        with Redis.from_url(self.env["REDIS_URL"]) as redis:
            wait_until(lambda: bool(redis.exists(f"order:{order_id}")), "the order being known to all workers")
        return Owned(user, order_id, self._stored_order(user), client_order_id, self.key(user, "trade")[0])

    def _stored_order(self, user: Credential) -> str:
        """What the sink would make of an order."""
        order_id = str(uuid.uuid4())
        with (
            closing(psycopg2.connect(self.env["DATABASE_URL"])) as connection,
            connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(_INSERT_ORDER, {"id": order_id, "user_id": user.user_id})
        return order_id

    def key(self, user: Credential, *scopes: str) -> tuple[str, Credential]:
        """A new API key: its id, and it as a credential."""
        made = send(self.other, "POST", "/api-keys", user, {"name": "robot", "scopes": scopes})
        assert made.status == 201, made.body
        key = made.json
        return key["id"], Credential(user.user_id, {"X-API-Key": f"{key['id']}.{key['secret']}"})

    def warm(self, cache: Cache, *credentials: Credential) -> None:
        """Have ``asked`` know the credentials, unless it is to be asked cold."""
        if cache == "warm":
            for credential in credentials:
                assert send(self.asked, "GET", "/symbols", credential).status == 200


@pytest.fixture(scope="module")
def world(stack_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A database of its own, and no engine: what has been placed stays as it is, whoever asks for what."""
    name = f"test_{uuid.uuid4().hex}"
    env = stack_env | _NO_LIMITS | {"DATABASE_URL": make_dsn(stack_env["DATABASE_URL"], dbname=name)}
    asyncio.run(ensure_topics(env["KAFKA_BROKERS"].split(",")))
    asyncio.run(prepare_database(env["DATABASE_URL"], demo_users=False))
    users = []
    for user_id in range(_FIRST_USER, _FIRST_USER + _USERS):
        email = f"user-{user_id}@example.com"
        users.append((user_id, email, "User", bcrypt.hashpw(email.encode(), bcrypt.gensalt(4)).decode()))
    with closing(psycopg2.connect(env["DATABASE_URL"])) as connection, connection, connection.cursor() as cursor:
        execute_values(cursor, 'INSERT INTO "User" (id, email, name, password) VALUES %s', users)
    folder = tmp_path_factory.mktemp("authorisation")
    workers = [Worker("oms", env, folder / f"oms-{number}") for number in (1, 2)]
    try:
        for worker in workers:
            worker.start()
        asked, other = [worker.wait_ready() for worker in workers]
        yield World(env, asked, other, iter(range(_FIRST_USER, _FIRST_USER + _USERS)))
    finally:
        for worker in workers:
            worker.end()
        asyncio.run(_drop(stack_env["DATABASE_URL"], name))


async def _drop(database_url: str, name: str) -> None:
    async with Postgres(make_dsn(database_url, dbname="postgres")) as admin:
        await admin.fetch(f"DROP DATABASE {name} WITH (FORCE)")


def test_every_route_has_a_row(tmp_path: Path) -> None:
    """Whoever adds a route says here who may use it."""
    routes = create_app("oms", Settings(data_dir=tmp_path)).web.web_app.router.routes()
    registered = {(route.method, route.resource.canonical) for route in routes if route.resource is not None}
    assert registered == set(ROWS)


@pytest.mark.parametrize("cache", ["cold", "warm"])
@pytest.mark.parametrize(("method", "row"), CHECKS)
def test_owner_gets_in(world: World, method: str, row: Row, cache: Cache) -> None:
    owned = world.owner()
    world.warm(cache, owned.owner)
    answer = owned.sends(world.asked, method, row, owned.owner)
    assert answer.status == row.status, answer.body
    assert method == "HEAD" or "error" not in answer.json
    for result in answer.json.get("results", []) if answer.body else []:
        assert "orderId" in result
    if (method, row.path) == ("GET", "/orders"):
        assert {order["id"] for order in answer.json["orders"]} == {owned.order, owned.stored}


@pytest.mark.parametrize("cache", ["cold", "warm"])
@pytest.mark.parametrize(("method", "row"), CHECKS)
def test_another_user_sees_and_touches_nothing(world: World, method: str, row: Row, cache: Cache) -> None:
    """The owner's things are answered exactly as if they did not exist; the rest is about the other user's own."""
    owned, stranger = world.owner(), world.user()
    unknown = [str(uuid.uuid4()) for _ in range(3)]
    nothing = Owned(stranger, unknown[0], unknown[1], unknown[2], uuid.uuid4().hex[:24])
    world.warm(cache, owned.owner, stranger)
    answer = owned.sends(world.asked, method, row, stranger)
    assert answer.status == (404 if row.aims else row.status), answer.body
    assert not any(thing.encode() in answer.body for thing in (owned.order, owned.stored, owned.client, owned.key))
    if row.aims or "{order}" in json.dumps(row.body):
        assert answer == nothing.sends(world.asked, method, row, stranger)
    for result in answer.json.get("results", []) if "{order}" in json.dumps(row.body) else []:
        assert result["error"]["code"] == "NOT_FOUND"


@pytest.mark.parametrize("cache", ["cold", "warm"])
@pytest.mark.parametrize(("method", "row"), CHECKS)
def test_nobody_gets_in(world: World, method: str, row: Row, cache: Cache) -> None:
    """Not without a credential, not with a wrong one, however well the right one is known; and all look the same."""
    owned = world.owner()
    world.warm(cache, owned.owner)
    user_id = owned.owner.user_id
    nobodies = (
        None,
        password_of(user_id, password="wrong"),
        password_of(0),
        Credential(user_id, {"X-API-Key": f"{owned.key}.wrong"}),
        Credential(user_id, {"X-API-Key": owned.key}),
    )
    answers = [owned.sends(world.asked, method, row, nobody) for nobody in nobodies]
    assert {answer.status for answer in answers} == {401}
    assert len({answer.body for answer in answers}) == 1
    assert method == "HEAD" or answers[0].code == "UNAUTHORIZED"


@pytest.mark.parametrize("cache", ["cold", "warm"])
@pytest.mark.parametrize(("method", "row"), CHECKS)
@pytest.mark.parametrize("scope", ["read", "trade"])
def test_key_does_what_its_scope_says(world: World, method: str, row: Row, scope: str, cache: Cache) -> None:
    """With `read` nothing that changes anything; with either no key that makes keys."""
    owned = world.owner()
    _, key = world.key(owned.owner, scope)
    world.warm(cache, key)
    answer = owned.sends(world.asked, method, row, key)
    is_allowed = not row.path.startswith("/api-keys") and (scope == "trade" or method in _SAFE)
    assert answer.status == (row.status if is_allowed else 403), answer.body
    assert is_allowed or method == "HEAD" or answer.code == "FORBIDDEN"


@pytest.mark.parametrize(("method", "row"), OPEN)
def test_open_routes_ask_nobody(world: World, method: str, row: Row) -> None:
    """A wrong credential keeps nobody out of them, and nothing in their answers depends on who asks."""
    answers = [send(world.asked, method, row.path, who) for who in (None, password_of(0), world.user())]
    assert [answer.status for answer in answers] == [row.status] * 3
    assert len({answer.body for answer in answers}) == 1


def test_commands_in_the_log_are_their_senders(world: World) -> None:
    """A stranger's, a reading key's and nobody's requests make no command about the owner or the owner's order."""
    owned, stranger = world.owner(), world.user()
    reader = world.key(owned.owner, "read")[1]
    before = asyncio.run(end_offsets(world.env, ORDERS_NEW))
    for (method, _), rows in ROWS.items():
        for row in rows:
            if not row.is_open:
                for credential in (stranger, reader, None):
                    owned.sends(world.asked, method, row, credential)
    records = asyncio.run(read_topic(world.env, ORDERS_NEW))
    commands = [
        json.loads(record.value)
        for partition, of_partition in records.items()
        for record in of_partition
        if record.offset >= before[partition]
    ]
    ours = [command for command in commands if command.get("command") != "HEARTBEAT"]
    assert {command["userId"] for command in ours} == {stranger.user_id}
    assert owned.order not in json.dumps(commands)
    assert owned.stored not in json.dumps(commands)
    # An order of its own, two of a batch, two cancel-alls (of one symbol and of all), and the switch.
    assert {command.get("command") for command in ours} == {None, "CANCEL_ALL", "CANCEL_AFTER"}
    assert sum("command" not in command for command in ours) == 3
