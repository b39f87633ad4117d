"""``python -m forkast_streams.devstack`` fetches the Kafka jars ahead of the first start."""

import sys

from forkast_streams.devstack.jars import ensure_jars
from forkast_streams.errors import SetupError

try:
    ensure_jars()
except SetupError as error:
    sys.exit(str(error))
