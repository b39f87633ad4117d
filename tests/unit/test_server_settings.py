"""Addresses of servers that cannot be meant are refused with a sentence that never shows a password."""

from __future__ import annotations

import pytest

from forkast_streams.config import Settings
from forkast_streams.errors import SetupError

REFUSED = [
    ("DATABASE_URL", "postgres//u:s3cr3t@db/x"),
    ("DATABASE_URL", "mysql://u:s3cr3t@db/x"),
    ("DATABASE_URL", "host=db password=s3cr3t"),
    ("DATABASE_URL", "postgresql://u:s3cr3t@db:port/x"),
    ("DATABASE_URL", "postgresql://u:s3cr3t@db:1,other:70000/x"),
    ("DATABASE_URL", "postgresql://u:s3cr3t@db/x?pgbouncer=true"),
    ("DATABASE_URL", "postgresql://u:s3cr3t@db/x?schema=trading"),
    ("DATABASE_URL", "postgresql://u:s3cr3t@db"),
    ("DATABASE_URL", "postgresql://u:a/s3cr3t@db/x"),
    ("REDIS_URL", "localhost:6379"),
    ("REDIS_URL", "http://:s3cr3t@cache:6379"),
    ("REDIS_URL", "redis://:s3cr3t@cache:port"),
    ("REDIS_URL", "redis://:a/s3cr3t@cache:6379"),
    ("REDIS_URL", "redis://[::1"),
    ("KAFKA_BROKERS", "k1:abc"),
    ("KAFKA_BROKERS", "k1:9092,:9093"),
    ("KAFKA_BROKERS", "kafka://k1:9092"),
    ("KAFKA_BROKERS", "u:s3cr3t@k1:9092"),
    ("KAFKA_BROKERS", "k1:9092/path"),
    ("KAFKA_BROKERS", " , "),
]


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_address_that_can_not_be_meant_is_refused(name: str, value: str) -> None:
    """Before anything connects, with what is wanted instead."""
    with pytest.raises(SetupError, match=name) as caught:
        Settings.from_env({name: value})
    told = str(caught.value)
    assert "s3cr3t" not in told
    assert value not in told or not value
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "value",
    [
        "postgres://u:p@one:5432,two/db?sslmode=verify-full&options=-csearch_path%3Dtrading",
        "postgresql:///db?host=/run/postgresql",
        "postgresql://db?dbname=x",
        "host=db password='a b' dbname=x",
        "postgresql:///?service=exchange",
    ],
)
def test_every_form_of_a_database_url_is_taken_as_it_is(value: str) -> None:
    """That libpq has."""
    assert Settings.from_env({"DATABASE_URL": value}).database_url == value


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("?schema=public", ""),
        ("?schema=public&sslmode=require", "?sslmode=require"),
        ("?sslmode=require&schema=public", "?sslmode=require"),
    ],
)
def test_the_usual_schema_of_prisma_is_dropped(query: str, left: str) -> None:
    """The predecessor's URLs have it; tables are in that schema anyway."""
    settings = Settings.from_env({"DATABASE_URL": f"postgresql://u:p@db/x{query}"})
    assert settings.database_url == f"postgresql://u:p@db/x{left}"


def test_addresses_of_redis_and_the_brokers_are_taken_as_they_are() -> None:
    """With and without what can be left out."""
    for url in ("redis://localhost", "rediss://u:p@cache:6380/1?ssl_ca_certs=/ca.pem", "unix:///run/redis.sock"):
        assert Settings.from_env({"REDIS_URL": url}).redis_url == url
    settings = Settings.from_env({"KAFKA_BROKERS": "k1:9092, k2:9093,[::1]:9092,k3"})
    assert list(settings.broker_list) == ["k1:9092", "k2:9093", "[::1]:9092", "k3"]


def test_an_empty_address_is_none() -> None:
    """As files of settings have it where a variable is not set."""
    assert Settings.from_env({"DATABASE_URL": "", "REDIS_URL": "", "KAFKA_BROKERS": ""}) == Settings.from_env({})


def test_passwords_are_not_shown_with_the_settings() -> None:
    """Settings are printed and logged."""
    env = {"DATABASE_URL": "postgresql://u:s3cr3t@db/x", "REDIS_URL": "redis://:s3cr3t@cache"}
    assert "s3cr3t" not in repr(Settings.from_env(env))
