"""Request bodies that were valid once: what fuzzing clients, broken programs and attackers make of them.

A body is a tree whose leaves are JSON tokens as bytes, so that it can be made into what no encoder would write:
repeated fields, ``NaN``, numbers of a thousand digits, half a surrogate pair.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any


class Fields(list[tuple[bytes, Any]]):
    """An object: names, as tokens, and nodes. A name can stand there twice."""


# A token, a list of nodes, or an object.
Node = bytes | list[Any] | Fields


KINDS = ("order", "amendment", "batch", "ids", "timeout", "key")

_ORDERS = (
    b'{"symbolId":1,"type":"LIMIT","side":"BUY","quantity":10,"price":101.25}',
    (
        b'{"symbolId":1,"type":"LIMIT","side":"SELL","quantity":"200","price":"101.25","timeInForce":"GTD",'
        b'"expiresAt":1900000000000,"postOnly":true,"displayQuantity":20,"clientOrderId":"iceberg_1"}'
    ),
    b'{"symbolId":2,"type":"MARKET","side":"BUY","quoteQuantity":"123456789012345.123456789012345678"}',
    b'{"symbolId":2,"type":"MARKET","side":"SELL","quantity":0.125,"timeInForce":"FOK"}',
    b'{"symbolId":2,"type":"STOP","side":"SELL","quantity":"1.5","stopPrice":99.5,"selfTradePrevention":"EXPIRE_BOTH"}',
    (
        b'{"symbolId":3,"type":"STOP_LIMIT","side":"BUY","quantity":500,"stopPrice":"100.5","price":101,'
        b'"timeInForce":"GTC","selfTradePrevention":"NONE","clientOrderId":"stop-1"}'
    ),
)
_ID = b'"123e4567-e89b-12d3-a456-426614174000"'
_BODIES: dict[str, tuple[bytes, ...]] = {
    "order": _ORDERS,
    "amendment": (b'{"price":101.25}', b'{"quantity":"12"}', b'{"price":"99.5","quantity":7,"stopPrice":98}'),
    "batch": (b'{"orders":[' + b",".join(_ORDERS[:3]) + b"]}", b'{"orders":[' + b",".join(_ORDERS) + b"]}"),
    "ids": (b'{"ids":[' + _ID + b',"client:stop-1"]}', b'{"ids":["client:a","client:b","client:c"]}'),
    "timeout": (b'{"timeout":60}', b'{"timeout":0}'),
    "key": (b'{"name":"robot","scopes":["read"]}', b'{"name":"market maker","scopes":["read","trade"]}'),
}

_NUMBERS = (
    *(b"0", b"-0", b"-1", b"1", b"2", b"0.0", b"10.0", b"1e1", b"10E-1", b"0.001", b"1000000000", b"1000000000.01"),
    *(b"1e400", b"-1e400", b"1e-400", b"1e999999999", b"1E-999999999", b"1e99999999999999999999", b"1E-99999999999999"),
    *(b"9007199254740993", b"2147483648", b"9223372036854775808", b"-9223372036854775809", b"18446744073709551616"),
    *(b"101.250000000000000000000000000000000001", b"0." + b"0" * 500 + b"1", b"1" + b"0" * 400, b"7" * 5_000),
    *(b"101.25" + b"0" * 1_000, b"1e-18", b"1000000000000000", b"0.1234567890123456789", b"1" * 15 + b"." + b"9" * 18),
)
_NO_NUMBERS = (
    *(b"NaN", b"Infinity", b"-Infinity", b"nan", b"01", b"+1", b".5", b"5.", b"1e", b"1e+", b"0x10", b"1_000", b"--1"),
    *(b"1,5", b"1 000", b"1n", b"undefined", b"None", b"True"),
)
_TEXTS = (
    *(b'""', b'" "', b'"1e5"', b'"NaN"', b'"Infinity"', b'"-1"', b'"0"', b'"10"', b'"10.50"', b'" 10"', b'"10\\n"'),
    *(b'"1_000"', b'"+1"', b'".5"', b'"0x10"', b'"1,5"', b'"' + b"9" * 3_000 + b'"', b'"' + b"a" * 9_000 + b'"'),
    # Digits of other scripts, a Greek letter that looks like B, text that runs backwards, an accent by itself.
    *('"\uff11\uff12"'.encode(), '"\u0661\u0662"'.encode(), '"\u0392UY"'.encode(), '"\u202eYUB"'.encode()),
    '"e\u0301\U0001f4a5"'.encode(),
    *(b'"\\u0000"', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\ud83d\\ude00"', b'"\\u0042UY"', b'"a\\u0000b"', b'"\\x41"'),
    *(b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"tab\there"', b'"line\nbreak"', b'"\x00"'),
    *(b'"limit"', b'"LIMIT "', b'"LIMIT\\u0000"', b'"MARKET"', b'"STOP"', b'"STOP_LIMIT"', b'"BUY"', b'"SELL"'),
    *(b'"GTC"', b'"IOC"', b'"FOK"', b'"GTD"', b'"NONE"', b'"unknown field"', b'"missing required field `x`"'),
    *(b'"client:"', b'"client:client:a"', b'"../orders"', b'"%2e%2e"', b'"\'; DROP TABLE \\"Order\\"; --"', b'"`$.x`"'),
    *(_ID, _ID.upper(), _ID[:-1] + b'\\n"', _ID.replace(b"-", b""), b'"trade"', b'"keys"', b'"__class__"'),
)
_OTHERS = (b"true", b"false", b"null", b"TRUE", b"nul", b"{}", b"[]", b"[[]]", b'{"":{}}', b"", b",", b":", b"{", b"]")
_TOKENS = (*_NUMBERS, *_NUMBERS, *_NO_NUMBERS, *_TEXTS, *_OTHERS)
_NAMES = (
    *(b'"symbolId"', b'"type"', b'"side"', b'"quantity"', b'"price"', b'"timeInForce"', b'"clientOrderId"'),
    *(b'"quoteQuantity"', b'"stopPrice"', b'"expiresAt"', b'"postOnly"', b'"displayQuantity"', b'"orders"', b'"ids"'),
    *(b'"selfTradePrevention"', b'"timeout"', b'"name"', b'"scopes"', b'"userId"', b'"status"', b'"filledQuantity"'),
    *(
        b'"Price"',
        b'"price "',
        b'"stop_price"',
        b'"\\u0070rice"',
        b'"pr\\u0131ce"',
        b'"__proto__"',
        b'"a`b`c"',
        b"price",
    ),
    *(
        b'""',
        b'"\\ud800"',
        b'"\xff"',
        b'"missing required field"',
        b'"$.price"',
        b"1",
        b"null",
        b'"' + b"k" * 3_000 + b'"',
    ),
)
# More than any route reads.
_BYTES_MAX = 140_000
_DEPTHS = (2, 30, 200, 1_100, 5_000)


def mutated(kind: str, random: Random) -> bytes:
    """A valid body of ``kind`` with one to four things done to it."""
    tree = _parse(random.choice(_BODIES[kind]))
    for _ in range(random.choice((0, 1, 1, 1, 2, 3))):
        tree = random.choice(_TREE_CHANGES)(tree, random)
    body = _written(tree)[:_BYTES_MAX]
    for _ in range(random.choice((0, 0, 0, 0, 1, 1, 2))):
        body = random.choice(_BYTE_CHANGES)(body, random)
    return body


def _parse(body: bytes) -> Node:
    """The tree of one of the bodies above, which have no spaces, no escapes and no empty containers."""
    node, rest = _parse_node(body)
    assert not rest
    return node


def _parse_node(text: bytes) -> tuple[Node, bytes]:
    if text[:1] == b"{":
        fields = Fields()
        while text[:1] in b"{,":
            name, _, text = text[1:].partition(b":")
            value, text = _parse_node(text)
            fields.append((name, value))
        return fields, text[1:]
    if text[:1] == b"[":
        items: list[Node] = []
        while text[:1] in b"[,":
            item, text = _parse_node(text[1:])
            items.append(item)
        return items, text[1:]
    end = min(place for mark in b",]}" if (place := text.find(mark)) >= 0)
    return text[:end], text[end:]


def _written(node: Node) -> bytes:
    if isinstance(node, bytes):
        return node
    if isinstance(node, Fields):
        return b"{" + b",".join(name + b":" + _written(value) for name, value in node) + b"}"
    return b"[" + b",".join(map(_written, node)) + b"]"


def _at_random_leaf(node: Node, random: Random, change: Callable[[Node, Random], Node]) -> Node:
    """The tree with a change somewhere in it, more likely further down."""
    if isinstance(node, bytes) or not node or random.random() < 0.08:
        return change(node, random)
    place = random.randrange(len(node))
    if isinstance(node, Fields):
        name, value = node[place]
        return _with(node, place, (name, _at_random_leaf(value, random, change)))
    return [*node[:place], _at_random_leaf(node[place], random, change), *node[place + 1 :]]


def _with(fields: Fields, place: int, field: tuple[bytes, Node]) -> Fields:
    return Fields((*fields[:place], field, *fields[place + 1 :]))


def _at_random_object(node: Node, random: Random, change: Callable[[Fields, Random], Fields]) -> Node:
    """The tree with a change of the fields of one of its objects."""
    if isinstance(node, bytes) or not node:
        return node
    place = random.randrange(len(node))
    if not isinstance(node, Fields):
        return [*node[:place], _at_random_object(node[place], random, change), *node[place + 1 :]]
    name, value = node[place]
    if not isinstance(value, bytes) and random.random() < 0.8:
        return _with(node, place, (name, _at_random_object(value, random, change)))
    return change(node, random)


def _replace_value(node: Node, random: Random) -> Node:
    return _at_random_leaf(node, random, lambda _, random: random.choice(_TOKENS))


def _replace_number(node: Node, random: Random) -> Node:
    """Another plausible number, which is often a valid one."""

    def change(_: Node, random: Random) -> Node:
        number = f"{random.randrange(1, 10 ** random.randrange(1, 12)) / 10 ** random.randrange(0, 4):.3f}".encode()
        return random.choice((number, b'"' + number + b'"', number.partition(b".")[0]))

    return _at_random_leaf(node, random, change)


def _nest(node: Node, random: Random) -> Node:
    def change(inner: Node, random: Random) -> Node:
        depth = random.choice(_DEPTHS)
        opening, closing = random.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'[{"price":', b"}]"), (b"[", b"")))
        return opening * depth + _written(inner) + closing * depth

    return _at_random_leaf(node, random, change)


def _wrap(node: Node, random: Random) -> Node:
    def change(inner: Node, random: Random) -> Node:
        wrapped: tuple[Node, ...] = (
            [inner],
            Fields([(b'"value"', inner)]),
            b'"' + _written(inner).replace(b'"', b"'") + b'"',
        )
        return random.choice(wrapped)

    return _at_random_leaf(node, random, change)


def _multiply(node: Node, random: Random) -> Node:
    """A list that is too long, or whose elements are the same."""

    def change(inner: Node, random: Random) -> Node:
        return [inner] * (random.choice((2, 100, 101, 1_000)) if len(_written(inner)) < 1_000 else 2)

    return _at_random_leaf(node, random, change)


def _leave_out(node: Node, random: Random) -> Node:
    def change(fields: Fields, random: Random) -> Fields:
        place = random.randrange(len(fields))
        return Fields((*fields[:place], *fields[place + 1 :]))

    return _at_random_object(node, random, change)


def _rename(node: Node, random: Random) -> Node:
    def change(fields: Fields, random: Random) -> Fields:
        place = random.randrange(len(fields))
        return _with(fields, place, (random.choice(_NAMES), fields[place][1]))

    return _at_random_object(node, random, change)


def _add(node: Node, random: Random) -> Node:
    def change(fields: Fields, random: Random) -> Fields:
        place = random.randrange(len(fields) + 1)
        return Fields((*fields[:place], (random.choice(_NAMES), random.choice(_TOKENS)), *fields[place:]))

    return _at_random_object(node, random, change)


def _repeat(node: Node, random: Random) -> Node:
    """A field that stands there twice, with the same value or another one."""

    def change(fields: Fields, random: Random) -> Fields:
        name, value = random.choice(fields)
        place = random.randrange(len(fields) + 1)
        return Fields((*fields[:place], (name, random.choice((value, random.choice(_TOKENS)))), *fields[place:]))

    return _at_random_object(node, random, change)


def _shuffle(node: Node, random: Random) -> Node:
    """The order of fields means nothing."""

    def change(fields: Fields, random: Random) -> Fields:
        return Fields(random.sample(fields, len(fields)))

    return _at_random_object(node, random, change)


def _exchange(node: Node, random: Random) -> Node:
    """Each of two fields with the other's value."""

    def change(fields: Fields, random: Random) -> Fields:
        one, other = random.randrange(len(fields)), random.randrange(len(fields))
        (name, value), (other_name, other_value) = fields[one], fields[other]
        return _with(_with(fields, one, (name, other_value)), other, (other_name, value))

    return _at_random_object(node, random, change)


def _truncate(body: bytes, random: Random) -> bytes:
    return body[: random.randrange(len(body) + 1)]


def _flip_bit(body: bytes, random: Random) -> bytes:
    if not body:
        return b"\x00"
    place = random.randrange(len(body))
    return body[:place] + bytes([body[place] ^ 1 << random.randrange(8)]) + body[place + 1 :]


def _insert_byte(body: bytes, random: Random) -> bytes:
    place = random.randrange(len(body) + 1)
    return body[:place] + random.choice((random.randbytes(1), b'"', b"\\", b" ", b"\x00", b",", b"}")) + body[place:]


def _cut_out(body: bytes, random: Random) -> bytes:
    start = random.randrange(len(body) + 1)
    return body[:start] + body[start + random.randrange(1, 20) :]


def _copy_part(body: bytes, random: Random) -> bytes:
    start, place = random.randrange(len(body) + 1), random.randrange(len(body) + 1)
    return body[:place] + body[start : start + random.randrange(1, 60)] + body[place:]


def _around(body: bytes, random: Random) -> bytes:
    before, after = random.choice(
        (
            *((b"\xef\xbb\xbf", b""), (b" \t\r\n", b"\n"), (b"", b"\x00"), (b"\x0b", b""), ("\u00a0".encode(), b"")),
            *((b"", b"{}"), (b"", b"//"), (b"/**/", b""), (b"'", b"'"), (b"(", b")"), (b"", b","), (b")]}',\n", b"")),
        )
    )
    return before + body + after


def _recode(body: bytes, random: Random) -> bytes:
    """What a client sends that means another encoding."""
    text = body.decode("utf-8", "replace")
    return text.encode(random.choice(("utf-16", "utf-16-le", "utf-32", "utf-7", "cp500")), "replace")


_TREE_CHANGES = (
    *(_replace_value, _replace_value, _replace_value, _replace_number, _replace_number, _replace_number),
    *(_nest, _wrap, _multiply, _leave_out, _rename, _add, _repeat, _shuffle, _exchange),
)
_BYTE_CHANGES = (_truncate, _flip_bit, _flip_bit, _insert_byte, _cut_out, _copy_part, _around, _recode)
