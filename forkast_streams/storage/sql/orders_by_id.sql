-- Orders of a user by their ids; a trade has an order on one of its sides, and each side has its own index. Trades from
-- before the order are of one whose id it has got, long after that one was forgotten.
SELECT id::text, "userId", "symbolId", type::text, side::text, price, quantity, "filledQuantity", status::text, "timeInForce",
       "clientOrderId", reason, "createdAt", "updatedAt", "executedAt", "stopPrice", "expiresAt", "postOnly",
       "displayQuantity", "selfTradePrevention", "quoteQuantity", "triggeredAt", replaces::text,
       (SELECT sum(price * quantity) / sum(quantity) FROM (
            SELECT price, quantity FROM "Trade" AS t WHERE t."buyOrderId" = o.id AND t."symbolId" = o."symbolId"
                AND t."timestamp" >= o."createdAt"
            UNION ALL
            SELECT price, quantity FROM "Trade" AS t WHERE t."sellOrderId" = o.id AND t."symbolId" = o."symbolId"
                AND t."timestamp" >= o."createdAt"
       ) AS fills) AS "averagePrice"
FROM "Order" AS o
WHERE id = ANY(%(ids)s::uuid[]) AND "userId" = %(user_id)s
ORDER BY "createdAt" DESC, "symbolId"
