"""A whole exchange, started and used from outside."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from forkast_streams.devstack import Stack
from tests.integration.exchange import wait_until

START_S_MAX = 60.0

# What a shell may have for servers elsewhere, none of which concerns an exchange with servers of its own.
_OF_ANOTHER_EXCHANGE = {
    "KAFKA_BROKERS": "k1:port",
    "KAFKA_SECURITY_PROTOCOL": "SSL",
    "KAFKA_SSL_CAFILE": "/nonexistent",
    "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
}


class Exchange:
    """A running ``forkast up``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "up.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Exchange:
        """Start it and return when it says that it is ready."""
        command = [sys.executable, "-m", "forkast_streams", "up", "--data-dir", str(self.folder / "data")]
        if not (self.folder / "data").exists():
            command += ["--ports", "auto"]
        with self.output.open("wb") as output:
            env = os.environ | _OF_ANOTHER_EXCHANGE
            self._process = subprocess.Popen(command, stdout=output, stderr=output, env=env, start_new_session=True)
        wait_until(self._says_ready, "the exchange getting ready", within_s=START_S_MAX)
        return self

    def _says_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.output.read_text()
        return "forkast-streams is ready" in self.output.read_text()

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Stop it as Ctrl-C does, or by another signal; return its exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self._process.wait(timeout=60)

    def processes(self) -> list[psutil.Process]:
        """All processes that belong to this exchange's folder."""
        found = []
        for process in psutil.process_iter():
            try:
                # Redis names no folder where others have their command line; it is in its own.
                about = " ".join([*process.cmdline(), process.environ().get("FORKAST_DATA_DIR", ""), process.cwd()])
            except psutil.Error:
                continue
            if str(self.folder) in about and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    def worker(self, role: str) -> psutil.Process:
        """The process of a role."""
        return next(p for p in self.processes() if f" worker {role}" in " ".join(p.cmdline()))

    def url(self, role: str) -> str:
        """Where a role listens."""
        return f"http://localhost:{json.loads((self.folder / 'data' / 'roles.json').read_text())[role]}"

    def call(
        self, method: str, url: str, body: object = None, *, user: str | None = "alice@example.com"
    ) -> tuple[int, Any]:
        """Send a request with the predecessor's kind of credentials (the e-mail twice); return status and body."""
        request = urllib.request.Request(url, method=method, data=None if body is None else json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        if user is not None:
            request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:{user}".encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=15) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def place(self, user: str, **order: Any) -> str:
        """Place an order and return its id."""
        status, body = self.call("POST", f"{self.url('oms')}/orders", order, user=f"{user}@example.com")
        assert status == 201, body
        return str(body["orderId"])

    def order(self, user: str, order_id: str) -> dict[str, Any]:
        """Read an order."""
        status, body = self.call("GET", f"{self.url('oms')}/orders/{order_id}", user=f"{user}@example.com")
        assert status == 200, body
        return dict(body)

    def wait_for_status(self, user: str, order_id: str, status: str) -> dict[str, Any]:
        """Return the order once it has ``status``."""
        wait_until(lambda: self.order(user, order_id)["status"] == status, f"order {order_id} becoming {status}")
        return self.order(user, order_id)

    def book(self, symbol_id: int) -> dict[str, Any]:
        """The order book."""
        status, body = self.call("GET", f"{self.url('keeper')}/order-book/{symbol_id}")
        assert status == 200, body
        return dict(body)

    def env(self) -> dict[str, str]:
        """The servers' addresses, as ``forkast stack env`` prints them."""
        return Stack(self.folder / "data").env()
