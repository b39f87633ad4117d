"""Repeats a run with what happens in it, or runs many: ``python -m tests.simulation --seed 7`` or ``--runs 10000``."""

from tests.simulation.command import app

app()
