"""Every Kafka client of the project against a broker with passwords and TLS; wrong credentials reach nothing."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed

from forkast_streams.audit import run
from forkast_streams.audit.capture import Exchange, capture
from forkast_streams.config import Settings
from forkast_streams.devstack import Stack
from forkast_streams.errors import SetupError
from forkast_streams.kafka_security import MECHANISMS
from forkast_streams.producer import EventProducer
from forkast_streams.producer_keys import KeyFile, ProducerKey, Span
from forkast_streams.replay.session import open_session
from forkast_streams.topics import ORDERS_NEW, ensure_topics, require_topics
from tests.integration.exchange import Worker
from tests.integration.secured_kafka import PASSWORD, USER, Certificates, SecuredKafka
from tests.support.flows import home_of, order_command, symbol_command


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[SecuredKafka]:
    kafka = SecuredKafka(tmp_path_factory.mktemp("secured"), certificates)
    try:
        kafka.start()
        asyncio.run(ensure_topics([f"127.0.0.1:{kafka.port}"]))
        yield kafka
    finally:
        kafka.stop()


@pytest.fixture(autouse=True)
async def _connections_end(kafka: SecuredKafka) -> AsyncIterator[None]:
    """Let connections end before their event loop does: of those with TLS both sides say good-bye first."""
    yield
    ports = {int(address.rpartition(":")[2]) for address in kafka.address.values()}
    process = psutil.Process()
    async for attempt in AsyncRetrying(stop=stop_after_delay(30), wait=wait_fixed(0.01)):
        with attempt:
            open_ones = [one for one in process.net_connections("tcp") if one.raddr and one.raddr.port in ports]
            assert not open_ones


def sasl(kafka: SecuredKafka, protocol: str, mechanism: str) -> dict[str, str]:
    return {
        "KAFKA_BROKERS": kafka.address[protocol],
        "KAFKA_SECURITY_PROTOCOL": protocol,
        "KAFKA_SASL_MECHANISM": mechanism,
        "KAFKA_SASL_USERNAME": USER,
        "KAFKA_SASL_PASSWORD": PASSWORD,
    }


def with_tls(kafka: SecuredKafka, certificates: Certificates) -> dict[str, str]:
    return {
        "KAFKA_BROKERS": kafka.address["SSL"],
        "KAFKA_SECURITY_PROTOCOL": "SSL",
        "KAFKA_SSL_CAFILE": str(certificates.cafile),
        "KAFKA_SSL_CERTFILE": str(certificates.client_certfile),
        "KAFKA_SSL_KEYFILE": str(certificates.client_keyfile),
    }


async def use_all_clients(env: dict[str, str]) -> None:
    """Look at the topics, write a record, and read where it went: admin, producer and consumer."""
    brokers = Settings.from_env(env).broker_list
    await require_topics(brokers)
    async with EventProducer(brokers) as producer:
        await producer.send(ORDERS_NEW, key=b"1", value=b"{}", partition=0)
    async with open_session(brokers, 1):
        pass


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_clients_enter_with_user_and_password(kafka: SecuredKafka, mechanism: str) -> None:
    await use_all_clients(sasl(kafka, "SASL_PLAINTEXT", mechanism))


async def test_clients_enter_with_a_certificate(kafka: SecuredKafka, certificates: Certificates) -> None:
    await use_all_clients(with_tls(kafka, certificates))


async def test_clients_enter_with_password_over_tls(kafka: SecuredKafka, certificates: Certificates) -> None:
    await use_all_clients(sasl(kafka, "SASL_SSL", "SCRAM-SHA-512") | {"KAFKA_SSL_CAFILE": str(certificates.cafile)})


@pytest.mark.parametrize(
    "wrong",
    ["password", "user", "no password", "another authority", "no certificate", "another host"],
)
async def test_wrong_credentials_reach_nothing(kafka: SecuredKafka, certificates: Certificates, wrong: str) -> None:
    """Each ends in one sentence that names what to check, and none of them in a client without security."""
    env = {
        "password": sasl(kafka, "SASL_PLAINTEXT", "SCRAM-SHA-256") | {"KAFKA_SASL_PASSWORD": "wrong"},
        "user": sasl(kafka, "SASL_PLAINTEXT", "PLAIN") | {"KAFKA_SASL_USERNAME": "nobody"},
        "no password": {"KAFKA_BROKERS": kafka.address["SASL_PLAINTEXT"]},
        "another authority": with_tls(kafka, certificates) | {"KAFKA_SSL_CAFILE": str(certificates.foreign_cafile)},
        "no certificate": with_tls(kafka, certificates) | {"KAFKA_SSL_CERTFILE": "", "KAFKA_SSL_KEYFILE": ""},
        "another host": with_tls(kafka, certificates)
        | {"KAFKA_BROKERS": kafka.address["SSL"].replace("127.0.0.1", "localhost")},
    }[wrong]
    with pytest.raises(SetupError, match="Kafka is not reachable at"):
        await require_topics(Settings.from_env(env).broker_list)


def test_a_worker_runs_over_tls_with_a_password(
    kafka: SecuredKafka, certificates: Certificates, stack: Stack, tmp_path: Path
) -> None:
    """Faust's own consumer and producer enter like all others: the engine gets its partitions and is ready."""
    env = stack.env() | sasl(kafka, "SASL_SSL", "SCRAM-SHA-256") | {"KAFKA_SSL_CAFILE": str(certificates.cafile)}
    worker = Worker("engine", env, tmp_path / "engine")
    try:
        worker.start().wait_ready()
        assert worker.terminate() == 0
    finally:
        worker.end()
    assert PASSWORD not in worker.log.read_text()


async def write_commands(env: dict[str, str], commands: list[dict[str, Any]], partition: int) -> None:
    """Append commands as the process with ``env`` would."""
    async with EventProducer(Settings.from_env(env).broker_list) as producer:
        for command in commands:
            key, value = b"%d" % command["symbolId"], json.dumps(command).encode()
            await producer.send(ORDERS_NEW, key=key, value=value, partition=partition)


def test_an_audit_reads_over_tls_with_a_password_and_judges_signatures(
    kafka: SecuredKafka, certificates: Certificates, stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a command, and in several processes, which are handed neither the key that signs nor a TLS context."""
    key = ProducerKey("audited-1", "all", bytes(32), "*", int(time.time() * 1_000), symbols=True)
    file = tmp_path / "keys.json"
    file.write_bytes(msgspec.json.encode(KeyFile(keys=(key,), required=(Span(key.valid_from),))))
    secured = sasl(kafka, "SASL_SSL", "SCRAM-SHA-512") | {"KAFKA_SSL_CAFILE": str(certificates.cafile)}
    signing = {"FORKAST_PRODUCER_KEY": f"audited-1:{base64.b64encode(key.secret).decode()}"}
    env = stack.env() | secured | signing | {"FORKAST_PRODUCER_KEYS": str(file)}
    worker = Worker("engine", env, tmp_path / "engine")
    try:
        worker.start().wait_ready()
        asyncio.run(write_commands(env, [symbol_command(1), order_command(), order_command(id="x")], home_of(1)))
        asyncio.run(write_commands(secured, [order_command()], home_of(1)))
        command = [sys.executable, "-m", "forkast_streams", "audit", "--no-tables"]
        ended = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=120, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert PASSWORD not in ended.stdout + ended.stderr
        monkeypatch.setattr(run, "_RECORDS_FOR_PROCESSES", 0)
        brokers = Settings.from_env(env).broker_list
        assert brokers.signer is not None
        evidence = capture(Exchange(brokers, None, None))
        try:
            findings, _ = run.audit_evidence(evidence, brokers=brokers, producer_keys=file)
        finally:
            evidence.close()
        assert findings.is_clean, findings.first
        assert findings.looked["I-2"] >= 4
        assert worker.terminate() == 0
    finally:
        worker.end()


def test_an_audit_with_a_wrong_password_says_so(kafka: SecuredKafka) -> None:
    env = sasl(kafka, "SASL_PLAINTEXT", "SCRAM-SHA-512") | {"KAFKA_SASL_PASSWORD": "wrong"}
    command = [sys.executable, "-m", "forkast_streams", "audit", "--no-tables"]
    ended = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "KAFKA_SECURITY_PROTOCOL is SASL_PLAINTEXT" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_worker_with_a_wrong_password_says_so(kafka: SecuredKafka, stack: Stack, tmp_path: Path) -> None:
    env = stack.env() | sasl(kafka, "SASL_PLAINTEXT", "SCRAM-SHA-512") | {"KAFKA_SASL_PASSWORD": "wrong"}
    command = [sys.executable, "-m", "forkast_streams", "worker", "engine", "--data-dir", str(tmp_path / "engine")]
    ended = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "KAFKA_SECURITY_PROTOCOL is SASL_PLAINTEXT" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "wrong" not in ended.stderr
