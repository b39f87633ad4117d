"""Changelog-backed tables: the state that survives a crash."""
