"""Recorded order flow of real exchanges as commands, and how well the engine reproduces it."""
