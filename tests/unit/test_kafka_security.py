"""Settings of the connections to Kafka: what belongs together, and what reaches the clients."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from forkast_streams import lifecycle
from forkast_streams.config import Settings
from forkast_streams.errors import SetupError
from forkast_streams.kafka_security import VARIABLES, Brokers, KafkaSecurity, kafka_arguments, unreachable

SASL = {
    "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "KAFKA_SASL_USERNAME": "exchange",
    "KAFKA_SASL_PASSWORD": "geheim",
}


def without(name: str) -> dict[str, str]:
    return {key: value for key, value in SASL.items() if key != name}


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({"KAFKA_SECURITY_PROTOCOL": "TLS"}, "KAFKA_SECURITY_PROTOCOL must be one of PLAINTEXT, SSL, "),
        ({"KAFKA_SECURITY_PROTOCOL": "ssl"}, "was 'ssl'"),
        (
            without("KAFKA_SECURITY_PROTOCOL"),
            "KAFKA_SASL_MECHANISM has no effect with KAFKA_SECURITY_PROTOCOL=PLAINTEXT",
        ),
        (
            SASL | {"KAFKA_SECURITY_PROTOCOL": "SSL"},
            "KAFKA_SASL_MECHANISM has no effect with KAFKA_SECURITY_PROTOCOL=SSL",
        ),
        ({"KAFKA_SASL_PASSWORD": "x"}, "set KAFKA_SECURITY_PROTOCOL to SASL_PLAINTEXT or SASL_SSL"),
        ({"KAFKA_SSL_CAFILE": "ca.pem"}, "set KAFKA_SECURITY_PROTOCOL to SSL or SASL_SSL"),
        (SASL | {"KAFKA_SSL_CERTFILE": "me.pem"}, "KAFKA_SSL_CERTFILE has no effect"),
        (without("KAFKA_SASL_MECHANISM"), "KAFKA_SASL_MECHANISM must be one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"),
        (SASL | {"KAFKA_SASL_MECHANISM": "GSSAPI"}, "was 'GSSAPI'"),
        (without("KAFKA_SASL_USERNAME"), "needs KAFKA_SASL_USERNAME"),
        (without("KAFKA_SASL_PASSWORD"), "needs KAFKA_SASL_PASSWORD or KAFKA_SASL_PASSWORD_FILE"),
        (SASL | {"KAFKA_SASL_PASSWORD_FILE": "/etc/hostname"}, "are both set; set one of them"),
        (without("KAFKA_SASL_PASSWORD") | {"KAFKA_SASL_PASSWORD_FILE": "/no/such"}, "cannot be read: No such file"),
        (without("KAFKA_SASL_PASSWORD") | {"KAFKA_SASL_PASSWORD_FILE": "/dev/null"}, "is empty"),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_KEYFILE": "k.pem"}, "without KAFKA_SSL_CERTFILE"),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CAFILE": "/no/such"},
            "KAFKA_SSL_CAFILE (/no/such) cannot be used",
        ),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CAFILE": __file__}, "it is no such file in PEM"),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CERTFILE": __file__}, "KAFKA_SSL_CERTFILE"),
    ],
)
def test_what_does_not_belong_together_is_refused_in_one_sentence(env: dict[str, str], sentence: str) -> None:
    with pytest.raises(SetupError) as refused:
        Settings.from_env(env)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "geheim" not in str(refused.value)


def test_without_settings_nothing_changes() -> None:
    """Plain text, as it was: addresses and the protocol that is aiokafka's default."""
    brokers = Settings.from_env({"KAFKA_BROKERS": "a:1, b:2,"}).broker_list
    assert kafka_arguments(brokers) == {"bootstrap_servers": ["a:1", "b:2"], "security_protocol": "PLAINTEXT"}
    assert kafka_arguments(["a:1"]) == {"bootstrap_servers": ["a:1"]}
    assert brokers.signer is None
    assert brokers.security.faust_credentials() is None


def test_a_password_is_in_no_repr_and_no_sentence(tmp_path: Path) -> None:
    """From a file its line end does not count; what is printed or logged of the settings does not show it."""
    file = tmp_path / "password"
    file.write_text("geheim\n")
    settings = Settings.from_env(without("KAFKA_SASL_PASSWORD") | {"KAFKA_SASL_PASSWORD_FILE": str(file)})
    arguments = kafka_arguments(settings.broker_list)
    assert arguments["sasl_plain_password"] == "geheim"
    assert arguments["sasl_mechanism"] == "SCRAM-SHA-512"
    assert "ssl_context" not in arguments
    shown = f"{settings!r} {settings.broker_list!r} {settings.kafka_security.faust_credentials()!r}"
    assert "geheim" not in shown + str(unreachable(settings.broker_list))
    assert "SASL_PLAINTEXT" in str(unreachable(settings.broker_list))


def test_names_of_brokers_are_checked() -> None:
    """TLS without a check of names would let anybody with some certificate be the broker."""
    context = KafkaSecurity.from_env({"KAFKA_SECURITY_PROTOCOL": "SSL"}).ssl_context
    assert context is not None
    assert context.check_hostname
    assert kafka_arguments(Brokers(["a:1"], KafkaSecurity("SSL")))["security_protocol"] == "SSL"


CLIENTS = {"AIOKafkaConsumer", "AIOKafkaProducer", "AIOKafkaAdminClient"}


def test_every_client_of_the_project_is_told_how_to_enter() -> None:
    """One with addresses alone would take the plain text that secured brokers do not speak."""
    root = Path(__file__).parents[2]
    made = []
    for folder in ("forkast_streams", "tables", "agents", "web"):
        for path in (root / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CLIENTS:
                    spread = [ast.unparse(each.value) for each in node.keywords if each.arg is None]
                    is_told = any(each.startswith("kafka_arguments(") for each in spread)
                    made.append((f"{path.relative_to(root)}:{node.lineno}", is_told))
    assert len(made) >= 8
    assert [where for where, is_told in made if not is_told] == []


async def test_the_probe_of_a_worker_enters_like_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would take brokers that refuse it for brokers that are away, and excuse every stall."""
    settings = Settings.from_env(SASL | {"KAFKA_BROKERS": "a:1"})
    asked: list[dict[str, Any]] = []

    class Probe:
        def __init__(self, **arguments: Any) -> None:
            asked.append(arguments)

        async def start(self) -> None:
            await watchdog.stop()
            raise KafkaConnectionError

        async def stop(self) -> None:
            pass

    monkeypatch.setattr(lifecycle, "AIOKafkaConsumer", Probe)
    monkeypatch.setattr(lifecycle, "_PROBE_INTERVAL_S", 0)
    app: Any = SimpleNamespace(settings=settings, should_stop=False, consumer=SimpleNamespace(failure=lambda: None))
    watchdog = lifecycle.Watchdog(app, [])
    await watchdog.start()
    await watchdog.wait_until_stopped()
    assert asked == [kafka_arguments(settings.broker_list)]
    assert asked[0]["sasl_plain_username"] == "exchange"


class Asked(dict[str, str]):
    """An environment that remembers what it was asked for."""

    names: set[str]

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        self.names = getattr(self, "names", set()) | {name}
        return super().get(name, default)


def test_all_variables_are_named() -> None:
    """`forkast up` takes these away from its processes; one that is forgotten would break the embedded stack."""
    env = Asked(SASL | {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"})
    KafkaSecurity.from_env(env)
    assert env.names == set(VARIABLES)
