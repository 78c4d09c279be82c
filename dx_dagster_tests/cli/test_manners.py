"""The command line as others are: version, help, completion, colours, and the width of the terminal."""

import re
import subprocess
import sys

import psycopg
import pytest

from dx_dagster_tests.conftest import RunCli
from dx_dagster_tests.connecting import TOKEN

LONGEST = "pullrequest:changes_request_created"


def test_version_and_short_help_are_options_of_every_command(run_cli: RunCli, bare_environment):
    assert re.fullmatch(r"dx-dagster \d+\.\d+\.\d+\S*\n", run_cli("--version", env=bare_environment).stdout)
    for command in ([], ["sync"], ["credentials", "remove"]):
        helped = run_cli(*command, "-h", env=bare_environment)
        assert (helped.returncode, helped.stdout) == (0, run_cli(*command, "--help", env=bare_environment).stdout)
        assert "Usage: dx-dagster" in helped.stdout


LOADED_BY_A_SYNC = """
import sys, dx_dagster.cli
from dx_dagster.cli.loading import load_libraries
load_libraries()
import dagster_postgres, dx_dagster.automation.syncing, dx_dagster.cli.progress, dx_dagster.cli.sync
print(*sys.modules)
"""


def test_a_sync_loads_only_what_it_needs_before_its_first_request(bare_environment):
    command = [sys.executable, "-c", LOADED_BY_A_SYNC]
    loaded = subprocess.run(command, env=bare_environment, capture_output=True, text=True, check=True).stdout.split()
    assert {"dagster", "httpx", "structlog", "mako"} <= set(loaded)
    assert not {"polars", "rich", "pygments", "fastapi", "dx_dagster.automation.sensors"} & set(loaded)


@pytest.mark.parametrize(
    ("shell", "asked"),
    [
        ("bash", {"COMP_WORDS": "dx-dagster credentials re", "COMP_CWORD": "2"}),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "dx-dagster credentials re"}),
        ("fish", {"_TYPER_COMPLETE_ARGS": "dx-dagster credentials re", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
    ],
)
def test_shells_complete_commands(run_cli: RunCli, bare_environment, shell: str, asked: dict[str, str]):
    variable = "_DX_DAGSTER_COMPLETE"
    assert variable in run_cli(env=bare_environment | {variable: f"source_{shell}"}).stdout
    suggested = run_cli(env=bare_environment | {variable: f"complete_{shell}"} | asked).stdout
    assert re.findall(r"\b(remove|rekey|disable|daemon)\b", suggested) == ["remove", "rekey"]


def test_tables_keep_within_the_terminal_and_colours_are_off_on_request(
    run_cli: RunCli, environment, sandbox, database_url
):
    env = environment | {"BITBUCKET_API_URL": sandbox.url, "BITBUCKET_TOKEN": TOKEN}
    assert run_cli("connect", "acme", env=env).returncode == 0
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO webhook_events (connection_id, workspace, request_uuid, event_key, headers, body, received_at)"
            "VALUES (1, 'acme', 'one', %s, '{}', '{}', now() - interval '3 hours')",
            [LONGEST],
        )
    for command, columns in (("webhooks status acme", 60), ("status", 60), ("webhooks status acme", 80)):
        told = run_cli(*command.split(), env=env | {"COLUMNS": str(columns)}).stdout
        assert max(len(line) for line in told.splitlines()) <= columns
        assert "3 hours ago" in told or command == "status"
    assert LONGEST in told
    piped = run_cli("status", env={name: value for name, value in env.items() if name != "COLUMNS"}).stdout
    assert f"credential 1  Access token …{TOKEN[-4:]}: enabled, " in piped
    for given, is_coloured in ({}, True), ({"NO_COLOR": "1"}, False):
        told = run_cli("sync", "--help", env=env | {"FORCE_COLOR": "1"} | given).stdout
        assert bool(re.search(r"\x1b\[[0-9;]*3\dm", told)) == is_coloured
