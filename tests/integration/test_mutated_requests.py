"""Requests that were valid once, to a running OMS: no 5xx, no lost worker, nothing but commands in the log."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from random import Random
from typing import Any
from urllib.parse import quote

import pytest

from forkast_streams.codec import decode_command
from forkast_streams.topics import ORDERS_NEW
from tests.integration.exchange import Worker, end_offsets, read_topic
from tests.integration.test_api_keys import SIGNING
from tests.integration.test_oms import call, env, place  # noqa: F401 - env is a fixture
from tests.support.mutations import KINDS, mutated

SEED = 20_261_123
BODIES, RAW_REQUESTS, PATHS = 1_000, 400, 300
_NO_LIMITS = {f"FORKAST_RATE_{name}": "0" for name in ("USER", "ADDRESS", "LOGIN_FAILURES", "LOGIN_FAILURES_USER")}
_USER = "irene@example.com"
_BASIC = f"Basic {b64encode(f'{_USER}:{_USER}'.encode()).decode()}"
_HEADERS = {"Authorization": _BASIC, "Content-Type": "application/json"}
# What a request asks for once it is broken off, so that the server does not wait for the rest of it.
_NEXT = b"\r\n\r\n" + b"GET /health HTTP/1.1\r\nHost: oms\r\nConnection: close\r\n\r\n" * 40
_PARTS = (
    *(
        "..",
        "%2e%2e",
        "%00",
        "%ff",
        "%0d%0aX-Injected:1",
        "client:",
        "client:%00",
        "client:a/b",
        "a" * 4_000,
        "//",
        "%",
    ),
    *("?page=1&page=2", "?page=NaN", "?limit=1e9", "?page=" + "9" * 500, "?limit=%ff", "?symbolId=", "?symbolId=1%00"),
    *("?symbolId=1&symbolid=2", "?%73ymbolId=1", "?&&&=", "#x", ";x", "%c0%af", "\u0661", "{id}", "'--", "*"),
    *("00000000-0000-4000-8000-000000000001", "client:stop-1", "replace", "batch", "?page=1", "?symbolId=99999"),
)
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3}) [A-Z]")
_METHODS = ("GET", "GET", "POST", "DELETE", "PATCH", "HEAD", "PUT", "OPTIONS", "TRACE", "get", "BREW")


@pytest.fixture(scope="module")
def oms(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:  # noqa: F811
    """A running OMS without limits, and at the end still the same process, without an error in its log."""
    worker = Worker("oms", env | SIGNING | _NO_LIMITS, tmp_path_factory.mktemp("mutated") / "oms")
    try:
        worker.start().wait_ready()
        yield worker
    finally:
        worker.end()


@pytest.fixture(autouse=True)
def _unharmed(oms: Worker, env: dict[str, str]) -> Iterator[None]:  # noqa: F811
    """What every test here leaves behind it."""
    pid = oms.pid
    before = asyncio.run(end_offsets(env, ORDERS_NEW))
    yield
    # Raises if the process has ended.
    assert oms.is_ready()
    assert oms.pid == pid
    place(oms, user="irene", price="0.01")
    log = oms.log.read_text()
    assert "unexpected error" not in log, log[-3_000:]
    assert "Traceback" not in log, log[-3_000:]
    for partition, records in asyncio.run(read_topic(env, ORDERS_NEW)).items():
        for record in records:
            if record.offset >= before[partition]:
                # Raises for what the engine would put among the dead letters.
                decode_command(record.value)


def routes_of(kind: str, order_id: str) -> list[tuple[str, str]]:
    """Methods and paths that take a body of this kind."""
    return {
        "order": [("POST", "/orders"), ("POST", f"/orders/{order_id}/replace")],
        "amendment": [("PATCH", f"/orders/{order_id}")],
        "batch": [("POST", "/orders/batch")],
        "ids": [("POST", "/orders/batch-cancel")],
        "timeout": [("POST", "/orders/cancel-after?symbolId=1")],
        "key": [("POST", "/api-keys")],
    }[kind]


def answers(oms: Worker, requests: list[tuple[str, str, bytes | None]]) -> list[tuple[int, bytes]]:
    """Send requests, one after the other on one connection; return status and body of each."""
    got = []
    with closing(HTTPConnection("127.0.0.1", oms.port, timeout=20)) as connection:
        for method, path, body in requests:
            connection.request(method, path, body, _HEADERS)
            response = connection.getresponse()
            got.append((response.status, response.read()))
    return got


def at_once(oms: Worker, requests: list[tuple[str, str, bytes | None]]) -> Counter[int]:
    """Send requests on eight connections; check each answer, and return how often which status came."""
    statuses: Counter[int] = Counter()
    shares = [requests[start::8] for start in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for share, got in zip(shares, pool.map(lambda share: answers(oms, share), shares), strict=True):
            for request, (status, body) in zip(share, got, strict=True):
                check(request, status, body)
                statuses[status] += 1
    return statuses


def check(request: Any, status: int, body: bytes) -> None:
    """No fault of ours, and a refusal has a code, also within a batch."""
    assert 200 <= status < 500, (request, status, body)
    if status >= 400 and body:
        assert json.loads(body)["error"]["code"].isupper(), (request, body)
    assert b"INTERNAL_ERROR" not in body, (request, body)
    assert b"UNAVAILABLE" not in body, (request, body)


def test_mutated_bodies(oms: Worker) -> None:
    """Of every type of body, to every route that takes one."""
    random = Random(SEED)
    order_id = place(oms, user="irene", price="0.01")
    requests: list[tuple[str, str, bytes | None]] = []
    for number in range(BODIES):
        kind = KINDS[number % len(KINDS)]
        method, path = random.choice(routes_of(kind, order_id))
        requests.append((method, path, mutated(kind, random)))
    statuses = at_once(oms, requests)
    assert min(statuses[200], statuses[201], statuses[202]) > 10, statuses
    assert statuses[400] > BODIES / 3, statuses


def test_mutated_paths(oms: Worker) -> None:
    """Ids, parameters and methods that nobody meant."""
    random = Random(SEED)
    requests: list[tuple[str, str, bytes | None]] = []
    for _ in range(PATHS):
        path = "/" + "/".join(random.choice(("orders", "orders", "api-keys", "symbols", "docs", *_PARTS)) for _ in "12")
        path += random.choice(("", *_PARTS))
        requests.append((random.choice(_METHODS), quote(path, safe="/?&=%#;:*{}'"), None))
    statuses = at_once(oms, requests)
    assert statuses[200] > 0, statuses
    assert statuses[400] > PATHS / 10, statuses
    assert statuses[404] > PATHS / 10, statuses


def key_headers(oms: Worker) -> list[bytes]:
    """Credentials of an API key, right and broken."""
    # Of a user of its own, because the bodies of others, and other tests, make as many keys as one may have.
    _, key, _ = call(oms, "POST", "/api-keys", b'{"name":"mutated","scopes":["read","trade"]}', user="jack")
    key_id, secret = key["id"].encode(), key["secret"].encode()
    signature = b"\r\nX-Timestamp: %d\r\nX-Signature: " % (time.time_ns() // 1_000_000)
    return [
        key_id + b"." + secret,
        *(key_id + b"." + wrong for wrong in (b"\xff", secret + b"\x80", "é".encode(), b"\xed\xa0\x80", b"")),
        *(wrong + b"." + secret for wrong in (b"\xff", key_id[:-1] + b"\xff", b"\xc3")),
        *(key_id + signature + wrong for wrong in (b"\xff", b"0" * 64, b"\x80" * 64, b"")),
        key_id + b"\r\nX-Timestamp: \xff\r\nX-Signature: " + b"0" * 64,
    ]


def test_mutated_keys(oms: Worker) -> None:
    """Ids, secrets, times and signatures that are no text: only the right ones get in."""
    head = b"GET /symbols HTTP/1.1\r\nHost: oms\r\nConnection: close\r\nX-API-Key: "
    got = [exchanged(oms, head + headers + b"\r\n\r\n") for headers in key_headers(oms)]
    assert [int(status) for answer in got for status in _STATUS.findall(answer)] == [200] + [401] * (len(got) - 1)


def valid_request(random: Random) -> bytes:
    """A whole request as it goes over the connection."""
    kind = random.choice(KINDS)
    method, path = random.choice(routes_of(kind, "client:stop-1"))
    body = mutated(kind, random)[:4_000]
    head = f"{method} {path} HTTP/1.1\r\nHost: oms\r\nAuthorization: {_BASIC}\r\nContent-Type: application/json\r\n"
    if random.random() < 0.3:
        return f"{head}Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def broken(request: bytes, random: Random) -> bytes:
    """The request with up to three things done to its bytes, mostly those of the head."""
    head_end = request.index(b"\r\n\r\n") + 4
    for _ in range(random.choice((1, 1, 2, 3))):
        place = random.randrange(min(len(request), head_end + 10))
        junk = random.choice((random.randbytes(1), b"\r\n", b"\n", b"\0", b" ", b":", b"\r\n ", b"\xff", b"A" * 9_000))
        request = random.choice(
            (
                request[:place] + junk + request[place:],
                request[:place] + request[place + random.randrange(1, 12) :],
                request[:place] + request[place + 1 : place + 2] + request[place : place + 1] + request[place + 2 :],
                request[:place],
                request[:place] + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n" + request[place:],
                request.replace(b"\r\nHost", b"\r\nX: y" * 150 + b"\r\nHost"),
                request.replace(b"Content-Length: ", random.choice((b"Content-Length: -", b"Content-Length: 0x"))),
                request.replace(b"HTTP/1.1", random.choice((b"HTTP/2.0", b"HTTP/9.9", b"HTTP/1.0", b"HTP/1.1", b""))),
            )
        )
    return request


def exchanged(oms: Worker, request: bytes) -> bytes:
    """Send bytes; return all that comes until the server closes the connection."""
    answer = b""
    with socket.create_connection(("127.0.0.1", oms.port), timeout=20) as connection:
        try:
            connection.sendall(request)
            while chunk := connection.recv(65_536):
                answer += chunk
        except (ConnectionResetError, BrokenPipeError):
            # Closed by the server while there was more to send.
            pass
    return answer


def test_mutated_raw_requests(oms: Worker) -> None:
    """Heads, lengths and chunks that are broken: each connection ends, with answers that are HTTP."""
    random = Random(SEED)
    requests = [broken(valid_request(random), random) + _NEXT for _ in range(RAW_REQUESTS)]
    statuses: Counter[int] = Counter()
    with ThreadPoolExecutor(50) as pool:
        for request, answer in zip(requests, pool.map(lambda sent: exchanged(oms, sent), requests), strict=True):
            assert not answer or answer.startswith(b"HTTP/1."), (request[:500], answer[:200])
            got = [int(status) for status in _STATUS.findall(answer)]
            assert all(200 <= status < 500 for status in got), (request[:500], answer)
            assert b"INTERNAL_ERROR" not in answer, (request[:500], answer)
            statuses.update(got[:1])
    assert statuses[400] > RAW_REQUESTS / 5, statuses
    assert sum(statuses.values()) > RAW_REQUESTS * 0.9, statuses
