"""``python -m forkast_streams`` is the ``forkast`` command."""

from forkast_streams.cli import main

main()
