"""What the OMS makes of requests and shows of orders; the routes themselves are in ``web``."""
