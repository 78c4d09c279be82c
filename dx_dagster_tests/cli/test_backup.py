"""`backup` and `restore`: what was there is there again, or nothing changed."""

import json
import os
from collections.abc import Mapping

import psycopg
import pytest
from cryptography.fernet import Fernet
from psycopg.sql import SQL, Identifier

from dx_dagster.warehouse.schema import metadata
from dx_dagster_tests.connecting import TOKEN


@pytest.fixture
def connected(environment, sandbox, run_cli) -> dict[str, str]:
    made = {**environment, "BITBUCKET_API_URL": sandbox.url, "BITBUCKET_TOKEN": TOKEN}
    done = run_cli("connect", "acme", env=made)
    assert done.returncode == 0, done.stderr
    return made


def content(environment: Mapping[str, str]) -> dict[str, list[str]]:
    """All rows, as text."""
    with psycopg.connect(environment["DX_DATABASE_URL"]) as connection:
        return {
            str(table.name): sorted(
                row for (row,) in connection.execute(SQL("SELECT t::text FROM {} t").format(Identifier(table.name)))
            )
            for table in metadata.sorted_tables
        }


def test_a_backup_brings_everything_back_and_a_failed_restoration_changes_nothing(
    connected, new_database, tmp_path, run_cli
):
    file, elsewhere = tmp_path / "dx.dump", {**connected, "DX_DATABASE_URL": new_database()}
    done = run_cli("backup", str(file), env=connected)
    assert done.returncode == 0, done.stderr
    assert (file.stat().st_mode & 0o777, TOKEN.encode() in file.read_bytes()) == (0o600, False)
    assert run_cli("backup", str(file), env=connected).returncode == 1
    os.mkfifo(pipe := tmp_path / "pipe")
    for target, reason in (pipe, "not a regular file"), (tmp_path / "none" / "dx.dump", "Name a file in a folder that"):
        done = run_cli("backup", str(target), "--yes", env=connected)
        assert (done.returncode, reason in done.stderr) == (1, True)
    assert pipe.is_fifo()

    done = run_cli("restore", str(file), env=elsewhere)
    assert (done.returncode, "Nothing was changed" in done.stderr) == (1, True)
    done = run_cli("restore", str(file), "--yes", env=elsewhere)
    assert done.returncode == 0, done.stderr
    assert content(elsewhere) == content(connected)
    [workspace] = json.loads(run_cli("status", "--json", env=elsewhere).stdout)["workspaces"]
    assert workspace["workspace"] == "acme"

    # The rows are there without the keys; nobody can use the credentials.
    done = run_cli("restore", str(file), "--yes", env={**elsewhere, "DX_SECRET_KEYS": Fernet.generate_key().decode()})
    assert (done.returncode, "DX_SECRET_KEYS" in done.stderr) == (0, True)

    # A file that was cut short fails in the middle of its rows.
    broken = tmp_path / "broken.dump"
    broken.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with psycopg.connect(elsewhere["DX_DATABASE_URL"]) as connection:
        connection.execute("UPDATE connections SET name = 'changed since'")
    before = content(elsewhere)
    for wrong in (broken, tmp_path / "text.dump"):
        wrong.touch()
        done = run_cli("restore", str(wrong), "--yes", env=elsewhere)
        assert (done.returncode, "Nothing was changed" in done.stderr, "Traceback" in done.stderr) == (1, True, False)
        assert content(elsewhere) == before
    with psycopg.connect(elsewhere["DX_DATABASE_URL"]) as connection:
        connection.execute("SELECT FROM connections")  # its lock lasts as long as the transaction
        done = run_cli("restore", str(file), "--yes", env=elsewhere)
        assert (done.returncode, "lock timeout" in done.stderr) == (1, True)
    assert content(elsewhere) == before
