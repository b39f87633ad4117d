"""The bodies of answers but those about orders, and the events of streams, as clients get them."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from forkast_streams.api_description.fields import DecimalText, Milliseconds, Moment, OrderId, Sequence
from forkast_streams.market_data.changes import Trade

Scopes = Annotated[list[Literal["read", "trade"]], Meta(min_length=1)]


class ApiKeyView(Struct, rename="camel", forbid_unknown_fields=True):
    """An API key; ``canSign`` tells whether requests can be signed with it."""

    id: str
    name: str
    scopes: Scopes
    can_sign: bool
    created_at: Moment


class ApiKeyMade(ApiKeyView, rename="camel", forbid_unknown_fields=True):
    """A new API key with its secret, which no other answer tells."""

    secret: str


class ApiKeyList(Struct, rename="camel", forbid_unknown_fields=True):
    """The user's API keys, newest first."""

    api_keys: list[ApiKeyView]


class ApiKeyRevoked(Struct, rename="camel", forbid_unknown_fields=True):
    """The key is refused from now on."""

    id: str
    status: Literal["REVOKED"]


class BookLevel(Struct, rename="camel", forbid_unknown_fields=True):
    """A price with the quantity and the number of orders that are shown there."""

    price: DecimalText
    quantity: DecimalText
    orders: Annotated[int, Meta(ge=0)]


class Book(Struct, rename={"order_book_snap_shot_id": "orderBookSnapShotId", "symbol_id": "symbolId"}):
    """A symbol's book, best prices first; its id is the symbol's sequence."""

    order_book_snap_shot_id: Sequence
    symbol_id: int
    timestamp: Milliseconds
    buy: list[BookLevel]
    sell: list[BookLevel]


class Tape(Struct, rename="camel", forbid_unknown_fields=True):
    """A symbol's last trades, newest first."""

    symbol_id: int
    trades: list[Trade]


class BookSnapshot(Book, tag_field="type", tag="snapshot"):
    """The whole book: it replaces what the reader has."""


class BookChange(
    Struct,
    tag_field="type",
    tag="change",
    rename={"order_book_snap_shot_id": "orderBookSnapShotId", "previous_snap_shot_id": "previousSnapShotId"},
):
    """Levels as they are after the change; quantity ``0`` means the level is gone.

    It applies to a book with an id from ``previousSnapShotId`` on and below ``orderBookSnapShotId``.
    """

    order_book_snap_shot_id: Sequence
    previous_snap_shot_id: Sequence
    timestamp: Milliseconds
    buy: list[BookLevel]
    sell: list[BookLevel]


class Health(Struct):
    """The process answers."""

    role: str
    status: Literal["up"]


class Readiness(Struct):
    """Whether the role does its work, and if not, why."""

    role: str
    ready: bool
    reasons: list[str]


class ErrorDetail(Struct, rename="camel"):
    """What is wrong: a stable code, a sentence for people, and the field or parameter at fault if there is one.

    ``orderId`` stands with `LOG_UNAVAILABLE`: the id that the order has if it comes into the log.
    """

    code: Annotated[str, Meta(pattern="^[A-Z_]+$")]
    message: str
    field: str | None = None
    order_id: OrderId | None = None
