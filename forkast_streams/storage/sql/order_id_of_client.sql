-- The order a client order id stands for: what is registered, or else the newest order that carries it.
SELECT "orderId"::text FROM (
    SELECT "orderId", "createdAt", 1 AS rank FROM "ClientOrderId"
    WHERE "userId" = %(user_id)s AND "clientOrderId" = %(client_order_id)s
    UNION ALL
    (SELECT id, "createdAt", 2 FROM "Order"
    WHERE "userId" = %(user_id)s AND "clientOrderId" = %(client_order_id)s
    ORDER BY "createdAt" DESC LIMIT 1)
) AS known
ORDER BY rank LIMIT 1
