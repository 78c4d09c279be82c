"""Dumps of the whole database by PostgreSQL's own `pg_dump`, and their restoration in one transaction.

The programs come with the embedded server's package. They find the database by environment variables: the address
holds a password, and arguments are visible to every user of the machine.
"""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo
from psycopg.sql import SQL, Identifier

from dx_dagster.warehouse.connecting import connect
from dx_dagster.warehouse.database import WarehouseError
from dx_dagster.warehouse.embedded import programs
from dx_dagster.warehouse.schema import metadata
from dx_dagster.warehouse.schema.triggers import FUNCTIONS
from dx_dagster.warehouse.versions import VERSION_TABLE

_DAGSTER = "dagster"
# The tables of an installation at work are locked by its statements, each for an instant.
_SETTINGS = "SET lock_timeout = '10s'; SET client_min_messages = warning;"
_IS_USED = SQL("""
    SELECT EXISTS (SELECT FROM pg_class WHERE relkind = 'r' AND (
        relnamespace = to_regnamespace(%s)
        OR relnamespace = to_regnamespace('public') AND relname = ANY(%s))) AS is_used""")


class DumpError(WarehouseError):
    """A program of PostgreSQL failed; the message is its own."""


def write(url: str, file: Path) -> None:
    """Dumps the database at `url` into the file, which only its owner can read.

    Raises:
        DumpError: `pg_dump` failed. Nothing is left.
        OSError: the file cannot be written.
    """
    draft = file.with_name(f"{file.name}.partial")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as target:
            arguments = ["--format=custom", "--no-owner", "--no-privileges"]
            done = subprocess.run(  # noqa: S603 - PostgreSQL's own program
                [programs() / "pg_dump", *arguments],
                env=_environment(url),
                stdin=subprocess.DEVNULL,
                stdout=target,
                stderr=subprocess.PIPE,
                check=False,
            )
            _require(done.returncode, done.stderr)
            os.fsync(target.fileno())
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def is_used(url: str) -> bool:
    """Whether the database has tables that a restoration would replace."""
    with connect(url) as connection:
        row = connection.execute(_IS_USED, [_DAGSTER, _tables()]).fetchone()
    return bool(row and row[0])


def restore(url: str, file: Path) -> None:
    """Replaces the installation's tables in the database at `url` with those of the dump.

    Raises:
        DumpError: the file is no such dump, another process uses the tables, or the server refuses. Nothing changed.
    """
    with subprocess.Popen(  # noqa: S603 - PostgreSQL's own program
        [programs() / "psql", "--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1", "--file=-"],
        env=_environment(url),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as psql:
        assert psql.stdin is not None  # noqa: S101 - a pipe, as asked for
        try:
            psql.stdin.write(f"{_SETTINGS}\n{' '.join(_drops(url))}\n".encode())
            psql.stdin.flush()
            done = subprocess.run(  # noqa: S603 - PostgreSQL's own program
                [programs() / "pg_restore", "--no-owner", "--no-privileges", "--exit-on-error", "--file=-", file],
                stdin=subprocess.DEVNULL,
                stdout=psql.stdin,
                stderr=subprocess.PIPE,
                check=False,
            )
            if done.returncode != -signal.SIGPIPE and done.returncode:
                psql.kill()  # the end of its input would commit
                _require(done.returncode, done.stderr)
        except BrokenPipeError:
            pass  # psql has ended, and says why
        _, errors = psql.communicate()
        _require(psql.returncode, errors)


def _drops(url: str) -> Iterator[str]:
    with connect(url) as connection:
        for name in _tables():
            yield SQL("DROP TABLE IF EXISTS public.{} CASCADE;").format(Identifier(name)).as_string(connection)
        for name in FUNCTIONS:
            yield SQL("DROP FUNCTION IF EXISTS public.{}() CASCADE;").format(Identifier(name)).as_string(connection)
        yield SQL("DROP SCHEMA IF EXISTS {} CASCADE;").format(Identifier(_DAGSTER)).as_string(connection)


def _tables() -> list[str]:
    return [*(str(table.name) for table in metadata.sorted_tables), VERSION_TABLE]


def _environment(url: str) -> Mapping[str, str]:
    given = conninfo_to_dict(url)
    variables = {option.keyword.decode(): option.envvar for option in Conninfo.get_defaults()}
    named = {
        envvar.decode(): str(given[keyword])
        for keyword, envvar in variables.items()
        if envvar and given.get(keyword) is not None
    }
    others = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    # An administrator's timeouts are for interactive queries; a dump of a large database takes minutes.
    untimed = "-c statement_timeout=0 -c idle_in_transaction_session_timeout=0"
    return {**others, **named, "PGOPTIONS": f"{named.get('PGOPTIONS', '')} {untimed}".strip()}


def _require(status: int, errors: bytes) -> None:
    if status:
        said = [line for line in errors.decode(errors="replace").splitlines() if line.strip()]
        raise DumpError(" ".join(said[-3:]) or f"PostgreSQL's program ended with status {status}")
