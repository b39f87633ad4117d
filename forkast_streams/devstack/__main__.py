"""``python -m forkast_streams.devstack`` fetches Kafka ahead of the first start and lets it start quickly."""

import sys

from forkast_streams.devstack.jars import ensure_jars
from forkast_streams.devstack.start_cache import make_start_cache
from forkast_streams.errors import SetupError

try:
    ensure_jars()
    make_start_cache()
except SetupError as error:
    sys.exit(str(error))
