"""`dx-dagster status` says how far each workspace is and how its credentials are, in JSON and to a person."""

import json
import re
from datetime import UTC, datetime, timedelta

import psycopg

from dx_dagster_tests.connecting import API_TOKEN, EMAIL, SECOND, TOKEN
from dx_dagster_tests.delivering import find_untold

LABEL = "prod [/eu] [red] :x:"


def test_status_tells_lag_inbox_and_every_budget_and_shows_labels_as_they_are(
    run_cli, environment, sandbox, database_url
):
    env = environment | {"BITBUCKET_API_URL": sandbox.url, "FORCE_COLOR": "1"}

    def cli(*arguments: str, **given: str) -> str:
        done = run_cli(*arguments, env=env | given)
        assert done.returncode == 0, done.stderr
        return str(done.stdout + done.stderr)

    told = cli("connect", "acme", BITBUCKET_TOKEN=TOKEN)
    assert re.search(
        r"6 repositories, about \d+ pull requests: about \d+ requests, \d+ s; at [\d,]+ requests an hour", told
    )
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date().isoformat()
    cli("credentials", "add", "acme", "--label", LABEL, "--expires", tomorrow, BITBUCKET_TOKEN=SECOND)
    pipelines = {"BITBUCKET_EMAIL": EMAIL, "BITBUCKET_API_TOKEN": API_TOKEN}
    cli("connect", "acme", "--type", "bitbucket_pipelines", **pipelines)
    told = cli("status")
    assert "verified, last synced never, deliveries in the inbox: 0" in told
    assert "Scheduled syncs ask each repository at its own pace: no webhook is installed" in told
    assert f"credential 2  {LABEL}: enabled, " in told
    assert f"credential 3 (bitbucket_pipelines)  API token of {EMAIL}: enabled, " in told

    assert LABEL in cli("sync", "acme"), "the warning that a credential expires, among bars"
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO webhook_events (connection_id, workspace, request_uuid, event_key, headers, body, received_at)"
            "VALUES (1, 'acme', 'one', 'repo:push', '{}', '{}', now())"
        )
    told = cli("status")
    assert re.search(r"verified, last synced (just now|\d+ minutes? ago), deliveries in the inbox: 1", told)
    assert "no delivery told" not in told
    [workspace] = json.loads(cli("status", "--json"))["workspaces"]
    assert workspace["inbox"] == 1
    assert (workspace["synced_by"]["way"], workspace["synced_by"]["reason"]) == ("pace", "no webhook is installed")
    find_untold(database_url, 3)
    assert "that a reconcile found and no delivery told: 3\n" in cli("status")
    assert workspace["lag_seconds"] > 0
    assert workspace["assets"]["bitbucket/pullrequests"]["last_materialized_at"]
    shown = {one["id"]: (one["connection"], one["requests_left"] is None) for one in workspace["credentials"]}
    assert shown == {1: ("bitbucket", False), 2: ("bitbucket", False), 3: ("bitbucket_pipelines", False)}
