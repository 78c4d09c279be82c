"""Names of advisory locks that several rooms use."""

DAEMON = "dx-dagster daemon"
"""The lock of Dagster's daemon: one works on a database."""
