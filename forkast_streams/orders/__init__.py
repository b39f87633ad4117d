"""What the OMS makes of requests and shows of orders; no HTTP."""
