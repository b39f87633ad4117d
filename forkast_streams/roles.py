"""The four roles: for each a Faust app, its port, and the modules that make it up.

The modules are named, not imported: they lie in layers above this one. ``faust -A forkast_streams.roles:engine
worker`` works as ``forkast worker engine`` does.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import faust
import mode
import mode.loop
from faust.assignor.partition_assignor import PartitionAssignor
from faust.tables.manager import TableManager
from mode import Service
from mode.utils.objects import cached_property
from mode.utils.queues import FlowControlEvent
from yarl import URL

from forkast_streams.compiled import require_fresh
from forkast_streams.config import Settings
from forkast_streams.errors import SetupError
from forkast_streams.lifecycle import ExchangeWorker, Watchdog
from forkast_streams.limits import BATCHES_QUEUED_MAX, EVENTS_FETCH_BYTES_MAX, FETCH_BYTES_MAX, WEB_STOP_S_MAX
from forkast_streams.market_data.feed import LocalFeed
from forkast_streams.start_checks import require_no_demo_users, require_safe_transport
from forkast_streams.topics import APP_PREFIX, require_topics
from forkast_streams.transport import BatchTransport


@dataclass(frozen=True, slots=True)
class Role:
    """One kind of worker.

    Attributes:
        name: also the last part of the app id, which is the Kafka consumer group.
        port: default port of its web server.
        modules: each has ``register(app)``, which adds its agents, services and routes.
        consumes: whether it subscribes to topics.
        fetch_bytes: what one fetch takes from a partition.
    """

    name: str
    port: int
    modules: tuple[str, ...]
    consumes: bool = True
    fetch_bytes: int = FETCH_BYTES_MAX


_MARKET_DATA_VIEWS = ("web.order_book", "web.market_data", "web.streams")

ROLES = {
    role.name: role
    for role in (
        Role("engine", 3000, ("agents.match_orders", "web.health")),
        Role(
            "oms", 3001, ("web.auth", "web.api_keys", "web.orders", "web.health", "web.api_description"), consumes=False
        ),
        Role(
            "keeper",
            3002,
            ("agents.keep_market_data", "web.auth", *_MARKET_DATA_VIEWS, "web.health", "web.api_description"),
            fetch_bytes=EVENTS_FETCH_BYTES_MAX,
        ),
        Role("sink", 3003, ("agents.persist_events", "web.health"), fetch_bytes=EVENTS_FETCH_BYTES_MAX),
    )
}


class ExchangeApp(faust.App):
    """A Faust app with the exchange's settings.

    Attributes:
        role: what this worker is.
        settings: where the servers are.
        ready_checks: each returns None when its part is ready, else a sentence why not.
        excuses: each returns a sentence while something outside keeps the worker from working, else None.
        feed: what a keeper publishes, for its own streams.
    """

    role: Role
    settings: Settings
    ready_checks: list[Callable[[], str | None]]
    excuses: list[Callable[[], str | None]]
    services: list[Service]
    feed: LocalFeed

    @cached_property
    def flow_control(self) -> FlowControlEvent:
        """Stops and resumes the flow of records at a rebalance."""
        return FlowControl(loop=self.loop)

    def run_service(self, service: Service) -> None:
        """Start ``service`` before the consumer, and stop it after what was added later."""
        self.services.append(service)

    async def on_first_start(self) -> None:
        """Start the services; the consumer comes after them."""
        for service in self.services:
            await self.add_runtime_dependency(service)
        await super().on_first_start()
        if self.role.consumes:
            watchdog = Watchdog(self, self.excuses)
            self.ready_checks.append(watchdog.why_not_ready)
            await self.add_runtime_dependency(watchdog)

    async def on_stop(self) -> None:
        """Answer the requests in hand while what they need still works; only then stop the rest.

        Faust stops the web server last: a request that waited for a producer that had stopped held it up until the
        process was cut.
        """
        # Faust has no setting for aiohttp's minute.
        self.web._runner._shutdown_timeout = WEB_STOP_S_MAX  # noqa: SLF001
        await self.web.stop_server()
        await super().on_stop()


class FlowControl(FlowControlEvent):
    """Faust's control of the queues into streams and tables, which are emptied only when the flow goes on.

    At the end of a recovery Faust resumes the flow once more, while standbys already read on: what was queued of their
    changelog would be gone, and their tables have a hole that nobody sees until they take over.
    """

    def resume(self) -> None:
        """Let the flow go on; nothing happens where it has not stopped."""
        if not self.is_active():
            super().resume()


class PromptTables(TableManager):
    """Faust's tables, without the second it waits at every start for tables that are made late."""

    async def on_start(self) -> None:
        """Register the tables and begin to recover them."""
        await self._update_channels()
        await self.recovery.start()


class MemberAssignor(PartitionAssignor):
    """Names a worker by its membership instead of by its URL.

    A static member is handed its old assignment back, with the name in it. When that was a URL and the worker is now
    on another port, Faust's assignor asserts, and the worker hangs without ever getting its partitions.
    """

    @property
    def _url(self) -> URL:
        return URL(f"http://{self.app.conf.consumer_group_instance_id}")


def create_app(role_name: str, settings: Settings | None = None) -> ExchangeApp:
    """Build the app of a role.

    Args:
        role_name: a key of ``ROLES``.
        settings: default: from the environment.

    Raises:
        SetupError: the folder for local state cannot be made.
    """
    role = ROLES[role_name]
    settings = settings or Settings.from_env()
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise SetupError(
            f"the folder for local state ({settings.data_dir}) cannot be made: {exc.strerror}; name one that is yours "
            "with --data-dir or FORKAST_DATA_DIR."
        ) from exc
    app = ExchangeApp(APP_PREFIX + role.name, **_faust_settings(role, settings))
    app.role = role
    app.settings = settings
    app.ready_checks = []
    app.excuses = []
    app.services = []
    app.feed = LocalFeed()
    app.transport = BatchTransport(app.conf.broker_consumer, app)
    for module in role.modules:
        import_module(module).register(app)
    return app


def _faust_settings(role: Role, settings: Settings) -> dict[str, Any]:
    """Faust's settings; those that are not its defaults each close a hole or a delay that was seen."""
    return {
        "broker": [f"kafka://{broker}" for broker in settings.broker_list],
        "broker_credentials": settings.kafka_security.faust_credentials(),
        "datadir": Path(settings.data_dir),
        "store": "rocksdb://",
        "version": 1,
        "key_serializer": "raw",
        "value_serializer": "raw",
        # A static member is back after a crash without a rebalance and without waiting for its own time-out.
        "consumer_group_instance_id": f"{role.name}-{settings.instance}" if role.consumes else None,
        "PartitionAssignor": MemberAssignor,
        "TableManager": PromptTables,
        "Worker": ExchangeWorker,
        "broker_session_timeout": 10.0,
        "broker_heartbeat_interval": 2.0,
        "broker_rebalance_timeout": 30.0,
        "broker_request_timeout": 30.0,
        # An idle consumer must not leave the group: it would never come back.
        "broker_max_poll_interval": 86_400.0,
        "broker_commit_interval": 0.5,
        "broker_max_poll_records": None,
        "consumer_max_fetch_size": role.fetch_bytes,
        "consumer_auto_offset_reset": "earliest",
        "consumer_metadata_max_age_ms": 10_000,
        "producer_metadata_max_age_ms": 10_000,
        "consumer_connections_max_idle_ms": 86_400_000,
        "producer_connections_max_idle_ms": 86_400_000,
        "producer_request_timeout": 30.0,
        "stream_buffer_maxsize": BATCHES_QUEUED_MAX,
        "stream_wait_empty": True,
        "stream_recovery_delay": 0.0,
        "processing_guarantee": "at_least_once",
        # A role that consumes nothing would have nothing to subscribe to, which Faust does not take.
        "topic_disable_leader": role.consumes,
        "topic_allow_declare": False,
        "table_standby_replicas": 1 if role.consumes else 0,
        "agent_supervisor": mode.CrashingSupervisor,
        "web_bind": settings.host,
        "web_host": settings.reached_at,
        "web_port": role.port,
        "web_tables_enabled": False,
        "web_router_enabled": False,
        "web_metrics_enabled": False,
        "web_stats_enabled": False,
        "web_graph_enabled": False,
    }


def prepare_worker(role_name: str, settings: Settings, *, folder: Path | None = None) -> Settings:
    """Look at all that a worker of the role must find before it starts; return its settings, with its own folder.

    Args:
        role_name: a key of ``ROLES``.
        settings: of the process.
        folder: for the worker's local state; None: ``ROLE-INSTANCE`` in the data folder.

    Raises:
        SetupError: what is compiled is not the source, or something is not ready or must not be served.
    """
    require_fresh()
    settings = replace(settings, data_dir=folder or settings.data_dir / f"{role_name}-{settings.instance}")
    if "web.auth" in ROLES[role_name].modules:
        require_safe_transport(settings)
        asyncio.run(require_no_demo_users(settings))
    asyncio.run(require_topics(settings.broker_list))
    # Each connection is an open file, and the usual limit is there for programs with few.
    files_max = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))
    logging.getLogger("aiokafka").setLevel(logging.WARNING)
    # Records become many small objects that live shortly; collecting as often as by default costs a third of the speed.
    gc.set_threshold(100_000, 50, 100)
    mode.loop.use("uvloop")
    return settings


def __getattr__(name: str) -> ExchangeApp:
    if name in ROLES:
        return create_app(name, prepare_worker(name, Settings.from_env()))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
