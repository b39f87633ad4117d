"""The lock file of the Kafka jars, and the check of what is fetched."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from forkast_streams.devstack import jars
from forkast_streams.errors import SetupError

SHA = "ab" * 32


def test_a_line_names_an_artifact_its_hash_and_its_size() -> None:
    """Group, artifact and version give the file's name and its place in a Maven repository."""
    (jar,) = jars.parse_lock(f"# comment\n\norg.apache.kafka:kafka_2.13:4.3.0 sha256={SHA} size=12\n")
    assert jar == jars.Jar("org.apache.kafka", "kafka_2.13", "4.3.0", SHA, 12)
    assert jar.file_name == "kafka_2.13-4.3.0.jar"
    assert jar.url_path == "org/apache/kafka/kafka_2.13/4.3.0/kafka_2.13-4.3.0.jar"


@pytest.mark.parametrize(
    "line",
    [
        "org.apache.kafka:kafka_2.13:4.3.0",
        f"kafka_2.13:4.3.0 sha256={SHA} size=12",
        "g:a:1 sha256=abcd size=12",
        f"g:a:1 sha256={SHA} size=many",
        f"g:a:1 sha256={SHA} size=1 more",
    ],
)
def test_a_line_of_another_shape_is_an_error(line: str) -> None:
    """The error names the line."""
    with pytest.raises(ValueError, match="line 2 of the jar lock"):
        jars.parse_lock(f"# comment\n{line}")


def test_the_lock_is_whole() -> None:
    """It has the server, the clients and a logging backend, each once, and no pre-release."""
    locked = jars.parse_lock(jars.LOCK_FILE.read_text("utf-8"))
    names = [f"{jar.group}:{jar.artifact}" for jar in locked]
    assert len(set(names)) == len(names)
    assert {jar.version for jar in locked if jar.group == "org.apache.kafka"} == {jars.KAFKA_VERSION}
    assert {"org.apache.kafka:kafka_2.13", "org.apache.logging.log4j:log4j-slf4j-impl"} <= set(names)
    assert not [jar for jar in locked if "beta" in jar.version or "SNAPSHOT" in jar.version]


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``FORKAST_CACHE`` moves the cache."""
    monkeypatch.setenv("FORKAST_CACHE", str(tmp_path))
    assert jars.cache_dir() == tmp_path / "kafka-4.3.0"


class Registry:
    """Answers downloads with prepared contents, one an attempt; an exception is raised instead."""

    def __init__(self, *answers: bytes | Exception) -> None:
        self.answers = list(answers)

    def open(self, _url: str, **_options: object) -> io.BytesIO:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return io.BytesIO(answer)


@pytest.fixture
def lock_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[bytes], None]:
    """Makes the lock file name one jar with a content, and retries come at once."""
    monkeypatch.setattr(jars, "wait_exponential_jitter", lambda **_: lambda _state: 0)

    def write(content: bytes) -> None:
        file = tmp_path / "lock"
        file.write_text(f"g:a:1 sha256={hashlib.sha256(content).hexdigest()} size={len(content)}\n")
        monkeypatch.setattr(jars, "LOCK_FILE", file)

    return write


def test_a_cut_or_altered_download_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lock_of: Callable[[bytes], None]
) -> None:
    """Only the content with the locked hash gets the jar's name, and nothing else stays behind."""
    lock_of(b"content")
    registry = Registry(b"cont", OSError("connection reset"), b"CONTENT", b"content")
    monkeypatch.setattr("urllib.request.urlopen", registry.open)
    (file,) = jars.ensure_jars(tmp_path / "jars", show_progress=False)
    assert file.read_bytes() == b"content"
    assert list(file.parent.iterdir()) == [file]
    assert not registry.answers


def test_what_is_in_the_cache_is_not_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lock_of: Callable[[bytes], None]
) -> None:
    """A file of the locked size was checked when it came."""
    lock_of(b"content")
    monkeypatch.setattr("urllib.request.urlopen", Registry().open)
    (tmp_path / "a-1.jar").write_bytes(b"content")
    assert jars.ensure_jars(tmp_path, show_progress=False) == [tmp_path / "a-1.jar"]


def test_an_unreachable_registry_gives_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lock_of: Callable[[bytes], None]
) -> None:
    """One sentence says which jar, why, and what to do; no half-written file stays."""
    lock_of(b"content")
    monkeypatch.setattr("urllib.request.urlopen", Registry(*[OSError("no route to host")] * 4).open)
    with pytest.raises(SetupError, match=r"a-1\.jar could not be fetched \(no route to host\): check the network"):
        jars.ensure_jars(tmp_path / "jars", show_progress=False)
    assert not list((tmp_path / "jars").iterdir())
