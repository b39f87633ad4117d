"""AsyncAPI 3.0 of the topics and streams, from the types their values are decoded as."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

from msgspec import Struct

from forkast_streams.api_description.answers import BookChange, BookSnapshot
from forkast_streams.api_description.commands import COMMANDS
from forkast_streams.api_description.fields import ID, JsonSchema
from forkast_streams.api_description.openapi import ref, schemas_of
from forkast_streams.record_signatures import SIGNATURE_HEADER, STRAY_HEADER
from forkast_streams.topics import ORDERS_DEAD, ORDERS_EXCHANGE, ORDERS_NEW, PARTITIONS_DEFAULT, TOPIC_CONFIGS
from forkast_streams.wire_events import OrderData, TradeData, WireEvent

EVENTS: tuple[type[Struct], ...] = get_args(WireEvent)

_KEY = {"type": "string", "description": "The symbolId as text; Kafka's default partitioner places the record."}
# Fields that are on the wire and that no reader of ours decodes, because the envelope has them.
_UNREAD_FIELDS: dict[type[Struct], JsonSchema] = {OrderData: {"symbolId": ID}, TradeData: {"symbolId": ID}}
_TEXT = {"type": "string"}
_DEAD_HEADERS = {
    "reason": {"type": "string", "description": "A stable code, such as INVALID_JSON."},
    "message": {"type": "string", "description": "A sentence for people."},
    "topic": _TEXT,
    "partition": _TEXT,
    "offset": {"type": "string", "description": "With topic and partition the refused record's place."},
    "timestamp": {"type": "string", "description": "When the log took it, in milliseconds."},
}
_COMMAND_HEADERS = {
    SIGNATURE_HEADER: {
        "type": "string",
        "pattern": "^[a-z0-9-]{1,64} [1-9][0-9]{0,14} [0-9a-f]{64}$",
        "description": "Key id, time of signing in milliseconds, HMAC-SHA256; see docs/security.md.",
    },
    STRAY_HEADER: {"type": "string", "description": "Set by engines only: where a misplaced record was found."},
}


def asyncapi(title: str, version: str) -> dict[str, Any]:
    """The document. The application it describes is the exchange: it receives commands and sends the rest."""
    kinds: tuple[type[Struct], ...] = (*COMMANDS, *EVENTS, BookSnapshot, BookChange)
    messages: dict[str, Any] = {kind.__name__: _message(kind) for kind in kinds}
    messages["DeadLetter"] = {
        "summary": "A record of orders.new that is no command, byte for byte.",
        "contentType": "application/octet-stream",
        "headers": {"type": "object", "properties": _DEAD_HEADERS, "required": list(_DEAD_HEADERS)},
        "payload": {},
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": title,
            "version": version,
            "description": "Topics and streams; docs/wire.md says in which order what happens.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "channels": _channels(),
        "operations": {
            "receiveCommand": _operation("receive", "commands", "Commands in the order of the log."),
            "sendEvent": _operation("send", "events", "What became of each command, in sequence per symbol."),
            "sendDeadLetter": _operation("send", "deadLetters", "Records that are no commands."),
            "sendBook": _operation("send", "bookStream", "The book, then its changes."),
        },
        "components": {"messages": messages, "schemas": _schemas()},
    }


def _channels() -> dict[str, Any]:
    book = _channel(
        "/order-book/{symbolId}/stream", (BookSnapshot.__name__, BookChange.__name__), "Server-sent events."
    )
    book["parameters"] = {"symbolId": {"description": "The symbol's id."}}
    return {
        "commands": _topic(ORDERS_NEW, _names(COMMANDS), "What the exchange is asked to do."),
        "events": _topic(ORDERS_EXCHANGE, _names(EVENTS), "What happened."),
        "deadLetters": _topic(ORDERS_DEAD, ["DeadLetter"], "What could not be taken as a command."),
        "bookStream": book,
    }


def _channel(address: str, messages: Iterable[str], description: str) -> dict[str, Any]:
    return {
        "address": address,
        "description": description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
    }


def _topic(name: str, messages: Iterable[str], description: str) -> dict[str, Any]:
    config = TOPIC_CONFIGS[name]
    topic = {"retention.ms": int(config["retention.ms"]), "retention.bytes": int(config["retention.bytes"])}
    kafka = {"topic": name, "partitions": PARTITIONS_DEFAULT, "topicConfiguration": topic, "bindingVersion": "0.5.0"}
    return _channel(name, messages, description) | {"bindings": {"kafka": kafka}}


def _operation(action: str, channel: str, summary: str) -> dict[str, Any]:
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}


def _message(kind: type[Struct]) -> dict[str, Any]:
    message: dict[str, Any] = {"summary": (kind.__doc__ or "").partition("\n")[0], "payload": ref(kind)}
    if kind in COMMANDS:
        message["headers"] = {"type": "object", "properties": _COMMAND_HEADERS}
    if kind in (*COMMANDS, *EVENTS):
        message["bindings"] = {"kafka": {"key": _KEY, "bindingVersion": "0.5.0"}}
    return message


def _names(kinds: Iterable[type[Struct]]) -> list[str]:
    return [kind.__name__ for kind in kinds]


def _schemas() -> dict[str, JsonSchema]:
    schemas = schemas_of((*EVENTS, BookSnapshot, BookChange), COMMANDS)
    for kind, fields in _UNREAD_FIELDS.items():
        schemas[kind.__name__]["properties"] |= fields
    return schemas
