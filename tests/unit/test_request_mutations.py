"""20,000 request bodies that were valid once: each is a command that means what it says, or is refused with 400."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from random import Random
from typing import Any

import pytest

from forkast_streams.codec import decode_command
from forkast_streams.engine.commands import TYPES, Amend, NewOrder
from forkast_streams.engine.define_symbol import DefineSymbol
from forkast_streams.engine.order_checks import broken_amend_rule, broken_rule
from forkast_streams.engine.symbols import Symbol
from forkast_streams.errors import ApiError
from forkast_streams.json_bodies import decode_body
from forkast_streams.limits import BATCH_ORDERS_MAX, LARGEST_BODY_BYTES_MAX
from forkast_streams.orders.commands import amend_command, order_fields, place_command, request_digest
from forkast_streams.orders.requests import (
    CANCEL_AFTER_S_MAX,
    CLIENT_ID_PREFIX,
    AmendOrder,
    PlaceOrder,
    amendment,
    decode_batch,
    decode_ids,
    decode_timeout,
    new_order,
    parse_order_id,
    require_kept_rules,
)
from tests.support.mutations import mutated
from web.orders import BODY_BYTES_MAX

SEED = 20_261_123
# Of each kind; together 20,000.
COUNTS = {"order": 9_000, "amendment": 4_000, "batch": 3_000, "ids": 2_000, "timeout": 2_000}
# Seconds of processor time that judging one body may take, and all of them together.
ONE_S_MAX, ALL_S_MAX = 0.5, 12.0
ORDER_ID, OTHER_ID = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
USER_ID = 7
SYMBOLS = {
    1: Symbol(DefineSymbol(1, "PLAIN", Decimal("0.01"), Decimal(1), "TRADING", None)),
    2: Symbol(DefineSymbol(2, "FINE", Decimal("0.0001"), Decimal("0.001"), "TRADING", None)),
    3: Symbol(
        DefineSymbol(
            *(3, "RULED", Decimal("0.5"), Decimal(1), "TRADING", None),
            *(Decimal(5), Decimal(1_000), Decimal(1_000), Decimal("0.1"), 10),
        )
    ),
}
NUMBERS = {
    "quantity": "quantity",
    "price": "price",
    "quoteQuantity": "quote_quantity",
    "stopPrice": "stop_price",
    "displayQuantity": "display_quantity",
}


def said(body: bytes, field: str) -> Decimal | None:
    """What a body says of a number, by another decoder and exactly."""
    value = json.loads(body, parse_float=Decimal, parse_int=Decimal).get(field)
    return None if value is None else Decimal(value)


def check_numbers(command: NewOrder | Amend, body: bytes) -> None:
    """The numbers of a command in the log are those of the body."""
    for field, attribute in NUMBERS.items():
        if hasattr(command, attribute):
            value = getattr(command, attribute)
            assert (None if value is None else Decimal(value)) == said(body, field), field


def check_order(request: PlaceOrder, body: bytes) -> None:
    """Raise ApiError, or assert that the log gets a command that the engine reads as what was sent.

    The body is looked at with another decoder; it has each field once and none that the route does not know.
    """
    symbol = SYMBOLS.get(request.symbol_id)
    if symbol is None:
        raise ApiError(400, "UNKNOWN_SYMBOL", "as Symbols.get answers")
    order = new_order(request, ORDER_ID, USER_ID, symbol, replaces=OTHER_ID)
    require_kept_rules(order, symbol)
    assert len(request_digest(order)) == 16
    command = decode_command(place_command(order, order_fields(order)))
    assert isinstance(command, NewOrder)
    assert broken_rule(command, symbol) is None
    check_numbers(command, body)
    fields = json.loads(body, object_pairs_hook=lambda pairs: pairs)
    names = [name for name, _ in fields]
    assert len(set(names)) == len(names)
    assert set(names) <= set(PlaceOrder.__struct_encode_fields__)
    values = dict(fields)
    assert (command.order_id, command.user_id, command.replaces) == (ORDER_ID, USER_ID, OTHER_ID)
    assert (command.symbol_id, command.type, command.side) == (values["symbolId"], values["type"], values["side"])
    assert command.time_in_force == values.get("timeInForce", "GTC")
    assert command.client_order_id == values.get("clientOrderId")
    assert command.expires_at == values.get("expiresAt")
    assert command.post_only is values.get("postOnly", False)
    assert command.self_trade_prevention == values.get("selfTradePrevention", "EXPIRE_TAKER")


def code_of(judge: Callable[..., object], *arguments: Any) -> str:
    """The code with which something is refused, always with 400 and a short sentence; ``taken`` if it is not."""
    try:
        judge(*arguments)
    except ApiError as exc:
        refusal = exc
    else:
        return "taken"
    assert refusal.status == 400
    assert len(str(refusal)) < 300
    return refusal.code


def judge_order(body: bytes, _: Random) -> None:
    check_order(decode_body(PlaceOrder, body), body)


def judge_amendment(body: bytes, random: Random) -> None:
    symbol, order_type = random.choice(list(SYMBOLS.values())), random.choice(TYPES)
    request = decode_body(AmendOrder, body)
    amend = decode_command(amend_command(amendment(request, ORDER_ID, USER_ID, order_type, symbol, "c")))
    assert isinstance(amend, Amend)
    assert broken_amend_rule(amend, order_type, symbol) is None
    check_numbers(amend, body)


def judge_batch(body: bytes, _: Random) -> None:
    """Each order by itself: one that is refused takes no other with it."""
    requests = decode_batch(body)
    assert 0 < len(requests) <= BATCH_ORDERS_MAX
    orders = json.loads(body, object_pairs_hook=_Pairs, parse_float=_Text, parse_int=_Text)[0][1]
    assert len(orders) == len(requests)
    for request, order in zip(requests, orders, strict=True):
        if isinstance(request, ApiError):
            assert request.status == 400
            continue
        code_of(check_order, request, _written(order))


class _Text(str):
    """A number as it was written."""


class _Pairs(list[tuple[str, Any]]):
    """The fields of an object as they were written."""


def _written(pairs: _Pairs) -> bytes:
    """An order of a batch by itself; it has no objects in it, or it would have been refused."""
    fields = (f"{json.dumps(k)}:{v if isinstance(v, _Text) else json.dumps(v)}" for k, v in pairs)
    return ("{" + ",".join(fields) + "}").encode()


def judge_ids(body: bytes, _: Random) -> None:
    ids = decode_ids(body)
    assert 0 < len(ids) <= BATCH_ORDERS_MAX
    for order_id in ids:
        if not order_id.startswith(CLIENT_ID_PREFIX):
            code_of(parse_order_id, order_id)


def judge_timeout(body: bytes, _: Random) -> None:
    timeout = decode_timeout(body)
    assert json.loads(body) == {"timeout": timeout}
    assert 0 <= timeout <= CANCEL_AFTER_S_MAX


JUDGES = {
    "order": judge_order,
    "amendment": judge_amendment,
    "batch": judge_batch,
    "ids": judge_ids,
    "timeout": judge_timeout,
}


@pytest.mark.parametrize("kind", COUNTS)
def test_every_body_is_a_command_or_refused(kind: str) -> None:
    """No other exception, nobody's number changed on its way into the log, and no body that takes long to judge."""
    random = Random(f"{SEED} {kind}")
    bytes_max = LARGEST_BODY_BYTES_MAX if kind == "batch" else BODY_BYTES_MAX
    codes: Counter[str] = Counter()
    spent = 0.0
    for number in range(COUNTS[kind]):
        body = mutated(kind, random)[:bytes_max]
        start = time.process_time()
        try:
            codes[code_of(JUDGES[kind], body, random)] += 1
        except Exception as exc:
            raise AssertionError(f"mutation {number} of {kind}: {body[:1_000]!r}") from exc
        one_s = time.process_time() - start
        assert one_s < ONE_S_MAX, (number, body[:1_000])
        spent += one_s
    assert spent < ALL_S_MAX * COUNTS[kind] / sum(COUNTS.values()), f"{spent:.1f} s"
    # The mutations are neither all harmless nor all broken, and reach behind the decoder.
    assert codes["taken"] > COUNTS[kind] / 10, codes
    assert codes["INVALID_JSON"] > COUNTS[kind] / 20, codes
    assert len(codes) >= {"order": 25, "amendment": 10}.get(kind, 6), codes
