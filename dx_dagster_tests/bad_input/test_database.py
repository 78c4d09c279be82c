"""What a person is told whose database cannot be had, and never its password."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from dx_dagster.warehouse.embedded import EmbeddedServer
from dx_dagster_tests.bad_input.telling import (
    GOOD,
    PASSWORD,
    alone,
)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        pytest.param(PASSWORD, ["DX_DATABASE_URL", "postgresql://"], id="a password alone"),
        pytest.param(
            f"postgresql://dx:{PASSWORD}@nowhere.invalid/dx", ["DX_DATABASE_URL", "nowhere.invalid"], id="unknown host"
        ),
        pytest.param(f"postgresql://dx:{PASSWORD}@[::1/dx", ["DX_DATABASE_URL"], id="half an address"),
        *(
            pytest.param(
                f"postgresql:{rest}",
                ["DX_DATABASE_URL"],
                id=what,
            )
            for what, rest in (
                ("a port that is no number", f"//dx:{PASSWORD}@127.0.0.1:port/dx"),
                ("one slash", f"/dx:{PASSWORD}@127.0.0.1/dx"),
                ("an unknown option", f"//dx:{PASSWORD}@127.0.0.1:1/dx?nosuch=1"),
            )
        ),
    ],
)
def test_a_database_that_cannot_be_had(run_cli, env, url, said):
    alone(run_cli("migrate", env=env | {"DX_DATABASE_URL": url}), *said)


def test_a_password_with_an_at_sign_is_not_shown(run_cli, env):
    url = f"postgresql://dx:half@{PASSWORD}@127.0.0.1:1/dx"
    alone(run_cli("migrate", env=env | {"DX_DATABASE_URL": url}), "DX_DATABASE_URL", "%40")


def test_a_password_with_a_percent_sign_is_not_shown(run_cli, env):
    url = env["DX_DATABASE_URL"].replace("postgres@", f"postgres:{PASSWORD}%zz@")
    alone(run_cli("connect", "acme", env=env | {"DX_DATABASE_URL": url, "BITBUCKET_TOKEN": GOOD}), "DX_DATABASE_URL")


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        pytest.param("DROP SCHEMA public CASCADE", ["no schema public", "CREATE SCHEMA"], id="no schema"),
        pytest.param("DROP TABLE dx_schema_version", ["already exists", "database of its own"], id="not ours"),
        pytest.param(
            "UPDATE dx_schema_version SET version_num = 'later'", ["newer release", "version later"], id="of tomorrow"
        ),
        pytest.param(
            "ALTER TABLE sync_marks DROP COLUMN asked_at",
            ["asked_at of the table sync_marks is missing", "ALTER TABLE sync_marks ADD COLUMN asked_at"],
            id="short of a column",
        ),
    ],
)
def test_a_database_whose_tables_are_none_of_ours(run_cli, env, statement, said):
    with psycopg.connect(env["DX_DATABASE_URL"]) as connection:
        connection.execute(statement)
    alone(run_cli("migrate", env=env), "DX_DATABASE_URL", *said)


@pytest.fixture
def guarded(postgres: EmbeddedServer, database_url: str) -> Iterator[str]:
    """The address of a database that asks for a password, with a place for it."""
    rules = postgres.folder / "pg_hba.conf"
    before = rules.read_text()
    name = database_url.partition("@/")[2].partition("?")[0]
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE ROLE guest LOGIN SUPERUSER PASSWORD {}").format(sql.Literal(PASSWORD.swapcase()))
        )
        rules.write_text(f"local {name} guest scram-sha-256\n{before}")
        connection.execute("SELECT pg_reload_conf()")
        yield database_url.replace("postgres@", "guest:{}@")
        rules.write_text(before)
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("DROP ROLE guest")


def test_a_database_that_refuses_the_password(run_cli, env, guarded):
    wrong = {"DX_DATABASE_URL": guarded.format(PASSWORD)}
    for command in (["connect", "acme"], ["sync", "acme"]):
        done = run_cli(*command, env=env | wrong | {"BITBUCKET_TOKEN": GOOD})
        alone(done, "DX_DATABASE_URL", "password authentication failed", "guest")
    assert run_cli("migrate", env=env | {"DX_DATABASE_URL": guarded.format(PASSWORD.swapcase())}).returncode == 0
