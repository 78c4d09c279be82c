"""Each mistake of the list is made, and the person sees four lines at most, with a way out.

The `curl` command that a refusal ends with is not counted: it is for copying.
"""

import math
import os
import re
import shlex
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from cryptography.fernet import Fernet

from dx_dagster.cli import running
from dx_dagster.cli.ports import free_port
from dx_dagster.sandbox import Sandbox
from dx_dagster.settings import Settings
from dx_dagster.warehouse.embedded import EmbeddedServer
from dx_dagster_tests.bad_input.mistakes import MISTAKES, Mistake
from dx_dagster_tests.bad_input.telling import GOOD, assert_no_secret
from dx_dagster_tests.commands import Done, run_forked

COLUMNS, LINES = 80, 4
DATABASE = "of_mistakes"


@pytest.fixture(scope="module")
def installation(postgres: EmbeddedServer, template: str, shared_sandbox: Sandbox) -> Iterator[dict[str, str]]:
    """The environment of a connected installation, which no mistake changes."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DX_", "BITBUCKET_", "DAGSTER_"))}
    with (
        tempfile.TemporaryDirectory(prefix="dx-home-") as folder,
        psycopg.connect(postgres.url, autocommit=True) as connection,
    ):
        connection.execute(f"CREATE DATABASE {DATABASE} TEMPLATE {template} STRATEGY file_copy".encode())
        env = kept | {
            "DX_HOME": folder,
            "DX_DATABASE_URL": postgres.url.replace("/postgres?", f"/{DATABASE}?"),
            "DX_SECRET_KEYS": Fernet.generate_key().decode(),
            "BITBUCKET_API_URL": shared_sandbox.url,
            "COLUMNS": str(COLUMNS),
        }
        for given, *command in (({"BITBUCKET_TOKEN": GOOD}, "connect", "acme"), ({}, "api-keys", "create", "laptop")):
            done = run_forked(command, env | given)
            assert done.returncode == 0, done.stderr
        with psycopg.connect(env["DX_DATABASE_URL"]) as own:  # which no demo may be mixed with
            own.execute(
                "INSERT INTO connections (type, workspace, name, state)"
                "VALUES ('bitbucket', 'globex', 'globex', 'verified')"
            )
        yield env
        connection.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)".encode())


@pytest.fixture
def staged(installation: dict[str, str], dx_home: Path) -> Iterator[dict[str, str]]:
    """What the mistakes name in braces."""
    folder = dx_home.parent
    file, busy = folder / "people.csv", folder / "busy"
    file.write_text("email,type\nann@acme.example,robot\n")
    settings = Settings.model_validate({"DX_HOME": str(busy), "DX_DATABASE_URL": installation["DX_DATABASE_URL"]})
    with socket.create_server(("127.0.0.1", 0)) as other, running.alone(settings, "up", 1, 2):
        yield {
            "busy": str(busy),
            "empty": str(folder / "empty"),
            "file": str(file),
            "free": str(free_port()),
            "free2": str(free_port()),
            "free3": str(free_port()),
            "no_database": installation["DX_DATABASE_URL"].replace(DATABASE, "not_there"),
            "other_key": Fernet.generate_key().decode(),
            "taken": str(other.getsockname()[1]),
        }


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.what)
def test_a_mistake_is_explained_in_four_lines_with_a_way_out(
    mistake: Mistake, installation: dict[str, str], staged: dict[str, str]
):
    def filled(text: str) -> str:
        return text.format(**staged) if "{" in text else text

    before = state(installation)
    env = installation | {name: filled(value) for name, value in mistake.given.items()}
    arguments = shlex.split(filled(mistake.command))
    done = run_forked(arguments, {name: value for name, value in env.items() if value})
    assert done.returncode == mistake.status, done.stderr
    assert_no_secret(done)
    told = message(done)
    assert re.search(pattern(mistake.sees), told), told
    assert mistake.out in told
    explained = told.partition(" To reproduce: curl ")[0]
    assert math.ceil(len(explained) / COLUMNS) <= LINES, explained
    assert state(installation) == before
    if explained != told:  # a refusal comes with the command that reproduces it
        assert "YOUR_TOKEN" in told


def message(done: Done) -> str:
    """What a person reads, without the frame that Typer puts around wrong usage."""
    return " ".join(re.sub("[╭╮╰╯│─]| Error ", " ", done.stderr).split())


def pattern(sees: str) -> str:
    return re.escape(sees).replace("…", ".*")


def state(env: dict[str, str]) -> list[tuple[object, ...]]:
    """What a mistake must not change."""
    query = """
        SELECT (SELECT array_agg(k ORDER BY k.id) FROM connections k)::text,
               (SELECT array_agg((c.id, c.disabled_at, c.deleted_at) ORDER BY c.id) FROM credentials c)::text,
               (SELECT array_agg((name, revoked_at)) FROM api_keys)::text, (SELECT count(*) FROM stated_people)"""
    with psycopg.connect(env["DX_DATABASE_URL"]) as connection:
        return connection.execute(query).fetchall()
