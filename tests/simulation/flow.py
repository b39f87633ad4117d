"""What the simulated world asks of the exchange: the generators of the other tests, mixed, with garbage in between."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from functools import cache
from random import Random
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, given, settings

from forkast_streams.engine_partition import STRAY_HEADER
from forkast_streams.records import Headers
from forkast_streams.topics import partition_for
from tests.property.command_streams import command_streams
from tests.support.flows import mixed_flow

Command = dict[str, Any]

_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_CORPUS_STREAMS = 60
# Simulated runs last some seconds.
_EXPIRES_MS_MAX = 6_000
# What every reader of events has known from the first version on.
_PLAIN_FIELDS = frozenset(
    [
        "command",
        "id",
        "orderId",
        "userId",
        "symbolId",
        "type",
        "side",
        "quantity",
        "price",
        "timeInForce",
        "clientOrderId",
        "commandId",
        "symbol",
        "tickSize",
        "lotSize",
        "status",
        "filledQuantity",
    ]
)
_PLAIN_VALUES = frozenset({None, "CANCEL", "AMEND", "SYMBOL", "LIMIT", "MARKET", "GTC", "IOC", "TRADING", "HALTED"})
_GARBAGE: list[tuple[bytes | None, bytes | None]] = [
    (b"1", b""),
    (b"1", None),
    (None, b'{"symbolId":1}'),
    (b"1", b"\xff\xfe"),
    (b"1", b'[{"symbolId":1}]'),
    (b"1", b'{"symbolId":1,"command":"NOPE"}'),
    (b"2", b'{"command":"CANCEL","symbolId":1,"orderId":"00000000-0000-0000-0000-000000000001","userId":1}'),
    (b"1", b"x" * 66_000),
    (b"404", b'{"command":"CANCEL","symbolId":404,"orderId":"00000000-0000-0000-0000-000000000001","userId":1}'),
]
_FORGED = (b"", b"nowhere", b"99:1", b"0:" + b"9" * 30, b"9" * 30 + b":0")


class Wish(NamedTuple):
    """A record that somebody wants in ``orders.new``; ``command`` is None when the value is none."""

    key: bytes | None
    value: bytes | None
    partition: int
    command: Command | None
    headers: Headers = ()


@cache
def corpus() -> list[list[Command]]:
    """Streams as Hypothesis draws them for the property tests, so that every kind of command they have is here, too."""
    streams: list[list[Command]] = []

    @settings(
        max_examples=_CORPUS_STREAMS,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(command_streams())
    def collect(stream: list[Command]) -> None:
        streams.append(stream)

    collect()
    return streams


def wishes(rng: Random, partitions: int, count: int, *, is_plain: bool) -> list[Wish]:
    """About ``count`` records for symbols that are spread over the partitions.

    Args:
        rng: decides what they are.
        partitions: of the topic.
        count: roughly how many.
        is_plain: only limit and market orders, cancels and amends.
    """
    symbols = _symbols(rng, partitions)
    flows: list[Iterator[Command]] = []
    for symbol_id in symbols:
        made = mixed_flow(count, seed=rng.getrandbits(32), symbol_id=symbol_id)
        if is_plain:
            flows.append(command for command in made if _is_plain(command))
        else:
            flows.append(made if rng.random() < 0.3 else _from_corpus(rng, symbol_id))
    found: list[Wish] = []
    while flows and len(found) < count:
        flow = rng.choice(flows)
        command = next(flow, None)
        if command is None:
            flows.remove(flow)
            continue
        symbol_id = command["symbolId"]
        key, home = str(symbol_id).encode(), partition_for(symbol_id, partitions)
        is_stray = rng.random() < 0.02
        partition = rng.randrange(partitions) if is_stray else home
        found.append(Wish(key, json.dumps(command).encode(), partition, command))
        if rng.random() < 0.02:
            key_of_garbage, value = rng.choice(_GARBAGE)
            found.append(Wish(key_of_garbage, value, rng.randrange(partitions), None))
        if rng.random() < 0.01:
            # As if an engine had forwarded it, from where or to where none can have done that.
            headers = ((STRAY_HEADER, rng.choice([*_FORGED, b"%d:1" % home])),)
            place = rng.choice([home, rng.randrange(partitions)])
            found.append(Wish(key, json.dumps(command).encode(), place, None, headers))
    return found


def _is_plain(command: Command) -> bool:
    kinds = {command.get(name) for name in ("command", "type", "timeInForce", "status")}
    return command.keys() <= _PLAIN_FIELDS and kinds <= _PLAIN_VALUES | {"FILLED"}


def _symbols(rng: Random, partitions: int) -> list[int]:
    """Symbols of which every partition has one; some have two."""
    of_partition: dict[int, list[int]] = {partition: [] for partition in range(partitions)}
    for symbol_id in range(1, 400):
        of_partition[partition_for(symbol_id, partitions)].append(symbol_id)
    chosen = [symbol_id for ids in of_partition.values() for symbol_id in ids[: rng.choice([1, 2])]]
    # Garbage is addressed to symbol 1.
    return chosen if 1 in chosen else [1, *chosen]


def _from_corpus(rng: Random, symbol_id: int) -> Iterator[Command]:
    """One stream after the other, all for one symbol, each with ids and times of its own."""
    while True:
        nonce = rng.getrandbits(62) << 64
        later = rng.randint(0, _EXPIRES_MS_MAX)
        stream = rng.choice(corpus())
        source = rng.choice([1, 1, 1, 2])
        for command in stream:
            if command["symbolId"] != source:
                continue
            moved = {name: _moved(value, nonce) for name, value in command.items()}
            moved["symbolId"] = symbol_id
            if "expiresAt" in moved:
                moved["expiresAt"] += later
            yield moved


def _moved(value: Any, nonce: int) -> Any:
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        return value
    text = str(uuid.UUID(int=uuid.UUID(value).int ^ nonce))
    return text.upper() if value.isupper() else text
