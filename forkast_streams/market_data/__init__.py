"""Market data: depth and tape folded from ``orders.exchange``, published to Redis, read from there by the web."""
