"""A Kafka that asks who is there: listeners with passwords, with TLS, and with both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from forkast_streams.devstack.kafka import Kafka
from forkast_streams.devstack.ports import LOOPBACK, free_ports

USER, PASSWORD = "exchange", "Sesame-open-1"
LISTENERS = ("SASL_PLAINTEXT", "SSL", "SASL_SSL")


@dataclass(frozen=True)
class Certificates:
    """Files in PEM: the authority's certificate, another authority's, and a client's certificate with its key."""

    cafile: Path
    foreign_cafile: Path
    client_certfile: Path
    client_keyfile: Path
    broker_file: Path

    @classmethod
    def make(cls, folder: Path) -> Certificates:
        """Let an authority of our own sign a certificate for the broker and one for a client."""
        files = cls(*(folder / f"{name}.pem" for name in ("ca", "foreign", "client", "key", "broker")))
        authority = trustme.CA()
        authority.cert_pem.write_to_path(files.cafile)
        trustme.CA().cert_pem.write_to_path(files.foreign_cafile)
        client = authority.issue_cert("exchange.example.com")
        client.cert_chain_pems[0].write_to_path(files.client_certfile)
        client.private_key_pem.write_to_path(files.client_keyfile)
        broker = authority.issue_cert(LOOPBACK)
        # Java reads no other form of a key.
        key = load_pem_private_key(broker.private_key_pem.bytes(), None)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        files.broker_file.write_bytes(pem + broker.cert_chain_pems[0].bytes())
        return files


class SecuredKafka(Kafka):
    """The development broker with three more listeners; TLS ones take a client's certificate, SSL insists on it."""

    format_options = tuple(
        f"--add-scram={mechanism}=[name={USER},password={PASSWORD}]" for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
    )

    def __init__(self, data_dir: Path, certificates: Certificates) -> None:
        plain, controller, *ports = free_ports(2 + len(LISTENERS))
        super().__init__(data_dir, plain, controller)
        self.address = {name: f"{LOOPBACK}:{port}" for name, port in zip(LISTENERS, ports, strict=True)}
        self._certificates = certificates

    def _settings(self, logs: Path) -> dict[str, object]:
        listeners = "".join(f",{name}://{address}" for name, address in self.address.items())
        broker, controller = f"PLAINTEXT://{LOOPBACK}:{self.port}", f"CONTROLLER://{LOOPBACK}:{self.controller_port}"
        security = "org.apache.kafka.common.security"
        more: dict[str, object] = {
            "listeners": f"{broker},{controller}{listeners}",
            "advertised.listeners": f"{broker}{listeners}",
            "listener.security.protocol.map": ",".join(f"{n}:{n}" for n in ("PLAINTEXT", *LISTENERS))
            + ",CONTROLLER:PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self._certificates.broker_file,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self._certificates.cafile,
            "listener.name.ssl.ssl.client.auth": "required",
            "listener.name.sasl_ssl.ssl.client.auth": "none",
        }
        for listener in ("sasl_plaintext", "sasl_ssl"):
            prefix = f"listener.name.{listener}"
            more[f"{prefix}.plain.sasl.jaas.config"] = (
                f'{security}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
            )
            for mechanism in ("scram-sha-256", "scram-sha-512"):
                more[f"{prefix}.{mechanism}.sasl.jaas.config"] = f"{security}.scram.ScramLoginModule required;"
        return super()._settings(logs) | more
