"""Secrets from the environment: in a variable itself, or in the file that the variable with ``_FILE`` names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from forkast_streams.errors import SetupError


def read_secret(env: Mapping[str, str], name: str) -> str:
    """The secret of variable ``name`` or of the file in ``{name}_FILE``, without a line end; empty when neither is set.

    Raises:
        SetupError: both are set, or the file cannot be read or is empty.
    """
    text, file = env.get(name, ""), env.get(f"{name}_FILE", "")
    if not file:
        return text
    if text:
        raise SetupError(f"{name} and {name}_FILE are both set; set one of them.")
    try:
        text = Path(file).read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as exc:
        reason = getattr(exc, "strerror", None) or "it is no text in UTF-8"
        raise SetupError(f"{name}_FILE ({file}) cannot be read: {reason}.") from None
    if not text:
        raise SetupError(f"{name}_FILE ({file}) is empty; write the secret into it.")
    return text
