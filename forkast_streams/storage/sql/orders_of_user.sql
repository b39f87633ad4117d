-- A user's orders, newest first, from the first one behind a place in their order: the rows, and the pending orders that
-- have no row yet. One statement, so that a page sees both at one moment and no order twice or not at all.
WITH place AS (
    SELECT coalesce(%(before_at)s::timestamp, 'infinity') AS at,
        coalesce(%(before_id)s::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff') AS id
),
pending AS (
    SELECT p.* FROM json_to_recordset(%(pending)s::json) AS p(
        id uuid, "userId" integer, "symbolId" integer, type text, side text, price numeric, quantity numeric,
        "filledQuantity" numeric, status text, "timeInForce" text, "clientOrderId" text, reason text,
        "createdAt" timestamp(3), "updatedAt" timestamp(3), "executedAt" timestamp(3), "stopPrice" numeric,
        "expiresAt" timestamp(3), "postOnly" boolean, "displayQuantity" numeric, "selfTradePrevention" text,
        "quoteQuantity" numeric, "triggeredAt" timestamp(3), replaces text)
    WHERE NOT EXISTS (SELECT 1 FROM "Order" AS o WHERE o.id = p.id)
        AND (p."createdAt", p.id) < ((SELECT at FROM place), (SELECT id FROM place))
),
page AS (
    SELECT * FROM (
        -- Limited here, too: above a union, Postgres would read and sort all that the user ever placed.
        (SELECT id, "userId", "symbolId", type::text, side::text, price, quantity, "filledQuantity", status::text, "timeInForce",
            "clientOrderId", reason, "createdAt", "updatedAt", "executedAt", "stopPrice", "expiresAt", "postOnly",
            "displayQuantity", "selfTradePrevention", "quoteQuantity", "triggeredAt", replaces::text
        FROM "Order" WHERE "userId" = %(user_id)s AND ("createdAt", id) < ((SELECT at FROM place), (SELECT id FROM place))
        ORDER BY "Order"."createdAt" DESC, "Order".id DESC
        LIMIT %(limit)s + %(offset)s)
        UNION ALL
        SELECT * FROM pending
    ) AS orders
    ORDER BY "createdAt" DESC, id DESC
    LIMIT %(limit)s OFFSET %(offset)s
)
SELECT page.id::text, "userId", "symbolId", type, side, price, quantity, "filledQuantity", status, "timeInForce",
       "clientOrderId", reason, "createdAt", "updatedAt", "executedAt", "stopPrice", "expiresAt", "postOnly",
       "displayQuantity", "selfTradePrevention", "quoteQuantity", "triggeredAt", replaces,
       (SELECT sum(price * quantity) / sum(quantity) FROM (
            SELECT price, quantity FROM "Trade" AS t WHERE t."buyOrderId" = page.id AND t."symbolId" = page."symbolId"
                AND t."timestamp" >= page."createdAt"
            UNION ALL
            SELECT price, quantity FROM "Trade" AS t WHERE t."sellOrderId" = page.id AND t."symbolId" = page."symbolId"
                AND t."timestamp" >= page."createdAt"
       ) AS fills) AS "averagePrice"
FROM page
ORDER BY "createdAt" DESC, id DESC
