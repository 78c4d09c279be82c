"""Every table, one module for each capability. Importing the package declares them all in `metadata`."""

from sqlalchemy import Table

from dx_dagster.warehouse.schema import (
    api_keys,
    bitbucket,
    budgets,
    checks,
    connections,
    marks,
    measures,
    people,
    syncs,
    triggers,
    unified,
    webhooks,
)
from dx_dagster.warehouse.schema.columns import metadata, type_name

__all__ = [
    "Table",
    "api_keys",
    "bitbucket",
    "budgets",
    "checks",
    "connections",
    "marks",
    "measures",
    "metadata",
    "people",
    "syncs",
    "triggers",
    "type_name",
    "unified",
    "webhooks",
]
