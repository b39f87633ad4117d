"""The whole exchange in one process and one thread, every choice of order, delay and fault made by a seed.

What runs is the product's own code: the agents with their checkpoints, the transport's batches, the segment table,
the producer, the sink's fold, the keeper's state, the OMS's requests. What is simulated is what lies around it: the
log, the database, the local disks, the clocks, the consumer groups, and who takes the next step.
"""
