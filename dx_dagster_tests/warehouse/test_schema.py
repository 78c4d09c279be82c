"""The migrated database is the one that the code declares."""

from importlib import import_module
from pkgutil import iter_modules

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from dx_dagster.assets.step import column_schema
from dx_dagster.warehouse import schema
from dx_dagster.warehouse.schema import metadata
from dx_dagster_tests.warehouse.catalog import Fact, facts

for _module in iter_modules(schema.__path__):
    import_module(f"{schema.__name__}.{_module.name}")  # the tables of each join the metadata
DECLARED = sorted(metadata.tables)
OURS_BUT_NOT_DECLARED = {"dx_schema_version"}  # Alembic's
TYPES = """SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"""


@pytest.fixture(scope="module")
def declared(postgres) -> list[Fact]:
    """The catalog of a database whose tables are made from the declaration, without any migration."""
    url = postgres.url.replace("/postgres?", "/declared?")
    with psycopg.connect(postgres.url, autocommit=True) as server:
        server.execute("CREATE DATABASE declared")
        try:
            metadata.create_all(
                create_engine(url.replace("postgresql://", "postgresql+psycopg://"), poolclass=NullPool)
            )
            return facts(url)
        finally:
            server.execute("DROP DATABASE declared WITH (FORCE)")


@pytest.fixture(scope="module")
def migrated(postgres, template) -> list[Fact]:
    return facts(postgres.url.replace("/postgres?", f"/{template}?"))


def test_migrations_make_no_table_that_is_not_declared(migrated):
    assert {table for table, _, _ in migrated} == {*DECLARED, *OURS_BUT_NOT_DECLARED, "functions"}


@pytest.mark.parametrize("table", [*DECLARED, "functions"])
def test_migrations_make_each_table_as_it_is_declared(table, declared, migrated):
    """Columns with type, nullability, default and comment; the definitions of indexes, constraints and triggers."""
    assert [fact for fact in migrated if fact[0] == table] == [fact for fact in declared if fact[0] == table]


def test_dagster_is_told_the_types_that_the_database_has(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        for table in metadata.tables.values():
            told = {column.name: column.type for column in column_schema(table).columns}
            assert told == dict(connection.execute(TYPES, [table.fullname]).fetchall()), table.name
