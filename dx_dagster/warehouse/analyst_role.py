"""The role for analysts: it reads the tables that are made for people, and neither writes nor sees anything else.

Each start grants anew, so that tables of a newer release are included. A table that is in neither list is not granted.
"""

import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from psycopg import Connection
from psycopg.errors import DuplicateObject, InsufficientPrivilege, InternalError, LockNotAvailable, UniqueViolation
from psycopg.sql import SQL, Composable, Identifier, Literal
from pydantic import SecretStr

from dx_dagster.settings import private_draft
from dx_dagster.warehouse.connecting import connect

ANALYST = "dx_analyst"
PASSWORD_FILE = "analyst_password"  # noqa: S105 - the name of the file
TABLES = frozenset(
    {
        "bitbucket_deployments",
        "bitbucket_environments",
        "bitbucket_pipelines",
        "bitbucket_pull_activities",
        "bitbucket_pull_comments",
        "bitbucket_pull_commits",
        "bitbucket_pull_participants",
        "bitbucket_pulls",
        "bitbucket_repositories",
        "bitbucket_repository_default_branch_commits",
        "bitbucket_reviews",
        "bitbucket_users",
        "bitbucket_workspaces",
        "deployment_pull_requests",
        "deployments",
        "dx_team_hierarchies",
        "dx_teams",
        "dx_user_identifiers",
        "dx_users",
        "identities",
        "pipeline_runs",
        "pipeline_sources",
        "pull_request_commits",
        "pull_request_issues",
        "pull_request_measures",
        "pull_request_reverts",
        "pull_request_reviews",
        "pull_requests",
        "repos",
        "weekly_measures",
    }
)
# Secrets, payloads, marks of imports, and what persons stated about others. The test of the lists needs them here.
INTERNAL_TABLES = frozenset(
    {
        "absence_checks",
        "account_emails",
        "account_types",
        "api_key_requests",
        "api_keys",
        "api_sessions",
        "asked_emails",
        "budgets",
        "build_marks",
        "changed_rows",
        "check_faults",
        "check_marks",
        "check_reports",
        "connections",
        "credential_checks",
        "credentials",
        "deployment_ids",
        "email_refusals",
        "forgotten_accounts",
        "idempotency_keys",
        "import_locks",
        "pull_marks",
        "receiver_uptimes",
        "request_counts",
        "stated_people",
        "sync_marks",
        "sync_session_commits",
        "sync_sessions",
        "sync_steps",
        "untold_changes",
        "webhook_beliefs",
        "webhook_events",
        "webhook_secrets",
        "wrong_keys",
    }
)
# A client that leaves a transaction open would hold up upgrades and vacuum. Each session may change these settings, so
# they prevent accidents only; what the role may do is in its grants.
_SETTINGS = {
    "default_transaction_read_only": "on",
    "idle_in_transaction_session_timeout": "5min",
    "statement_timeout": "10min",
}
# By default everybody may call these: they store large objects, or take locks that imports and upgrades need.
_CALLABLE_BY_ALL = """
    SELECT oid::regprocedure::text FROM pg_proc
    WHERE pronamespace = 'pg_catalog'::regnamespace AND proname ~ '^(lo_creat|lo_from_bytea|pg_(try_)?advisory)'"""
_PASSWORD_BYTES = 24
_ATTEMPTS, _PAUSE = 20, 0.1
# A build that fills a table has it locked, and waits for grants that others make. PostgreSQL looks for deadlocks
# after a second, and would end either of the two.
_PATIENCE = "SET lock_timeout = '200ms'"


def make_role(connection: Connection[Any]) -> None:
    """Creates the role unless it exists, and grants it exactly `TABLES`. It cannot log in yet.

    Raises:
        psycopg.errors.InsufficientPrivilege: the connection's user may not create roles.
    """
    with connection.transaction():
        create(connection, ANALYST, SQL("NOLOGIN CONNECTION LIMIT 20"), _SETTINGS)
        grant_tables(connection, ANALYST)


def create(connection: Connection[Any], name: str, rights: Composable, settings: Mapping[str, str]) -> None:
    """Creates a role unless it exists, and sets its settings.

    Raises:
        psycopg.errors.InsufficientPrivilege: the connection's user may not create roles.
    """
    role = Identifier(name)
    if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [name]).fetchone() is None:
        connection.execute(SQL("CREATE ROLE {} {}").format(role, rights))
    for setting, value in settings.items():
        statement = SQL("ALTER ROLE {} SET {} TO {}")
        connection.execute(statement.format(role, Identifier(setting), Literal(value)))


def grant_tables(connection: Connection[Any], name: str) -> None:
    """Grants a role exactly those of `TABLES` that there are."""
    role = Identifier(name)
    connection.execute(SQL("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {}").format(role))
    connection.execute(SQL("GRANT USAGE ON SCHEMA public TO {}").format(role))
    query = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')"
    there = {name for (name,) in connection.execute(query).fetchall()}
    tables = SQL(", ").join(Identifier("public", name) for name in sorted(TABLES & there))
    connection.execute(SQL("GRANT SELECT ON {} TO {}").format(tables, role))


def make_role_if_allowed(url: str) -> bool:
    """Makes the role, and grants it the tables that there are now. Returns False as `if_allowed` does."""
    return if_allowed(url, make_role)


def if_allowed(url: str, make: Callable[[Connection[Any]], None]) -> bool:
    """Makes a role with `make`, or returns False where the user may not make roles, or a table stays locked.

    Processes of other databases on the server may do so at the same moment, since a role belongs to the server.
    """
    with connect(url) as connection:
        connection.execute(_PATIENCE)
        for _ in range(_ATTEMPTS):
            try:
                make(connection)
            except InsufficientPrivilege:
                return False
            except (DuplicateObject, UniqueViolation, InternalError, LockNotAvailable):
                time.sleep(_PAUSE)
            else:
                return True
    return False


def let_in(connection: Connection[Any], password: SecretStr) -> None:
    """Allows the role to log in to the embedded database with the password."""
    with connection.transaction():
        set_password(connection, ANALYST, password)
        take_from_all(connection)


def set_password(connection: Connection[Any], name: str, password: SecretStr) -> None:
    """Allows a role to log in with the password, which leaves this process as a SCRAM verifier only."""
    verifier = connection.pgconn.encrypt_password(password.get_secret_value().encode(), name.encode(), b"scram-sha-256")
    connection.execute(SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(Identifier(name), Literal(verifier.decode())))


def take_from_all(connection: Connection[Any]) -> None:
    """Takes rights from everybody but superusers: for a database that has no other users, the embedded one."""
    database = Identifier(connection.info.dbname)
    connection.execute(SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC").format(database))
    for (function,) in connection.execute(_CALLABLE_BY_ALL).fetchall():
        # The name and the types are PostgreSQL's own, quoted by regprocedure.
        connection.execute(SQL("REVOKE EXECUTE ON FUNCTION {} FROM PUBLIC").format(SQL(function)))


def password_of(home: Path) -> SecretStr:
    """The role's password, from a file of the home that only its owner can read; made at the first call."""
    path = home / PASSWORD_FILE
    if not path.exists():
        private_draft(path, secrets.token_urlsafe(_PASSWORD_BYTES)).replace(path)
    return SecretStr(path.read_text(encoding="utf-8").strip())


def address(home: Path, port: int) -> SecretStr:
    """The embedded database's address for programs that connect over TCP, with the password."""
    password = quote(password_of(home).get_secret_value(), safe="")
    return SecretStr(f"postgresql://{ANALYST}:{password}@127.0.0.1:{port}/postgres")
