-- One batch in one statement: all of it or nothing. Every part depends on the progress row having been where the
-- writer thought it was; a second sink on the same partition therefore writes nothing and is told so.
WITH input AS (SELECT %(batch)s::json AS batch),
progress AS (
    INSERT INTO "SinkProgress" AS known (topic, partition, "nextOffset", sequences)
    VALUES (%(topic)s, %(partition)s, %(next_offset)s, %(sequences)s::jsonb)
    ON CONFLICT (topic, partition) DO UPDATE
        SET "nextOffset" = excluded."nextOffset", sequences = known.sequences || excluded.sequences
        WHERE known."nextOffset" = %(expected_offset)s
    RETURNING "nextOffset"
),
new_orders AS (
    INSERT INTO "Order" (id, "userId", "symbolId", type, price, quantity, "filledQuantity", status, side, "timeInForce",
                         "clientOrderId", reason, sequence, "createdAt", "updatedAt", "executedAt")
    SELECT o.id, o.user_id, o.symbol_id, o.type, o.price, o.quantity, o.filled, o.status, o.side, o.time_in_force,
           o.client_order_id, o.reason, o.sequence, to_timestamp(o.created / 1000.0) AT TIME ZONE 'UTC',
           to_timestamp(o.updated / 1000.0) AT TIME ZONE 'UTC', to_timestamp(o.executed / 1000.0) AT TIME ZONE 'UTC'
    FROM input, progress, json_to_recordset(input.batch -> 'orders') AS o(
        id uuid, user_id integer, symbol_id integer, type "OrderType", price numeric, quantity numeric, filled numeric,
        status "OrderStatus", side "OrderSide", time_in_force text, client_order_id text, reason text, sequence bigint,
        created double precision, updated double precision, executed double precision)
    ON CONFLICT (id) DO NOTHING
),
changed_orders AS (
    UPDATE "Order" AS known
    SET price = coalesce(c.price, known.price), quantity = coalesce(c.quantity, known.quantity),
        "filledQuantity" = c.filled, status = c.status, reason = c.reason, sequence = c.sequence,
        "updatedAt" = to_timestamp(c.updated / 1000.0) AT TIME ZONE 'UTC',
        "executedAt" = coalesce(to_timestamp(c.executed / 1000.0) AT TIME ZONE 'UTC', known."executedAt")
    FROM input, progress, json_to_recordset(input.batch -> 'changes') AS c(
        id uuid, symbol_id integer, price numeric, quantity numeric, filled numeric, status "OrderStatus", reason text,
        sequence bigint, updated double precision, executed double precision)
    WHERE known.id = c.id AND known."symbolId" = c.symbol_id AND known.sequence < c.sequence
),
new_trades AS (
    INSERT INTO "Trade" (id, "symbolId", price, quantity, "buyOrderId", "sellOrderId", "timestamp", sequence, "takerSide")
    SELECT t.id, t.symbol_id, t.price, t.quantity, t.buy, t.sell, to_timestamp(t.time / 1000.0) AT TIME ZONE 'UTC',
           t.sequence, t.taker_side
    FROM input, progress, json_to_recordset(input.batch -> 'trades') AS t(
        id uuid, symbol_id integer, price numeric, quantity numeric, buy uuid, sell uuid, time double precision,
        sequence bigint, taker_side "OrderSide")
    ON CONFLICT (id) DO NOTHING
)
SELECT count(*) AS written FROM progress
