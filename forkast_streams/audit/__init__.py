"""The audit: checks from the logs, the tables and the published books that nothing was lost and nothing happened twice.

It shares no code with the engine, the codec or the sink, so that a mistake has to be made twice to go unseen.
"""
