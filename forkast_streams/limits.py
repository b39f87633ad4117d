"""Bounds of the exchange, each with its unit and its reason."""

from __future__ import annotations

from decimal import Decimal

# The largest price and quantity an order may carry and the smallest tick and lot size: together they keep ticks and
# lots within 64 bits, which is what a checkpoint can hold.
PRICE_MAX = Decimal(1_000_000_000)
QUANTITY_MAX = Decimal(1_000_000_000)
STEP_MIN = Decimal("0.00000001")
# The largest amount of money a market order may name, and its decimals: what an exact calculation still takes easily.
QUOTE_QUANTITY_MAX = Decimal(1_000_000_000_000_000)
QUOTE_DECIMALS_MAX = 18
# Slices in which an iceberg order may come: each costs an event, and one taker can meet them all.
ICEBERG_SLICES_MAX = 100
# Milliseconds a dead-man's switch can be set ahead.
CANCEL_AFTER_MS_MAX = 24 * 60 * 60 * 1000

# Order ids are remembered for at least this long, so that a resubmitted order never becomes a second one ...
SEEN_WINDOW_MS = 24 * 60 * 60 * 1000
# ... unless a partition takes more orders than this meanwhile: the memory of a worker must stay bounded.
SEEN_IDS_MAX = 1_000_000

# Seconds between two checkpoints of a partition that changes, and the number of records that forces one earlier.
CHECKPOINT_INTERVAL_S = 1.0
CHECKPOINT_RECORDS_MAX = 20_000

# A checkpoint row stays well below the broker's default limit of 1 MiB a record.
CHECKPOINT_CHUNK_BYTES = 512 * 1024
# Small journal rows that become one merged row, so that a recovery reads few of them.
JOURNAL_ROWS_MAX = 64
# Resting orders that each checkpoint writes again as they are now, so that a chain of segments stays short.
BASE_SLICE_MIN = 5_000
BASE_SLICES_MAX = 30

# Bytes one fetch takes from a partition: one batch is handled without a pause, so this bounds the pause.
FETCH_BYTES_MAX = 64 * 1024
# Batches that wait in an agent's queue before the fetcher stops.
BATCHES_QUEUED_MAX = 16

# Trades a symbol's tape holds.
TAPE_TRADES = 1_000
# Seconds Redis may take to accept a connection, and to answer beyond what a command waits for data there.
REDIS_TIMEOUT_S = 1.0
# Seconds a read of a stream waits for data in Redis.
REDIS_BLOCK_S_MAX = 1.0
# Symbols whose state in Redis is looked at in one go, twice a second.
PROBED_SYMBOLS_MAX = 500
# Levels a side that a client may ask for.
DEPTH_MAX = 5_000
# Updates that may wait for a client of a stream before it is cut.
STREAM_UPDATES_WAITING_MAX = 1_000

# Seconds between two looks for orders that are due to expire in markets where no command comes.
HEARTBEAT_INTERVAL_S = 0.5
