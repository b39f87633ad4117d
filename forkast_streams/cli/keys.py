"""``forkast keys``: the keys of those who may write ``orders.new``."""

from __future__ import annotations

import base64
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer
from msgspec.structs import replace
from rich.console import Console
from rich.table import Table

from forkast_streams.devstack.server import write_atomic
from forkast_streams.errors import SetupError
from forkast_streams.producer_keys import KEY_ID, SECRET_BYTES, KeyFile, ProducerKey, Span, read_key_file

app = typer.Typer(
    name="keys",
    help="Keys of producers, whose records the engine can tell from others'; see docs/security.md.",
    no_args_is_help=True,
    add_completion=False,
)

# Engines look at the file every second; this also leaves room for clocks that differ.
_LEAD_S = 10
_LEAD_S_MIN = 3

File = Annotated[
    Path,
    typer.Option("--file", envvar="FORKAST_PRODUCER_KEYS", help="The key file that the engines read."),
]
Lead = Annotated[
    int,
    typer.Option(
        "--in",
        min=_LEAD_S_MIN,
        help="Seconds until it holds: by then every engine must have the new file.",
    ),
]


@app.command()
def new(
    file: File,
    producer: Annotated[str, typer.Option(help="Whose key it is; a-z, 0-9 and '-'.")],
    users: Annotated[str, typer.Option(help="Ids of the users it may act for, such as 1,2, or * for all.")] = "*",
    symbols: Annotated[bool, typer.Option("--symbols", help="Let it define symbols, too.")] = False,
    lead_s: Lead = _LEAD_S,
) -> None:
    """Make a key, and the file if there is none; print what the producer must set. It is shown only now.

    Example:
        forkast keys new --file keys.json --producer oms --symbols
    """
    key_id = f"{producer}-{secrets.token_hex(4)}"
    if not KEY_ID.fullmatch(key_id):
        raise SetupError("--producer must be a name of a-z, 0-9 and '-'.")
    secret = secrets.token_bytes(SECRET_BYTES)
    key = ProducerKey(key_id, producer, secret, _users(users), _now_ms() + lead_s * 1_000, symbols=symbols)
    _change(file, lambda content: replace(content, keys=(*content.keys, key)), may_make=True)
    typer.echo(f"FORKAST_PRODUCER_KEY={key_id}:{base64.b64encode(secret).decode()}")
    typer.echo(f"The key holds from {_moment(key.valid_from)} on; use it from then on.", err=True)


@app.command(name="list")
def list_keys(file: File) -> None:
    """Show all keys there have ever been, without their secrets.

    Example:
        forkast keys list --file keys.json
    """
    content, now = read_key_file(file).content, _now_ms()
    table = Table("key", "users", "symbols", "valid from", "until", "state")
    for key in content.keys:
        users = "*" if key.users == "*" else ",".join(map(str, sorted(key.users)))
        until = "-" if key.valid_until is None else _moment(key.valid_until)
        state = "valid" if key.is_valid_at(now) else "not yet" if now < key.valid_from else "ended"
        table.add_row(key.id, users, "yes" if key.symbols else "no", _moment(key.valid_from), until, state)
    console = Console()
    console.print(table if content.keys else f"There is no key in {file}.")
    for span in content.required:
        until = "" if span.until is None else f" until {_moment(span.until)}"
        console.print(f"Signatures are required from {_moment(span.since)}{until}.")


@app.command()
def revoke(
    file: File,
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="Id of the key.")],
    lead_s: Lead = _LEAD_S,
) -> None:
    """End a key. It stays in the file, because records that were signed with it are judged again at replays.

    Example:
        forkast keys revoke oms-1f2e3d4c --file keys.json
    """
    until = _now_ms() + lead_s * 1_000

    def end(content: KeyFile) -> KeyFile:
        found = next((key for key in content.keys if key.id == key_id), None)
        if found is None:
            raise SetupError(f"{file} has no key {key_id}; `forkast keys list` shows the keys.")
        if found.valid_until is not None:
            raise SetupError(f"key {key_id} ends at {_moment(found.valid_until)} already.")
        ended = replace(found, valid_until=max(until, found.valid_from))
        return replace(content, keys=tuple(ended if key is found else key for key in content.keys))

    _change(file, end)
    typer.echo(f"Key {key_id} ends at {_moment(until)}.")


@app.command()
def require(
    file: File,
    state: Annotated[Literal["on", "off"], typer.Argument(help="Whether records must be signed.")],
    lead_s: Lead = _LEAD_S,
) -> None:
    """Let the engine refuse records that are not signed, or let it take them again.

    Example:
        forkast keys require on --file keys.json
    """
    at = _now_ms() + lead_s * 1_000

    def switch(content: KeyFile) -> KeyFile:
        open_span = next((span for span in content.required if span.until is None), None)
        if (open_span is not None) == (state == "on"):
            raise SetupError(f"signatures are {'required' if open_span else 'not required'} already.")
        if open_span is None:
            return replace(content, required=(*content.required, Span(at)))
        closed = Span(open_span.since, max(at, open_span.since))
        return replace(content, required=tuple(closed if span is open_span else span for span in content.required))

    _change(file, switch)
    typer.echo(f"Signatures are {'required' if state == 'on' else 'not required'} from {_moment(at)} on.")


def _change(file: Path, change: Callable[[KeyFile], KeyFile], *, may_make: bool = False) -> None:
    """Write the changed content, so that a reader sees the old or the new one; two changes never lose one.

    Engines run as another user than the operator, who may be root: the file stays whose it is, and a link stays one.
    """
    try:
        file = file.resolve()
        with _locked(file):
            before = file.stat() if file.exists() else None
            content = KeyFile() if may_make and before is None else read_key_file(file).content
            write_atomic(file, _pretty(change(content)), mode=0o600, like=before)
            _tell_new_owner(file, before)
    except OSError as exc:
        raise SetupError(f"{file} cannot be written: {exc.strerror}; name a file of yours.") from exc


def _tell_new_owner(file: Path, before: os.stat_result | None) -> None:
    after = file.stat()
    if before is not None and (before.st_uid, before.st_gid) != (after.st_uid, after.st_gid):
        typer.echo(
            f"{file} belonged to {before.st_uid}:{before.st_gid} and is {after.st_uid}:{after.st_gid}'s now, because "
            "you may not give it away; let the engines' user read it.",
            err=True,
        )


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    # The file itself is replaced, so the lock is on its folder. To read is enough, where root has made the lock.
    with os.fdopen(os.open(file.parent / f".{file.name}.lock", os.O_RDONLY | os.O_CREAT, 0o644)) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _pretty(content: KeyFile) -> str:
    return msgspec.json.format(msgspec.json.encode(content), indent=2).decode() + "\n"


def _users(text: str) -> Literal["*"] | frozenset[int]:
    if text == "*":
        return "*"
    ids = text.split(",")
    if not all(each.isascii() and each.isdigit() and int(each) > 0 for each in ids):
        raise SetupError("--users must be ids of users such as 1,2, or * for all.")
    return frozenset(map(int, ids))


def _now_ms() -> int:
    return int(time.time() * 1_000)


def _moment(timestamp: int) -> str:
    return datetime.fromtimestamp(timestamp / 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
