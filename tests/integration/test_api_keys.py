"""API keys on a running OMS: made once, used as they are or to sign with, refused when revoked."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg2
import pytest
from redis import Redis

from forkast_streams.devstack import Stack
from tests.integration.boundary import hanging
from tests.integration.exchange import Worker, wait_until
from tests.integration.test_oms import call, changed, env, place  # noqa: F401 - env is a fixture

SIGNING = {"FORKAST_SIGNING_SECRET": "a secret of the tests, long enough"}


@pytest.fixture(scope="module")
def workers(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Worker]]:  # noqa: F811
    """Two OMS processes of one exchange."""
    folder = tmp_path_factory.mktemp("keys")
    limits = {"FORKAST_RATE_LOGIN_FAILURES": "0", "FORKAST_RATE_LOGIN_FAILURES_USER": "0"}
    workers = [Worker("oms", env | SIGNING | limits, folder / f"oms-{number}") for number in (1, 2)]
    for worker in workers:
        worker.start()
    yield [worker.wait_ready() for worker in workers]
    for worker in workers:
        worker.end()


@pytest.fixture
def oms(workers: list[Worker]) -> Worker:
    """One of them."""
    return workers[0]


def make(oms: Worker, *scopes: str, user: str = "carol") -> dict[str, Any]:
    """Make a key; return the answer."""
    body = json.dumps({"name": "robot", "scopes": scopes}).encode()
    status, answer, _ = call(oms, "POST", "/api-keys", body, user=user)
    assert status == 201, answer
    return dict(answer)


def with_key(oms: Worker, key: str, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
    """Send a request with a key and no password."""
    return call(oms, method, path, body, user=None, headers={"X-API-Key": key})[:2]


def documented_signing() -> Any:
    """The function that docs/api.md shows."""
    docs = Path(__file__).parents[2] / "docs" / "api.md"
    names: dict[str, Any] = {}
    exec(docs.read_text().partition("```python\n")[2].partition("```")[0], names)
    return names["signed"]


def signed(key: dict[str, Any], method: str, path: str, body: bytes = b"", *, shift_ms: int = 0) -> dict[str, str]:
    """The headers of a signed request, made by a clock that is wrong by ``shift_ms``."""
    sign = documented_signing()
    sign.__globals__["time"] = SimpleNamespace(time_ns=lambda: time.time_ns() + shift_ms * 1_000_000)
    return dict(sign(key["id"], key["secret"], method, path, body))


def test_key_trades_for_its_owner(oms: Worker) -> None:
    """All but managing keys; and what it does is the owner's."""
    key = make(oms, "read", "trade")
    token = f"{key['id']}.{key['secret']}"
    status, answer = with_key(oms, token, "POST", "/orders", changed())
    assert status == 201
    assert with_key(oms, token, "GET", f"/orders/{answer['orderId']}")[1]["userId"] == 3
    assert call(oms, "GET", f"/orders/{answer['orderId']}", user="carol")[0] == 200
    assert with_key(oms, token, "DELETE", f"/orders/{answer['orderId']}")[0] == 202
    for method, path in (("GET", "/api-keys"), ("POST", "/api-keys"), ("DELETE", f"/api-keys/{key['id']}")):
        status, answer = with_key(oms, token, method, path)
        assert (status, answer["error"]["code"]) == (403, "FORBIDDEN")


def test_reading_key_only_reads(oms: Worker) -> None:
    """403 for everything that is no GET, and nothing of it happens."""
    order_id = place(oms, user="carol")
    key = make(oms, "read")
    token = f"{key['id']}.{key['secret']}"
    assert with_key(oms, token, "GET", f"/orders/{order_id}")[0] == 200
    for method, path, body in (
        ("POST", "/orders", changed()),
        ("PATCH", f"/orders/{order_id}", b'{"quantity":5}'),
        ("DELETE", f"/orders/{order_id}", None),
    ):
        status, answer = with_key(oms, token, method, path, body)
        assert (status, answer["error"]["code"]) == (403, "FORBIDDEN")


def test_secret_is_told_once_and_stored_nowhere(oms: Worker, env: dict[str, str]) -> None:  # noqa: F811
    """Neither the list nor the table nor Redis nor the log has it, or the key that signs."""
    key = make(oms, "trade")
    with_key(oms, f"{key['id']}.{key['secret']}", "GET", "/orders")
    call(oms, "GET", "/orders", user=None, headers=signed(key, "GET", "/orders"))
    status, answer, _ = call(oms, "GET", "/api-keys", user="carol")
    [listed] = [row for row in answer["apiKeys"] if row["id"] == key["id"]]
    assert (status, listed) == (200, {name: value for name, value in key.items() if name != "secret"})
    signing_key = hmac.new(key["secret"].encode(), b"forkast request signing v1", hashlib.sha256).digest()
    with closing(psycopg2.connect(env["DATABASE_URL"])) as connection, connection.cursor() as cursor:
        cursor.execute('SELECT "ApiKey"::text, "secretHash", "signingKey" FROM "ApiKey" WHERE id = %s', (key["id"],))
        text, secret_hash, stored_key = cursor.fetchone() or ("", b"", b"")
    assert bytes(secret_hash) == hashlib.sha256(key["secret"].encode()).digest()
    assert bytes(stored_key) != signing_key
    assert key["secret"] not in text
    with Redis.from_url(env["REDIS_URL"]) as redis:
        assert not [name for name in redis.scan_iter() if key["secret"].encode() in name]
    assert key["secret"] not in oms.log.read_text()


@pytest.mark.parametrize("token", ["", ".", "x", "x.y", "0" * 24, f"{'0' * 24}.x", "é.é", "a" * 5_000])
def test_no_key_gets_in_nowhere(oms: Worker, token: str) -> None:
    """401, as with a wrong password, even beside a right one."""
    headers = {"X-API-Key": token.encode().decode("latin-1")}
    refused = call(oms, "GET", "/orders", user=None)[:2]
    assert call(oms, "GET", "/orders", user=None, headers=headers)[:2] == refused
    assert call(oms, "GET", "/orders", user="alice", headers=headers)[:2] == refused


def test_wrong_secret_gets_in_nowhere(oms: Worker) -> None:
    """Nor another key's."""
    one, other = make(oms, "read"), make(oms, "read")
    for secret in ("", one["secret"][:-1], one["secret"] + "A", other["secret"], other["id"]):
        assert with_key(oms, f"{one['id']}.{secret}", "GET", "/orders")[0] == 401


def test_revoked_key_is_refused_at_once_here_and_within_a_minute_elsewhere(workers: list[Worker]) -> None:
    """While it is in use all the time."""
    here, there = workers
    key = make(here, "read")
    token = f"{key['id']}.{key['secret']}"
    assert [with_key(worker, token, "GET", "/symbols")[0] for worker in workers] == [200, 200]
    assert call(here, "DELETE", f"/api-keys/{key['id']}", user="dave", password="x")[0] == 401
    assert call(here, "DELETE", f"/api-keys/{key['id']}", user="alice")[0] == 404
    assert with_key(here, token, "GET", "/symbols")[0] == 200
    assert call(here, "DELETE", f"/api-keys/{key['id']}", user="carol")[0] == 200
    assert with_key(here, token, "GET", "/symbols")[0] == 401
    wait_until(lambda: with_key(there, token, "GET", "/symbols")[0] == 401, "the key being refused", within_s=60)
    assert call(here, "DELETE", f"/api-keys/{key['id']}", user="carol")[0] == 404
    assert key["id"] not in [row["id"] for row in call(here, "GET", "/api-keys", user="carol")[1]["apiKeys"]]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "INVALID_JSON"),
        (b"[]", "BODY_NOT_OBJECT"),
        (b'{"name":"a"}', "MISSING_FIELD"),
        (b'{"name":1,"scopes":["read"]}', "INVALID_TYPE"),
        (b'{"name":"a","scopes":["read"],"scopes":["read","trade"]}', "DUPLICATE_FIELD"),
        (b'{"name":"a","scopes":["read"],"sc\\u006fpes":["read","trade"]}', "DUPLICATE_FIELD"),
        (b'{"name":"a","scopes":[]}', "INVALID_VALUE"),
        (b'{"name":"","scopes":["read"]}', "INVALID_VALUE"),
        (b'{"name":"a\\n","scopes":["read"]}', "INVALID_VALUE"),
        (b'{"name":"a\\u0000","scopes":["read"]}', "INVALID_VALUE"),
        (b'{"name":"a\\ud800","scopes":["read"]}', "INVALID_JSON"),
        (b'{"name":"a","scopes":["keys"]}', "INVALID_ENUM"),
        (b'{"name":"a","scopes":["read"],"userId":1}', "UNKNOWN_FIELD"),
    ],
)
def test_bad_key_is_not_made(oms: Worker, body: bytes, code: str) -> None:
    """400 with a code."""
    status, answer, _ = call(oms, "POST", "/api-keys", body, user="carol")
    assert (status, answer["error"]["code"]) == (400, code)


@pytest.mark.parametrize("header", [{"Content-Type": "text/plain"}, {"Content-Encoding": "gzip"}])
def test_key_is_made_from_plain_json_alone(oms: Worker, header: dict[str, str]) -> None:
    """415, as orders have it."""
    body = b'{"name":"a","scopes":["read"]}'
    status, answer, _ = call(oms, "POST", "/api-keys", body, user="carol", headers=header)
    assert (status, answer["error"]["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


def test_number_of_keys_is_bounded(oms: Worker) -> None:
    """Twenty a user, and one that is deleted makes room."""
    keys = [make(oms, "read", user="bob") for _ in range(20)]
    body = json.dumps({"name": "one more", "scopes": ["read"]}).encode()
    status, answer, _ = call(oms, "POST", "/api-keys", body, user="bob")
    assert (status, answer["error"]["code"]) == (409, "TOO_MANY_API_KEYS")
    call(oms, "DELETE", f"/api-keys/{keys[0]['id']}", user="bob")
    make(oms, "read", user="bob")


def test_signed_request_is_served_once(workers: list[Worker]) -> None:
    """A repeated order is refused in every process; a read may be repeated."""
    key, body = make(workers[0], "trade"), changed()
    headers = signed(key, "POST", "/orders", body)
    answers = [call(worker, "POST", "/orders", body, user=None, headers=headers)[0] for worker in workers * 2]
    assert answers == [201, 401, 401, 401]
    headers = signed(key, "GET", "/orders?limit=5")
    assert [call(worker, "GET", "/orders?limit=5", user=None, headers=headers)[0] for worker in workers] == [200, 200]


def test_signature_covers_the_whole_request(oms: Worker) -> None:
    """Another body, path, query, method or time than was signed is refused."""
    key, body = make(oms, "trade"), changed()
    order_id = place(oms, user="carol")
    headers = signed(key, "POST", "/orders", body)
    assert call(oms, "POST", "/orders", changed(quantity=11), user=None, headers=headers)[0] == 401
    assert call(oms, "POST", "/orders?x=1", body, user=None, headers=headers)[0] == 401
    later = {"X-Timestamp": str(int(headers["X-Timestamp"]) + 1)}
    assert call(oms, "POST", "/orders", body, user=None, headers=headers | later)[0] == 401
    headers = signed(key, "GET", f"/orders/{order_id}")
    assert call(oms, "DELETE", f"/orders/{order_id}", user=None, headers=headers)[0] == 401
    assert call(oms, "GET", f"/orders/{order_id}", user=None, headers={"X-API-Key": key["id"]})[0] == 401
    assert call(oms, "GET", f"/orders/{order_id}", user=None, headers=headers)[0] == 200


@pytest.mark.parametrize(("shift_ms", "expected"), [(-6_000, 401), (-4_000, 201), (500, 201), (3_000, 401)])
def test_signed_request_counts_for_seconds(oms: Worker, shift_ms: int, expected: int) -> None:
    """Five back, one ahead."""
    key, body = make(oms, "trade", user="david"), changed()
    headers = signed(key, "POST", "/orders", body, shift_ms=shift_ms)
    assert call(oms, "POST", "/orders", body, user=None, headers=headers)[0] == expected


def test_keys_work_while_servers_hang(oms: Worker, stack: Stack) -> None:
    """What is known goes on without Postgres and without Redis, a repeated request is refused even then."""
    key, body = make(oms, "trade", user="eve"), changed()
    token = f"{key['id']}.{key['secret']}"
    assert with_key(oms, token, "POST", "/orders", body)[0] == 201
    with hanging(stack, "postgres"), hanging(stack, "redis"):
        start = time.monotonic()
        for _ in range(20):
            assert with_key(oms, token, "POST", "/orders", body)[0] == 201
        headers = signed(key, "POST", "/orders", body)
        assert call(oms, "POST", "/orders", body, user=None, headers=headers)[0] == 201
        assert call(oms, "POST", "/orders", body, user=None, headers=headers)[0] == 401
        assert time.monotonic() - start < 5.0
    wait_until(lambda: call(oms, "GET", "/api-keys", user="eve")[0] == 200, "Postgres being back", within_s=20)
