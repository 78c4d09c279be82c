"""The tables are where they should be, whoever the user of the database is and whatever search path it has."""

from collections.abc import Iterator

import psycopg
import pytest

from dx_dagster.sandbox import Sandbox, WorldConfig
from dx_dagster_tests.bad_input.telling import alone


@pytest.fixture
def role_url(empty_database_url: str) -> Iterator[str]:
    """The address of an empty database for a role called dagster, which may create in `public` and nothing else."""
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE dagster LOGIN")
        connection.execute("GRANT CREATE ON SCHEMA public TO dagster")
        yield empty_database_url.replace("postgres@", "dagster@")
        connection.execute("DROP OWNED BY dagster")
        connection.execute("DROP ROLE dagster")


def test_a_role_that_may_not_create_is_told_what_it_must_be_allowed(run_cli, environment, empty_database_url, role_url):
    env = environment | {"DX_DATABASE_URL": role_url}
    alone(run_cli("migrate", env=env), "permission denied for database", "OWNER TO")
    give_schema(empty_database_url, "postgres")
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("GRANT USAGE ON SCHEMA dagster TO dagster")
    alone(run_cli("status", env=env), "permission denied for schema dagster", "GRANT ALL ON SCHEMA dagster")


def give_schema(url: str, role: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(f"CREATE SCHEMA dagster AUTHORIZATION {role}".encode())


def test_all_tables_of_ours_are_in_public_and_dagsters_are_not(run_cli, environment, empty_database_url, role_url):
    give_schema(empty_database_url, "dagster")
    with Sandbox(WorldConfig(repositories=2, pull_requests=4, members=3)) as sandbox:
        env = environment | {"BITBUCKET_API_URL": sandbox.url, "BITBUCKET_TOKEN": sandbox.token.secret}
        for command, options in (("connect", ""), ("sync", ""), ("sync", "&options=-csearch_path%3Ddagster")):
            done = run_cli(command, "acme", env=env | {"DX_DATABASE_URL": role_url + options})
            assert done.returncode == 0, done.stderr
    with psycopg.connect(empty_database_url) as connection:
        tables = connection.execute("SELECT tablename, schemaname FROM pg_tables WHERE tableowner = 'dagster'")
        schemas: dict[str, str] = dict(tables.fetchall())
    assert {schemas[table] for table in ("bitbucket_pulls", "connections", "dx_schema_version")} == {"public"}
    assert {schemas[table] for table in ("runs", "event_logs", "alembic_version")} == {"dagster"}
