"""A token goes nowhere."""

import base64
from pathlib import Path

import psycopg
from psycopg import sql

from dx_dagster.warehouse.embedded import EmbeddedServer
from dx_dagster_tests.bad_input.telling import (
    EMAIL,
    GOOD,
    PERSONAL,
    assert_no_secret,
)


def test_a_token_leaves_no_trace(run_cli, bare_environment, sandbox):
    """With the embedded database, so that its files and its log of changes are searched too."""
    env = bare_environment | {"BITBUCKET_API_URL": sandbox.url}
    access, personal = {"BITBUCKET_TOKEN": GOOD}, {"BITBUCKET_EMAIL": EMAIL, "BITBUCKET_API_TOKEN": PERSONAL}
    for given, *arguments in (
        (access, "connect", "acme"),
        (personal, "credentials", "add", "acme"),
        (personal, "sync", "acme", "--json"),
        ({}, "verify", "acme"),
    ):
        done = run_cli(*arguments, env=env | given)
        assert done.returncode == 0, done.stderr
        assert_no_secret(done)
    for token in sandbox.tokens:
        token.revoked = True
    for command in ("sync", "verify"):
        done = run_cli(command, "acme", env=env)
        assert done.returncode == 1
        assert_no_secret(done)

    home = Path(env["DX_HOME"])
    traces = [secret.encode() for secret in (GOOD, PERSONAL)]
    traces += [base64.b64encode(f"{EMAIL}:{PERSONAL}".encode())]
    written = [path for path in home.rglob("*") if path.is_file()]
    assert len(written) > 100
    assert [path for path in written if any(trace in path.read_bytes() for trace in traces)] == []

    server = EmbeddedServer(home / "postgres")
    server.join()
    try:
        rows = [row for table in every_row(server.url) for row in table]
    finally:
        server.leave()
    assert len(rows) > 100
    assert [row for row in rows if any(trace.decode() in row for trace in traces)] == []


def every_row(url: str) -> list[list[str]]:
    """All rows of all tables, ours and Dagster's, as text; texts that are compressed in the files are not here."""
    query = "SELECT schemaname, relname FROM pg_stat_user_tables"
    with psycopg.connect(url) as connection:
        return [
            [row for (row,) in connection.execute(sql.SQL("SELECT t::text FROM {} t").format(name)).fetchall()]
            for name in (sql.Identifier(*one) for one in connection.execute(query).fetchall())
        ]
