-- Gives a partition its progress row, which the fence of persist_events needs. Where it is there, this waits for a
-- statement that moves it, which a worker that has ended may have left behind: what is read next is of the time after it.
INSERT INTO "SinkProgress" (topic, partition, "nextOffset") VALUES (%(topic)s, %(partition)s, 0)
ON CONFLICT DO NOTHING
