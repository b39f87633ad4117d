"""The descriptions against the code: the routes that are registered, the types that are decoded, the codes in use."""

from __future__ import annotations

import ast
import contextlib
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import jsonschema_rs
import msgspec
import pytest
from aiohttp import web

from forkast_streams.api_description import commands, keeper, oms, order_answers
from forkast_streams.api_description.asyncapi import EVENTS, asyncapi
from forkast_streams.api_description.commands import COMMANDS
from forkast_streams.api_description.openapi import openapi
from forkast_streams.api_description.routes import Route
from forkast_streams.codec import commands as codec
from forkast_streams.codec.wire_command import WireCommand
from forkast_streams.config import Settings
from forkast_streams.engine.commands import SELF_TRADE_PREVENTIONS, TIMES_IN_FORCE, TYPES
from forkast_streams.engine.define_symbol import DefineSymbol
from forkast_streams.engine.symbols import STATUSES, Symbol
from forkast_streams.engine_partition import EnginePartition
from forkast_streams.errors import ApiError, InvalidRecord
from forkast_streams.json_bodies import decode_body
from forkast_streams.limits import EXPIRES_AT_MS_MAX
from forkast_streams.orders.requests import PlaceOrder, decode_timeout, new_order
from forkast_streams.roles import create_app
from tests.support.flows import PARTITIONS, home_of, mixed_flow, records_of
from web.errors import http_error

ROOT = Path(__file__).parents[2]
ROUTES = {"oms": oms.ROUTES, "keeper": keeper.ROUTES}
DOCUMENTS = {role: openapi(role, "1", routes) for role, routes in ROUTES.items()} | {"topics": asyncapi("topics", "1")}
# What is answered before a route is found, or by no fault of the request.
OF_NO_ROUTE = {(405, "METHOD_NOT_ALLOWED"), (431, "HEADERS_TOO_LARGE"), (500, "INTERNAL_ERROR")}


@pytest.mark.parametrize("role", ROUTES)
def test_the_routes_that_are_registered_are_those_described(role: str, tmp_path: Path) -> None:
    """A route that nobody described fails here, and so does a description that nobody took away with its route."""
    assert registered_in(role, tmp_path, heads=False) == {(route.method, route.path) for route in ROUTES[role]}


@pytest.mark.parametrize("role", ROUTES)
def test_what_answers_get_answers_head_but_for_streams(role: str, tmp_path: Path) -> None:
    """The answer to HEAD would last as long as a stream, and the connection would serve nothing more."""
    with_end = {
        ("HEAD", route.path)
        for route in ROUTES[role]
        if route.method == "GET" and all(answer.media != "text/event-stream" for answer in route.answers)
    }
    assert registered_in(role, tmp_path, heads=True) == with_end


def registered_in(role: str, data_dir: Path, *, heads: bool) -> set[tuple[str, str]]:
    """Methods and paths of the routes of a role: those for HEAD, or the others."""
    app = create_app(role, Settings(data_dir=data_dir))
    return {
        (route.method, route.resource.canonical)
        for route in app.web.web_app.router.routes()
        if route.resource is not None and (route.method == "HEAD") == heads
    }


@pytest.mark.parametrize("role", ROUTES)
def test_each_route_is_described_once_and_whole(role: str) -> None:
    routes = ROUTES[role]
    names = [route.name for route in routes]
    assert len(set(names)) == len(names)
    for route in routes:
        assert route.answers
        assert {p.name for p in route.parameters if p.place == "path"} == {
            part[1:-1] for part in route.path.split("/") if part.startswith("{")
        }
        assert all(link in names for answer in route.answers for link in answer.links)


def walk(node: Any) -> Iterator[dict[str, Any]]:
    """All objects of a document."""
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from walk(child)
    elif isinstance(node, list):
        for child in node:
            yield from walk(child)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_reference_leads_somewhere(name: str) -> None:
    document = json.loads(msgspec.json.encode(DOCUMENTS[name]))
    found = 0
    for node in walk(document):
        if isinstance(node.get("$ref"), str):
            target: Any = document
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part.replace("~1", "/")]
            found += 1
    assert found > 10
    used = json.dumps(document)
    assert all(f"/schemas/{kind}" in used for kind in document["components"]["schemas"])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_field_is_left_open(name: str) -> None:
    """A field that is decoded as anything, because it is checked behind the decoder, is described all the same."""
    for kind, schema in DOCUMENTS[name]["components"]["schemas"].items():
        for field, known in schema.get("properties", {}).items():
            assert known.keys() - {"default", "description"}, f"{kind}.{field}"


@pytest.mark.parametrize(
    ("kind", "field", "least", "most"),
    [("PlaceOrder", "expiresAt", 1, EXPIRES_AT_MS_MAX), ("CancelAfterBody", "timeout", 0, 86_400)],
)
def test_bounds_of_numbers_are_those_that_are_taken(kind: str, field: str, least: int, most: int) -> None:
    schema = DOCUMENTS["oms"]["components"]["schemas"][kind]["properties"][field]
    assert (schema["minimum"], schema["maximum"]) == (least, most)
    symbol = Symbol(DefineSymbol(1, "A", Decimal("0.01"), Decimal("0.01"), "TRADING", command_id=None))
    for value in (least - 1, least, most, most + 1):
        try:
            if kind == "PlaceOrder":
                body = {"symbolId": 1, "type": "LIMIT", "side": "BUY", "quantity": 1, "price": 1, "expiresAt": value}
                new_order(decode_body(PlaceOrder, msgspec.json.encode(body)), str(UUID(int=1)), 1, symbol)
            else:
                decode_timeout(msgspec.json.encode({"timeout": value}))
            is_taken = True
        except ApiError:
            is_taken = False
        assert is_taken == (least <= value <= most)


def codes_in_use() -> set[tuple[int, str]]:
    """Status and code of every error that is raised with both written out."""
    used = set()
    for file in [*(ROOT / "web").rglob("*.py"), *(ROOT / "forkast_streams").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "ApiError"):
                continue
            first = [arg.value for arg in node.args[:2] if isinstance(arg, ast.Constant)]
            if len(first) == 2:
                used.add((int(str(first[0])), str(first[1])))
    return used


def described(routes: tuple[Route, ...]) -> set[tuple[int, str]]:
    return {(status, code) for route in routes for status, codes in route.all_errors().items() for code in codes}


def test_the_codes_in_use_are_described_and_documented() -> None:
    used = codes_in_use()
    assert len(used) > 20
    all_described = described(oms.ROUTES) | described(keeper.ROUTES)
    assert used - OF_NO_ROUTE <= all_described
    documented = (ROOT / "docs" / "api.md").read_text() + (ROOT / "docs" / "wire.md").read_text()
    of_aiohttp = {(417, http_error(web.HTTPExpectationFailed()).code)}
    assert [code for _, code in sorted(used | all_described | of_aiohttp) if f"`{code}`" not in documented] == []


def test_what_may_be_a_repeat_is_described_with_its_header() -> None:
    """The answers that say which order was placed; the results of a batch do not tell."""
    found = {
        (method, path, status)
        for path, operations in DOCUMENTS["oms"]["paths"].items()
        for method, operation in operations.items()
        for status, response in operation["responses"].items()
        if "Idempotent-Replay" in response["headers"]
    }
    assert found == {("post", "/orders", "201"), ("post", "/orders/{id}/replace", "202")}


def test_examples_are_what_they_are_examples_of() -> None:
    for role in ROUTES:
        schemas = DOCUMENTS[role]["components"]["schemas"]
        for route in ROUTES[role]:
            if route.body is not None:
                assert route.example is not None
                validate(route.example, route.body.__name__, schemas)
                msgspec.json.decode(msgspec.json.encode(route.example), type=route.body)


def validate(value: Any, name: str, schemas: dict[str, Any]) -> None:
    document = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}
    jsonschema_rs.validator_for(document).validate(value)


def test_the_words_are_the_engines() -> None:
    assert set(get_args(order_answers.OrderType)) == set(TYPES)
    assert set(get_args(order_answers.TimeInForce)) == set(TIMES_IN_FORCE)
    assert set(get_args(commands.SelfTradePrevention)) == set(SELF_TRADE_PREVENTIONS)
    symbol = DOCUMENTS["topics"]["components"]["schemas"]["SymbolCommand"]
    assert set(symbol["properties"]["status"]["enum"]) == set(STATUSES)


def test_the_codec_decodes_what_is_described_and_nothing_else() -> None:
    """The fields of all commands together are those of the one type by which they are decoded."""
    schemas = DOCUMENTS["topics"]["components"]["schemas"]
    fields = {field for kind in COMMANDS for field in schemas[kind.__name__]["properties"]}
    assert fields == set(WireCommand.__struct_encode_fields__)
    names = {name for kind in COMMANDS for name in schemas[kind.__name__]["properties"]["command"].get("enum", [])}
    assert names == set(codec._DECODERS)


@pytest.mark.parametrize("kind", COMMANDS, ids=lambda kind: kind.__name__)
def test_a_command_needs_what_is_described_as_required(kind: type[msgspec.Struct]) -> None:
    """With the required fields alone it is decoded; without any one of them it is not, or it is another command."""
    schema = DOCUMENTS["topics"]["components"]["schemas"][kind.__name__]
    values = {
        "id": "123e4567-e89b-12d3-a456-426614174000",
        "orderId": "123e4567-e89b-12d3-a456-426614174001",
        "timeout": 1000,
        "symbol": "AAPL",
    }
    whole = {
        name: values.get(name) or (known["enum"][0] if "enum" in known else 1)
        for name, known in schema["properties"].items()
        if name in schema["required"]
    }
    validate(whole, kind.__name__, DOCUMENTS["topics"]["components"]["schemas"])
    command = codec.decode_command(msgspec.json.encode(whole))
    for name in schema["required"]:
        part = {key: value for key, value in whole.items() if key != name}
        with contextlib.suppress(InvalidRecord):
            assert type(codec.decode_command(msgspec.json.encode(part))) is not type(command) or name == "command"
        with pytest.raises(jsonschema_rs.ValidationError):
            validate(part, kind.__name__, DOCUMENTS["topics"]["components"]["schemas"])


def test_what_the_engine_writes_is_described() -> None:
    """Each event of a long flow fits the schema of its type and has no field that the schema does not know."""
    schemas = DOCUMENTS["topics"]["components"]["schemas"]
    names = {schemas[kind.__name__]["properties"]["type"]["enum"][0]: kind.__name__ for kind in EVENTS}
    flow = list(mixed_flow(3_000, seed=5))
    command_names = {None: "NewOrderCommand"} | {
        schemas[kind.__name__]["properties"]["command"]["enum"][0]: kind.__name__ for kind in COMMANDS[1:]
    }
    for command in flow:
        validate(command, command_names[command.get("command")], schemas)
    outputs = EnginePartition(home_of(1), PARTITIONS).process(records_of(flow))
    seen = set()
    for output in outputs.events:
        event = json.loads(output.value or b"")
        name = names[event["type"]]
        seen.add(name)
        validate(event, name, schemas)
        assert event.keys() == schemas[name]["properties"].keys()
        data = schemas[name]["properties"]["data"]["$ref"].rpartition("/")[2]
        assert event["data"].keys() <= schemas[data]["properties"].keys(), name
    assert seen == set(names.values())
