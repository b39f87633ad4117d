"""The descriptions against the running service: every answer is one that they promise, whatever is sent."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from forkast_streams.config import Settings
from forkast_streams.reference_data import publish_symbols
from forkast_streams.storage.postgres import prepare_database
from forkast_streams.topics import ensure_topics
from tests.integration.exchange import Worker, wait_until

USER = "alice@example.com"
# Thousands of requests from one address and user are what this test is about.
_NO_LIMITS = {f"FORKAST_RATE_{name}": "0" for name in ("USER", "ADDRESS", "LOGIN_FAILURES", "LOGIN_FAILURES_USER")}
_CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "ensure_resource_availability",
    "ignored_auth",
)
_CONFIG = (
    """
[checks]
enabled = false
"""
    + "".join(f"{name}.enabled = true\n" for name in _CHECKS)
    + """
negative_data_rejection.expected-statuses = ["400", "401", "403", "404", "405", "409", "413", "415", "429", "5xx"]
# Each order of a batch has its own answer, and the batch is taken whatever is wrong with some of them.
[[operations]]
include-operation-id = "placeOrders"
checks.negative_data_rejection.enabled = false
"""
)
# Not checked: whether all that fits the schemas is taken (a price has to be on its symbol's grid, which no schema
# tells), and whether what was deleted is gone (an order that was cancelled can be read for ever).


@pytest.fixture(scope="module")
def workers(stack_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Worker]]:
    """The roles that answer requests, and the engine, which makes books of symbols."""
    asyncio.run(ensure_topics(stack_env["KAFKA_BROKERS"].split(",")))
    asyncio.run(prepare_database(stack_env["DATABASE_URL"], demo_users=True))
    asyncio.run(publish_symbols(Settings.from_env(stack_env)))
    folder = tmp_path_factory.mktemp("openapi")
    workers = {role: Worker(role, stack_env | _NO_LIMITS, folder / role) for role in ("engine", "keeper", "oms")}
    try:
        for worker in workers.values():
            worker.start()
        for worker in workers.values():
            worker.wait_ready()
        wait_until(lambda: get(workers["keeper"], "/order-book/1")[0] == 200, "the book of symbol 1")
        yield workers
    finally:
        for worker in workers.values():
            worker.end()


def get(worker: Worker, path: str, *, user: str | None = USER, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of an answer."""
    request = urllib.request.Request(f"http://127.0.0.1:{worker.port}{path}", headers=headers)
    if user is not None:
        request.add_header("Authorization", f"Basic {base64.b64encode(f'{user}:{user}'.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=15) as response:
            return response.status, response.read(), dict(response.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)


@pytest.mark.parametrize(("role", "examples"), [("oms", 8), ("keeper", 25)])
def test_answers_are_as_described(workers: dict[str, Worker], role: str, examples: int, tmp_path: Path) -> None:
    """Valid and invalid requests of every route: no 5xx, no status, header, type or code that is not described."""
    url = f"http://127.0.0.1:{workers[role].port}"
    config = tmp_path / "schemathesis.toml"
    config.write_text(_CONFIG)
    command = [sys.executable, "-m", "schemathesis.cli", f"--config-file={config}", "run", f"{url}/openapi.json"]
    command += [f"--auth={USER}:{USER}"]
    command += [f"--max-examples={examples}", "--seed=7", "--request-timeout=10"]
    # The stream has no end; it is looked at below.
    command += ["--exclude-operation-id=streamBook", "--suppress-health-check=all", "--continue-on-failure"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-2_000:]
    cases = re.search(r"([0-9]+) generated", done.stdout)
    assert cases is not None
    assert int(cases[1]) > 200, done.stdout[-2_000:]
    workers[role].check()


def events_of(worker: Worker, path: str, count: int) -> list[Any]:
    """The data of the first events of a stream."""
    request = urllib.request.Request(f"http://127.0.0.1:{worker.port}{path}")
    request.add_header("Authorization", f"Basic {base64.b64encode(f'{USER}:{USER}'.encode()).decode()}")
    events: list[Any] = []
    with contextlib.closing(urllib.request.urlopen(request, timeout=15)) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        while len(events) < count:
            line = response.readline()
            if line.startswith(b"data:"):
                events.append(json.loads(line[5:]))
            if len(events) == 1 and count > 1 and line == b"\n":
                place_order(worker)
    return events


_oms: list[Worker] = []


def place_order(_: Worker) -> None:
    """Let the book of symbol 1 change."""
    body = json.dumps({"symbolId": 1, "type": "LIMIT", "side": "BUY", "quantity": 1, "price": 1}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{_oms[0].port}/orders", data=body, method="POST")
    request.add_header("Authorization", f"Basic {base64.b64encode(f'{USER}:{USER}'.encode()).decode()}")
    request.add_header("Content-Type", "application/json")
    urllib.request.urlopen(request, timeout=15).close()


def test_the_stream_is_as_described(workers: dict[str, Worker]) -> None:
    _oms[:] = [workers["oms"]]
    schemas = json.loads(get(workers["keeper"], "/asyncapi.json")[1])["components"]["schemas"]
    events = events_of(workers["keeper"], "/order-book/1/stream", 2)
    assert [event["type"] for event in events] == ["snapshot", "change"]
    for event, name in zip(events, ("BookSnapshot", "BookChange"), strict=True):
        validate(event, name, schemas)
        assert event.keys() == schemas[name]["properties"].keys()


def validate(value: Any, name: str, schemas: dict[str, Any]) -> None:
    """Hold a value against a schema of a document."""
    document = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}
    jsonschema_rs.validator_for(document).validate(value)


@pytest.mark.parametrize("role", ["oms", "keeper"])
def test_the_page_loads_only_from_its_server(workers: dict[str, Worker], role: str) -> None:
    """Nobody has to log in to read it; its policy lets in nothing from elsewhere, and no script within the page."""
    status, page, headers = get(workers[role], "/docs", user=None)
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy.pop("img-src") == "'self' data:"
    assert set(policy.values()) == {"'self'", "'none'"}
    assert policy["default-src"] == "'none'"
    text = page.decode()
    assert not re.search(r"<script(?![^>]*\ssrc=)|\son[a-z]+=|<style|\sstyle=|//", text)
    files = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert len(files) == 4
    for file in files:
        for encoding in ("identity", "gzip"):
            status, body, headers = get(workers[role], f"/{file}", user=None, **{"Accept-Encoding": encoding})
            assert (status, len(body) > 100) == (200, True), file
            assert headers.get("Content-Encoding") == (None if encoding == "identity" else "gzip")
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert "script-src" not in headers["Content-Security-Policy"]


def test_only_the_descriptions_are_open(workers: dict[str, Worker]) -> None:
    for path in ("/openapi.json", "/asyncapi.json", "/docs"):
        assert get(workers["oms"], path, user=None)[0] == 200
    for path in ("/docs/../orders", "/docs/%2e%2e/orders", "/docs/..%2forders", "//orders", "/orders", "/docs/x/y"):
        assert get(workers["oms"], path, user=None)[0] in (401, 404), path
    assert get(workers["oms"], "/docs/nothing.js", user=None)[0] == 404
    assert get(workers["engine"], "/openapi.json", user=None)[0] == 404
