"""The migrated database is the one that the code declares."""

import warnings

import psycopg
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from dx_dagster.assets.step import column_schema
from dx_dagster.warehouse.schema import metadata

TYPES = """SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"""


def test_migrations_make_the_declared_tables(database_url: str) -> None:
    declared = {name.removeprefix("public.") for name in metadata.tables}
    options = {
        "compare_type": True,
        "compare_server_default": True,
        "include_name": lambda name, kind, _: kind != "table" or name in declared,
    }
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"), poolclass=NullPool)
    with engine.connect() as connection, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Alembic does not compare expressions of indexes, and says so
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []


def test_dagster_is_told_the_types_that_the_database_has(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        for table in metadata.tables.values():
            told = {column.name: column.type for column in column_schema(table).columns}
            assert told == dict(connection.execute(TYPES, [table.fullname]).fetchall()), table.name
