"""What a person is told whose workspace cannot be connected; and nothing is stored."""

import os
import pty
import subprocess
import sys
from contextlib import suppress

import psycopg
import pytest

from dx_dagster_tests.bad_input.telling import (
    EMAIL,
    GOOD,
    PASSWORD,
    PERSONAL,
    alone,
    assert_nothing_stored,
    credentials,
    usage,
)


def test_an_api_token_with_its_address_is_taken(run_process, env):
    given = {"BITBUCKET_EMAIL": EMAIL, "BITBUCKET_API_TOKEN": PERSONAL}
    done = run_process("connect", "acme", env=env | given)
    assert (done.returncode, done.stderr) == (0, "")
    assert credentials(env) == [(None, None)]


def test_the_token_of_an_address_is_asked_for_without_echo(env):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "dx_dagster.cli", "connect", "acme"],
        env=env | {"BITBUCKET_EMAIL": EMAIL},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    with process, os.fdopen(ours, "r+b", buffering=0) as terminal, suppress(OSError):  # how a terminal's end is told
        while said := terminal.read(1000):
            shown += said
            if shown.endswith(b"API token of ann@example.com: "):
                terminal.write(f"{PERSONAL}\n".encode())
    assert process.returncode == 0, shown
    assert b"Workspace acme is connected" in shown
    assert PERSONAL.encode() not in shown
    assert credentials(env) == [(None, None)]


def test_a_workspace_given_as_an_address_is_taken(run_cli, env):
    done = run_cli("connect", "https://bitbucket.org/acme/", env=env | {"BITBUCKET_TOKEN": f" {GOOD}\n"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "acme" in done.stdout
    assert credentials(env) == [(None, None)]
    with psycopg.connect(env["DX_DATABASE_URL"]) as connection:
        assert connection.execute("SELECT workspace FROM connections").fetchall() == [("acme",)]
        assert connection.execute("SELECT partition FROM dagster.dynamic_partitions").fetchall() == [("acme",)]


# --- connect: a server that is no Bitbucket ---


@pytest.mark.parametrize("fault", ["html", "truncated", "503", "throttle", "reset"])
def test_a_server_that_does_not_answer_as_bitbucket_does(run_cli, env, sandbox, fault):
    sandbox.faults.on(".*", fault)
    told = alone(run_cli("connect", "acme", env=env | {"BITBUCKET_TOKEN": GOOD}), "Nothing was stored")
    assert "<" not in told, "a page's markup"
    assert_nothing_stored(env)


def test_a_server_that_hangs(run_cli, env, sandbox):
    sandbox.faults.hang_seconds = 45
    sandbox.faults.on(".*", "hang")
    alone(run_cli("connect", "acme", env=env | {"BITBUCKET_TOKEN": GOOD}), "unavailable", "Nothing was stored")
    assert_nothing_stored(env)


@pytest.mark.parametrize("host", ["127.9.8.7", "[::1]"])
def test_a_server_that_is_not_there(run_cli, env, host):
    """On this machine, where plain http is allowed."""
    nobody = {"BITBUCKET_API_URL": f"http://{host}:1/2.0", "BITBUCKET_TOKEN": GOOD}
    alone(run_cli("connect", "acme", env=env | nobody), "unavailable", host.strip("[]"), "Nothing was stored")
    assert_nothing_stored(env)


# --- connect: what is wrong before Bitbucket is asked ---


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param(
            {"BITBUCKET_API_TOKEN": PERSONAL}, ["BITBUCKET_EMAIL and BITBUCKET_API_TOKEN"], id="API token alone"
        ),
        pytest.param(
            {"BITBUCKET_TOKEN": GOOD, "BITBUCKET_API_URL": f"https://ann:{PASSWORD}@bitbucket.example.com/2.0"},
            ["BITBUCKET_API_URL", "user name or password"],
            id="a password in the address",
        ),
        *(
            pytest.param(
                {"BITBUCKET_TOKEN": GOOD, "BITBUCKET_API_URL": f"https://bitbucket.example.com{rest}"},
                ["BITBUCKET_API_URL"],
                id=f"an address with {rest}",
            )
            for rest in (":port/2.0", "/2.0?x=1", "/2.0#x")
        ),
        pytest.param({"BITBUCKET_TOKEN": GOOD, "DX_SECRET_KEYS": ","}, ["DX_SECRET_KEYS"], id="no keys"),
        pytest.param({"BITBUCKET_TOKEN": GOOD, "DX_BUDGET_WINDOW": "0"}, ["DX_BUDGET_WINDOW"], id="no window"),
        pytest.param({"BITBUCKET_TOKEN": GOOD, "DX_BUDGET_WINDOW": "soon"}, ["DX_BUDGET_WINDOW"], id="no number"),
        pytest.param({"BITBUCKET_TOKEN": GOOD, "DX_BUDGET_WINDOW": "inf"}, ["DX_BUDGET_WINDOW"], id="no end"),
        pytest.param({"DX_KEEP_RUNS_DAYS": "1000000"}, ["DX_KEEP_RUNS_DAYS", "36500"], id="before the year 1"),
    ],
)
def test_settings_that_cannot_be_used(run_cli, env, given, said):
    alone(run_cli("connect", "acme", env=env | given), *said)
    assert_nothing_stored(env)


def test_a_jira_site_that_is_none(run_cli, env):
    given = env | {"JIRA_EMAIL": EMAIL, "JIRA_API_TOKEN": PERSONAL}
    done = run_cli("connect", "acme", "--type", "jira_cloud", "--jira-url", "", env=given)
    alone(done, "'' is not a valid address of a Jira site; an example is https://acme.atlassian.net.")
    assert_nothing_stored(env)


@pytest.mark.parametrize("name", ["", "ac me"])
def test_a_workspace_that_can_be_none(run_cli, env, name):
    usage(run_cli("connect", name, env=env | {"BITBUCKET_TOKEN": GOOD}), "not a valid workspace name", "acme")
    assert_nothing_stored(env)


@pytest.mark.parametrize("name", [".", ".."])
def test_a_workspace_that_leads_out_of_the_api(run_cli, env, name):
    usage(run_cli("connect", name, env=env | {"BITBUCKET_TOKEN": GOOD}), "not a valid workspace name")
