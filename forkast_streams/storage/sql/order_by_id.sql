SELECT id::text, "userId", "symbolId", type::text, side::text, price, quantity, "filledQuantity", status::text,
       "timeInForce", "clientOrderId", reason, "createdAt", "updatedAt", "executedAt"
FROM "Order"
WHERE id = %(id)s AND "userId" = %(user_id)s
