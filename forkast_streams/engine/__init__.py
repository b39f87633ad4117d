"""The matching engine: commands in, events out; no I/O, no clock, no randomness."""
