"""The role that runs the SQL of reports, and its connections: it reads the tables for people, and nothing else.

It logs in itself. `SET ROLE` on a connection of the owner would be no wall: a query can set the role back by
`set_config`, and `query_to_xml` then runs another query with the owner's rights.

The role belongs to one database: installations that share a server have different keys, and so different passwords.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import psycopg
from anyio import to_thread
from psycopg import AsyncConnection, Connection
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier
from pydantic import SecretStr

from dx_dagster.settings import Settings
from dx_dagster.warehouse import analyst_role
from dx_dagster.warehouse.connecting import connect, connect_async
from dx_dagster.warehouse.connections import vault
from dx_dagster.warehouse.embedded import EmbeddedServer

_PREFIX = "dx_reports_"
_CONNECT_SECONDS = 5
_APPLICATION = "dx-dagster report"
# Each session may change these settings. They prevent accidents: what the role may do is in its grants.
_SETTINGS = {
    "default_transaction_read_only": "on",
    "idle_in_transaction_session_timeout": "1min",
    "statement_timeout": "30s",
}
_ROLE = """
    SELECT %(prefix)s || d.oid, EXISTS (SELECT FROM pg_roles WHERE rolname = %(prefix)s || d.oid)
    FROM pg_database d WHERE d.datname = current_database()"""
# The session's user may take the rights of each role that it is a member of, so these count too.
_UNFIT = """
    WITH roles AS (SELECT * FROM pg_roles WHERE pg_has_role(session_user, oid, 'MEMBER')),
    inner_tables AS (
        SELECT c.oid, n.nspname || '.' || c.relname AS name
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm')
          AND (n.nspname = 'dagster' OR n.nspname = 'public' AND c.relname = ANY(%(internal)s))),
    tables AS (
        SELECT c.oid, c.relname AS name FROM pg_class c
        WHERE c.relnamespace = to_regnamespace('public') AND c.relname = ANY(%(tables)s))
    SELECT session_user, COALESCE(
        (SELECT 'is a superuser' FROM roles WHERE rolsuper LIMIT 1),
        (SELECT 'may make roles or databases' FROM roles WHERE rolcreaterole OR rolcreatedb OR rolreplication LIMIT 1),
        (SELECT 'has the rights of ' || rolname FROM roles WHERE rolname LIKE 'pg\\_%%' LIMIT 1),
        (SELECT 'reads ' || t.name FROM inner_tables t, roles r
         WHERE has_any_column_privilege(r.oid, t.oid, 'SELECT') LIMIT 1),
        (SELECT 'writes ' || t.name FROM tables t, roles r
         WHERE has_table_privilege(r.oid, t.oid, 'INSERT, UPDATE, DELETE, TRUNCATE') LIMIT 1)),
        (SELECT min(t.name) FROM tables t WHERE NOT has_table_privilege(session_user, t.oid, 'SELECT'))"""
_OF_SESSION = """
    SELECT set_config('statement_timeout', %(timeout)s, false), set_config('lock_timeout', '5s', false),
           set_config('idle_in_transaction_session_timeout', '1min', false), set_config('TimeZone', %(zone)s, false),
           set_config('cursor_tuple_fraction', '1', false), set_config('jit', 'off', false)"""
_MAY_NOT = (
    "Reports need a role of the database that only reads, and the user of DX_DATABASE_URL may not make one: have an "
    "administrator make it as docs/reports.md shows, and set DX_REPORTS_DATABASE_URL to its address."
)
_NO_KEYS = (
    "Reports need a password that is derived from the installation's keys, and there are no keys yet: connect a "
    "workspace first."
)


class ReportsUnavailableError(Exception):
    """No report can run here; the message says why and what to do, without a password."""


class _Standing(Enum):
    """What became of a try to log in."""

    FIT = auto()
    REFUSED = auto()
    LACKS_TABLES = auto()


@dataclass(frozen=True)
class ReportAccess:
    """How the reports of an installation reach its database.

    Attributes:
        url: the address of the owner.
        passwords: derives the role's password from each key of the installation; the first is current.
        own_url: an address of another role, made by hand.
        is_alone: whether nobody else uses the database; it lets roles in without a password then.
    """

    url: str
    passwords: Callable[[], Sequence[SecretStr]]
    own_url: SecretStr | None = None
    is_alone: bool = False

    @classmethod
    def of(cls, settings: Settings, url: str) -> "ReportAccess":
        """How reports reach the installation's database at `url`."""
        return cls(
            url,
            lambda: vault.derived(settings, "reports"),
            settings.reports_database_url,
            is_alone=url == EmbeddedServer.of(settings.home).url,
        )

    async def address(self) -> SecretStr:
        """The address of the role, which is checked, and made or renewed where that is needed.

        Raises:
            ReportsUnavailableError: there is no such role, and it cannot be made.
        """
        return await to_thread.run_sync(self.ready)

    def ready(self) -> SecretStr:
        """`address`, for a thread."""
        if self.own_url is not None:
            return self._own(self.own_url.get_secret_value())
        try:
            with connect(self.url, connect_timeout=_CONNECT_SECONDS) as owner:
                row = owner.execute(_ROLE, {"prefix": _PREFIX}).fetchone()
        except psycopg.OperationalError as error:
            raise ReportsUnavailableError(f"The database does not answer: {_first_line(error)}.") from None
        role, is_there = row or ("", False)
        passwords: Sequence[SecretStr | None] = self.passwords() or ([None] if self.is_alone else [])
        if not passwords:
            raise ReportsUnavailableError(_NO_KEYS)
        current, *older = [self._of(role, password) for password in passwords]
        standing, reason = self._try(current) if is_there else (_Standing.REFUSED, "")
        if standing == _Standing.FIT:
            return current
        if analyst_role.if_allowed(self.url, lambda owner: self._make(owner, role, passwords[0])):
            standing, reason = self._try(current)
            if standing == _Standing.FIT:
                return current
            raise ReportsUnavailableError(
                f"The role {role}, which runs reports, cannot be used: {reason}. Set DX_REPORTS_DATABASE_URL to the "
                "address of another role, as docs/reports.md shows."
            )
        # Keys are rotated, and the role has the password of an older one until `migrate` runs as somebody who may.
        for address in older if is_there else ():
            if self._try(address)[0] == _Standing.FIT:
                return address
        raise ReportsUnavailableError(_MAY_NOT)

    def _own(self, address: str) -> SecretStr:
        standing, reason = self._try(SecretStr(address))
        if standing != _Standing.FIT:
            raise ReportsUnavailableError(
                f"The role of DX_REPORTS_DATABASE_URL cannot run reports: {reason}. Make one as docs/reports.md shows."
            )
        return SecretStr(address)

    def _of(self, role: str, password: SecretStr | None) -> SecretStr:
        given = {} if password is None else {"password": password.get_secret_value()}
        return SecretStr(make_conninfo(self.url, user=role, **given))

    def _make(self, owner: Connection[Any], role: str, password: SecretStr | None) -> None:
        """Creates or renews the role: its password, and the tables that there are now."""
        with owner.transaction():
            analyst_role.create(owner, role, SQL("LOGIN CONNECTION LIMIT 16"), _SETTINGS)
            if password is not None:
                analyst_role.set_password(owner, role, password)
            analyst_role.grant_tables(owner, role)
            if self.is_alone:
                analyst_role.take_from_all(owner)
                owner.execute(SQL("ALTER ROLE {} SET temp_file_limit TO '2GB'").format(Identifier(role)))

    @staticmethod
    def _try(address: SecretStr) -> tuple[_Standing, str]:
        """Logs in, and looks at what the role may do."""
        lists = {"internal": sorted(analyst_role.INTERNAL_TABLES), "tables": sorted(analyst_role.TABLES)}
        try:
            with connect(
                address.get_secret_value(), connect_timeout=_CONNECT_SECONDS, application_name=_APPLICATION
            ) as connection:
                row = connection.execute(_UNFIT, lists).fetchone()
        except psycopg.Error as error:
            return _Standing.REFUSED, _first_line(error)
        name, too_much, lacking = row or ("", None, None)
        if too_much:
            return _Standing.REFUSED, f"{name} {too_much}, which is more than reports may do"
        if lacking:
            return _Standing.LACKS_TABLES, f"{name} may not read {lacking}"
        return _Standing.FIT, ""


@asynccontextmanager
async def reading(address: SecretStr, zone: str, seconds: float) -> AsyncIterator[AsyncConnection[TupleRow]]:
    """A connection for one query in a read-only transaction, whose times are in the zone. It ends after the block.

    So a query can keep neither locks nor settings.
    """
    connection = await connect_async(
        address.get_secret_value(), connect_timeout=_CONNECT_SECONDS, application_name=_APPLICATION
    )
    try:
        await connection.execute(_OF_SESSION, {"timeout": f"{round(seconds * 1000)}ms", "zone": zone})
        await connection.set_autocommit(False)
        await connection.set_read_only(True)
        yield connection
    finally:
        with suppress(psycopg.Error):
            await connection.close()


def _first_line(error: psycopg.Error) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0].rstrip(".")
