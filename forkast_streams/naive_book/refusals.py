"""Why a command is refused: the rules of docs/wire.md, in their order of precedence."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from forkast_streams.naive_book.book import WIDE, Command, NaiveBook, NaiveOrder

# Slices in which an iceberg order may come.
_SLICES_MAX = 10
_LARGEST = Decimal(1_000_000_000)
_LARGEST_AMOUNT = Decimal(1_000_000_000_000_000)


def why_not_new(book: NaiveBook, command: Command, used_ids: set[str]) -> str | None:
    """The code of the first reason against a new order."""
    replaced = None
    if command["id"].lower() in used_ids:
        return "DUPLICATE_ORDER"
    if command.get("command") == "REPLACE":
        replaced = book.find(command["orderId"], command["userId"])
        if replaced is None:
            return "UNKNOWN_ORDER"
    if book.status == "HALTED":
        return "SYMBOL_HALTED"
    if book.status == "CANCEL_ONLY":
        return "CANCEL_ONLY"
    code = _why_not_form(command) or _why_not_numbers(book, command) or _why_not_display(book, command)
    code = code or _why_not_size(book, command)
    if code is not None:
        return code
    if command.get("expiresAt") is not None and command["expiresAt"] <= book.now:
        return "ALREADY_EXPIRED"
    if _is_outside_collar(book, command):
        return "PRICE_COLLAR"
    if _is_too_many(book, command, replaced):
        return "TOO_MANY_OPEN_ORDERS"
    if command.get("postOnly") and command["type"] == "LIMIT":
        others = [order for order in opposite(book, command["side"]) if order is not replaced]
        if others and accepts(command["side"], Decimal(command["price"]), others[0].price):
            return "POST_ONLY_WOULD_TAKE"
    return None


def why_not_amend(book: NaiveBook, command: Command, order: NaiveOrder | None) -> str | None:
    """The code of the first reason against an amendment."""
    if order is None:
        return "UNKNOWN_ORDER"
    if book.status != "TRADING":
        return "SYMBOL_HALTED" if book.status == "HALTED" else "CANCEL_ONLY"
    if order.waiting and order.type == "STOP" and command.get("price") is not None:
        return "PRICE_NOT_ALLOWED"
    if not order.waiting and command.get("stopPrice") is not None:
        return "STOP_PRICE_NOT_ALLOWED"
    numbers = {name: command.get(name) for name in ("price", "stopPrice", "quantity")}
    code = _why_not_numbers(book, numbers)
    if code is not None:
        return code
    price = order.price if numbers["price"] is None else Decimal(numbers["price"])
    quantity = order.quantity if numbers["quantity"] is None else Decimal(numbers["quantity"])
    display = order.display_quantity
    if display is not None and quantity > order.quantity and quantity > display * _SLICES_MAX:
        return "INVALID_DISPLAY_QUANTITY"
    code = _why_not_other_size(book, order, price, quantity)
    if code is not None:
        return code
    if price is None or price == order.price:
        return None
    if _is_outside_collar(book, {"price": price}):
        return "PRICE_COLLAR"
    others = opposite(book, order.side)
    if order.post_only and not order.waiting and others and accepts(order.side, price, others[0].price):
        return "POST_ONLY_WOULD_TAKE"
    return None


def opposite(book: NaiveBook, side: str) -> list[NaiveOrder]:
    """The resting orders that an order of ``side`` can trade with."""
    return book.sides["SELL" if side == "BUY" else "BUY"]


def accepts(side: str, limit: Decimal | None, price: Decimal | None) -> bool:
    """Whether an order may trade at ``price``."""
    assert price is not None, "a resting order has a price"
    if limit is None:
        return True
    return price <= limit if side == "BUY" else price >= limit


def _why_not_form(command: Command) -> str | None:
    kind, has = command["type"], {name for name, value in command.items() if value is not None}
    may_rest = kind in ("LIMIT", "STOP_LIMIT") and command.get("timeInForce", "GTC") in ("GTC", "GTD")
    is_stop = kind in ("STOP", "STOP_LIMIT")
    is_limited = kind in ("LIMIT", "STOP_LIMIT")
    is_gtd = command.get("timeInForce") == "GTD"
    is_amount = "quoteQuantity" in has
    checks = [
        (is_limited and "price" not in has, "PRICE_REQUIRED"),
        (not is_limited and "price" in has, "PRICE_NOT_ALLOWED"),
        (is_stop and "stopPrice" not in has, "STOP_PRICE_REQUIRED"),
        (not is_stop and "stopPrice" in has, "STOP_PRICE_NOT_ALLOWED"),
        (not is_amount and "quantity" not in has, "QUANTITY_REQUIRED"),
        (is_amount and "quantity" in has, "QUANTITY_NOT_ALLOWED"),
        (is_amount and kind != "MARKET", "QUOTE_QUANTITY_NOT_ALLOWED"),
        (is_gtd and "expiresAt" not in has, "EXPIRES_AT_REQUIRED"),
        (not is_gtd and "expiresAt" in has, "EXPIRES_AT_NOT_ALLOWED"),
        (kind == "MARKET" and is_gtd, "TIME_IN_FORCE_NOT_ALLOWED"),
        (is_amount and command.get("timeInForce") == "FOK", "TIME_IN_FORCE_NOT_ALLOWED"),
        (bool(command.get("postOnly")) and not may_rest, "POST_ONLY_NOT_ALLOWED"),
        ("displayQuantity" in has and not may_rest, "DISPLAY_QUANTITY_NOT_ALLOWED"),
    ]
    return next((code for is_broken, code in checks if is_broken), None)


def _why_not_numbers(book: NaiveBook, command: Command) -> str | None:
    grids = [
        ("price", book.tick_size, "INVALID_PRICE", "INVALID_TICK"),
        ("stopPrice", book.tick_size, "INVALID_STOP_PRICE", "INVALID_STOP_TICK"),
        ("quantity", book.lot_size, "INVALID_QUANTITY", "INVALID_LOT"),
    ]
    for name, step, out_of_range, off_grid in grids:
        value = command.get(name)
        # What is closer to zero than decimals are calculated with is zero.
        if value is not None and not (0 < Decimal(value) <= _LARGEST and +Decimal(value) > 0):
            return out_of_range
        if value is not None and Decimal(value) % step != 0:
            return off_grid
    amount = command.get("quoteQuantity")
    if amount is not None:
        exponent = Decimal(amount).as_tuple().exponent
        if not 0 < Decimal(amount) <= _LARGEST_AMOUNT or int(exponent) < -18:
            return "INVALID_QUOTE_QUANTITY"
    return None


def _why_not_display(book: NaiveBook, command: Command) -> str | None:
    if command.get("displayQuantity") is None:
        return None
    display, quantity = Decimal(command["displayQuantity"]), Decimal(command["quantity"])
    is_valid = 0 < display <= quantity <= display * _SLICES_MAX and display % book.lot_size == 0
    return None if is_valid else "INVALID_DISPLAY_QUANTITY"


def _why_not_size(book: NaiveBook, command: Command) -> str | None:
    rules: dict[str, Any] = book.rules
    quantity, price = command.get("quantity"), command.get("price")
    if quantity is not None and Decimal(quantity) < rules.get("minQuantity", 0):
        return "QUANTITY_TOO_SMALL"
    if quantity is not None and Decimal(quantity) > rules.get("maxQuantity", _LARGEST):
        return "QUANTITY_TOO_LARGE"
    value = None if price is None or quantity is None else WIDE.multiply(Decimal(price), Decimal(quantity))
    if command.get("quoteQuantity") is not None:
        value = Decimal(command["quoteQuantity"])
    return "MIN_NOTIONAL" if value is not None and value < rules.get("minNotional", 0) else None


def _why_not_other_size(book: NaiveBook, order: NaiveOrder, price: Decimal | None, quantity: Decimal) -> str | None:
    """What an amendment makes worse by the rules for sizes."""
    rules = book.rules
    if rules.get("minQuantity", 0) > quantity < order.quantity:
        return "QUANTITY_TOO_SMALL"
    if rules.get("maxQuantity", _LARGEST) < quantity > order.quantity:
        return "QUANTITY_TOO_LARGE"
    if price is None or order.price is None:
        return None
    value, before = WIDE.multiply(price, quantity), WIDE.multiply(order.price, order.quantity)
    return "MIN_NOTIONAL" if rules.get("minNotional", 0) > value < before else None


def _is_outside_collar(book: NaiveBook, command: Command) -> bool:
    collar, price = book.collar(), command.get("price")
    return collar is not None and price is not None and not collar[0] <= Decimal(price) <= collar[1]


def _is_too_many(book: NaiveBook, command: Command, replaced: NaiveOrder | None) -> bool:
    most = book.rules.get("maxOpenOrders")
    if most is None or command["type"] == "MARKET":
        return False
    if command["type"] == "LIMIT" and command.get("timeInForce") in ("IOC", "FOK"):
        return False
    own = [order for order in book.orders if order.user_id == command["userId"] and order is not replaced]
    return len(own) >= int(most)
