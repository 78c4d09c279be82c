"""What the role for analysts may read."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from dx_dagster.warehouse import schema
from dx_dagster.warehouse.analyst_role import ANALYST, INTERNAL_TABLES, TABLES, make_role_if_allowed


def test_each_table_is_for_analysts_or_internal():
    """A new table belongs into one of the lists. Those of secrets and payloads are no analyst's."""
    assert set(schema.metadata.tables) - TABLES - INTERNAL_TABLES == set()
    assert not TABLES & INTERNAL_TABLES
    for table in schema.metadata.sorted_tables:
        if {"secret", "hash", "body", "headers"} & set(table.columns.keys()):
            assert table.name in INTERNAL_TABLES


def test_migrate_makes_a_role_that_reads_the_tables_for_people_and_nothing_else(database_url):
    with ThreadPoolExecutor(4) as at_once:
        assert list(at_once.map(make_role_if_allowed, [database_url] * 8)) == [True] * 8
    with psycopg.connect(database_url, autocommit=True) as connection:
        can_log_in = "SELECT rolcanlogin FROM pg_roles WHERE rolname = %s"
        assert connection.execute(can_log_in, [ANALYST]).fetchone() == (False,)
        connection.execute(f"SET ROLE {ANALYST}".encode())
        for table in TABLES & set(schema.metadata.tables):
            connection.execute(f"SELECT FROM {table}".encode())
        refused = [f"SELECT FROM {table}" for table in (*INTERNAL_TABLES, "dagster.runs")]
        for statement in (*refused, "DELETE FROM bitbucket_pulls", "CREATE TABLE mine (id int)"):
            with pytest.raises(InsufficientPrivilege):
                connection.execute(statement.encode())
        connection.execute("RESET ROLE")
        connection.execute("CREATE ROLE plain LOGIN")
        assert not make_role_if_allowed(database_url.replace("postgres@", "plain@"))
        connection.execute("DROP ROLE plain")
