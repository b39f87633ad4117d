SELECT partition, "nextOffset", sequences FROM "SinkProgress" WHERE topic = %(topic)s AND partition = ANY(%(partitions)s)
