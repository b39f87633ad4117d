"""Types of single fields, each with the JSON schema that says what they may hold."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from forkast_streams.codec import TOKEN
from forkast_streams.limits import BATCH_ORDERS_MAX, CANCEL_AFTER_MS_MAX, EXPIRES_AT_MS_MAX

JsonSchema = dict[str, Any]

INT32_MAX = 2**31 - 1
TOKEN_PATTERN = f"^{TOKEN.pattern}$"
_DECIMAL_PATTERN = "^(0|[1-9][0-9]*)([.][0-9]+)?$"

# What requests and commands take; stands in a document once, as Number.
NUMBER: JsonSchema = {
    "oneOf": [
        {"type": "number", "exclusiveMinimum": 0},
        {"type": "string", "pattern": "^[0-9]+([.][0-9]+)?$"},
    ],
    "description": "Read exactly, in either form; never as a binary fraction.",
    "examples": ["101.25"],
}
_NUMBER: JsonSchema = {"$ref": "#/components/schemas/Number"}
_TOKEN: JsonSchema = {"type": "string", "pattern": TOKEN_PATTERN}
UUID: JsonSchema = {"type": "string", "format": "uuid"}
ID: JsonSchema = {"type": "integer", "minimum": 1, "maximum": INT32_MAX}
TIME_MS: JsonSchema = {"type": "integer", "minimum": 0, "description": "Milliseconds since the epoch."}

DecimalText = Annotated[str, Meta(pattern=_DECIMAL_PATTERN, examples=["101.25"])]
ExactNumber = Annotated[Any, Meta(extra_json_schema={"type": "number", "minimum": 0})]
OrderId = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
ClientOrderId = Annotated[str, Meta(pattern=TOKEN_PATTERN, description="As the order came with it.")]
CommandId = Annotated[str, Meta(pattern="^[0-9a-f]{32}$", description="Comes back on the events that answer it.")]
Moment = Annotated[str, Meta(extra_json_schema={"format": "date-time"}, description="UTC.")]
Milliseconds = Annotated[int, Meta(ge=0, description="Milliseconds since the epoch.")]
Sequence = Annotated[int, Meta(ge=0, description="The symbol's sequence.")]

# What fields of requests and commands hold, by their names on the wire: the types they are decoded as are wider,
# because their values are checked behind the decoder, with errors in our own words.
REQUEST_FIELDS: dict[str, JsonSchema] = {
    "id": UUID,
    "orderId": UUID,
    "userId": ID,
    "symbolId": ID,
    "quantity": _NUMBER,
    "price": _NUMBER,
    "quoteQuantity": _NUMBER,
    "stopPrice": _NUMBER,
    "displayQuantity": _NUMBER,
    "clientOrderId": _TOKEN,
    "commandId": _TOKEN,
    "expiresAt": TIME_MS,
    "tickSize": _NUMBER,
    "lotSize": _NUMBER,
    "minQuantity": _NUMBER,
    "maxQuantity": _NUMBER,
    "minNotional": _NUMBER,
    "priceCollar": _NUMBER,
    "maxOpenOrders": ID,
    "orders": {
        "type": "array",
        "minItems": 1,
        "maxItems": BATCH_ORDERS_MAX,
        "items": {"$ref": "#/components/schemas/PlaceOrder"},
    },
    "ids": {"type": "array", "minItems": 1, "maxItems": BATCH_ORDERS_MAX, "items": {"type": "string"}},
}
# What they hold in one type and not in others.
_FIELDS_OF: dict[tuple[str, str], JsonSchema] = {
    ("PlaceOrder", "price"): {"anyOf": [_NUMBER, {"type": "null"}], "description": "null is no price."},
    ("PlaceOrder", "expiresAt"): TIME_MS | {"minimum": 1, "maximum": EXPIRES_AT_MS_MAX},
    ("CancelAfterBody", "timeout"): {"type": "integer", "minimum": 0, "maximum": CANCEL_AFTER_MS_MAX // 1000},
}
# What a type as a whole demands beyond its fields.
REQUEST_TYPES: dict[str, JsonSchema] = {"AmendOrder": {"minProperties": 1}}


def refine(name: str, schema: JsonSchema) -> None:
    """Put what is known of the fields of a request type into its generated schema."""
    schema |= REQUEST_TYPES.get(name, {})
    for field, given in schema.get("properties", {}).items():
        known = _FIELDS_OF.get((name, field)) or REQUEST_FIELDS.get(field)
        if known is None:
            continue
        may_be_null = {"type": "null"} in given.get("anyOf", []) or ("default" in given and given["default"] is None)
        given.pop("anyOf", None)
        if may_be_null:
            # Without an alternative a null would not be allowed; with a null as default there is nothing to tell.
            given.pop("default", None)
            given["anyOf"] = [known, {"type": "null"}]
        else:
            given |= known
