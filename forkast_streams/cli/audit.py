"""``forkast audit``: checks that nothing was lost and nothing happened twice."""

from __future__ import annotations

import asyncio
import json
import signal
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from forkast_streams.audit.capture import Exchange, LiveEvidence, capture
from forkast_streams.audit.dump import DumpEvidence, write_dump
from forkast_streams.audit.evidence import Row
from forkast_streams.audit.findings import Findings
from forkast_streams.audit.follow import Follower, serve
from forkast_streams.audit.report import as_json, print_report
from forkast_streams.audit.run import audit_evidence
from forkast_streams.cli.client import DEMO_USER, KEEPER_URL, KeeperUrl, Password, UserName
from forkast_streams.cli.servers import settings_of_exchange
from forkast_streams.config import Settings
from forkast_streams.errors import ForkastError, SetupError

console = Console(stderr=True)

BROKEN = 1
COULD_NOT_RUN = 2


def audit(
    dump: Annotated[Path | None, typer.Option(help="Folder to write what is judged into, for --from.")] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="Judge this dump instead of a running exchange.")
    ] = None,
    journal: Annotated[
        Path | None, typer.Option(help="JSON lines of what clients were told, for I-1: status, orderId, userId, ...")
    ] = None,
    report: Annotated[Path | None, typer.Option("--json", help="File to write the report into as JSON.")] = None,
    tables: Annotated[bool, typer.Option("--tables/--no-tables", help="Compare Postgres; books need it, too.")] = True,
    books: Annotated[bool, typer.Option("--books/--no-books", help="Compare the book API.")] = True,
    replay: Annotated[
        bool,
        typer.Option("--replay/--no-replay", help="Replay with the reference; slow for books of 10,000s of orders."),
    ] = True,
    settle: Annotated[float, typer.Option(min=0, help="Seconds to wait for what has not caught up.")] = 30.0,
    follow: Annotated[bool, typer.Option("--follow", help="Run beside the exchange and keep judging it.")] = False,
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Where --follow serves /ready and /metrics.")] = 3004,
    keeper_url: KeeperUrl = KEEPER_URL,
    user: UserName = DEMO_USER,
    password: Password = None,
) -> None:
    """Check the logs, the tables and the books for anything lost, doubled or changed.

    The exit status is 0 when all holds, 1 when something is broken and 2 when the audit could not run.

    Example:
        forkast audit --json report.json
    """
    if source is not None and (follow or dump is not None):
        raise typer.BadParameter("a dump can neither be followed nor dumped again", param_hint="--from")
    if follow and not (dump is None and journal is None and report is None):
        raise typer.BadParameter("it never ends, so --dump, --journal and --json are not for it", param_hint="--follow")
    if report is not None and not report.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {report.parent} to write it into", param_hint="--json")
    try:
        settings = settings_of_exchange() if source is None else Settings.from_env()
        exchange = Exchange(
            settings.broker_list,
            settings.database_url if tables else None,
            keeper_url if books and tables else None,
            user,
            password or user,
            settle,
            settings.producer_keys,
        )
        if follow:
            with suppress(asyncio.CancelledError):
                asyncio.run(_follow(Follower(exchange, replays=replay), settings.host, port))
            return
        if source is not None:
            evidence: DumpEvidence | LiveEvidence = _of_dump(source, tables=tables, books=books)
        else:
            evidence = _capture(exchange)
        is_clean = _audit(exchange, evidence, source, dump, journal, report, replays=replay)
    except ForkastError as exc:
        typer.echo(str(exc), err=True)
        raise typer.Exit(COULD_NOT_RUN) from None
    except KeyboardInterrupt:
        raise typer.Exit(COULD_NOT_RUN) from None
    except Exception:
        # Python's own status for this is 1, which would say that the exchange is broken.
        traceback.print_exc()
        raise typer.Exit(COULD_NOT_RUN) from None
    if not is_clean:
        raise typer.Exit(BROKEN)


async def _follow(follower: Follower, host: str, port: int) -> None:
    task = asyncio.current_task()
    assert task is not None, "a coroutine that runs has a task"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await serve(follower, host, port)


def _of_dump(folder: Path, *, tables: bool, books: bool) -> DumpEvidence:
    evidence = DumpEvidence(folder, with_sums=tables)
    if not tables:
        evidence.cut.tables = None
    if not (tables and books):
        evidence.cut.books = []
    return evidence


def _capture(exchange: Exchange) -> LiveEvidence:
    with console.status("Taking a cut") as status:
        return capture(exchange, lambda what: status.update(f"Taking a cut: {what}"))


def _audit(
    exchange: Exchange, evidence: DumpEvidence | LiveEvidence, source: Path | None, dump: Path | None,
    journal: Path | None, report: Path | None, *, replays: bool,
) -> bool:  # fmt: skip
    """Audit once, write and print what was found; say whether all holds."""
    try:
        if dump is not None:
            assert isinstance(evidence, LiveEvidence), "a dump is not dumped again"
            _write_dump(dump, evidence)
        findings, seconds = _judge(exchange, evidence, source, journal, replays=replays)
    finally:
        evidence.close()
    failure: OSError | None = None
    if report is not None:
        try:
            report.write_text(json.dumps(as_json(evidence.cut, findings, seconds), indent=2, default=str) + "\n")
        except OSError as exc:
            failure = exc
    # Where nobody reads what is printed rich ends the process, with the status of a broken exchange.
    with suppress(BrokenPipeError, SystemExit):
        print_report(Console(), evidence.cut, findings, seconds)
    if failure is not None:
        message = f"the report cannot be written ({failure}); see that --json names a file that can be."
        if findings.is_clean:
            raise SetupError(message)
        typer.echo(message, err=True)
    return findings.is_clean


def _judge(
    exchange: Exchange, evidence: DumpEvidence | LiveEvidence, source: Path | None, journal: Path | None,
    *, replays: bool,
) -> tuple[Findings, float]:  # fmt: skip
    with _progress() as bar:
        task = bar.add_task("Records audited", total=evidence.cut.records())
        return audit_evidence(
            evidence,
            brokers=exchange.brokers,
            folder=source,
            journal=journal,
            replays=replays,
            producer_keys=exchange.producer_keys,
            progress=lambda count: bar.update(task, completed=count),
        )


def _write_dump(folder: Path, evidence: LiveEvidence) -> None:
    with _progress() as bar:
        task = bar.add_task("Records dumped", total=evidence.cut.records())
        tables = evidence.tables

        def rows(table: str) -> Iterator[Row]:
            return iter(()) if tables is None else tables.rows(table)

        write_dump(folder, evidence, rows, lambda: bar.advance(task))


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)
