"""Bodies of requests, from their text to what the log is told."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from forkast_streams.engine.define_symbol import DefineSymbol
from forkast_streams.engine.symbols import Symbol
from forkast_streams.errors import ApiError
from forkast_streams.json_bodies import decode_body
from forkast_streams.orders.commands import order_fields, place_command
from forkast_streams.orders.requests import PlaceOrder, decode_batch, new_order, require_kept_rules

SYMBOL = Symbol(DefineSymbol(1, "AAPL", Decimal("0.01"), Decimal(1), "TRADING", None))


@pytest.mark.parametrize(
    ("field", "words", "code"),
    [
        ("type", "unknown field", "INVALID_ENUM"),
        ("side", "Object contains unknown field `x`", "INVALID_ENUM"),
        ("timeInForce", "missing required field `x`", "INVALID_ENUM"),
    ],
)
def test_words_of_a_request_are_not_taken_for_those_of_the_decoder(field: str, words: str, code: str) -> None:
    """The code says what is wrong with the body, whatever stands in it."""
    body = {"symbolId": 1, "type": "LIMIT", "side": "BUY", "quantity": 1, "price": 1} | {field: words}
    with pytest.raises(ApiError) as caught:
        decode_body(PlaceOrder, json.dumps(body).encode())
    assert (caught.value.code, caught.value.field) == (code, field)


def test_amount_of_money_reaches_the_log_with_all_its_digits() -> None:
    """33 of them are allowed, more than Python's decimals keep by themselves."""
    amount = "123456789012345.123456789012345678"
    body = {"symbolId": 1, "type": "MARKET", "side": "BUY", "quoteQuantity": amount}
    order = new_order(
        decode_body(PlaceOrder, json.dumps(body).encode()), "00000000-0000-4000-8000-000000000001", 7, SYMBOL
    )
    assert json.loads(place_command(order, order_fields(order)))["quoteQuantity"] == amount


@pytest.mark.parametrize(
    "repeat",
    [b',"price":1', b', "price" : 1', b',\n"price"\t:1', b',"pr\\u0069ce":1', b',"clientOrderId":"a\\"b","price":1'],
)
def test_a_field_given_twice_is_refused_however_it_is_written(repeat: bytes) -> None:
    """Whoever reads the first one and whoever reads the last one would place different orders."""
    body = b'{"symbolId":1,"type":"LIMIT","side":"BUY","quantity":1,"price":2'
    assert decode_body(PlaceOrder, body + b"}").price == 2
    with pytest.raises(ApiError) as refused:
        decode_body(PlaceOrder, body + repeat + b"}")
    assert refused.value.code == "DUPLICATE_FIELD"


@pytest.mark.parametrize(
    "batch",
    [
        b'{"orders":[ORDER,ORDER],"orders":[ORDER]}',
        b'{"orders":[ORDER],"ord\\u0065rs":[ORDER]}',
        b'{"orders":[ORDER,REPEATING]}',
        b'{"orders":[REPEATING],"orders":[]}',
    ],
)
def test_a_field_given_twice_anywhere_refuses_the_batch(batch: bytes) -> None:
    order = b'{"symbolId":1,"type":"LIMIT","side":"BUY","quantity":1,"price":2}'
    assert decode_batch(b'{"orders":[%s,%s]}' % (order, order)) == [decode_body(PlaceOrder, order)] * 2
    repeating = order[:-1] + b',"price":2}'
    with pytest.raises(ApiError) as refused:
        decode_batch(batch.replace(b"ORDER", order).replace(b"REPEATING", repeating))
    assert refused.value.code == "DUPLICATE_FIELD"


def test_text_that_looks_like_a_field_is_none() -> None:
    """A colon in a text, and a batch whose orders have the same fields, repeat nothing."""
    body = b'{"symbolId":1,"type":"LIMIT","side":"BUY","quantity":1,"price":2,"clientOrderId":"price\\":"}'
    assert decode_body(PlaceOrder, body).client_order_id == 'price":'
    assert len(decode_batch(b'{"orders":[{"a":1},{"a":2}]}')) == 2


@pytest.mark.parametrize(
    ("order_type", "code"),
    [("MARKET", None), ("STOP", None), ("LIMIT", "PRICE_REQUIRED"), ("STOP_LIMIT", "PRICE_REQUIRED")],
)
def test_a_price_of_null_is_no_price(order_type: str, code: str | None) -> None:
    """Programs with one shape for all orders send it with those that take any price; others need one."""
    body = {"symbolId": 1, "type": order_type, "side": "BUY", "quantity": 1, "price": None}
    if order_type.startswith("STOP"):
        body["stopPrice"] = 5
    order = new_order(decode_body(PlaceOrder, json.dumps(body).encode()), "order", 1, SYMBOL)
    assert order.price is None
    if code is None:
        require_kept_rules(order, SYMBOL)
        return
    with pytest.raises(ApiError) as refused:
        require_kept_rules(order, SYMBOL)
    assert (refused.value.code, refused.value.field) == (code, "price")
