"""Between the wire (JSON, see docs/wire.md) and the engine's commands and events."""

from forkast_streams.codec.commands import decode_command, number_of
from forkast_streams.codec.events import encode_events, trade_id

__all__ = ["decode_command", "encode_events", "number_of", "trade_id"]
