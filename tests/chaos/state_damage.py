"""Damages the local checkpoints of a worker that does not run, as a broken disk or a wrong restore would."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import rocksdict

_SEGMENT = b".s."


def stores(folder: Path) -> Iterator[Any]:
    """The local stores below a worker's folder, one after the other, each open while it is looked at."""
    for path in sorted(folder.glob("**/tables/*.db")):
        store = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True))
        try:
            yield store
        finally:
            store.close()


def _newest(store: Any) -> bytes | None:
    segments: list[bytes] = [key for key in store.keys() if _SEGMENT in key]  # noqa: SIM118 - it is no dict
    return max(segments, default=None)


def _flip(folder: Path, _backups: Path) -> bool:
    """Flip a bit in the newest segment of each partition."""
    done = False
    for store in stores(folder):
        if (key := _newest(store)) is not None:
            value = bytearray(store[key])
            value[-1] ^= 0x10
            store[key] = bytes(value)
            done = True
    return done


def _cut(folder: Path, _backups: Path) -> bool:
    """Cut the newest segment of each partition in half."""
    done = False
    for store in stores(folder):
        if (key := _newest(store)) is not None:
            store[key] = store[key][: len(store[key]) // 2]
            done = True
    return done


def _lose_newest(folder: Path, _backups: Path) -> bool:
    """Lose the newest segment of each partition, although Faust has noted that it was read."""
    done = False
    for store in stores(folder):
        if (key := _newest(store)) is not None:
            del store[key]
            done = True
    return done


def _future(folder: Path, _backups: Path) -> bool:
    """Put the newest segment of each partition under the name of one that reaches 7 records further."""
    done = False
    for store in stores(folder):
        if (key := _newest(store)) is not None:
            partition, kind, reached, *rest = key.split(b".")
            store[b".".join([partition, kind, b"%020d" % (int(reached) + 7), *rest])] = store[key]
            done = True
    return done


def _older(folder: Path, backups: Path) -> bool:
    """Put an older copy of the whole folder back."""
    shutil.rmtree(folder)
    shutil.copytree(backups, folder)
    return True


def back_up(folder: Path, backups: Path) -> None:
    """Copy the folder of a worker that does not run."""
    shutil.rmtree(backups, ignore_errors=True)
    shutil.copytree(folder, backups)


DAMAGES: dict[str, Callable[[Path, Path], bool]] = {
    "a bit flipped": _flip,
    "cut in half": _cut,
    "newest lost": _lose_newest,
    "an older copy": _older,
    "from the future": _future,
}
