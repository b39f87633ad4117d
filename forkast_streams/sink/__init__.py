"""The sink: events of ``orders.exchange`` as rows, and the tables' own place in the log that moves with them."""
