"""Between the wire (JSON, see docs/wire.md) and the engine's commands and events."""

from forkast_streams.codec.commands import TOKEN, decode_command
from forkast_streams.codec.events import encode_events, trade_id
from forkast_streams.codec.numbers import decimal_text, number_of

__all__ = ["TOKEN", "decimal_text", "decode_command", "encode_events", "number_of", "trade_id"]
