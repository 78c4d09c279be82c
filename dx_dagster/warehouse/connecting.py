"""Connections of ours: they work in the schema `public`, whatever search path their role or their address prescribes.

PostgreSQL's default is "$user", public: the tables of a role called dagster would land among Dagster's. A statement
sets the path, for a parameter of the connection would replace the `options` of the address and of PGOPTIONS.
"""

from typing import Any

from psycopg import AsyncConnection, Connection
from psycopg.rows import TupleRow

_IN_PUBLIC = "SET search_path TO public"


def connect(url: str, **parameters: Any) -> Connection[TupleRow]:
    """A connection that commits each statement by itself."""
    connection = Connection.connect(url, autocommit=True, **parameters)
    try:
        work_in_public(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def work_in_public(connection: Connection[Any]) -> None:
    autocommit = connection.autocommit
    connection.autocommit = True  # in a transaction, a rollback would take it back
    connection.execute(_IN_PUBLIC)
    connection.autocommit = autocommit


async def work_in_public_async(connection: AsyncConnection[Any]) -> None:
    autocommit = connection.autocommit
    await connection.set_autocommit(True)
    await connection.execute(_IN_PUBLIC)
    await connection.set_autocommit(autocommit)
