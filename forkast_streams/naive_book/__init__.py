"""The slow, obvious exchange that the engine is checked against: one list of orders a side, walked from the front.

It shares no code with ``forkast_streams.engine``, so that a mistake has to be made twice to go unseen. Prices and
quantities are plain decimals; nothing is indexed and nothing is cached.
"""

from forkast_streams.naive_book.book import NaiveBook, NaiveOrder
from forkast_streams.naive_book.exchange import NaiveExchange, read_command

__all__ = ["NaiveBook", "NaiveExchange", "NaiveOrder", "read_command"]
