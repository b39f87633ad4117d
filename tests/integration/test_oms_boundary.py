"""The HTTP boundary of the OMS on real servers: what hangs, floods, drips, or is no HTTP at all."""

from __future__ import annotations

import base64
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from forkast_streams.devstack import Stack
from forkast_streams.limits import BODY_READ_S_MAX
from tests.integration.boundary import HANG_S_MAX, at_once, hanging, parsed, raw, received, timed
from tests.integration.exchange import Worker, wait_until
from tests.integration.test_oms import call, changed, env, place, require_newest_first  # noqa: F401 - env is a fixture

CANARY = "canary-7d1f"
ALICE = base64.b64encode(b"alice@example.com:alice@example.com")
AUTHORIZED = b"Host: x\r\nAuthorization: Basic " + ALICE + b"\r\nContent-Type: application/json\r\n"
EVERY_ANSWER_HAS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Server": "forkast",
    "Content-Type": "application/json; charset=utf-8",
}


@pytest.fixture(scope="module")
def oms(env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:  # noqa: F811
    """A running OMS that takes any number of wrong passwords."""
    unlimited = {"FORKAST_RATE_LOGIN_FAILURES": "0", "FORKAST_RATE_LOGIN_FAILURES_USER": "0"}
    worker = Worker("oms", env | unlimited, tmp_path_factory.mktemp("boundary") / "oms")
    worker.start().wait_ready()
    yield worker
    worker.end()


def test_hanging_postgres_holds_no_order(oms: Worker, stack: Stack) -> None:
    """With credential and symbols known orders are taken as ever; what needs the database says so soon."""
    place(oms, user="hank")
    with hanging(stack, "postgres"):
        until = time.monotonic() + 20
        while time.monotonic() < until:
            status, body, seconds = timed(oms, "POST", "/orders", changed(), user="hank")
            assert (status, seconds < 1.0) == (201, True), (body, seconds)
        for user in ("hank", "grace"):
            for status, body, seconds in at_once(20, oms, "GET", "/orders", user=user):
                assert (status, body["error"]["code"]) == (503, "UNAVAILABLE")
                assert seconds < HANG_S_MAX
    wait_until(lambda: call(oms, "GET", "/orders", user="hank")[0] == 200, "the list being back", within_s=10)
    assert {status for status, _, _ in at_once(20, oms, "GET", "/orders", user="grace")} == {200}


def test_first_moments_of_a_hang_are_bounded_too(oms: Worker, stack: Stack) -> None:
    """Nothing has noticed yet that Postgres hangs."""
    place(oms, user="hank")
    with hanging(stack, "postgres"):
        assert all(seconds < HANG_S_MAX for _, _, seconds in at_once(40, oms, "GET", "/orders", user="hank"))
        assert timed(oms, "POST", "/orders", changed(), user="hank")[0] == 201
    wait_until(lambda: call(oms, "GET", "/orders", user="hank")[0] == 200, "the list being back", within_s=10)


def test_many_first_requests_of_one_user_are_all_served(oms: Worker) -> None:
    """They wait for one check of the password."""
    assert {status for status, _, _ in at_once(120, oms, "GET", "/orders", user="frank")} == {200}


def test_hanging_redis_holds_no_order(oms: Worker, stack: Stack) -> None:
    """Orders are taken and read here; and Redis learns of them when it is back."""
    place(oms, user="irene")
    with hanging(stack, "redis"):
        placed = []
        for _ in range(50):
            status, body, seconds = timed(oms, "POST", "/orders", changed(), user="irene")
            assert (status, seconds < 0.5) == (201, True), (body, seconds)
            placed.append(body["orderId"])
        for _ in range(3):
            status, body, seconds = timed(oms, "GET", "/orders?limit=50", user="irene")
            assert (status, seconds < 1.0) == (200, True)
            require_newest_first(body["orders"], placed)
    redis = stack.server("redis")
    assert redis.answers()


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        (b"/orders", b"Content-Length: 100\r\n\r\n{"),
        (b"/orders", b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"),
        (b"/api-keys", b"Content-Length: 100\r\n\r\n"),
    ],
)
def test_body_that_does_not_arrive_is_not_waited_for(oms: Worker, path: bytes, sent: bytes) -> None:
    """408 in the one format of errors, and the connection is closed."""
    start = time.monotonic()
    status, headers, body = parsed(raw(oms, b"POST " + path + b" HTTP/1.1\r\n" + AUTHORIZED + sent))
    assert BODY_READ_S_MAX <= time.monotonic() - start < HANG_S_MAX
    assert (status, body["error"]["code"]) == (408, "BODY_TIMEOUT")
    assert EVERY_ANSWER_HAS.items() <= headers.items()


def test_refused_request_does_not_wait_for_its_body(oms: Worker) -> None:
    """401 comes at once, and what does not follow holds the connection only for moments."""
    start = time.monotonic()
    assert parsed(raw(oms, b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"))[0] == 401
    assert time.monotonic() - start < 5.0


UNPARSABLE = {
    "no HTTP": b"canary-7d1f\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03canary-7d1f",
    "unknown version": b"GET /canary-7d1f HTTP/9.9\r\n\r\n",
    "bad header name": b"GET / HTTP/1.1\r\nHost: x\r\ncanary 7d1f: canary-7d1f\r\n\r\n",
    "NUL in a header": b"GET / HTTP/1.1\r\nHost: x\r\nX-A: canary-7d1f\x00\r\n\r\n",
    "two lengths": b"POST /orders HTTP/1.1\r\nHost: canary-7d1f\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "length and chunks": b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "length is no number": b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: canary-7d1f\r\n\r\n",
    "folded header": b"GET / HTTP/1.1\r\nHost: x\r\nX-A: a\r\n canary-7d1f\r\n\r\n",
    "bad URL": b"GET http://[canary-7d1f/ HTTP/1.1\r\nHost: x\r\n\r\n",
}
TOO_LARGE = {
    "long header": b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + b"canary-7d1f" * 900 + b"\r\n\r\n",
    "long header name": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"canary-7d1f" * 900 + b": a\r\n\r\n",
    "long path": b"GET /" + b"canary-7d1f" * 900 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-A: canary-7d1f\r\n" * 1_000 + b"\r\n",
    "endless header": b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + b"canary-7d1f" * 9_000,
}


@pytest.mark.parametrize("sent", (UNPARSABLE | TOO_LARGE).values(), ids=(UNPARSABLE | TOO_LARGE).keys())
def test_what_is_no_http_gets_our_answer(oms: Worker, sent: bytes) -> None:
    """Our format and headers; not a word of the input, nothing of what runs here."""
    answer = raw(oms, sent)
    status, headers, body = parsed(answer)
    expected = (431, "HEADERS_TOO_LARGE") if sent in TOO_LARGE.values() else (400, "MALFORMED_REQUEST")
    assert (status, body["error"]["code"]) == expected
    assert EVERY_ANSWER_HAS.items() <= headers.items()
    for word in (b"canary", b"aiohttp", b"Python", b"Traceback"):
        assert word not in answer


def test_broken_chunks_are_answered_in_our_format(oms: Worker) -> None:
    """What breaks in the middle of a body is the client's fault, not ours."""
    head = b"POST /orders HTTP/1.1\r\n" + AUTHORIZED + b"Transfer-Encoding: chunked\r\n\r\n"
    status, headers, body = parsed(raw(oms, head, b'5\r\n{"a":\r\n', b"canary-7d1f\r\n"))
    assert (status, body["error"]["code"]) == (400, "MALFORMED_REQUEST")
    assert EVERY_ANSWER_HAS.items() <= headers.items()


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/health", {"user": None}, 200),
        ("GET", "/ready", {"user": None}, 200),
        ("GET", "/symbols", {}, 200),
        ("GET", "/orders", {}, 200),
        ("GET", "/api-keys", {}, 200),
        ("GET", "/orders", {"user": None}, 401),
        ("GET", "/orders/00000000-0000-0000-0000-000000000000", {}, 404),
        ("GET", "/nowhere", {}, 404),
        ("GET", "/table/", {}, 404),
        ("GET", "/graph", {}, 404),
        ("PUT", "/orders", {}, 405),
        ("TRACE", "/orders", {}, 405),
        ("PUT", "/health", {"user": None}, 405),
        ("POST", "/orders", {"body": b"", "content_type": "text/plain"}, 415),
        ("GET", "/orders", {"headers": {"Expect": "miracles"}}, 417),
    ],
)
def test_every_answer_has_the_headers(
    oms: Worker, method: str, path: str, options: dict[str, Any], status: int
) -> None:
    """Every route and every error; no CORS for anybody."""
    answered, body, headers = call(oms, method, path, **options)
    assert answered == status
    assert EVERY_ANSWER_HAS.items() <= headers.items()
    assert not [name for name in headers if name.lower().startswith("access-control")]
    if status == 405:
        assert headers["Allow"]
    if status >= 400:
        assert set(body) == {"error"}


@pytest.mark.parametrize(
    "token",
    [
        b"!!!",
        b"YWxpY2U",
        base64.b64encode(b"alice@example.com"),
        base64.b64encode(b":alice@example.com"),
        base64.b64encode(b"alice@example.com:"),
        base64.b64encode(b"alice@example.com:\xff"),
        base64.b64encode(b"alice@example.com:" + b"x" * 73),
        base64.b64encode("\u0430lice@example.com:alice@example.com".encode()),
        base64.b64encode(b"alice@example.com :alice@example.com"),
        base64.b64encode(b"alice@example.com\0:alice@example.com"),
        b"A" * 5_000,
    ],
)
def test_bad_credentials_get_one_answer(oms: Worker, token: bytes) -> None:
    """The same as a wrong password, whatever is wrong."""
    head = b"GET /orders HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Basic " + token + b"\r\n\r\n"
    status, _, body = parsed(raw(oms, head))
    assert status == 401
    assert body == call(oms, "GET", "/orders", user=None)[1]


def test_time_does_not_tell_which_emails_have_an_account(oms: Worker) -> None:
    """Medians of a wrong password and of an unknown user are the same within a tenth, in one of five measurements."""
    call(oms, "GET", "/symbols", user="alice")
    differences = []
    for _ in range(5):
        seconds: dict[str, list[float]] = {"alice": [], "nobody": []}
        for number in range(50):
            for user, taken in seconds.items():
                status, _, passed = timed(oms, "GET", "/symbols", user=user, password=f"wrong {number}")
                assert status == 401
                taken.append(passed)
        known, unknown = (statistics.median(taken) for taken in seconds.values())
        differences.append(abs(known - unknown) / max(known, unknown))
        if differences[-1] < 0.1:
            return
    raise AssertionError(f"they differ: {differences}")


def test_flood_of_wrong_passwords_leaves_others_alone(oms: Worker) -> None:
    """While 40 clients guess as fast as they can, a known user is served, and a new one gets in."""
    with ThreadPoolExecutor(40) as pool:
        guesses = [pool.submit(timed, oms, "GET", "/symbols", user="alice", password=f"g{n}") for n in range(400)]
        known = sorted(timed(oms, "GET", "/symbols", user="bob")[2] for _ in range(30))
        assert timed(oms, "GET", "/symbols", user="jack")[0] == 200
        assert {guess.result()[0] for guess in guesses} == {401}
    assert known[15] < 0.25


def test_failed_logins_are_in_the_log_and_passwords_are_not(oms: Worker) -> None:
    """With user, address and route, on one line, however the name looks."""
    name = f"{CANARY}\r\nERROR forged\u2028@example.com"
    token = base64.b64encode(f"{name}:{CANARY}-secret".encode())
    head = b"GET /orders?a=b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Basic "

    def lines() -> list[str]:
        return [line for line in oms.log.read_text().splitlines() if CANARY in line]

    # A flood just before fills what may be logged at once.
    wait_until(lambda: parsed(raw(oms, head + token + b"\r\n\r\n"))[0] == 401 and bool(lines()), "a line of the log")
    for line in lines():
        assert f"user={json.dumps(name)} address=127.0.0.1 route=GET /orders reason=" in line
    assert f"{CANARY}-secret" not in oms.log.read_text()
    assert token.decode() not in oms.log.read_text()
    assert ALICE.decode() not in oms.log.read_text()


def test_idle_and_dripping_connections_are_closed_and_a_fresh_client_is_served(oms: Worker) -> None:
    """2,000 connections that send nothing, and one that never ends its headers: gone within 15 s."""
    start = time.monotonic()
    idle = [socket.create_connection(("127.0.0.1", oms.port), timeout=20) for _ in range(2_000)]
    opened = time.monotonic()
    dripping = socket.create_connection(("127.0.0.1", oms.port), timeout=0.2)
    dripping.sendall(b"GET /orders HTTP/1.1\r\nHost: x\r\n")
    try:
        status, _, seconds = timed(oms, "POST", "/orders", changed())
        assert (status, seconds < 2.0) == (201, True)
        while (closed_after := time.monotonic() - opened) < 20:
            try:
                dripping.sendall(b"X-A: b\r\n")
                if dripping.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert closed_after < 15.0, opened - start
        assert all(received(connection) == b"" for connection in idle)
        assert time.monotonic() - opened < 15.0
    finally:
        for connection in [*idle, dripping]:
            connection.close()


def test_client_that_does_not_read_its_answers_is_cut(oms: Worker) -> None:
    """What it asked for does not stay in memory."""
    with socket.socket() as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        greedy.settimeout(1.0)
        greedy.connect(("127.0.0.1", oms.port))
        request = b"GET /symbols HTTP/1.1\r\n" + AUTHORIZED + b"\r\n"
        start = time.monotonic()
        with pytest.raises(OSError) as caught:  # noqa: PT012 - it goes on until it is cut
            while time.monotonic() - start < 30.0:
                try:
                    greedy.sendall(request * 32)
                except TimeoutError:
                    continue
        assert isinstance(caught.value, (ConnectionResetError, BrokenPipeError))
        assert time.monotonic() - start < 25.0


def run_worker(env: dict[str, str], folder: Path, *args: str) -> subprocess.CompletedProcess[str]:  # noqa: F811
    """Run an OMS that is to refuse its start."""
    command = [sys.executable, "-m", "forkast_streams", "worker", "oms", "--data-dir", str(folder), *args]
    return subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=60, check=False)


def test_demo_users_are_not_served_by_accident(env: dict[str, str], tmp_path: Path) -> None:  # noqa: F811
    """Everybody knows their passwords."""
    ended = run_worker(env | {"FORKAST_DEMO_USERS": ""}, tmp_path)
    assert ended.returncode == 1
    assert "alice@example.com" in ended.stderr
    assert "FORKAST_DEMO_USERS=1" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_passwords_cross_no_network_in_plain_text(env: dict[str, str], tmp_path: Path) -> None:  # noqa: F811
    """Off this machine there is a proxy that ends TLS, or no start."""
    ended = run_worker(env | {"FORKAST_DEMO_USERS": "1"}, tmp_path, "--host", "0.0.0.0")
    assert ended.returncode == 1
    assert "FORKAST_BEHIND_TLS_PROXY=1" in ended.stderr
    assert "Traceback" not in ended.stderr
