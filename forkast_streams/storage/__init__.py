"""Postgres and Redis, as this project uses them."""
