"""Leaves a server alone for a while after a failure, so that what can do without it does not wait for it."""

from __future__ import annotations

import time


class Breaker:
    """Closed while a server answers; open for a pause after a failure, with one probe let through at its end."""

    def __init__(self, *, pause_s: float) -> None:
        self._pause_s = pause_s
        self._retry_at: float | None = None

    @property
    def is_closed(self) -> bool:
        """Whether the last attempt succeeded."""
        return self._retry_at is None

    def allows(self) -> bool:
        """Whether to try; after a failure once a pause."""
        if self._retry_at is None:
            return True
        now = time.monotonic()
        if now < self._retry_at:
            return False
        # Others stay away until this probe has told.
        self._retry_at = now + self._pause_s
        return True

    def succeeded(self) -> None:
        """Close."""
        self._retry_at = None

    def failed(self) -> None:
        """Open for a pause."""
        self._retry_at = time.monotonic() + self._pause_s
