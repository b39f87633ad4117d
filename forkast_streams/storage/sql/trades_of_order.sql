-- What an order traded, first fill first; its user is never told who the others were.
SELECT t.id::text AS "tradeId", t.price, t.quantity, t."timestamp", t.side = t."takerSide"::text AS "isTaker"
FROM (
    SELECT *, 'BUY' AS side FROM "Trade" WHERE "buyOrderId" = %(id)s AND "symbolId" = %(symbol_id)s
    UNION ALL
    SELECT *, 'SELL' FROM "Trade" WHERE "sellOrderId" = %(id)s AND "symbolId" = %(symbol_id)s
) AS t
WHERE t."timestamp" >= %(created_at)s::timestamp
ORDER BY t.sequence
LIMIT %(limit)s
