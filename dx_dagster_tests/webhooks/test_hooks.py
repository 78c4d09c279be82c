"""`dx-dagster webhooks`: the hook at Bitbucket is what it should be, and says what is missing where it is not."""

import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import psycopg
import pytest

from dx_dagster.bitbucket import client
from dx_dagster.bitbucket.retries import Retries
from dx_dagster.cli.errors import CommandError
from dx_dagster.cli.webhooks import status
from dx_dagster.sandbox import Sandbox, Token, WorldConfig
from dx_dagster.sandbox.deliveries import Watcher
from dx_dagster.settings import Settings
from dx_dagster.webhooks.payloads import UNDERSTOOD
from dx_dagster_tests.bad_input.telling import alone
from dx_dagster_tests.delivering import receiving

SMALL = WorldConfig(repositories=4, pull_requests=10, members=5)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(SMALL) as running:
        yield running


@pytest.fixture
def connected(environment, sandbox, run_cli):
    """An environment in which acme is connected and Bitbucket can reach the installation."""
    more = {"BITBUCKET_API_URL": sandbox.url, "DX_PUBLIC_URL": "https://dx.example.com/"}
    done = run_cli("connect", "acme", env=environment | more | {"BITBUCKET_TOKEN": sandbox.token.secret})
    assert done.returncode == 0, done.stderr
    return environment | more


def test_the_hook_is_made_repaired_rotated_and_removed_and_its_deliveries_arrive(
    connected, sandbox, run_cli, database_url
):
    hooks = sandbox.hooks.by_subject

    def shown() -> list[dict[str, Any]]:
        return [hook.shown for hook in hooks[sandbox.world.uuid].values()]

    first = run_cli("webhooks", "install", "acme", env=connected)
    assert first.stdout == "workspace acme: created\n", first.stderr
    (made,) = shown()
    assert made["url"] == "https://dx.example.com/webhooks/bitbucket"
    assert set(made["events"]) == set(UNDERSTOOD)
    assert run_cli("webhooks", "install", "acme", env=connected).stdout == "workspace acme: correct\n"

    made |= {"active": False, "events": ["repo:push", "issue:created"]}
    told = run_cli("webhooks", "status", "acme", env=connected).stdout
    assert "it is inactive" in told
    assert "does not send pullrequest:created" in told
    moved = connected | {"DX_PUBLIC_URL": "https://elsewhere.example.com"}
    assert "repaired" in run_cli("webhooks", "install", "acme", env=moved).stdout
    (repaired,) = shown()
    assert (repaired["active"], repaired["url"]) == (True, "https://elsewhere.example.com/webhooks/bitbucket")
    assert set(repaired["events"]) == {*UNDERSTOOD, "issue:created"}

    (hook,) = hooks[sandbox.world.uuid].values()
    before = hook.secret
    run_cli("webhooks", "install", "acme", "--rotate", env=moved)
    assert hook.secret not in {None, before}
    watcher = Watcher(sandbox.world)
    sandbox.world.open_pull_request(sandbox.world.open_repositories[0])
    (push, created) = watcher.deliveries()
    settings = Settings.model_validate({**moved, "DX_DATABASE_URL": database_url})
    with receiving(settings) as receiver:
        assert created.send(receiver, hook.secret) == 200
        assert push.send(receiver, before) == 200  # sent before it was given the new one
    (told,) = json.loads(run_cli("webhooks", "status", "acme", "--json", env=moved).stdout)["hooks"]
    assert told["wrong"] == []

    # Our hooks are known without the address.
    nowhere = {name: value for name, value in moved.items() if name != "DX_PUBLIC_URL"}
    told = run_cli("webhooks", "status", "acme", env=nowhere).stdout
    assert "correct if https://elsewhere.example.com/webhooks/bitbucket leads here" in " ".join(told.split())
    assert "removed" in run_cli("webhooks", "remove", "acme", "--yes", env=nowhere).stdout
    assert run_cli("webhooks", "remove", "acme", "--yes", env=nowhere).stdout == "No dx-dagster webhook found.\n"
    assert shown() == []
    told = run_cli("webhooks", "status", "acme", env=moved).stdout
    assert "no hook" in told
    assert "webhooks status acme --repositories" in told
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE webhook_events SET set_aside_at = now(), error = 'a reason'")
    assert "a reason" in run_cli("webhooks", "status", "acme", env=moved).stdout
    answer = json.loads(run_cli("webhooks", "status", "acme", "--json", env=moved).stdout)
    assert [one["received_at"][10] for one in answer["set_aside"]] == ["T", "T"]  # ISO 8601
    alone(run_cli("webhooks", "replay", "acme", "1", "4711", env=moved), "no delivery 4711. Nothing was changed")
    assert run_cli("webhooks", "replay", "acme", str(2**63), env=moved).returncode == 2
    assert run_cli("webhooks", "replay", "acme", env=moved).stdout == "2 deliveries will be applied again.\n"


def test_what_is_missing_is_said(connected, sandbox, run_cli):
    nowhere = {name: value for name, value in connected.items() if name != "DX_PUBLIC_URL"}
    assert "DX_PUBLIC_URL" in run_cli("webhooks", "install", "acme", env=nowhere).stderr
    insecure = connected | {"DX_PUBLIC_URL": "http://dx.example.com"}
    assert "https" in run_cli("webhooks", "install", "acme", env=insecure).stderr
    assert "not connected" in run_cli("webhooks", "install", "nobody", env=connected).stderr

    sandbox.tokens[:] = [Token(sandbox.token.secret, scopes={"account", "pullrequest", "pipeline", "project"})]
    refused = run_cli("webhooks", "install", "acme", env=connected)
    assert refused.returncode == 1
    assert "lacks the scope webhook" in refused.stderr


def test_it_says_that_the_api_cannot_be_reached_and_how_to_mend_that(connected, sandbox, monkeypatch):
    sandbox.faults.resets = 1.0
    monkeypatch.setattr(client, "Retries", partial(Retries, attempts=1))
    for name, value in connected.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CommandError) as raised:
        status("acme")
    told = "127.0.0.1 cannot be reached. Check the address, the network, the firewall and HTTPS_PROXY. GET "
    assert str(raised.value).startswith(told)


def test_without_owners_rights_each_repository_gets_a_hook_and_one_that_refuses_stops_no_other(
    connected, sandbox, run_cli
):
    sandbox.faults.on("/workspaces/acme/hooks", 403)
    refused = run_cli("webhooks", "install", "acme", env=connected)
    assert refused.returncode == 1
    assert re.search(r"Bitbucket said: [^.]+\. With .* webhooks install acme --repositories", refused.stderr)
    assert (
        "No repository is imported yet"
        in run_cli("webhooks", "install", "acme", "--repositories", env=connected).stderr
    )

    assert run_cli("sync", "acme", env=connected).returncode == 0
    first, *others = sorted(one.slug for one in sandbox.world.repositories if not one.forbidden)
    foreign = sandbox.world.repository(first).uuid.strip("{}")
    sandbox.faults.on(f"{foreign}%7D/hooks", 403)
    done = run_cli("webhooks", "install", "acme", "--repositories", env=connected)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [f"repository {slug}: created" for slug in others]
    assert f"Only administrators of repository {first} can manage its hooks" in done.stderr
    told = json.loads(run_cli("webhooks", "status", "acme", "--repositories", "--json", env=connected).stdout)["hooks"]
    assert {one["subject"].split()[-1]: bool(one["wrong"]) for one in told} == {
        first: True,
        **dict.fromkeys(others, False),
    }

    removed = run_cli("webhooks", "remove", "acme", "--repositories", "--yes", env=connected)
    assert removed.returncode == 1
    assert removed.stdout.splitlines() == [f"repository {slug}: removed" for slug in others]
    assert not any(sandbox.hooks.by_subject.values())


def test_a_sync_waits_for_another_or_gives_up_as_asked(connected, run_cli, database_url):
    with psycopg.connect(database_url) as other:
        other.execute("SELECT pg_advisory_lock(hashtextextended('dx-dagster import acme', 0))")
        given_up = run_cli("sync", "acme", "--no-wait", env=connected)
        assert given_up.returncode == 1
        assert "Another process is importing workspace acme" in given_up.stderr
    assert run_cli("sync", "acme", "--no-wait", env=connected).returncode == 0


def test_a_sync_waits_for_no_budget_where_it_is_told_not_to(connected, run_cli, database_url):
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE budgets SET request_limit = 100, "
            "spent = jsonb_build_array(jsonb_build_array(extract(epoch FROM now()) - 2900, 100))"
        )
    given_up = run_cli("sync", "acme", "--no-wait", env=connected)
    assert given_up.returncode == 1
    room = r"room again in 1[012] minutes"
    assert re.search(rf"The budget of requests is used up. It has {room}\.", given_up.stderr)
    told = " ".join(run_cli("status", env=connected).stdout.split())  # it wraps
    assert re.search(rf"0 of 100 requests left, {room}", told), told
