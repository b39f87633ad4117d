"""aiokafka with less work a request.

A worker that keeps up fetches and sends a few records at a time, so what a request costs is what an order costs: with
aiokafka as it is, an order took two thousand calls of Python functions in the engine's worker alone. Importing this
package puts its classes and functions in the place of aiokafka's, for consumers and producers alike; the tests in
``tests/unit/test_kafka_*.py`` fail when one of those is not what it was.
"""

from __future__ import annotations

from aiokafka import conn
from aiokafka.admin import client as admin_client
from aiokafka.consumer import consumer
from aiokafka.consumer import fetcher as aiokafka_fetcher
from aiokafka.producer import producer

from forkast_streams.kafka_client import protocol
from forkast_streams.kafka_client.client import Client
from forkast_streams.kafka_client.connection import Connection
from forkast_streams.kafka_client.fetched import FetchResult, PartitionRecords, RawTopics, read_raw
from forkast_streams.kafka_client.fetcher import PacedFetcher
from forkast_streams.kafka_client.pace import Pace
from forkast_streams.kafka_client.sender import GATHER_TURNS, Accumulator, Sender

__all__ = ["GATHER_TURNS", "Pace", "PacedFetcher", "RawTopics", "read_raw"]

protocol.install()
conn.AIOKafkaConnection = Connection
admin_client.AIOKafkaClient = consumer.AIOKafkaClient = producer.AIOKafkaClient = Client
consumer.Fetcher = PacedFetcher
aiokafka_fetcher.FetchResult = FetchResult
aiokafka_fetcher.PartitionRecords = PartitionRecords
producer.MessageAccumulator = Accumulator
producer.Sender = Sender
