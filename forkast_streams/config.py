"""Settings of a process, read once from the environment."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from forkast_streams.errors import SetupError
from forkast_streams.kafka_security import Brokers, KafkaSecurity
from forkast_streams.record_signatures import Signer
from forkast_streams.server_settings import broker_addresses, database_url, redis_url

_TRUE, _FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"", "0", "false", "no", "off"})
_SECRET_CHARS_MIN = 32
# All addresses of IPv6 are none of IPv4, where localhost may be.
_REACHED_AT = {"127.0.0.1": "localhost", "0.0.0.0": "localhost", "::": "[::1]"}  # noqa: S104 - compared with, not bound to
_SIGNATURE_WINDOW_MS_MAX = 60_000


@dataclass(frozen=True)
class RateSettings:
    """How much is let through; a rate of 0 takes a limit off. Each is read from ``FORKAST_RATE_<NAME>``.

    Attributes:
        user: requests a second of one user, an order of a batch counting as one.
        user_burst: requests that a user may send at once after a pause, at least 1.
        address: requests a second from one address.
        address_burst: as ``user_burst``, for an address.
        login_failures: refused credentials a minute from one address; as many at once.
        login_failures_user: refused credentials a minute of one user from one address; as many at once.
    """

    user: float = 1_000
    user_burst: float = 2_000
    address: float = 2_000
    address_burst: float = 4_000
    login_failures: float = 60
    login_failures_user: float = 10

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> RateSettings:
        """Read the limits.

        Raises:
            SetupError: one is no number of at least 0, or a burst lets nothing through.
        """
        names = [one.name for one in fields(cls)]
        rates = cls(**{name: _number(env, f"FORKAST_RATE_{name.upper()}", getattr(cls, name)) for name in names})
        bursts = {"USER": (rates.user, rates.user_burst), "ADDRESS": (rates.address, rates.address_burst)}
        for name, (rate, burst) in bursts.items():
            if rate and burst < 1:
                variable = f"FORKAST_RATE_{name}"
                raise SetupError(
                    f"{variable}_BURST must be at least 1, was {burst:g}; {variable}=0 takes the limit off."
                )
        return rates


@dataclass(frozen=True)
class Settings:
    """Where the servers are and where this process keeps its files.

    The three server variables have the names the predecessor used.

    Attributes:
        kafka_brokers: comma-separated ``host:port`` list (``KAFKA_BROKERS``).
        redis_url: ``redis://`` or ``rediss://`` URL (``REDIS_URL``).
        database_url: ``postgresql://`` URL (``DATABASE_URL``).
        data_dir: folder for local state; one folder a process (``FORKAST_DATA_DIR``).
        host: address the web server of a role listens on (``FORKAST_HOST``).
        instance: name of this process within its role, unique per role (``FORKAST_INSTANCE``); it makes
            the Kafka group membership static, so that a restarted worker is back without a rebalance.
        demo_users: whether users whose password is their e-mail may log in (``FORKAST_DEMO_USERS``).
        behind_tls_proxy: whether only a proxy that ends TLS reaches the web servers
            (``FORKAST_BEHIND_TLS_PROXY``); the last address in its ``X-Forwarded-For`` is the client's then.
        signing_secret: at least 32 characters, the same for all processes (``FORKAST_SIGNING_SECRET``): it seals
            the signing keys in the database. Without it there are no signed requests.
        signature_window_ms: how old a signed request may be, at most 60,000 (``FORKAST_SIGNATURE_WINDOW_MS``).
        rates: the rate limits.
        kafka_security: protocol and credentials of the connections to the brokers (``KAFKA_SECURITY_PROTOCOL`` ...).
        signer: signs what this process writes to ``orders.new`` (``FORKAST_PRODUCER_KEY``); None: nothing is signed.
        producer_keys: file with the producers' keys, for the engine (``FORKAST_PRODUCER_KEYS``); None: signatures
            are not looked at.
    """

    kafka_brokers: str = "localhost:9092"
    redis_url: str = field(default="redis://localhost:6379", repr=False)
    database_url: str = field(default="postgresql://localhost:5432/forkast_exchange", repr=False)
    data_dir: Path = Path("data")
    host: str = "127.0.0.1"
    instance: str = "1"
    demo_users: bool = False
    behind_tls_proxy: bool = False
    signing_secret: str = field(default="", repr=False)
    signature_window_ms: int = 5_000
    rates: RateSettings = RateSettings()
    kafka_security: KafkaSecurity = field(default_factory=KafkaSecurity)
    signer: Signer | None = field(default=None, repr=False)
    producer_keys: Path | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from ``env`` (default: the process environment).

        Raises:
            SetupError: a variable has a value that cannot be meant.
        """
        env = os.environ if env is None else env
        return cls(
            kafka_brokers=",".join(broker_addresses(env.get("KAFKA_BROKERS") or cls.kafka_brokers)),
            redis_url=redis_url(env.get("REDIS_URL") or cls.redis_url),
            database_url=database_url(env.get("DATABASE_URL") or cls.database_url),
            data_dir=Path(env.get("FORKAST_DATA_DIR", "data")),
            host=env.get("FORKAST_HOST", cls.host),
            instance=env.get("FORKAST_INSTANCE", cls.instance),
            demo_users=_switch(env, "FORKAST_DEMO_USERS"),
            behind_tls_proxy=_switch(env, "FORKAST_BEHIND_TLS_PROXY"),
            signing_secret=_secret(env, "FORKAST_SIGNING_SECRET"),
            signature_window_ms=_signature_window(env),
            rates=RateSettings.from_env(env),
            kafka_security=KafkaSecurity.from_env(env),
            signer=Signer.from_env(env),
            producer_keys=Path(env["FORKAST_PRODUCER_KEYS"]) if env.get("FORKAST_PRODUCER_KEYS") else None,
        )

    @property
    def reached_at(self) -> str:
        """The host, as it stands in a URL, at which this machine reaches a web server that listens on ``host``."""
        if self.host in _REACHED_AT:
            return _REACHED_AT[self.host]
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def broker_list(self) -> Brokers:
        """The brokers as the project's Kafka clients take them: with how to connect, and the key to sign with."""
        return Brokers(broker_addresses(self.kafka_brokers), self.kafka_security, self.signer)


def _switch(env: Mapping[str, str], name: str) -> bool:
    text = env.get(name, "").strip().lower()
    if text not in _TRUE | _FALSE:
        raise SetupError(f"{name} must be 1 or 0, was {env[name]!r}.")
    return text in _TRUE


def _number(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name, "").strip()
    number = _float(text, default)
    if not 0 <= number < float("inf"):
        raise SetupError(f"{name} must be a number of at least 0, was {text!r}.")
    return number


def _secret(env: Mapping[str, str], name: str) -> str:
    secret = env.get(name, "")
    if secret and len(secret) < _SECRET_CHARS_MIN:
        raise SetupError(f"{name} must have at least {_SECRET_CHARS_MIN} characters; `openssl rand -hex 32` makes one.")
    return secret


def _signature_window(env: Mapping[str, str]) -> int:
    text = env.get("FORKAST_SIGNATURE_WINDOW_MS", "").strip()
    window = _float(text, Settings.signature_window_ms)
    if not 1 <= window <= _SIGNATURE_WINDOW_MS_MAX:
        raise SetupError(
            f"FORKAST_SIGNATURE_WINDOW_MS must be a number of milliseconds from 1 to {_SIGNATURE_WINDOW_MS_MAX}, "
            f"was {text!r}."
        )
    return int(window)


def _float(text: str, default: float) -> float:
    """The number, ``default`` where there is no text, or not a number, which is within no bounds."""
    try:
        return float(text) if text else default
    except ValueError:
        return math.nan
