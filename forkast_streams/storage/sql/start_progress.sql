-- Gives a partition its progress row, which the fence of persist_events needs.
INSERT INTO "SinkProgress" (topic, partition, "nextOffset") VALUES (%(topic)s, %(partition)s, 0)
ON CONFLICT DO NOTHING
