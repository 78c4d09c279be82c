"""What a person is told whose command, workspace or credential is wrong."""

import pytest
from cryptography.fernet import Fernet

from dx_dagster_tests.bad_input.telling import (
    alone,
    assert_no_secret,
    assert_nothing_stored,
    credentials,
    paragraph,
    usage,
)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sync", "bad name!"], "'bad name!' is not a valid workspace name"),
        (["credentials", "add", "acme", "--expires", "soon"], "'soon' is not a date. Use the form 2027-01-31"),
        (["sync", "acme", "--since", "9999-12-31T23:59-12:00"], "'9999-12-31T23:59-12:00' is not a date"),
        (["credentials", "add", "acme", "--label", "two\nlines"], "must be one line of 1 to 200 characters"),
        (["connections", "disable", "acme", "--reason", ""], "must be one line of 1 to 200 characters"),
        (["api-keys", "create", " "], "must be one line of 1 to 200 characters"),
        (["webhooks", "remove", "[/red]"], "'[/red]' is not a valid workspace name"),
    ],
)
def test_what_is_given_wrongly_is_noticed_before_the_database_is_opened(run_cli, env, arguments, said):
    nobody = {"DX_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"}
    usage(run_cli(*arguments, env=env | nobody), said)


def test_a_schedule_that_dagster_does_not_take(run_cli, env):
    given = {"DX_RECONCILE_CRON": "99 2 * * *"}
    alone(run_cli("status", env=env | given), "DX_RECONCILE_CRON is '99 2 * * *'", "not a valid cron expression")


@pytest.mark.parametrize(
    "arguments",
    [["connect", "acme", "--type", "github"], ["up", "--ui-port", "0"]],
)
def test_wrong_usage(run_cli, env, arguments):
    done = run_cli(*arguments, env=env)
    assert done.returncode == 2
    assert "Usage" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["verify"], ["credentials", "list"]])
def test_a_workspace_that_was_never_connected(run_cli, env, command):
    alone(run_cli(*command, "acme", env=env), "acme", "not connected", "dx-dagster connect acme")
    assert_nothing_stored(env)


def test_a_connection_that_a_workspace_does_not_have(run_cli, connected):
    missing = "Workspace acme has no connection of type"
    done = run_cli("credentials", "add", "acme", "--type", "jira_cloud", env=connected)
    alone(done, f"{missing} jira_cloud", "JIRA_EMAIL", "dx-dagster connect acme --type jira_cloud --jira-url https")


def test_a_token_that_was_revoked(run_cli, connected, sandbox):
    sandbox.tokens[0].revoked = True
    done = run_cli("sync", "acme", env=connected)
    paragraph(done, "invalid_credentials")
    [(disabled_at, reason)] = credentials(connected)
    assert disabled_at is not None
    assert "invalid" in str(reason)
    listed = run_cli("credentials", "list", "acme", env=connected)
    assert f"disabled: {str(reason).removesuffix('.')}, last check" in listed.stdout
    assert_no_secret(listed)

    paragraph(run_cli("sync", "acme", env=connected), "invalid_credentials", "dx-dagster credentials add acme")

    verified = run_cli("verify", "acme", env=connected)
    paragraph(verified, "1 of 1 credentials of workspace acme failed: credential 1 (", ") with invalid_credentials.")
    assert "invalid_credentials" in verified.stdout
    assert "curl " in verified.stdout
    assert "Authorization: Bearer YOUR_TOKEN" in verified.stdout

    sandbox.tokens[0].revoked = False
    again = run_cli("verify", "acme", env=connected)
    assert (again.returncode, again.stderr) == (0, "")
    assert credentials(connected) == [(None, None)]


def test_keys_that_do_not_open_what_is_stored(run_cli, connected):
    others = connected | {"DX_SECRET_KEYS": Fernet.generate_key().decode()}
    paragraph(run_cli("verify", "acme", env=others), "Set DX_SECRET_KEYS", "credential 1")
    assert credentials(connected) == [(None, None)], "a wrong key says nothing about the credential"
    rotated = connected | {"DX_SECRET_KEYS": f"{Fernet.generate_key().decode()},{connected['DX_SECRET_KEYS']}"}
    assert run_cli("verify", "acme", env=rotated).returncode == 0


def test_a_credential_of_nobody_is_not_removed(run_cli, connected):
    alone(run_cli("credentials", "remove", "acme", "4711", env=connected), "acme", "no credential 4711")


def test_a_scope_that_was_taken_away(run_cli, connected, sandbox):
    before = sandbox.tokens[0].scopes
    sandbox.tokens[0].scopes = ["account", "repository", "pipeline"]
    try:
        paragraph(run_cli("sync", "acme", env=connected), "invalid_permissions", "pullrequest")
    finally:
        sandbox.tokens[0].scopes = before
    assert credentials(connected) == [(None, None)], "the credential is good, it only may too little"
