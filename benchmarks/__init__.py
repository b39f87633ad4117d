"""Benchmarks of the exchange: ``forkast bench --list`` names them, `benchmarks.harness` runs them."""
