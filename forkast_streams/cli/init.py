"""``forkast init``: prepare the topics and the database."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from forkast_streams.cli.servers import settings_of_exchange
from forkast_streams.config import Settings
from forkast_streams.reference_data import publish_symbols
from forkast_streams.storage.postgres import prepare_database
from forkast_streams.topics import PARTITIONS_DEFAULT, ensure_topics


def init(
    partitions: Annotated[
        int,
        typer.Option(min=1, max=1000, help="Partitions of new topics; where there is orders.new, they get as many."),
    ] = PARTITIONS_DEFAULT,
    demo_users: Annotated[
        bool, typer.Option(help="Create the ten demo users, whose passwords everybody knows.")
    ] = False,
) -> None:
    """Create what is missing: topics, tables, symbols; give topics that others have made the settings they need.

    Running it again changes nothing.

    Example:
        forkast init --demo-users
    """
    for sentence in asyncio.run(prepare(settings_of_exchange(), partitions=partitions, demo_users=demo_users)):
        typer.echo(sentence)


async def prepare(settings: Settings, *, partitions: int, demo_users: bool) -> list[str]:
    """Prepare topics, database and symbols; return a sentence for each thing done."""
    topics = await ensure_topics(settings.broker_list, partitions=partitions)
    await prepare_database(settings.database_url, demo_users=demo_users)
    symbols = await publish_symbols(settings)
    created = f"{', '.join(topics.created)} created" if topics.created else "all there"
    return [
        f"Topics: {created}, with {topics.partitions} partitions.",
        *(f"Topic {change}." for change in topics.mended),
        "Database: schema and symbols are there" + (", demo users too." if demo_users else "."),
        f"Symbols: {len(symbols)} published to the log ({', '.join(symbols)}).",
    ]
