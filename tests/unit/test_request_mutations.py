"""Bodies of requests gone wrong in 20,000 ways: each is a command that the engine can read, or is refused with 400."""

from __future__ import annotations

import re
import time
import uuid
from collections import Counter
from decimal import Decimal

import pytest

from forkast_streams.codec import decode_command
from forkast_streams.engine.commands import TYPES, Amend, DefineSymbol, NewOrder
from forkast_streams.engine.symbols import Symbol, decimal_of
from forkast_streams.errors import ApiError
from forkast_streams.orders.commands import amend_command, cancel_after_command, digest_of, place_command
from forkast_streams.orders.requests import (
    BATCH_ORDERS_MAX,
    AmendOrder,
    PlaceOrder,
    amendment,
    decode_batch,
    decode_body,
    decode_ids,
    decode_timeout,
    new_order,
)
from tests.unit.mutations import Mutant, mutants
from web.api_keys import _decoded as decode_key
from web.errors import error_response

COUNT = 20_000
CPU_S_MAX = 12.0
ONE_CPU_S_MAX = 0.25
ORDER, COMMAND, USER = str(uuid.UUID(int=1)), uuid.UUID(int=2).hex, 7
SYMBOL = Symbol(DefineSymbol(1, "AAPL", Decimal("0.01"), Decimal(1), "TRADING", None, max_quantity=Decimal(1_000_000)))
NUMBERS = ("price", "quantity", "stop_price")
# What can be wrong with a body; that all of them come up shows that the bodies go wrong in many ways.
CODES = {
    *("INVALID_JSON", "BODY_NOT_OBJECT", "UNKNOWN_FIELD", "DUPLICATE_FIELD", "MISSING_FIELD", "INVALID_TYPE"),
    *("INVALID_ENUM", "INVALID_VALUE", "OUT_OF_RANGE", "BATCH_SIZE", "INVALID_PRICE", "INVALID_TICK"),
    *("INVALID_STOP_PRICE", "INVALID_STOP_TICK", "INVALID_QUANTITY", "INVALID_LOT", "INVALID_QUOTE_QUANTITY"),
    *("INVALID_DISPLAY_QUANTITY", "PRICE_REQUIRED", "PRICE_NOT_ALLOWED", "STOP_PRICE_REQUIRED", "QUANTITY_REQUIRED"),
    *("STOP_PRICE_NOT_ALLOWED", "QUANTITY_NOT_ALLOWED", "QUOTE_QUANTITY_NOT_ALLOWED", "EXPIRES_AT_REQUIRED"),
    *("EXPIRES_AT_NOT_ALLOWED", "TIME_IN_FORCE_NOT_ALLOWED", "POST_ONLY_NOT_ALLOWED", "QUANTITY_TOO_LARGE"),
}


def check_refusal(error: ApiError) -> str:
    """Return the code of a refusal that can be answered, and that repeats nothing of the body but a field's name."""
    assert error.status == 400, repr(error)
    assert re.fullmatch("[A-Z_]+", error.code)
    assert error.field is None or re.fullmatch(r"[A-Za-z0-9_.\[\]]{1,60}", error.field), error.field
    assert len(str(error)) < 200
    assert re.fullmatch(r"[ -~]+", str(error)), str(error)
    assert error_response(error).body
    return error.code


def check_order(request: PlaceOrder) -> None:
    """What is taken of an order, the engine reads as it was meant."""
    order = new_order(request, ORDER, USER, SYMBOL)
    read = decode_command(place_command(order))
    assert isinstance(read, NewOrder)
    assert (read.order_id, read.user_id, digest_of(read)) == (ORDER, USER, digest_of(order))


def check_amendment(request: AmendOrder) -> None:
    """The same of an amendment, for an order of each type; raises what all of them raise."""
    errors = []
    for order_type in TYPES:
        try:
            command = amendment(request, ORDER, USER, order_type, SYMBOL, COMMAND)
        except ApiError as exc:
            check_refusal(exc)
            errors.append(exc)
            continue
        read = decode_command(amend_command(command))
        assert isinstance(read, Amend)
        for name in NUMBERS:
            sent, seen = getattr(command, name), getattr(read, name)
            assert (sent is None) == (seen is None)
            assert sent is None or decimal_of(sent) == decimal_of(seen)
    if len(errors) == len(TYPES):
        raise errors[0]


def check_batch(body: bytes) -> list[str]:
    """The same of each order; return the codes of those that are refused."""
    orders = decode_batch(body)
    assert 0 < len(orders) <= BATCH_ORDERS_MAX
    codes = []
    for order in orders:
        try:
            if isinstance(order, ApiError):
                raise order
            check_order(order)
        except ApiError as exc:
            codes.append(check_refusal(exc))
    return codes


def outcomes_of(mutant: Mutant) -> list[str]:
    """The codes of all that is refused of a body; none: it is taken as it is."""
    try:
        if mutant.kind == "order":
            check_order(decode_body(PlaceOrder, mutant.body))
        elif mutant.kind == "amendment":
            check_amendment(decode_body(AmendOrder, mutant.body))
        elif mutant.kind == "batch":
            return check_batch(mutant.body)
        elif mutant.kind == "ids":
            assert all(type(one) is str for one in decode_ids(mutant.body))
        elif mutant.kind == "timeout":
            decode_command(cancel_after_command(1, USER, decode_timeout(mutant.body) * 1_000, COMMAND))
        else:
            assert set(decode_key(mutant.body).scopes) <= {"read", "trade"}
    except ApiError as exc:
        return [check_refusal(exc)]
    return []


def test_every_body_is_a_command_or_is_refused() -> None:
    """No other exception, and none of them takes long, however it was made to."""
    outcomes: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    spent = slowest = 0.0
    for mutant in mutants(1, COUNT):
        start = time.process_time()
        try:
            codes = outcomes_of(mutant)
        except Exception as exc:
            exc.add_note(f"{mutant.kind}: {mutant.body[:2_000]!r}")
            raise
        seconds = time.process_time() - start
        spent, slowest = spent + seconds, max(slowest, seconds)
        assert mutant.is_changed or not codes, (codes, mutant)
        outcomes.update(codes or ["TAKEN"])
        kinds[mutant.kind] += 1
    assert CODES - outcomes.keys() == set()
    # Most of what is changed is refused, and there is enough that is taken all the same.
    assert COUNT / 2 < COUNT - outcomes["TAKEN"] < COUNT * 0.95, outcomes
    assert min(kinds.values()) > COUNT / 40
    assert spent < CPU_S_MAX
    assert slowest < ONE_CPU_S_MAX


@pytest.mark.parametrize("seed", [1, 2])
def test_a_seed_makes_the_same_bodies(seed: int) -> None:
    """What fails can be looked at again."""
    assert list(mutants(seed, 200)) == list(mutants(seed, 200))
    assert list(mutants(seed, 200)) != list(mutants(seed + 1, 200))
