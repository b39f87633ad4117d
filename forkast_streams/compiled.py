"""Which modules are compiled with mypyc (see setup.py), and whether what is compiled is the source that stands there.

A compiled module lies beside its source and goes before it. An edited source would change nothing, silently: so the
sources' hash is kept with what was compiled of them, and workers and tests refuse to start with another one.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from forkast_streams.errors import SetupError

_PACKAGE = Path(__file__).parent
_HASH_FILE = "compiled.sha256"
_SUFFIXES = ("*.so", "*.pyd")
# The engine and the codec, and beside them the books of a keeper. mypyc cannot compile msgspec's structs, which are
# compiled already.
_FOLDERS = ("engine", "codec")
_SINGLE = ("engine_partition.py", "market_data/book.py", "market_data/state.py")
_AS_THEY_ARE = frozenset({"__init__.py", "wire_command.py", "define_symbol.py"})
# What these have that is Final stands in the compiled modules as a constant.
_READ_BY_THEM = ("limits.py", "wire_events.py")


def sources() -> list[Path]:
    """The modules that are compiled, in one order."""
    in_folders = [path for path in _in_folders() if path.name not in _AS_THEY_ARE]
    return [*in_folders, *(_PACKAGE / name for name in _SINGLE)]


def made_of() -> list[Path]:
    """The modules that decide what is compiled, in one order."""
    return [*_in_folders(), *(_PACKAGE / name for name in (*_SINGLE, *_READ_BY_THEM))]


def _in_folders() -> Iterator[Path]:
    return chain.from_iterable(sorted((_PACKAGE / folder).glob("*.py")) for folder in _FOLDERS)


def is_compiled() -> bool:
    """Whether the compiled modules are there."""
    return (_PACKAGE / _HASH_FILE).exists()


def require_fresh() -> None:
    """Refuse compiled modules of another source, and those of a compilation that was cut off.

    Raises:
        SetupError: they are not what the sources would become.
    """
    if not _is_fresh():
        raise SetupError(
            "the compiled engine is not finished, or not of this source; run 'make setup', which compiles it again, or "
            "'make uncompiled' while you work on it."
        )


def _is_fresh() -> bool:
    # The hash comes last: what is there without it counts for a training, or is only in part there.
    return (_PACKAGE / _HASH_FILE).read_text() == hash_of_sources() if is_compiled() else not any(_compiled_files())


def hash_of_sources() -> str:
    """The hash of the modules that decide what is compiled, as they are now."""
    digest = hashlib.sha256()
    for path in made_of():
        digest.update(path.read_bytes())
    return digest.hexdigest()


def write_down(root: Path, made_of_hash: str) -> None:
    """Note of which sources, as `hash_of_sources` gave it before, was compiled into the package below ``root``."""
    (root / _PACKAGE.name / _HASH_FILE).write_text(made_of_hash)


def remove() -> None:
    """Go back to the sources."""
    (_PACKAGE / _HASH_FILE).unlink(missing_ok=True)
    for path in list(_compiled_files()):
        path.unlink()


def _compiled_files() -> Iterator[Path]:
    folders = {_PACKAGE, *(path.parent for path in sources())}
    return chain.from_iterable(folder.glob(suffix) for folder in folders for suffix in _SUFFIXES)


if __name__ == "__main__":
    if sys.argv[1:] == ["remove"]:
        remove()
    else:
        # For make, which compares it with what it was when the last compilation began.
        sys.stdout.write(hash_of_sources() + ("" if _is_fresh() else " stale"))
