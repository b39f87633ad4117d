"""Request bodies gone wrong: seeded changes of valid bodies, from their structure down to their bytes."""

from __future__ import annotations

import gzip
import json
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

# JSON text that the standard encoder would not write, or would write otherwise.
_NUMBERS = (
    *("0", "-0", "-0.0", "-1", "1e0", "1E2", "1.0", "1.0125e2", "0.1", "0.30000000000000004", "1e-30", "5e-324"),
    *("1e308", "1e309", "-1e400", "1e-400", "1e999999", "1e-999999", f"1e{'9' * 20}", f"1e-{'9' * 20}"),
    *(str(2**31 - 1), str(2**31), str(2**53), str(2**53 + 1), str(2**63), str(2**64), str(-(2**63) - 1), "9" * 5_000),
    *("0." + "0" * 3_000 + "1", "1." + "1" * 3_000, "1" + "0" * 400 + "e-400", "9" * 40 + ".5"),
)
_NO_NUMBERS = ("NaN", "Infinity", "-Infinity", "+1", "01", ".5", "5.", "1_000", "0x10", "1e", "--1", "1,5", "٣")
_TEXTS = (
    *("", " ", " 5 ", "5 ", "1e5", "NaN", "Infinity", "-0", "1_000", "0x10", "١٢", "1.5", "101.25", "101,25", "+5"),
    *("\0", "a\0b", "a\n", "\ufeff5", "🦆", "\u00e9", "e\u0301", "\u202e", "$.price", "`price`", "client:", "null"),
    *("9" * 21, "0." + "1" * 21, "9" * 5_000, "a" * 37, "' OR 1=1 --", "{}", "limit", "LIMIT ", "MARKET", "__class__"),
)
_LITERALS = (
    *("null", "true", "false", "[]", "{}", "[[]]", "[null]", '{"$gt":0}'),
    *(r'"\ud800"', r'"\udfff\ud800"', r'"\x"', r'"\u00"', '"'),
)
_DEEP = ("[" * 3_000 + "]" * 3_000, '{"a":' * 3_000 + "1" + "}" * 3_000, "[" * 10_000)
_NAMES = (
    *("", "$.price", "userId", "status", "price ", "Price", "pri\u0441e", "stop_price", "id", "__proto__"),
    *("a" * 200, "a\0", "🦆", "`", "`$.price`", "`$.price` - at `$.x`", "\u2028"),
)
# Values that are right by themselves, and wrong for most orders.
_PLAUSIBLE = (
    *(("type", name) for name in ("LIMIT", "MARKET", "STOP", "STOP_LIMIT")),
    *(("timeInForce", name) for name in ("GTC", "IOC", "FOK", "GTD")),
    *(("quantity", 10), ("quantity", "2000000"), ("quoteQuantity", 1_000), ("displayQuantity", 1), ("postOnly", True)),
    *(("price", "100.01"), ("stopPrice", 99), ("expiresAt", 2_000_000_000_000), ("symbolId", 2), ("side", "SELL")),
)


class Text(str):
    """JSON text that stands for itself."""

    __slots__ = ()


class Fields(list[tuple[str, Any]]):
    """An object whose names may repeat."""


def text_of(node: Any) -> str:
    """``node`` as JSON text, or as what was made of it."""
    if isinstance(node, Text):
        return node
    if isinstance(node, Fields):
        return "{" + ",".join(f"{json.dumps(name)}:{text_of(value)}" for name, value in node) + "}"
    if isinstance(node, list):
        return "[" + ",".join(map(text_of, node)) + "]"
    return json.dumps(node)


@dataclass(frozen=True, slots=True)
class Mutant:
    """A body for a request, and whether anything was done to it.

    Attributes:
        kind: a key of ``VALID``.
        body: bytes to send.
        is_changed: False: it is one of the valid ones.
    """

    kind: str
    body: bytes
    is_changed: bool


def _number(rng: random.Random, number: str) -> Any:
    """A number in one of the ways to write it."""
    return rng.choice([Text(number), number])


def _price(rng: random.Random) -> Any:
    return _number(rng, f"{rng.randint(9_900, 10_100) / 100:.2f}")


def _order(rng: random.Random) -> Fields:
    kind = rng.choice(["LIMIT", "LIMIT", "MARKET", "STOP", "STOP_LIMIT"])
    fields: dict[str, Any] = {"symbolId": 1, "type": kind, "side": rng.choice(["BUY", "SELL"])}
    fields["quantity"] = _number(rng, str(rng.randint(4, 50)))
    if kind in ("LIMIT", "STOP_LIMIT"):
        fields["price"] = _price(rng)
    if kind in ("STOP", "STOP_LIMIT"):
        fields["stopPrice"] = _price(rng)
    if kind == "MARKET" and rng.random() < 0.3:
        del fields["quantity"]
        fields |= {"side": "BUY", "quoteQuantity": _number(rng, "1000")}
    extra = rng.random() if kind == "LIMIT" else 1.0
    if extra < 0.2:
        fields |= {"timeInForce": "GTD", "expiresAt": rng.randint(2_000_000_000_000, 2**53)}
    elif extra < 0.4:
        fields["displayQuantity"] = _number(rng, str(rng.randint(1, 4)))
    elif extra < 0.5:
        fields["postOnly"] = True
    if rng.random() < 0.2:
        fields["clientOrderId"] = rng.choice([None, f"m-{rng.getrandbits(64):x}"])
    if rng.random() < 0.2:
        fields["selfTradePrevention"] = rng.choice(["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "NONE"])
    return Fields(rng.sample(list(fields.items()), len(fields)))


def _amendment(rng: random.Random) -> Fields:
    fields = [("price", _price(rng)), ("quantity", _number(rng, str(rng.randint(1, 50))))]
    return Fields(rng.sample(fields, rng.randint(1, 2)))


def _batch(rng: random.Random) -> Fields:
    return Fields([("orders", [_order(rng) for _ in range(rng.choice([1, 2, 3]))])])


def _ids(rng: random.Random) -> Fields:
    ids = [rng.choice([str(uuid.UUID(int=rng.getrandbits(128))), "client:m-1"]) for _ in range(rng.randint(1, 4))]
    return Fields([("ids", ids)])


def _timeout(rng: random.Random) -> Fields:
    return Fields([("timeout", rng.choice([0, 1, 60, 86_400]))])


def _key(rng: random.Random) -> Fields:
    return Fields([("name", "robot"), ("scopes", rng.choice([["read"], ["trade"], ["read", "trade"]]))])


VALID: dict[str, Callable[[random.Random], Fields]] = {
    "order": _order,
    "amendment": _amendment,
    "batch": _batch,
    "ids": _ids,
    "timeout": _timeout,
    "key": _key,
}
# The bodies with the most to go wrong come most often.
_KINDS = ("order",) * 5 + ("batch",) * 3 + ("amendment",) * 2 + ("ids", "timeout", "key")


def _hostile(rng: random.Random) -> Any:
    """A value that hardly anything expects."""
    if rng.random() < 0.01:
        return Text(rng.choice(_DEEP))
    pool = rng.choice([_NUMBERS, _NO_NUMBERS, _LITERALS, _TEXTS, _TEXTS])
    value = rng.choice(pool)
    return value if pool is _TEXTS else Text(value)


def _objects(node: Any) -> Iterator[Fields]:
    """All objects in ``node``."""
    if isinstance(node, Fields):
        yield node
    for child in [value for _, value in node] if isinstance(node, Fields) else node:
        if isinstance(child, list):
            yield from _objects(child)


def _change_value(rng: random.Random, fields: Fields) -> None:
    place = rng.randrange(len(fields))
    name, value = fields[place]
    how = rng.random()
    if how < 0.1:
        fields[place] = name, [value]
    elif how < 0.2:
        fields[place] = name, Fields([(name, value)])
    elif how < 0.3:
        fields[place] = name, rng.choice(fields)[1]
    elif how < 0.4 and isinstance(value, list):
        fields[place] = name, (value * 120)[: rng.choice([0, 2, 100, 101])]
    elif how < 0.6 and isinstance(value, list) and value:
        # Of a new list: what was copied shares the old one.
        fields[place] = name, [_hostile(rng), *value[1:]]
    else:
        fields[place] = name, _hostile(rng)


def _change_fields(rng: random.Random, fields: Fields) -> None:
    """One change of an object that has fields."""
    place = rng.randrange(len(fields))
    name, value = fields[place]
    how = rng.random()
    if how < 0.1:
        del fields[place]
    elif how < 0.2:
        name, value = rng.choice(_PLAUSIBLE)
        gone = rng.choice([{name}, {name, "quantity"}])
        fields[:] = [field for field in fields if field[0] not in gone] + [(name, value)]
    elif how < 0.3:
        fields.append((rng.choice(_NAMES), _hostile(rng)))
    elif how < 0.35:
        fields[place] = rng.choice([name.upper(), name + "\0", f" {name}", rng.choice(_NAMES)]), value
    elif how < 0.45:
        fields.append((name, rng.choice([value, _hostile(rng)])))
    else:
        _change_value(rng, fields)


def _change_bytes(rng: random.Random, body: bytes) -> bytes:
    """One change that knows nothing of JSON."""
    at = rng.randrange(len(body) + 1)
    changes: list[Callable[[], bytes]] = [
        lambda: body[:at],
        lambda: body[at:],
        lambda: body[:at] + body[at + 1 :],
        lambda: body[:at] + bytes([rng.randrange(256)]) + body[at:],
        lambda: body[:at] + body[max(0, at - 8) :],
        lambda: body[:at] + bytes(byte ^ 1 << rng.randrange(8) for byte in body[at : at + 1]) + body[at + 1 :],
        lambda: body + rng.choice([b" ", b"\0", b"x", b"{}", b",", body, b"\n\n", b"//", b"]"]),
        lambda: rng.choice([b"\xef\xbb\xbf", b" \t\r\n", b"\0", b"/**/", b"[", b"\xff\xfe"]) + body,
        lambda: b"[" + body + b"]",
        lambda: json.dumps(body.decode("latin-1")).encode(),
        lambda: body.decode("latin-1").encode(rng.choice(["utf-16", "utf-32", "utf-8"])),
        lambda: body.replace(b'"', b"'"),
        lambda: gzip.compress(body, mtime=0),
        lambda: rng.randbytes(rng.randrange(40)),
        lambda: b" " * 20_000 + body,
    ]
    return rng.choice(changes)()


def mutants(seed: int, count: int) -> Iterator[Mutant]:
    """Bodies, the same ones for a seed; one in twenty is as it should be."""
    rng = random.Random(seed)
    for _ in range(count):
        kind = rng.choice(_KINDS)
        root = VALID[kind](rng)
        if rng.random() < 0.05:
            yield Mutant(kind, text_of(root).encode(), is_changed=False)
            continue
        in_bytes = rng.random() < 0.25
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            fields = rng.choice(list(_objects(root)))
            if fields and not in_bytes:
                _change_fields(rng, fields)
        body = text_of(root).encode()
        yield Mutant(kind, _change_bytes(rng, body) if in_bytes else body, is_changed=True)
