"""The store of a cluster: PostgreSQL as the table. The one folder that speaks it.

``store.PostgresStore`` fills the ports of ``cluster.store_ports``; ``rules`` holds the state machine
as SQL, generated from the protocol's one table; ``schema`` is where every column is explained.
"""
