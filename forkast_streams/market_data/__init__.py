"""What the market sees: depth and trades, folded from the events and published to Redis."""
