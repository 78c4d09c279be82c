# ruff: noqa: E501 - each message stands on one line, as it is printed
"""Mistakes of people, and what each of them sees. `docs/troubleshooting.md` shows the list.

In `sees`, `…` stands for what differs from one installation to the next.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dx_dagster_tests.bad_input.telling import BLIND, EMAIL, GOOD, PERSONAL, POOR, WRONG

NOBODY = "postgresql://dx@127.0.0.1:1/dx"


@dataclass(frozen=True)
class Mistake:
    """A command that somebody types, in the environment of a connected installation.

    Attributes:
        given: changes to that environment; `{home}` and the like are replaced with those of the test.
        sees: the whole message.
        out: the part of the message that says what to do.
    """

    what: str
    command: str
    sees: str
    out: str
    given: Mapping[str, str] = field(default_factory=dict)
    status: int = 1


def _token(what: str, token: str, sees: str, out: str, workspace: str = "acme") -> Mistake:
    return Mistake(what, f"connect {workspace}", sees, out, {"BITBUCKET_TOKEN": token})


MISTAKES = (
    # What Bitbucket refuses
    _token(
        "an Atlassian API token in the place of a workspace access token",
        PERSONAL,
        "invalid_credentials: Bitbucket does not accept this credential as a workspace access token (Bearer). Bitbucket said: … It looks like an Atlassian API token. Set BITBUCKET_EMAIL and BITBUCKET_API_TOKEN instead. Nothing was stored.",
        "Set BITBUCKET_EMAIL and BITBUCKET_API_TOKEN",
    ),
    Mistake(
        "a workspace access token in the place of an Atlassian API token",
        "connect acme",
        "invalid_credentials: Bitbucket does not accept this credential as an Atlassian API token (Basic). Bitbucket said: … It looks like a workspace access token. Set BITBUCKET_TOKEN instead. Nothing was stored.",
        "Set BITBUCKET_TOKEN",
        {"BITBUCKET_EMAIL": EMAIL, "BITBUCKET_API_TOKEN": GOOD},
    ),
    _token(
        "a token that is wrong or revoked",
        WRONG,
        "invalid_credentials: Bitbucket does not accept this credential as a workspace access token (Bearer). Bitbucket said: Token is invalid, expired, or not supported for this endpoint. It may be revoked or expired, or be an Atlassian API token, which needs an e-mail address. Nothing was stored.",
        "It may be revoked or expired",
    ),
    _token(
        "a token of another workspace",
        BLIND,
        "invalid_permissions: The credential may not read workspace acme. Bitbucket said: … The name of a workspace is the first part of its address: https://bitbucket.org/WORKSPACE/. An access token opens only the workspace, project or repository it was made in. Nothing was stored.",
        "An access token opens only the workspace",
    ),
    _token(
        "a token without the scopes",
        POOR,
        "invalid_permissions: The credential lacks the scopes account, pipeline, pullrequest. Create a new token with the scopes account, pipeline, pullrequest and repository. Nothing was stored.",
        "Create a new token",
    ),
    _token(
        "a workspace that does not exist",
        GOOD,
        "invalid_permissions: The credential may not read workspace nowhere. Bitbucket said: … The name of a workspace is the first part of its address: https://bitbucket.org/WORKSPACE/. An access token opens only the workspace, project or repository it was made in. Nothing was stored.",
        "https://bitbucket.org/WORKSPACE/",
        "nowhere",
    ),
    # What is typed
    Mistake(
        "both kinds of credentials at once",
        "connect acme",
        "BITBUCKET_TOKEN and BITBUCKET_API_TOKEN are both set. Keep BITBUCKET_TOKEN for a workspace access token, or BITBUCKET_API_TOKEN with BITBUCKET_EMAIL for an Atlassian API token with its e-mail address.",
        "Keep BITBUCKET_TOKEN",
        {"BITBUCKET_TOKEN": GOOD, "BITBUCKET_API_TOKEN": PERSONAL, "BITBUCKET_EMAIL": EMAIL},
    ),
    Mistake(
        "an e-mail address without its token",
        "connect acme",
        "BITBUCKET_EMAIL and BITBUCKET_API_TOKEN belong together: set both, or BITBUCKET_TOKEN alone.",
        "set both",
        {"BITBUCKET_EMAIL": EMAIL},
    ),
    Mistake(
        "no credential, and no terminal to ask at",
        "connect acme",
        "No credential is set. Set BITBUCKET_TOKEN to a workspace access token, or BITBUCKET_EMAIL and BITBUCKET_API_TOKEN to an account's e-mail address and its Atlassian API token.",
        "Set BITBUCKET_TOKEN",
    ),
    _token(
        "a token with a space in it",
        "ATCTT3 xFfGN0",
        "invalid_credentials: This is not a valid credential: it is empty, or contains spaces, line breaks or accented letters. Copy it again: it is one word. Nothing was stored.",
        "Copy it again",
    ),
    Mistake(
        "Jira without its address",
        "connect acme --type jira_cloud",
        "Invalid value for --jira-url: is required for --type jira_cloud, and valid only there.",
        "--jira-url",
        status=2,
    ),
    Mistake(
        "the address of another site as workspace",
        "connect https://example.com/acme",
        "Invalid value for 'WORKSPACE': 'https://example.com/acme' is not a valid workspace name. Use the first part of the workspace's address: for https://bitbucket.org/acme/ it is acme.",
        "Use the first part",
        status=2,
    ),
    Mistake("a command that does not exist", "fetch acme", "No such command 'fetch'.", "Try 'dx-dagster -h'", status=2),
    Mistake(
        "an option that does not exist",
        "sync acme --all",
        "No such option: --all (Possible options: --full)",
        "--full",
        status=2,
    ),
    Mistake("no workspace", "sync", "Missing argument 'WORKSPACE'.", "Try 'dx-dagster sync -h'", status=2),
    Mistake(
        "a date that is none",
        "sync acme --since yesterday",
        "Invalid value for --since: 'yesterday' is not a date. Use the form 2026-01-31 or 2026-01-31T08:00+05:00, or all to lift the bound.",
        "Use the form",
        status=2,
    ),
    Mistake(
        "a workspace that was never connected",
        "sync other",
        "Workspace other is not connected. Set BITBUCKET_TOKEN, or BITBUCKET_EMAIL and BITBUCKET_API_TOKEN, and run: dx-dagster connect other",
        "dx-dagster connect other",
    ),
    Mistake(
        "a connection that the workspace does not have",
        "credentials list acme --type bitbucket_pipelines",
        "Workspace acme has no connection of type bitbucket_pipelines. Set BITBUCKET_TOKEN, or BITBUCKET_EMAIL and BITBUCKET_API_TOKEN, and run: dx-dagster connect acme --type bitbucket_pipelines",
        "dx-dagster connect acme --type bitbucket_pipelines",
    ),
    Mistake(
        "a credential that does not exist",
        "credentials disable acme 4711",
        "Workspace acme has no credential 4711. To list them: dx-dagster credentials list acme",
        "dx-dagster credentials list acme",
    ),
    Mistake(
        "an API key that does not exist",
        "api-keys revoke desktop",
        "No valid key is named desktop. To list the keys: dx-dagster api-keys list",
        "dx-dagster api-keys list",
    ),
    Mistake(
        "an API key with a name that is taken",
        "api-keys create laptop",
        "A key named laptop exists already. To revoke it: dx-dagster api-keys revoke laptop",
        "dx-dagster api-keys revoke laptop",
    ),
    Mistake(
        "a person that does not exist",
        "people unlink acme/nobody",
        "No account is called 'acme/nobody'. Give its uuid, its Atlassian account id, or its nickname as WORKSPACE/NICKNAME. To see all: dx-dagster people list",
        "dx-dagster people list",
    ),
    Mistake(
        "a file of people with a wrong line",
        "people import {file}",
        "… has 1 bad line, and nothing was imported: line 2: type 'robot' must be human, bot or ai_bot",
        "must be human, bot or ai_bot",
    ),
    Mistake(
        "removing something in a script, without --yes",
        "connections remove acme",
        "The connection of workspace acme (bitbucket) has 1 credential. Imported rows stay. Nothing was changed: there is no terminal to confirm it at. To confirm it, add --yes.",
        "add --yes",
    ),
    Mistake(
        "webhooks without a public address",
        "webhooks install acme",
        "DX_PUBLIC_URL must be the address at which Bitbucket reaches this installation, such as https://dx.example.com; `dx-dagster serve` or `up` must answer behind it.",
        "such as https://dx.example.com",
    ),
    # What the environment says
    Mistake(
        "an API address without https",
        "connect acme",
        "BITBUCKET_API_URL must use https: plain http would expose the token on the way to bitbucket.example.com.",
        "must use https",
        {"BITBUCKET_TOKEN": GOOD, "BITBUCKET_API_URL": "http://bitbucket.example.com/2.0"},
    ),
    Mistake(
        "an API address that is none",
        "connect acme",
        "BITBUCKET_API_URL must be an http(s) address such as https://api.bitbucket.org/2.0.",
        "such as https://api.bitbucket.org/2.0",
        {"BITBUCKET_TOKEN": GOOD, "BITBUCKET_API_URL": "bitbucket.example.com"},
    ),
    Mistake(
        "an API address at which nothing answers",
        "connect acme",
        "unavailable: 127.0.0.1 cannot be reached. Check the address, the network, the firewall and HTTPS_PROXY. Nothing was stored.",
        "Check the address",
        {"BITBUCKET_TOKEN": GOOD, "BITBUCKET_API_URL": "http://127.0.0.1:1/2.0"},
    ),
    Mistake(
        "a home without an installation",
        "status",
        "There is no installation in …. …To use …",
        "To use ",
        {"DX_HOME": "{empty}", "DX_DATABASE_URL": ""},
    ),
    Mistake(
        "a home with a variable that no shell expanded",
        "status",
        "DX_HOME is '$HOME/dx', and the variable in it is not expanded; write the folder's path.",
        "write the folder's path",
        {"DX_HOME": "$HOME/dx"},
    ),
    Mistake(
        "a home that is a file",
        "status",
        "DX_HOME=… cannot be used: Not a directory: …. Set DX_HOME to a writable folder.",
        "Set DX_HOME",
        {"DX_HOME": "{file}"},
    ),
    Mistake(
        "a home that cannot be written",
        "status",
        "DX_HOME=/proc/dx cannot be used: No such file or directory: /proc/dx. Set DX_HOME to a writable folder.",
        "Set DX_HOME",
        {"DX_HOME": "/proc/dx"},
    ),
    Mistake(
        "a database that is stopped",
        "status",
        'The database at DX_DATABASE_URL does not answer: connection to server at "127.0.0.1", port 1 failed: Connection refused. Check that PostgreSQL runs and that DX_DATABASE_URL is right, then run the command again: what was stored stays.',
        "Check that PostgreSQL runs",
        {"DX_DATABASE_URL": NOBODY},
    ),
    Mistake(
        "a database of another kind",
        "status",
        "DX_DATABASE_URL must look like postgresql://user:password@host:5432/database.",
        "postgresql://user:password@host:5432/database",
        {"DX_DATABASE_URL": "mysql://dx@localhost/dx"},
    ),
    Mistake(
        "a database that does not exist",
        "status",
        'The database at DX_DATABASE_URL does not answer: … FATAL: database "not_there" does not exist. Check that PostgreSQL runs and that DX_DATABASE_URL is right, then run the command again: what was stored stays.',
        "DX_DATABASE_URL is right",
        {"DX_DATABASE_URL": "{no_database}"},
    ),
    Mistake(
        "the file of keys is lost",
        "sync acme",
        "There are no keys for the stored secrets, 1 in all: …/secret_keys does not exist. Bring that file back, or set DX_SECRET_KEYS to its content. If the keys are lost: dx-dagster connections remove WORKSPACE, and connect it again.",
        "Bring that file back",
        {"DX_HOME": "{empty}", "DX_SECRET_KEYS": ""},
    ),
    Mistake(
        "the keys of another installation",
        "sync acme",
        "The keys of DX_SECRET_KEYS open none of the stored secrets, 1 in all: another installation stored them. Set DX_SECRET_KEYS to the keys of that one, or DX_DATABASE_URL to another database. If the keys are lost: dx-dagster connections remove WORKSPACE, and connect it again.",
        "Set DX_SECRET_KEYS",
        {"DX_SECRET_KEYS": "{other_key}"},
    ),
    Mistake(
        "something that is no key",
        "sync acme",
        "DX_SECRET_KEYS holds something that is no Fernet key: each key is 32 bytes in URL-safe base64, and several are separated by commas. Make one with: python3 -c 'import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())'.",
        "Make one with",
        {"DX_SECRET_KEYS": "correct"},
    ),
    Mistake(
        "a schedule that is none",
        "status",
        "DX_SYNC_CRON is 'hourly', which is not a cron expression; it needs five fields, such as */5 * * * *.",
        "it needs five fields",
        {"DX_SYNC_CRON": "hourly"},
    ),
    Mistake(
        "a time zone that does not exist",
        "status",
        "DX_TIME_ZONE is 'Europe/Atlantis', which is not an IANA time zone; write a name such as Europe/Berlin or UTC.",
        "write a name",
        {"DX_TIME_ZONE": "Europe/Atlantis"},
    ),
    # Starting
    Mistake(
        "a port that is taken",
        "up --ui-port {taken}",
        "Port … on 127.0.0.1 is in use by another program, possibly another dx-dagster. Nothing was started. Stop that program, or choose another port with --ui-port.",
        "choose another port",
    ),
    Mistake(
        "one port for two services",
        "up --ui-port 8000",
        "--ui-port and --api-port are both 8000. Nothing was started. Give each its own port.",
        "Give each its own port",
    ),
    Mistake(
        "a second up on a home",
        "up --ui-port {free}",
        "The installation in … runs already (process …, dx-dagster up). Nothing was started. To end that one: Ctrl-C in its terminal, or kill …. To run another beside it, set DX_HOME to another folder.",
        "To end that one",
        {"DX_HOME": "{busy}"},
    ),
    Mistake(
        "a port for a database that is not embedded",
        "up --ui-port {free} --api-port {free2} --database-port {free3}",
        "--database-port is for the embedded database, and DX_DATABASE_URL names another one. Connect to that one directly, or unset DX_DATABASE_URL.",
        "unset DX_DATABASE_URL",
    ),
    Mistake(
        "the address of a database that listens on no port",
        "env --database",
        "The database of the installation in … listens on no port. To have it listen: dx-dagster up --database-port 5432. For a database that DX_DATABASE_URL names, use an address of your own.",
        "dx-dagster up --database-port",
    ),
    Mistake(
        "the demo in the home of a real installation",
        "demo --exit",
        "This installation imports the workspace globex; the demo would mix its data with generated data. Unset DX_HOME and DX_DATABASE_URL, or set DX_HOME to an empty folder.",
        "set DX_HOME",
    ),
)
