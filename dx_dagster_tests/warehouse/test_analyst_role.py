"""What the role for analysts may read."""

from dx_dagster.warehouse import schema
from dx_dagster.warehouse.analyst_role import INTERNAL_TABLES, TABLES


def test_each_table_is_for_analysts_or_internal():
    """A new table belongs into one of the lists. Those of secrets and payloads are no analyst's."""
    assert set(schema.metadata.tables) - TABLES - INTERNAL_TABLES == set()
    assert not TABLES & INTERNAL_TABLES
    for table in schema.metadata.sorted_tables:
        if {"secret", "hash", "body", "headers"} & set(table.columns.keys()):
            assert table.name in INTERNAL_TABLES
