SELECT id, symbol, name, market, currency, "tickSize", "lotSize", status FROM "Symbol" ORDER BY id
