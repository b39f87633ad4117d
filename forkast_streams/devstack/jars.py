"""Fetch the jars of Apache Kafka that ``kafka_jars.lock`` names, each checked against its SHA-256."""

from __future__ import annotations

import hashlib
import logging
import os
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import certifi
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from forkast_streams.errors import SetupError

logger = logging.getLogger(__name__)

KAFKA_VERSION = "4.3.0"
MAVEN_CENTRAL = "https://repo.maven.apache.org/maven2"
LOCK_FILE = Path(__file__).with_name("kafka_jars.lock")
DOWNLOADS_AT_ONCE = 8
ATTEMPTS = 4
TIMEOUT_S = 30
CHUNK_BYTES = 1 << 16


class _WrongContent(OSError):
    """What came is not what the lock names; a broken proxy or a cut transfer, so worth another try."""


@dataclass(frozen=True, slots=True)
class Jar:
    """One artifact of the lock file."""

    group: str
    artifact: str
    version: str
    sha256: str
    size: int

    @property
    def file_name(self) -> str:
        """Name of the file in the cache."""
        return f"{self.artifact}-{self.version}.jar"

    @property
    def url_path(self) -> str:
        """Where a Maven repository keeps it."""
        return f"{self.group.replace('.', '/')}/{self.artifact}/{self.version}/{self.file_name}"


def parse_lock(text: str) -> list[Jar]:
    """Read lines ``group:artifact:version sha256=… size=…``; blank lines and ``#`` comments are skipped.

    Raises:
        ValueError: a line has another shape.
    """
    return [
        _parse_line(number, line)
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.startswith("#")
    ]


def _parse_line(number: int, line: str) -> Jar:
    try:
        coordinate, sha256, size = line.split()
        group, artifact, version = coordinate.split(":")
        jar = Jar(group, artifact, version, sha256.removeprefix("sha256="), int(size.removeprefix("size=")))
        if len(bytes.fromhex(jar.sha256)) != hashlib.sha256().digest_size:
            raise ValueError(f"not a SHA-256: {jar.sha256}")
    except ValueError as error:
        raise ValueError(f"line {number} of the jar lock is not `g:a:v sha256=… size=…`: {line}") from error
    return jar


def cache_dir() -> Path:
    """Return the folder of the jars: under ``FORKAST_CACHE``, else under ``~/.cache/forkast-streams``."""
    base = os.environ.get("FORKAST_CACHE")
    return (Path(base) if base else Path.home() / ".cache" / "forkast-streams") / f"kafka-{KAFKA_VERSION}"


def ensure_jars(folder: Path | None = None, *, show_progress: bool = True) -> list[Path]:
    """Return the locked jars' files, downloading into ``folder`` those it lacks.

    Raises:
        SetupError: a jar cannot be fetched, or the folder cannot be written.
    """
    folder = folder or cache_dir()
    jars = parse_lock(LOCK_FILE.read_text("utf-8"))
    # A file only gets its name after its content was checked, so its size is enough from then on.
    missing = [jar for jar in jars if not _is_present(folder / jar.file_name, jar.size)]
    if missing:
        _fetch_all(missing, folder, show_progress=show_progress)
    return [folder / jar.file_name for jar in jars]


def _is_present(file: Path, size: int) -> bool:
    try:
        return file.stat().st_size == size
    except FileNotFoundError:
        return False
    except OSError as error:
        raise SetupError(
            f"{file.parent} cannot be read ({error.strerror}): name another folder in FORKAST_CACHE"
        ) from error


def _fetch_all(jars: Iterable[Jar], folder: Path, *, show_progress: bool) -> None:
    jars = sorted(jars, key=lambda jar: -jar.size)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"{folder} cannot be made ({error.strerror}): name another folder in FORKAST_CACHE") from error
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with (
        Progress(*columns, console=Console(stderr=True), disable=not show_progress) as progress,
        ThreadPoolExecutor(DOWNLOADS_AT_ONCE, thread_name_prefix="jars") as pool,
    ):
        task = progress.add_task(f"Kafka {KAFKA_VERSION}", total=sum(jar.size for jar in jars))
        futures = [pool.submit(_fetch, jar, folder, lambda n: progress.advance(task, n)) for jar in jars]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    logger.info("fetched %d Kafka jars into %s", len(jars), folder)


def _fetch(jar: Jar, folder: Path, advance: Callable[[int], None]) -> None:
    """Download one jar, trying several times."""
    retrying = Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential_jitter(multiplier=0.5, max=8),
        retry=retry_if_exception_type(OSError),
        reraise=True,
    )
    try:
        retrying(_fetch_once, jar, folder, advance)
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        raise SetupError(
            f"{jar.file_name} could not be fetched ({reason}): check the network and the proxy settings, "
            "then run `make setup` again"
        ) from error


def _fetch_once(jar: Jar, folder: Path, advance: Callable[[int], None]) -> None:
    """Download to a temporary name, check, rename: a half-written file never counts."""
    digest, received = hashlib.sha256(), 0
    temporary = tempfile.NamedTemporaryFile(dir=folder, prefix=f".{jar.artifact}-", delete=False)  # noqa: SIM115
    try:
        url = f"{MAVEN_CENTRAL}/{jar.url_path}"
        with temporary, urllib.request.urlopen(url, timeout=TIMEOUT_S, context=_tls()) as response:  # noqa: S310
            while chunk := response.read(CHUNK_BYTES):
                temporary.write(chunk)
                digest.update(chunk)
                received += len(chunk)
                advance(len(chunk))
        if digest.hexdigest() != jar.sha256:
            raise _WrongContent(f"its checksum is {digest.hexdigest()}, not {jar.sha256}")
        Path(temporary.name).chmod(0o644)
        Path(temporary.name).replace(folder / jar.file_name)
    except BaseException:
        Path(temporary.name).unlink(missing_ok=True)
        advance(-received)
        raise


def _tls() -> ssl.SSLContext:
    """Trust what the system trusts (``SSL_CERT_FILE`` included); certifi where it has no certificates."""
    context = ssl.create_default_context()
    if not context.get_ca_certs() and not os.environ.get("SSL_CERT_DIR"):
        context.load_verify_locations(certifi.where())
    return context
