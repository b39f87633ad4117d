-- The order a client order id stands for: what is registered, or else the newest order that carries it. "isClaimed" says
-- whether a request with the id is a repeat, so that it makes no new order.
SELECT "orderId"::text, "isClaimed" FROM (
    SELECT "orderId", "createdAt" >= (now() AT TIME ZONE 'UTC') - interval '24 hours' AS "isClaimed", 1 AS rank
    FROM "ClientOrderId"
    WHERE "userId" = %(user_id)s AND "clientOrderId" = %(client_order_id)s
    UNION ALL
    (SELECT id, false, 2 FROM "Order"
    WHERE "userId" = %(user_id)s AND "clientOrderId" = %(client_order_id)s
    ORDER BY "createdAt" DESC LIMIT 1)
) AS known
ORDER BY rank LIMIT 1
