"""Who may do what: every route of the OMS for its owner, another user, nobody, and API keys; seen before and not."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import secrets
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import bcrypt
import psycopg2
import pytest

from forkast_streams.config import Settings
from forkast_streams.roles import create_app
from forkast_streams.topics import ORDERS_NEW
from tests.integration.exchange import Worker, read_topic
from tests.integration.test_oms import VALID, env  # noqa: F401 - env is a fixture

UNLIMITED = {f"FORKAST_RATE_{name}": "0" for name in ("USER", "ADDRESS", "LOGIN_FAILURES", "LOGIN_FAILURES_USER")}
UNKNOWN = str(uuid.UUID(int=7))
_COST = 4

Headers = dict[str, str]


@dataclass(frozen=True, slots=True)
class Target:
    """What the owner has: an open order, its client order id, and an API key nobody uses."""

    order: str
    client: str
    key: str


@dataclass(frozen=True, slots=True)
class Row:
    """A route, and what comes of it.

    Attributes:
        owner: status of the owner's answer.
        other: status of another user's answer to the same request.
        needs: the scope that an API key needs; ``password``: no API key will do; ``nothing``: it is open to everybody.
        paths: to ask for, with the names of ``Target``; each is the whole row again.
        body: of the request.
        commands: how many the log gets of a request of the owner, and of another user.
        keeps_apart: whether the other user's answer has nothing of the owner's.
    """

    owner: int
    other: int
    needs: Literal["read", "trade", "password", "nothing"]
    paths: tuple[str, ...]
    body: Callable[[Target], Any] | None = None
    commands: tuple[int, int] = (0, 0)
    keeps_apart: Callable[[Any], bool] = lambda _: True


def _both(path: str) -> tuple[str, ...]:
    """A path with the order's id, and with its client order id."""
    return path.format(id="{order}"), path.format(id="client:{client}")


def _open(*paths: str) -> Row:
    return Row(200, 200, "nothing", paths)


def _all_unknown(answer: Any) -> bool:
    return [one["error"]["code"] for one in answer["results"]] == ["NOT_FOUND", "NOT_FOUND"]


ROWS: dict[tuple[str, str], Row] = {
    ("POST", "/orders"): Row(201, 201, "trade", ("/orders",), lambda _: VALID, (1, 1)),
    ("GET", "/orders"): Row(200, 200, "read", ("/orders",), keeps_apart=lambda answer: answer["orders"] == []),
    ("DELETE", "/orders"): Row(202, 202, "trade", ("/orders?symbolId=1",), commands=(1, 1)),
    ("GET", "/orders/{id}"): Row(200, 404, "read", _both("/orders/{id}")),
    ("PATCH", "/orders/{id}"): Row(202, 404, "trade", _both("/orders/{id}"), lambda _: {"quantity": 5}, (1, 0)),
    ("DELETE", "/orders/{id}"): Row(202, 404, "trade", _both("/orders/{id}"), commands=(1, 0)),
    ("POST", "/orders/{id}/replace"): Row(202, 404, "trade", _both("/orders/{id}/replace"), lambda _: VALID, (1, 0)),
    ("POST", "/orders/batch"): Row(200, 200, "trade", ("/orders/batch",), lambda _: {"orders": [VALID]}, (1, 1)),
    ("POST", "/orders/batch-cancel"): Row(
        *(200, 200, "trade", ("/orders/batch-cancel",)),
        body=lambda target: {"ids": [target.order, f"client:{target.client}"]},
        commands=(2, 0),
        keeps_apart=_all_unknown,
    ),
    ("POST", "/orders/cancel-after"): Row(
        202, 202, "trade", ("/orders/cancel-after?symbolId=1",), lambda _: {"timeout": 60}, (1, 1)
    ),
    ("GET", "/symbols"): Row(200, 200, "read", ("/symbols",)),
    ("POST", "/api-keys"): Row(201, 201, "password", ("/api-keys",), lambda _: {"name": "k", "scopes": ["read"]}),
    ("GET", "/api-keys"): Row(
        200,
        200,
        "password",
        ("/api-keys",),
        keeps_apart=lambda answer: [k["name"] for k in answer["apiKeys"]] == ["other"],
    ),
    ("DELETE", "/api-keys/{id}"): Row(200, 404, "password", ("/api-keys/{key}",)),
    ("GET", "/health"): _open("/health"),
    ("GET", "/ready"): _open("/ready"),
    ("GET", "/openapi.json"): _open("/openapi.json"),
    ("GET", "/asyncapi.json"): _open("/asyncapi.json"),
    ("GET", "/docs"): _open("/docs"),
    ("GET", "/docs/{file}"): _open("/docs/start.js"),
}
# What answers GET answers HEAD, too.
ROWS |= {("HEAD", path): row for (method, path), row in ROWS.items() if method == "GET"}


@dataclass(slots=True)
class Person:
    """A user that no process has seen yet."""

    id: int
    email: str
    password: str
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def by_password(self) -> Headers:
        """Headers with the right password."""
        return _basic(self.email, self.password)


def _basic(email: str, password: str) -> Headers:
    return {"Authorization": f"Basic {base64.b64encode(f'{email}:{password}'.encode()).decode()}"}


def _by_key(key: str) -> Headers:
    return {"X-API-Key": key}


class Client:
    """One connection to a worker."""

    def __init__(self, worker: Worker) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=15)

    def send(self, method: str, path: str, headers: Headers, body: Any = None) -> tuple[int, Any]:
        """Send a request; return status and body, decoded if it is JSON."""
        content = None if body is None else json.dumps(body).encode()
        self._connection.request(method, path, content, {"Content-Type": "application/json"} | headers)
        answer = self._connection.getresponse()
        text = answer.read()
        is_json = answer.headers["Content-Type"].startswith("application/json") and text
        return answer.status, json.loads(text) if is_json else text

    def make(self, path: str, headers: Headers, body: Any) -> Any:
        """Post something that is taken; return the answer."""
        status, answer = self.send("POST", path, headers, body)
        assert status == 201, answer
        return answer

    def close(self) -> None:
        """Close it."""
        self._connection.close()


@pytest.fixture(scope="module")
def people(env: dict[str, str]) -> Iterator[Person]:  # noqa: F811
    """More users than the rows need."""
    hashed = {}
    for _ in range(2 * sum(len(row.paths) for row in ROWS.values()) + 2):
        password = secrets.token_hex(8)
        email = f"{secrets.token_hex(8)}@example.com"
        hashed[email] = password, bcrypt.hashpw(password.encode(), bcrypt.gensalt(_COST)).decode()
    made = []
    with closing(psycopg2.connect(env["DATABASE_URL"])) as connection, connection, connection.cursor() as cursor:
        for email, (password, stored) in hashed.items():
            cursor.execute(
                'INSERT INTO "User" (email, name, password) VALUES (%s, %s, %s) RETURNING id', (email, email, stored)
            )
            made.append(Person(cursor.fetchone()[0], email, password))
    return iter(made)


@pytest.fixture(scope="module")
def clients(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Client]]:  # noqa: F811
    """Of two processes: one where people come by what they have, and the one that is asked, which knows nobody."""
    folder = tmp_path_factory.mktemp("authorisation")
    workers = [Worker("oms", env | UNLIMITED, folder / f"oms-{number}", instance=str(number)) for number in (1, 2)]
    try:
        for worker in workers:
            worker.start()
        first, second = (Client(worker.wait_ready()) for worker in workers)
        yield first, second
        first.close()
        second.close()
    finally:
        for worker in workers:
            worker.end()


@pytest.fixture(scope="module")
def commands(env: dict[str, str]) -> Iterator[Counter[int]]:  # noqa: F811
    """How many commands of each user the log must have in the end; none may name an order of another."""
    commands: Counter[int] = Counter()
    yield commands
    written: Counter[int] = Counter()
    owner_of: dict[str, int] = {}
    changes = []
    for records in asyncio.run(read_topic(env, ORDERS_NEW)).values():
        for record in records:
            command = json.loads(record.value)
            user_id = command.get("userId")
            if user_id not in commands:
                continue
            written[user_id] += 1
            if "id" in command:
                owner_of[command["id"]] = user_id
            if "orderId" in command:
                changes.append((command["orderId"], user_id))
    assert written == commands
    assert all(owner_of[order_id] == user_id for order_id, user_id in changes)


def furnish(client: Client, person: Person, *scopes: str) -> None:
    """Give somebody an API key for each scope."""
    for scope in scopes:
        key = client.make("/api-keys", person.by_password, {"name": "other", "scopes": [scope]})
        person.keys[scope] = f"{key['id']}.{key['secret']}"


def target_of(client: Client, owner: Person, commands: Counter[int]) -> Target:
    """What somebody else could be after."""
    client_order_id = secrets.token_hex(8)
    order = client.make("/orders", owner.by_password, VALID | {"clientOrderId": client_order_id})
    key = client.make("/api-keys", owner.by_password, {"name": "spare", "scopes": ["read"]})
    commands[owner.id] += 1
    return Target(order["orderId"], client_order_id, key["id"])


def test_every_route_has_a_row(tmp_path: Path) -> None:
    """From the router, so that nobody forgets a new one."""
    router = create_app("oms", Settings(data_dir=tmp_path)).web.web_app.router
    routes = {(route.method, route.resource.canonical) for route in router.routes() if route.resource is not None}
    assert routes == ROWS.keys()


def requests_of(row: Row, owner: Person, other: Person) -> Sequence[tuple[str, Headers, int, tuple[int, int]]]:
    """Who asks: name, headers, the status that comes of it, and the commands of owner and other; the owner last."""
    is_open = row.needs == "nothing"
    refused = row.owner if is_open else 401
    by_reading = row.owner if row.needs in ("read", "nothing") else 403
    by_trading, of_others = (403, 403) if row.needs == "password" else (row.owner, row.other)
    ours, theirs = (row.commands[0], 0), (0, row.commands[1])
    return [
        ("nobody", {}, refused, (0, 0)),
        ("nobody's key", _by_key(f"{'0' * 24}.{secrets.token_urlsafe(32)}"), refused, (0, 0)),
        ("wrong password", _basic(owner.email, other.password), refused, (0, 0)),
        ("wrong secret", _by_key(f"{owner.keys['trade'][:25]}{other.keys['trade'][25:]}"), refused, (0, 0)),
        ("owner's reading key", _by_key(owner.keys["read"]), by_reading, (0, 0)),
        ("other", other.by_password, row.other, theirs),
        ("other's key", _by_key(other.keys["trade"]), of_others, theirs),
        ("owner's key", _by_key(owner.keys["trade"]), by_trading, ours),
        ("owner", owner.by_password, row.owner, ours),
    ]


@pytest.mark.parametrize(
    ("method", "row", "path"),
    [(method, row, path) for (method, _), row in ROWS.items() for path in row.paths],
    ids=[f"{method} {path}" for (method, _), row in ROWS.items() for path in row.paths],
)
def test_each_gets_what_is_theirs(
    clients: tuple[Client, Client],
    people: Iterator[Person],
    commands: Counter[int],
    method: str,
    row: Row,
    path: str,
) -> None:
    """First of a process that has seen none of them, then of one that remembers them all."""
    elsewhere, client = clients
    owner, other = next(people), next(people)
    commands.update({owner.id: 0, other.id: 0})
    furnish(elsewhere, owner, "read", "trade")
    furnish(elsewhere, other, "trade")
    for memory in ("cold", "warm"):
        target = target_of(elsewhere, owner, commands)
        names = {"order": target.order, "client": target.client, "key": target.key}
        body = None if row.body is None else row.body(target)
        for who, headers, expected, (ours, theirs) in requests_of(row, owner, other):
            case = f"{who}, {memory}"
            status, answer = client.send(method, path.format(**names), headers, body)
            assert status == expected, f"{case}: {answer}"
            if status < 300:
                commands[owner.id] += ours
                commands[other.id] += theirs
            if who == "other" and status < 300 and method != "HEAD":
                assert row.keeps_apart(answer), f"{case}: {answer}"
            if status == 404:
                # Not a word about whether there is such a thing.
                unknown = path.format(order=UNKNOWN, client="of-nobody", key="0" * 24)
                assert client.send(method, unknown, headers, body) == (status, answer), case


def test_client_order_ids_of_two_users_are_two(
    clients: tuple[Client, Client], people: Iterator[Person], commands: Counter[int]
) -> None:
    """The same request of another user is another order, and each finds their own by it."""
    elsewhere, client = clients
    owner, other = next(people), next(people)
    commands.update({owner.id: 0, other.id: 0})
    target = target_of(elsewhere, owner, commands)
    body = VALID | {"clientOrderId": target.client}
    order = client.make("/orders", other.by_password, body)
    commands[other.id] += 1
    assert order["orderId"] != target.order
    for person, order_id in ((owner, target.order), (other, order["orderId"])):
        status, answer = client.send("GET", f"/orders/client:{target.client}", person.by_password)
        assert (status, answer["id"], answer["userId"]) == (200, order_id, person.id)
