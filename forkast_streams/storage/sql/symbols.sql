SELECT id, symbol, name, market, currency, "tickSize", "lotSize", status, "minQuantity", "maxQuantity", "minNotional",
       "priceCollar", "maxOpenOrders"
FROM "Symbol" ORDER BY id
