"""Order books to measure side by side: ours and its peers, each driven from plain values in its own kind of numbers.

``python -m benchmarks.books COMMANDS RESTING ROUNDS FLOW BOOKS`` prints what each round of each book was, as JSON. The
books, whose names are separated by commas, are by turns.
"""

from __future__ import annotations

import gc
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks import book_flows
from benchmarks.book_flows import Step
from benchmarks.children import collect_as_a_worker_does
from benchmarks.our_book import Ours
from benchmarks.results import FOLDER

PEERS_FOLDER = FOLDER / "peers"
_LOCK = Path(__file__).with_name("peers.lock")
_CHUNK = 5_000
# A peer that takes longer than this for a flow is judged by the part it has done, and it is loaded only once when that
# takes as long.
_SECONDS_MAX = 20.0
_SYMBOL = "1"


class Book(Protocol):
    """A book under measurement, empty at first."""

    def prepare(self, steps: Sequence[Step]) -> list[Any]:
        """Plain values of ``steps``, in order, with numbers and names as the book takes them; not timed."""

    def apply(self, inputs: list[Any]) -> int:
        """Make the book's own commands of them and apply those; return the quantity traded, from the book's reports."""


class Nanobook:
    """nanobook's exchange, which is Rust; the trades of an order are read."""

    def __init__(self) -> None:
        self._exchange = importlib.import_module("nanobook").Exchange()
        self._ids: dict[int, int] = {}

    def prepare(self, steps: Sequence[Step]) -> list[tuple[int, str, int, int]]:
        """Number, side, cents and quantity."""
        return [(step.number, "buy" if step.is_buy else "sell", step.cents, step.quantity) for step in steps]

    def apply(self, inputs: list[tuple[int, str, int, int]]) -> int:
        """See Book."""
        submit, cancel, ids, traded = self._exchange.submit_limit, self._exchange.cancel, self._ids, 0
        for number, side, cents, quantity in inputs:
            if quantity:
                result = submit(side, cents, quantity)
                ids[number] = result.order_id
                if result.filled_quantity:
                    for trade in result.trades:
                        traded += trade.quantity
            else:
                cancel(ids.pop(number))
        return traded


class PyOrderBook:
    """pyorderbook's book; its orders give themselves their ids."""

    def __init__(self) -> None:
        self._module = importlib.import_module("pyorderbook")
        self._book = self._module.Book()
        self._orders: dict[int, Any] = {}

    def prepare(self, steps: Sequence[Step]) -> list[tuple[int, bool, float, int]]:
        """Number, whether it buys, price and quantity."""
        return [(step.number, step.is_buy, step.cents / 100, step.quantity) for step in steps]

    def apply(self, inputs: list[tuple[int, bool, float, int]]) -> int:
        """See Book."""
        match, cancel, orders, traded = self._book.match, self._book.cancel, self._orders, 0
        bid, ask = self._module.bid, self._module.ask
        for number, is_buy, price, quantity in inputs:
            if quantity:
                order = orders[number] = (bid if is_buy else ask)(_SYMBOL, price, quantity)
                for trade in match(order).trades:
                    traded += trade.fill_quantity
            else:
                cancel(orders.pop(number))
        return traded


class LightMatchingEngine:
    """lightmatchingengine; it reports both sides of a trade, of which the taker's is counted."""

    def __init__(self) -> None:
        module = importlib.import_module("lightmatchingengine.lightmatchingengine")
        self._engine = module.LightMatchingEngine()
        self._ids: dict[int, int] = {}

    def prepare(self, steps: Sequence[Step]) -> list[tuple[int, int, float, int]]:
        """Number, side, price and quantity."""
        return [(step.number, 1 if step.is_buy else 2, step.cents / 100, step.quantity) for step in steps]

    def apply(self, inputs: list[tuple[int, int, float, int]]) -> int:
        """See Book."""
        add, cancel, ids, traded = self._engine.add_order, self._engine.cancel_order, self._ids, 0
        for number, side, price, quantity in inputs:
            if quantity:
                order, trades = add(_SYMBOL, price, quantity, side)
                ids[number] = order.order_id
                if trades:
                    traded += order.cum_qty
            else:
                cancel(ids.pop(number), _SYMBOL)
        return traded


BOOKS: dict[str, type[Book]] = {
    "ours": Ours,
    "nanobook": Nanobook,
    "pyorderbook": PyOrderBook,
    "lightmatchingengine": LightMatchingEngine,
}


def install_peers() -> str | None:
    """Install the peers of ``peers.lock`` into a folder of their own; return why not, if they cannot be."""
    stamp = PEERS_FOLDER / ".installed"
    wanted = _LOCK.read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return None
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--upgrade", "--require-hashes", "--target", str(PEERS_FOLDER)]
    done = subprocess.run([*command, "-r", str(_LOCK)], capture_output=True, text=True, check=False)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"pip ended with {done.returncode}"
    stamp.write_text(wanted)
    return None


def _time(book: Book, loaded: list[Step], steps: list[Step]) -> dict[str, Any]:
    """Load and time one book; what it made is dropped before the next one."""
    started = time.process_time()
    for at in range(0, len(loaded), _CHUNK):
        book.apply(book.prepare(loaded[at : at + _CHUNK]))
    load_s = time.process_time() - started
    inputs = book.prepare(steps)
    gc.collect()
    # Processor time, because nothing here waits: what else runs on the machine counts less.
    traded, done, started = 0, 0, time.process_time()
    while done < len(inputs) and time.process_time() - started < _SECONDS_MAX:
        traded += book.apply(inputs[done : done + _CHUNK])
        done += _CHUNK
    seconds = time.process_time() - started
    done = min(done, len(inputs))
    return {"commands": done, "seconds": seconds, "traded": traded, "load_s": load_s}


def main() -> None:
    """Time some books with a flow, by turns."""
    commands, resting, rounds = map(int, sys.argv[1:4])
    flow, names = sys.argv[4], sys.argv[5].split(",")
    sys.path.append(str(PEERS_FOLDER))
    loaded, steps = book_flows.make(flow, commands, resting)
    collect_as_a_worker_does()
    found: dict[str, Any] = {}
    for _ in range(rounds):
        for name in names:
            _time_again(found, name, loaded, steps)
    print(json.dumps(found))


def _time_again(found: dict[str, Any], name: str, loaded: list[Step], steps: list[Step]) -> None:
    """Add a round of a book to its rounds in ``found``, or why there is none."""
    rounds = found.setdefault(name, [])
    if isinstance(rounds, str) or (rounds and rounds[0]["load_s"] > _SECONDS_MAX):
        return
    try:
        rounds.append(_time(BOOKS[name](), loaded, steps))
    except ImportError as error:
        found[name] = str(error)


if __name__ == "__main__":
    main()
