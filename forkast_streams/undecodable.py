"""What stands for bytes that are no JSON of ours."""

from __future__ import annotations

import msgspec

# What msgspec's decoders raise at bytes that anybody may have written: the last two are no errors of its own.
UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
