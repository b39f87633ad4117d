-- Writes one batch of events and moves the progress on, or does nothing at all.
-- Parameters: topic, partition, first_offset, next_offset, last_digest, and the rows of forkast_streams.sink.fold.Rows by kind as
-- JSON: orders, changes, trades, symbols, sequences. One text for all kinds would be parsed for each of them.
-- Returns the number of progress rows it moved: 0 when the tables are not at first_offset, or when an order that
-- changed is not there.
WITH changed AS MATERIALIZED (
    SELECT r.*
    FROM json_to_recordset(%(changes)s::json) AS r(
        id uuid, "symbolId" int, "filledQuantity" numeric, status "OrderStatus", sequence bigint, "updatedAt" bigint,
        "executedAt" bigint, reason text, price numeric, quantity numeric, "stopPrice" numeric, "triggeredAt" bigint
    )
),
-- The fence: of two writers of one partition, one finds the progress moved and touches no row.
progress AS (
    UPDATE "SinkProgress" SET "nextOffset" = %(next_offset)s, "lastDigest" = %(last_digest)s
    WHERE topic = %(topic)s AND partition = %(partition)s AND "nextOffset" = %(first_offset)s
        AND NOT EXISTS (
            SELECT FROM changed
            WHERE NOT EXISTS (SELECT FROM "Order" o WHERE o.id = changed.id AND o."symbolId" = changed."symbolId")
        )
    RETURNING partition
),
new_orders AS (
    INSERT INTO "Order" AS o (
        id, "userId", "symbolId", type, price, quantity, "filledQuantity", status, side, "timeInForce",
        "clientOrderId", reason, sequence, "createdAt", "updatedAt", "executedAt", "stopPrice", "expiresAt", "postOnly",
        "displayQuantity", "selfTradePrevention", "quoteQuantity", "triggeredAt", replaces
    )
    SELECT
        r.id, r."userId", r."symbolId", r.type, r.price, r.quantity, r."filledQuantity", r.status, r.side,
        r."timeInForce", r."clientOrderId", r.reason, r.sequence,
        timestamp 'epoch' + r."createdAt" * interval '1 millisecond',
        timestamp 'epoch' + r."updatedAt" * interval '1 millisecond',
        timestamp 'epoch' + r."executedAt" * interval '1 millisecond',
        r."stopPrice", timestamp 'epoch' + r."expiresAt" * interval '1 millisecond', coalesce(r."postOnly", false),
        r."displayQuantity", coalesce(r."selfTradePrevention", 'EXPIRE_TAKER'), r."quoteQuantity",
        timestamp 'epoch' + r."triggeredAt" * interval '1 millisecond', r.replaces
    FROM progress, json_to_recordset(%(orders)s::json) AS r(
        id uuid, "userId" int, "symbolId" int, type "OrderType", price numeric, quantity numeric,
        "filledQuantity" numeric, status "OrderStatus", side "OrderSide", "timeInForce" text, "clientOrderId" text,
        reason text, sequence bigint, "createdAt" bigint, "updatedAt" bigint, "executedAt" bigint, "stopPrice" numeric,
        "expiresAt" bigint, "postOnly" boolean, "displayQuantity" numeric, "selfTradePrevention" text,
        "quoteQuantity" numeric, "triggeredAt" bigint, replaces uuid
    )
    -- An id that is used again after the engine has forgotten it; a rejection never hides an order.
    ON CONFLICT (id, "symbolId") DO UPDATE SET
        "userId" = excluded."userId", type = excluded.type, price = excluded.price, quantity = excluded.quantity,
        "filledQuantity" = excluded."filledQuantity", status = excluded.status, side = excluded.side,
        "timeInForce" = excluded."timeInForce", "clientOrderId" = excluded."clientOrderId",
        reason = excluded.reason, sequence = excluded.sequence, "createdAt" = excluded."createdAt",
        "updatedAt" = excluded."updatedAt", "executedAt" = excluded."executedAt", "stopPrice" = excluded."stopPrice",
        "expiresAt" = excluded."expiresAt", "postOnly" = excluded."postOnly",
        "displayQuantity" = excluded."displayQuantity", "selfTradePrevention" = excluded."selfTradePrevention",
        "quoteQuantity" = excluded."quoteQuantity", "triggeredAt" = excluded."triggeredAt",
        replaces = excluded.replaces
    WHERE o.sequence < excluded.sequence AND (excluded.status <> 'REJECTED' OR o.status = 'REJECTED')
),
changed_orders AS (
    UPDATE "Order" AS o SET
        "filledQuantity" = changed."filledQuantity",
        status = changed.status,
        reason = coalesce(changed.reason, o.reason),
        price = coalesce(changed.price, o.price),
        quantity = coalesce(changed.quantity, o.quantity),
        "stopPrice" = coalesce(changed."stopPrice", o."stopPrice"),
        sequence = changed.sequence,
        "updatedAt" = timestamp 'epoch' + changed."updatedAt" * interval '1 millisecond',
        "executedAt" = coalesce(
            timestamp 'epoch' + changed."executedAt" * interval '1 millisecond', o."executedAt"
        ),
        "triggeredAt" = coalesce(
            timestamp 'epoch' + changed."triggeredAt" * interval '1 millisecond', o."triggeredAt"
        )
    FROM progress, changed
    WHERE o.id = changed.id AND o."symbolId" = changed."symbolId" AND o.sequence < changed.sequence
),
new_trades AS (
    INSERT INTO "Trade" (
        id, "symbolId", price, quantity, "buyOrderId", "sellOrderId", "timestamp", sequence, "takerSide"
    )
    SELECT
        r.id, r."symbolId", r.price, r.quantity, r."buyOrderId", r."sellOrderId",
        timestamp 'epoch' + r."timestamp" * interval '1 millisecond', r.sequence, r."takerSide"
    FROM progress, json_to_recordset(%(trades)s::json) AS r(
        id uuid, "symbolId" int, price numeric, quantity numeric, "buyOrderId" uuid, "sellOrderId" uuid,
        "timestamp" bigint, sequence bigint, "takerSide" "OrderSide"
    )
),
symbols AS (
    INSERT INTO "Symbol" AS s (
        id, symbol, name, market, "tickSize", "lotSize", status, "createdAt", "updatedAt", "minQuantity", "maxQuantity",
        "minNotional", "priceCollar", "maxOpenOrders"
    )
    SELECT
        r.id, r.symbol, r.symbol, '', r."tickSize", r."lotSize", r.status,
        timestamp 'epoch' + r."updatedAt" * interval '1 millisecond',
        timestamp 'epoch' + r."updatedAt" * interval '1 millisecond',
        r."minQuantity", r."maxQuantity", r."minNotional", r."priceCollar", r."maxOpenOrders"
    FROM progress, json_to_recordset(%(symbols)s::json) AS r(
        id int, symbol text, "tickSize" numeric, "lotSize" numeric, status text, "updatedAt" bigint,
        "minQuantity" numeric, "maxQuantity" numeric, "minNotional" numeric, "priceCollar" numeric,
        "maxOpenOrders" int
    )
    ON CONFLICT (id) DO UPDATE SET
        symbol = excluded.symbol, "tickSize" = excluded."tickSize", "lotSize" = excluded."lotSize",
        status = excluded.status, "updatedAt" = excluded."updatedAt", "minQuantity" = excluded."minQuantity",
        "maxQuantity" = excluded."maxQuantity", "minNotional" = excluded."minNotional",
        "priceCollar" = excluded."priceCollar", "maxOpenOrders" = excluded."maxOpenOrders"
),
sequences AS (
    INSERT INTO "SymbolSequence" (partition, "symbolId", sequence)
    SELECT progress.partition, r."symbolId", r.sequence
    FROM progress, json_to_recordset(%(sequences)s::json) AS r("symbolId" int, sequence bigint)
    ON CONFLICT ("symbolId") DO UPDATE SET partition = excluded.partition, sequence = excluded.sequence
)
SELECT count(*) FROM progress
