"""Credentials of a made-up Bitbucket, and the checks of error messages."""

from subprocess import CompletedProcess

import psycopg
from psycopg import sql

from dx_dagster.sandbox import Token, WorldConfig

GOOD = "ATCTT3xFfGN0-sandbox-token-that-opens-all"
POOR = "ATCTT3xFfGN0-sandbox-token-with-one-scope"
BLIND = "ATCTT3xFfGN0-sandbox-token-of-some-other"
WRONG = "ATCTT3xFfGN0-sandbox-token-that-never-was"
PERSONAL = "ATATT3xFfGN0-sandbox-api-token-of-ann"
EMAIL = "ann@example.com"
PASSWORD = "correct-horse-battery"
SECRETS = (GOOD, POOR, BLIND, WRONG, PERSONAL, PASSWORD)
SMALL = WorldConfig(repositories=4, pull_requests=20, members=4)
Done = CompletedProcess[str]


def tokens() -> list[Token]:
    return [
        Token(GOOD),
        Token(POOR, scopes=["repository"]),
        Token(BLIND, workspaces=["elsewhere"]),
        Token(PERSONAL, kind="api", email=EMAIL),
    ]


def paragraph(done: Done, *said: str, status: int = 1) -> str:
    """Checks and returns the error message: the last line of stderr, after any progress."""
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert_no_secret(done)
    last = done.stderr.strip().splitlines()[-1]
    for word in said:
        assert word in last, last
    return last


def alone(done: Done, *said: str) -> str:
    """As `paragraph`, with nothing else on stdout or stderr."""
    last = paragraph(done, *said)
    assert done.stderr.strip() == last
    assert done.stdout == ""
    return last


def usage(done: Done, *said: str) -> None:
    """Checks for a usage error whose box holds the words, wherever its lines break."""
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert_no_secret(done)
    told = " ".join(done.stderr.replace("│", " ").split())
    for word in said:
        assert word in told, told


def assert_no_secret(done: Done) -> None:
    for secret in SECRETS:
        assert secret not in done.stdout + done.stderr


def tables(env: dict[str, str]) -> set[str]:
    """The tables that have rows."""
    query = "SELECT schemaname, relname FROM pg_stat_user_tables ORDER BY 1, 2"
    with psycopg.connect(env["DX_DATABASE_URL"]) as connection:
        found = set()
        for schema, table in connection.execute(query).fetchall():
            some = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.Identifier(schema, table))
            if connection.execute(some).fetchall() == [(True,)]:
                found.add(table)
    return found


def assert_nothing_stored(env: dict[str, str]) -> None:
    left = {name for name in tables(env) if name.startswith(("bitbucket_", "connection", "credential", "dynamic_"))}
    assert left == set()


def credentials(env: dict[str, str]) -> list[tuple[object, ...]]:
    with psycopg.connect(env["DX_DATABASE_URL"]) as connection:
        query = "SELECT disabled_at, disabled_reason FROM credentials WHERE deleted_at IS NULL ORDER BY id"
        return connection.execute(query).fetchall()
