"""Which modules are compiled with mypyc (see setup.py), and whether what is compiled is the source that stands there.

A compiled module lies beside its source and goes before it. An edited source would change nothing, silently: so the
sources' hash is kept with what was compiled of them, and workers and tests refuse to start with another one.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from forkast_streams.errors import SetupError

_PACKAGE = Path(__file__).parent
_HASH_FILE = "compiled.sha256"
_SUFFIXES = ("*.so", "*.pyd")
# The engine and the codec, and beside them the books of a keeper. mypyc cannot compile msgspec's structs, which are
# compiled already.
_FOLDERS = ("engine", "codec")
_SINGLE = ("engine_partition.py", "market_data/book.py", "market_data/state.py")
_AS_THEY_ARE = frozenset({"__init__.py", "wire_command.py", "trading_rules.py"})


def sources() -> list[Path]:
    """The modules that are compiled, in one order."""
    in_folders = [
        path
        for folder in _FOLDERS
        for path in sorted((_PACKAGE / folder).glob("*.py"))
        if path.name not in _AS_THEY_ARE
    ]
    return [*in_folders, *(_PACKAGE / name for name in _SINGLE)]


def is_compiled() -> bool:
    """Whether the compiled modules are there."""
    return (_PACKAGE / _HASH_FILE).exists()


def require_fresh() -> None:
    """Refuse compiled modules of another source.

    Raises:
        SetupError: a source was changed since it was compiled.
    """
    if is_compiled() and (_PACKAGE / _HASH_FILE).read_text() != _hash_of_sources():
        raise SetupError(
            "the compiled engine is older than its source; run 'make setup', which compiles it again, or "
            "'make uncompiled' while you work on it."
        )


def write_down(root: Path) -> None:
    """Note the sources of what was compiled into the package below ``root``."""
    (root / _PACKAGE.name / _HASH_FILE).write_text(_hash_of_sources())


def remove() -> None:
    """Go back to the sources."""
    (_PACKAGE / _HASH_FILE).unlink(missing_ok=True)
    for suffix in _SUFFIXES:
        for folder in {_PACKAGE, *(path.parent for path in sources())}:
            for path in folder.glob(suffix):
                path.unlink()


def _hash_of_sources() -> str:
    digest = hashlib.sha256()
    for path in sources():
        digest.update(path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    remove()
