"""Which brokers a client connects to."""

from __future__ import annotations

import random
from typing import Any

from aiokafka import client
from aiokafka.client import ConnectionGroup

from forkast_streams.kafka_client.connection import is_avoided


class Client(client.AIOKafkaClient):
    """Makes no connection to a broker that was silent a moment ago.

    Whoever looks for the new leaders of its partitions asks a broker that is drawn from all, and a client makes one
    connection at a time: as long as it tried that one, it would get no further.
    """

    async def _get_conn(
        self, node_id: Any, *, group: ConnectionGroup = ConnectionGroup.DEFAULT, no_hint: bool = False
    ) -> Any:
        known = self._conns.get((node_id, group))
        if known is None or not known.connected():
            if not self._is_avoided(node_id):
                # Whoever connects before may find that it is silent.
                async with self._get_conn_lock:
                    pass
            if self._is_avoided(node_id):
                # As where a connection fails: others may lead by now.
                self.force_metadata_update()
                return None
        return await super()._get_conn(node_id, group=group, no_hint=no_hint)

    def get_random_node(self) -> Any:
        """Any broker that is known, rather one that was not silent; None when there is none."""
        nodes = [broker.nodeId for broker in self.cluster.brokers()]
        wanted = [node for node in nodes if not self._is_avoided(node)] or nodes or [None]
        return random.choice(wanted)  # noqa: S311 - no secret

    def _is_avoided(self, node_id: Any) -> bool:
        broker = self.cluster.broker_metadata(node_id)
        return broker is not None and is_avoided(broker.host, broker.port)
