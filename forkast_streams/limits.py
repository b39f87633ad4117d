"""Bounds of the exchange, each with its unit and its reason."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

# What compiled code reads for every order is Final: it is a constant there.

# The largest price and quantity an order may carry and the smallest tick and lot size: together they keep ticks and
# lots within 64 bits, which is what a checkpoint can hold.
PRICE_MAX = Decimal(1_000_000_000)
QUANTITY_MAX = Decimal(1_000_000_000)
STEP_MIN = Decimal("0.00000001")
# The largest amount of money a market order may name, and its decimals: what an exact calculation still takes easily.
QUOTE_QUANTITY_MAX = Decimal(1_000_000_000_000_000)
QUOTE_DECIMALS_MAX = 18
# Slices in which an iceberg order may come, as on other large exchanges. One taker can meet those of all orders, in one
# command, whose events are in memory together: each slice is two, some 4 us and 1 KiB. With a hundred slices what one
# user places in ten seconds came to a gigabyte of them, at the command and at each replay of it.
ICEBERG_SLICES_MAX = 10
# Bytes of a command, four times the largest body over HTTP, and of a record's key. What they lead to must fit into a
# record of Kafka's usual size: a rejection repeats the command, and a dead letter has as much of it.
COMMAND_BYTES_MAX: Final = 64 * 1024
KEY_BYTES_MAX: Final = 1024
# Price levels that a fill-or-kill order may need, and resting orders, where they must be looked at one by one. It looks
# before it trades, and takes nothing when it cannot be filled; one trade may trigger a hundred thousand of them.
FOK_LEVELS_MAX: Final = 1_000
FOK_ORDERS_MAX: Final = 1_000
# Milliseconds a dead-man's switch can be set ahead.
CANCEL_AFTER_MS_MAX = 24 * 60 * 60 * 1000
# The latest moment at which an order over HTTP may expire, the last second of the year 9999: later ones have no date.
EXPIRES_AT_MS_MAX = 253_402_300_799_000

# Order ids are remembered for at least this long, so that a resubmitted order never becomes a second one ...
SEEN_WINDOW_MS: Final = 24 * 60 * 60 * 1000
# ... unless a partition takes more orders than this meanwhile: the memory of a worker must stay bounded.
SEEN_IDS_MAX: Final = 1_000_000
# Seconds from a request to the moment at which its command is in the log or never gets there: what the OMS waits for
# the log, the minute or so until its producer gives a record up, and a margin.
COMMAND_LATE_S_MAX = 60
# Orders a second of the busiest partition, over such a time: what one OMS process takes, all for one symbol.
PARTITION_ORDERS_S_MAX = 13_000
# Records that a partition may have taken since an order was sent for it to be sent again under its id: the second one
# may be late itself, and must come before the id is forgotten.
SENT_AGAIN_RECORDS_MAX = SEEN_IDS_MAX - COMMAND_LATE_S_MAX * PARTITION_ORDERS_S_MAX

# Seconds between two checkpoints of a partition that changes, and the number of records that forces one earlier.
CHECKPOINT_INTERVAL_S = 1.0
CHECKPOINT_RECORDS_MAX = 20_000

# Bytes a checkpoint row holds at the most, merged or not: well below the broker's default limit of 1 MiB a record.
CHECKPOINT_CHUNK_BYTES = 512 * 1024
# Small journal rows that become one merged row, so that a recovery reads few of them.
JOURNAL_ROWS_MAX = 64
# Resting orders that each checkpoint writes again as they are now, so that a chain of segments stays short.
BASE_SLICE_MIN = 100
BASE_SLICES_MAX = 30

# Events that a reader keeps of a partition to compare with what an engine that starts again repeats, which is no more
# than it has sent since its last checkpoint; some 10 MB.
REPEATS_EVENTS_MAX = 20_000

# Bytes one fetch takes from a partition at the least ...
FETCH_BYTES_MAX = 64 * 1024
# ... and from all of a worker's together, if it has so few that this is more of each. One batch is handled without a
# pause, so this bounds the pause, to some 20 ms of ordinary commands.
FETCH_BYTES_TOGETHER = 640 * 1024
# The same of ``orders.exchange``, for readers to whom an event costs less. Of all partitions but one a broker sends
# nothing rather than a part of a batch, so this must hold the largest one that an engine sends, see `BATCH_BYTES`.
EVENTS_FETCH_BYTES_MAX = 1024 * 1024
# Bytes of one batch of records, unless a single record has more: large enough for what a batch costs by itself, and for
# what an engine with few partitions has for one of them at once.
BATCH_BYTES = 512 * 1024
# Batches that wait in an agent's queue before the fetcher stops.
BATCHES_QUEUED_MAX = 16

# Trades a symbol's tape holds.
TAPE_TRADES = 1_000
# Seconds Redis may take to accept a connection, and to answer beyond what a command waits for data there.
REDIS_TIMEOUT_S = 1.0
# Seconds Redis may take for what a keeper writes: nobody waits for that, and a whole book takes its time.
REDIS_WRITE_S_MAX = 5.0
# Seconds a read of a stream waits for data in Redis.
REDIS_BLOCK_S_MAX = 1.0
# Symbols whose state in Redis is looked at in one go, twice a second.
PROBED_SYMBOLS_MAX = 500
# Levels a side that a client may ask for.
DEPTH_MAX = 5_000
# Seconds between two looks whether the credential a stream was opened with is still good: a changed password or a
# revoked key ends it within a minute, as it ends other requests; and seconds until any stream has to be opened anew.
STREAM_RECHECK_S = 10.0
STREAM_S_MAX = 24 * 60 * 60.0
# Updates, and bytes of changes among them, that may wait for a client of a stream before it is cut.
STREAM_UPDATES_WAITING_MAX = 1_000
STREAM_BYTES_WAITING_MAX = 8 * 1024 * 1024

# Seconds between two looks for orders that are due to expire in markets where no command comes.
HEARTBEAT_INTERVAL_S = 0.5

# Seconds from SIGTERM to the end of the process; what cannot be finished by then is done again after the restart.
STOP_S_MAX = 9.0
# Seconds in which a stopping worker answers the requests in hand.
WEB_STOP_S_MAX = 2.0
# Seconds in which a stopping worker, or one that loses partitions, finishes and checkpoints what it has in hand.
DRAIN_S_MAX = 6.0
# Seconds without any progress, while Kafka answers and work waits, after which a worker ends itself.
STALL_S_MAX = 30.0
# Seconds for which the event loop may stand still while other threads run; loading the largest partition takes a small
# part of it.
LOOP_STALL_S_MAX = 30.0

# Seconds until a producer gives up a command that it could not put into the log. A connection and a request that have
# begun by then may take as long, each: what was answered as unknown is in the log within a minute, or never.
COMMAND_SEND_S_MAX = 15.0

# Seconds until an answer begins, whatever is away, and seconds a request's body may take to arrive.
REQUEST_S_MAX = 9.5
BODY_READ_S_MAX = 8.0
# Seconds a connection may be without a whole request, and seconds a client may take to read what is sent to it.
CONNECTION_IDLE_S_MAX = 12.0
RESPONSE_WRITE_S_MAX = 10.0
# Seconds the rest of a refused request's body is read and thrown away, so that the client gets to see the refusal.
REFUSED_BODY_READ_S_MAX = 2.0
# Bytes of the request line and of one header with its name, and number of headers.
HEADER_BYTES_MAX = 8_190
HEADERS_MAX = 100
# Bytes of the largest body that a route takes, a batch of orders. No signed request may have more: its body has to be
# read before it is known who sent it.
LARGEST_BODY_BYTES_MAX = 128 * 1024
# Orders, or ids of orders, that one request may have.
BATCH_ORDERS_MAX = 100
# Orders of a user that are reached by the number of a page, which is read with all pages before it.
PAGED_ORDERS_MAX = 1_000_000
# Connections a web server keeps; beyond them the one that has been idle longest makes room.
CONNECTIONS_MAX = 10_000
# Connections of one address; a new one beyond them takes the place of an idle one, or is refused.
CONNECTIONS_ADDRESS_MAX = 2_000
# Connections that wait to be accepted.
CONNECTIONS_WAITING_MAX = 2_048

# Seconds a web route waits for one statement, a free connection included. The client gave up first, then the server.
WEB_STATEMENT_S_MAX = 3.0
# Seconds what was known of users and keys serves while Postgres is away.
STALE_S_MAX = 600.0
# Active API keys of a user.
API_KEYS_MAX = 20

# Milliseconds of the log's time that a signed record may be older than the log's taking it: a record that was taken
# off the wire can be written again for so long. Longer than a producer's retries of what it still reports as done.
SIGNATURE_AGE_MS_MAX = 60_000
# Milliseconds that a producer's clock may be ahead of the log's.
SIGNATURE_AHEAD_MS_MAX = 10_000
