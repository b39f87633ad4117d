"""Ends the process at once when going on could lose or invent something.

Whatever was not acknowledged is processed again after the restart, so stopping is always safe; running on after an
unexpected error is not.
"""

from __future__ import annotations

import logging
import os
from typing import NoReturn

log = logging.getLogger(__name__)

EXIT_STATUS = 70


def fail_fast(what: str, exc: BaseException) -> NoReturn:
    """Log ``exc`` with its traceback and end the process; nothing more is committed."""
    log.critical("%s failed; the worker stops before anything more is committed: %r", what, exc, exc_info=exc)
    logging.shutdown()
    os._exit(EXIT_STATUS)
