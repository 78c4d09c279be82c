"""Commands that change something say what; those that destroy ask first."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import psycopg

from dx_dagster_tests.bad_input.telling import paragraph
from dx_dagster_tests.conftest import RunCli
from dx_dagster_tests.connecting import SECOND, TOKEN

STATE = """
    SELECT array_agg(c.id) FILTER (WHERE c.deleted_at IS NULL), (SELECT count(*) FROM api_keys WHERE revoked_at IS NULL)
    FROM credentials c JOIN connections k ON k.id = c.connection_id AND k.deleted_at IS NULL"""


def test_changes_say_what_they_did_and_destruction_is_confirmed(run_cli: RunCli, environment, sandbox, database_url):
    for area, says in (
        ("connections", "No workspace is connected."),
        ("people", "No people yet."),
        ("api-keys", "no API keys"),
    ):
        nothing = run_cli(area, "list")
        assert (nothing.returncode, nothing.stdout, says in nothing.stderr) == (0, "", True), area
    env = environment | {"BITBUCKET_API_URL": sandbox.url, "DX_PUBLIC_URL": "https://dx.example.com"}

    def cli(*arguments: str, token: str = TOKEN) -> str:
        done = run_cli(*arguments, env=env | {"BITBUCKET_TOKEN": token})
        assert done.returncode == 0, done.stderr
        return str(done.stdout.removesuffix("\n"))

    def hooks() -> list[object]:
        return [one for found in sandbox.hooks.by_subject.values() for one in found.values()]

    cli("connect", "acme")
    assert cli("connect", "acme").startswith("This token is there already, and is good and enabled.\n")
    assert cli("credentials", "add", "acme", token=SECOND).endswith("0002: good, added with number 2.")
    there = "This token is there already, as credential 2 (Access token …0002). It is good and enabled."
    assert cli("credentials", "add", "acme", token=SECOND) == there
    assert cli("credentials", "disable", "acme", "2").endswith("is disabled. Usable ones left: 1.")
    assert cli("credentials", "disable", "acme", "2").endswith("was disabled already: disabled by hand")
    assert "is disabled. To resume: dx-dagster connections enable acme" in cli("connections", "disable", "acme")
    assert cli("connections", "enable", "acme").endswith("is enabled.\n2 of 2 credentials good.")
    cli("connect", "acme", "--type", "bitbucket_pipelines")
    cli("credentials", "remove", "acme", "3", "--yes")
    none = run_cli("credentials", "list", "acme", "--type", "bitbucket_pipelines")
    assert (none.stdout, "credentials add acme --type bitbucket_pipelines" in none.stderr) == ("", True)
    cli("connections", "remove", "acme", "--type", "bitbucket_pipelines", "--yes")
    cli("api-keys", "create", "laptop")
    cli("webhooks", "install", "acme")

    with psycopg.connect(database_url, autocommit=True) as connection:
        before = connection.execute(STATE).fetchone()
        for command, hanging, done in (
            ("api-keys revoke laptop", "was never used and has 0 sessions.", "is revoked, and its 0 sessions ended."),
            ("credentials remove acme 2", "Usable ones left: 1.", "is removed, and its secret erased. Usable"),
            ("webhooks remove acme", "changes arrive with syncs alone", "workspace acme: removed"),
            ("webhooks install acme", "", "workspace acme: created"),
            ("connections remove acme --webhook", "1 credential and the secret of its webhook.", "Imported rows stay."),
        ):
            if hanging:
                paragraph(run_cli(*command.split(), env=env), hanging, "Nothing was changed", "add --yes")
                assert connection.execute(STATE).fetchone() == before
                assert len(hooks()) == 1
            assert done in cli(*command.split(), *(["--yes"] if hanging else []))
            before = connection.execute(STATE).fetchone()
    assert before == (None, 0)
    assert hooks() == []


def test_a_terminal_is_asked_and_no_changes_nothing(run_cli: RunCli, environment):
    assert run_cli("api-keys", "create", "laptop", env=environment).returncode == 0
    for answer, status, said in (("n", 1, "Nothing was changed."), ("y", 0, "is revoked")):
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "dx_dagster.cli", "api-keys", "revoke", "laptop"]
        with subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            os.write(ours, f"{answer}\n".encode())
            shown = b""
            try:
                while part := os.read(ours, 1000):
                    shown += part
            except OSError:  # Linux: the other end is closed
                pass
        os.close(ours)
        assert (process.returncode, said in shown.decode()) == (status, True), shown
        assert "API key laptop" in shown.decode()


def test_a_key_that_could_not_be_printed_is_revoked(environment, database_url):
    command = [sys.executable, "-m", "dx_dagster.cli", "api-keys", "create", "laptop"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "The output could not be written: No space left on device." in done.stderr
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT revoked_at IS NULL FROM api_keys").fetchall() == [(False,)]
