"""How this project's processes prove to Kafka who they are, and make sure that it is Kafka.

All Kafka clients take their brokers as `Brokers`, which says how to connect to them: `kafka_arguments` for aiokafka,
`faust_credentials` for Faust. Nothing is looked up later, so no client can fall back to plain text.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from faust.auth import SASLCredentials, SSLCredentials

from forkast_streams.errors import SetupError
from forkast_streams.record_signatures import Signer
from forkast_streams.secret_settings import read_secret

PLAINTEXT = "PLAINTEXT"
PROTOCOLS = (PLAINTEXT, "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

_PROTOCOL = "KAFKA_SECURITY_PROTOCOL"
_SASL_VARIABLES = ("KAFKA_SASL_MECHANISM", "KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD", "KAFKA_SASL_PASSWORD_FILE")
_TLS_VARIABLES = ("KAFKA_SSL_CAFILE", "KAFKA_SSL_CERTFILE", "KAFKA_SSL_KEYFILE")
# What must not reach the processes of a Kafka of our own, which speaks plain text on the loopback interface.
VARIABLES = (_PROTOCOL, *_SASL_VARIABLES, *_TLS_VARIABLES)


@dataclass(frozen=True)
class KafkaSecurity:
    """Protocol and credentials of the connections to the brokers.

    Attributes:
        protocol: one of ``PROTOCOLS`` (``KAFKA_SECURITY_PROTOCOL``).
        mechanism: one of ``MECHANISMS`` with a SASL protocol, else empty (``KAFKA_SASL_MECHANISM``).
        username: with a SASL protocol (``KAFKA_SASL_USERNAME``).
        password: with a SASL protocol (``KAFKA_SASL_PASSWORD``, or the content of ``KAFKA_SASL_PASSWORD_FILE``).
        cafile: certificates in PEM that the brokers' must be signed by; None: the system's (``KAFKA_SSL_CAFILE``).
        certfile: our own certificate in PEM, if the brokers ask for one (``KAFKA_SSL_CERTFILE``).
        keyfile: its key in PEM, without a passphrase; None: it is in ``certfile`` (``KAFKA_SSL_KEYFILE``).
    """

    protocol: str = PLAINTEXT
    mechanism: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    cafile: Path | None = None
    certfile: Path | None = None
    keyfile: Path | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> KafkaSecurity:
        """Read the settings; a variable that is set and would have no effect is refused, not ignored.

        Raises:
            SetupError: the variables do not belong together, or a file cannot be used.
        """
        protocol = env.get(_PROTOCOL) or PLAINTEXT
        if protocol not in PROTOCOLS:
            raise SetupError(f"{_PROTOCOL} must be one of {', '.join(PROTOCOLS)}, was {protocol!r}.")
        _refuse_without_effect(env, _SASL_VARIABLES, protocol, "SASL")
        _refuse_without_effect(env, _TLS_VARIABLES, protocol, "SSL")
        security = cls(protocol, *_sasl(env, protocol), *(_path(env, name) for name in _TLS_VARIABLES))
        if security.keyfile is not None and security.certfile is None:
            raise SetupError("KAFKA_SSL_KEYFILE is set without KAFKA_SSL_CERTFILE; set the certificate it belongs to.")
        # Made here, so that a file that is missing or broken is found at the start and not at the first connection.
        _ = security.ssl_context
        return security

    @property
    def uses_tls(self) -> bool:
        """Whether connections are encrypted and the brokers' certificates checked."""
        return self.protocol.endswith("SSL")

    @property
    def uses_sasl(self) -> bool:
        """Whether there is a user with a password."""
        return self.protocol.startswith("SASL")

    @cached_property
    def ssl_context(self) -> ssl.SSLContext | None:
        """What checks the brokers' certificates and names, and holds our certificate; None without TLS.

        Raises:
            SetupError: a file cannot be used.
        """
        if not self.uses_tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.cafile)
        except (OSError, ValueError) as exc:
            raise _bad_file("KAFKA_SSL_CAFILE", self.cafile, exc) from None
        if self.certfile is not None:
            try:
                # Without a function that answers, OpenSSL would ask for a passphrase at the terminal and wait.
                context.load_cert_chain(self.certfile, self.keyfile, password=lambda: "")
            except (OSError, ValueError) as exc:
                name = "KAFKA_SSL_CERTFILE" if self.keyfile is None else "KAFKA_SSL_CERTFILE with KAFKA_SSL_KEYFILE"
                raise _bad_file(name, self.certfile, exc) from None
        return context

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments that aiokafka's clients take for it."""
        arguments: dict[str, Any] = {"security_protocol": self.protocol}
        if self.uses_tls:
            arguments["ssl_context"] = self.ssl_context
        if self.uses_sasl:
            arguments["sasl_mechanism"] = self.mechanism
            arguments["sasl_plain_username"] = self.username
            arguments["sasl_plain_password"] = self.password
        return arguments

    def faust_credentials(self) -> SASLCredentials | SSLCredentials | None:
        """The same as Faust takes it."""
        if self.uses_sasl:
            return SASLCredentials(
                username=self.username,
                password=self.password,
                mechanism=self.mechanism,
                ssl_context=self.ssl_context,
            )
        return SSLCredentials(self.ssl_context) if self.uses_tls else None


class Brokers(list[str]):
    """Addresses of brokers, ``host:port`` each, and who this process is to them.

    A list, so that a plain list of addresses does where there is neither security nor a key.

    Attributes:
        security: how to connect.
        signer: signs the records that this process writes to ``orders.new``; None: they are not signed.
    """

    def __init__(
        self, addresses: Sequence[str], security: KafkaSecurity | None = None, signer: Signer | None = None
    ) -> None:
        super().__init__(addresses)
        self.security = security or KafkaSecurity()
        self.signer = signer


def kafka_arguments(brokers: Sequence[str]) -> dict[str, Any]:
    """The keyword arguments with which every aiokafka client of this project finds and enters Kafka."""
    arguments: dict[str, Any] = {"bootstrap_servers": list(brokers)}
    if isinstance(brokers, Brokers):
        arguments |= brokers.security.arguments()
    return arguments


def unreachable(brokers: Sequence[str]) -> SetupError:
    """The error for brokers that no client can enter; Kafka does not tell a wrong password from a closed port."""
    remedy = "start it (`forkast stack up`) or set KAFKA_BROKERS."
    if isinstance(brokers, Brokers) and brokers.security.protocol != PLAINTEXT:
        remedy = f"check KAFKA_BROKERS and, as {_PROTOCOL} is {brokers.security.protocol}, user, password and files."
    return SetupError(f"Kafka is not reachable at {','.join(brokers)}; {remedy}")


def _refuse_without_effect(env: Mapping[str, str], names: Sequence[str], protocol: str, needed: str) -> None:
    if needed in protocol:
        return
    for name in names:
        if env.get(name):
            allowed = " or ".join(each for each in PROTOCOLS if needed in each)
            raise SetupError(f"{name} has no effect with {_PROTOCOL}={protocol}; set {_PROTOCOL} to {allowed}.")


def _sasl(env: Mapping[str, str], protocol: str) -> tuple[str, str, str]:
    if not protocol.startswith("SASL"):
        return "", "", ""
    mechanism = env.get("KAFKA_SASL_MECHANISM", "")
    if mechanism not in MECHANISMS:
        raise SetupError(f"KAFKA_SASL_MECHANISM must be one of {', '.join(MECHANISMS)}, was {mechanism!r}.")
    username, password = env.get("KAFKA_SASL_USERNAME", ""), read_secret(env, "KAFKA_SASL_PASSWORD")
    if not username or not password:
        missing = "KAFKA_SASL_PASSWORD or KAFKA_SASL_PASSWORD_FILE" if username else "KAFKA_SASL_USERNAME"
        raise SetupError(f"{_PROTOCOL}={protocol} needs {missing}; set it.")
    return mechanism, username, password


def _path(env: Mapping[str, str], name: str) -> Path | None:
    return Path(env[name]) if env.get(name) else None


def _bad_file(name: str, file: Path | None, exc: Exception) -> SetupError:
    reason = exc.strerror if isinstance(exc, OSError) and not isinstance(exc, ssl.SSLError) else None
    reason = reason or "it is no such file in PEM, or the key has a passphrase or is another's"
    return SetupError(f"{name} ({file}) cannot be used: {reason}.")
