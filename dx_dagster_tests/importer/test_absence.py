"""An answer that says nothing is no news: what a listing lacks is confirmed before it is believed, and a sync that
could read nothing is no success.
"""

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import dagster as dg
import httpx
import psycopg
import pytest

from dx_dagster.api.app import create_app
from dx_dagster.automation.decisions import due_for_sync
from dx_dagster.bitbucket import Gone, Unavailable
from dx_dagster.importer.absence import MOST, NothingReadError, is_suspicious
from dx_dagster.importer.pull_requests import import_pull_requests
from dx_dagster.importer.workspace import Workspace
from dx_dagster.sandbox import WorldConfig
from dx_dagster.sandbox.deliveries import Watcher
from dx_dagster.warehouse import api_keys
from dx_dagster.warehouse.connections.due import Paced
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.imported.marks import Pace
from dx_dagster.webhooks.hooks import HookSubject, find
from dx_dagster_tests.delivering import SMALL, Receiving, inbox, installed
from dx_dagster_tests.importing import KEYS
from dx_dagster_tests.servers import serving
from dx_dagster_tests.ticking import nightly_reconcile, webhook_events
from dx_dagster_tests.webhooks.test_automation import HOUR, NOW

# Dagster reads what pydantic has deprecated, and warns of what Dagster calls beta.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The `__fields__` attribute is deprecated"),
    pytest.mark.filterwarnings("ignore:Parameter `owners` of initializer"),
]


@pytest.fixture
def installation(request: pytest.FixtureRequest, database_url: str) -> Iterator[Receiving]:
    with installed(database_url, getattr(request, "param", SMALL)) as made:
        yield made


def test_a_listing_is_suspicious_when_it_is_empty_or_lacks_a_tenth_and_three():
    assert [is_suspicious(stored=n, missing=n, listed=0) for n in (0, 1, 50)] == [False, True, True]
    assert [is_suspicious(stored=20, missing=n, listed=20 - n) for n in (1, 2, 3)] == [False, False, True]
    assert [is_suspicious(stored=100, missing=n, listed=100 - n) for n in (10, 11)] == [False, True]


# Of what is deleted, in this order: repositories, pull requests, comments, commits of pull requests.
MARKED = """
    SELECT 1 AS number, count(*) AS rows FROM bitbucket_repositories WHERE deleted_at IS NOT NULL
    UNION ALL SELECT 2, count(*) FROM bitbucket_pulls WHERE deleted_at IS NOT NULL
    UNION ALL SELECT 3, count(*) FROM bitbucket_pull_comments WHERE deleted
    UNION ALL SELECT 4, count(*) FROM bitbucket_pull_commits WHERE deleted ORDER BY number"""


def _state(database_url: str) -> Any:
    with psycopg.connect(database_url) as connection:
        return connection.execute(
            "SELECT last_error, failing_since, last_synced_at, state FROM connections WHERE type = 'bitbucket'"
        ).fetchone()


@pytest.fixture
def environment(bare_environment: dict[str, str], database_url: str, installation: Receiving) -> dict[str, str]:
    return {
        **bare_environment,
        "DX_DATABASE_URL": database_url,
        "DX_SECRET_KEYS": KEYS,
        "BITBUCKET_API_URL": installation.sandbox.url,
        "DX_WEBHOOKS_LINGER": "0",
    }


def test_deliveries_wait_while_a_token_has_lost_its_access_and_nothing_is_taken_for_deleted(
    installation, database_url, environment, run_cli, monkeypatch
):
    from dx_dagster.definitions import defs  # noqa: PLC0415 - at the top it would be outside the filter for warnings

    for name in ("DX_DATABASE_URL", "DX_SECRET_KEYS", "BITBUCKET_API_URL", "DX_WEBHOOKS_LINGER"):
        monkeypatch.setenv(name, environment[name])
    sandbox, world = installation.sandbox, installation.sandbox.world
    watcher = Watcher(world)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE connections SET last_synced_at = now() - interval '1 hour'")

    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("workspaces", ["acme"])

        def run(job: str) -> dg.ExecuteInProcessResult:
            found = defs.resolve_job_def(job)
            partition = "acme" if job == "sync_workspace" else None
            return found.execute_in_process(instance=instance, partition_key=partition, raise_on_error=False)

        def due() -> int:
            result = webhook_events(dg.build_sensor_context(instance=instance))
            assert isinstance(result, dg.SensorResult)
            return len(result.run_requests or ())

        # The list is empty and all else answers 404. Deliveries that come before a sync has noticed wait.
        sandbox.token.sees_nothing = True
        for _ in range(10):
            world.step()
        installation.deliver(*watcher.deliveries())
        with pytest.raises(NothingReadError, match="lists no repository"):
            installation.refresh()
        assert {(one["applied_at"], one["attempts"]) for one in inbox(database_url)} == {(None, 0)}

        failed = run("sync_workspace")
        assert not failed.success
        [failure] = [event.step_failure_data for event in failed.filter_events(lambda event: event.is_step_failure)]
        assert "no_resources: Bitbucket lists no repository" in str(failure.user_failure_data)
        assert installation.query("SELECT FROM bitbucket_repositories WHERE deleted_at IS NOT NULL") == []
        assert installation.query("SELECT FROM bitbucket_pulls WHERE deleted_at IS NOT NULL") == []

        # While the connection fails, nothing is asked for deliveries, new ones included.
        for _ in range(10):
            world.step()
        installation.deliver(*watcher.deliveries())
        sandbox.requests.reset()
        installation.let_retries_come()
        assert due() == 0
        assert run("refresh_workspaces").success
        assert sandbox.requests.count == 0
        assert {(one["applied_at"], one["attempts"]) for one in inbox(database_url)} == {(None, 0)}

        _shows_it_everywhere(installation, environment, run_cli)

        # Access is back.
        sandbox.token.sees_nothing = False
        assert run("sync_workspace").success
        error, since, _, state = _state(database_url)
        assert (error, since, state) == (None, None, "verified")
        assert installation.differences() == {}
        assert due() == 1, "deliveries are released"
        assert run("refresh_workspaces").success
        assert {(one["applied_at"] is None, one["attempts"]) for one in inbox(database_url)} == {(False, 0)}
        assert installation.differences() == {}


def _shows_it_everywhere(installation: Receiving, environment: dict[str, str], run_cli: Any) -> None:
    error, since, synced, _ = _state(installation.database_url)
    assert error.startswith("no_resources: ")
    assert since > synced, "the last sync that succeeded is as long ago as it was"
    [told] = json.loads(run_cli("status", "--json", env=environment).stdout)["workspaces"]
    assert (told["state"], told["last_error"]) == ("failing", error)
    assert f"failing: {error.removesuffix('.')}" in run_cli("connections", "list", env=environment).stdout

    async def key_of() -> str:
        async with Warehouse(installation.database_url) as warehouse:
            return (await api_keys.create(warehouse, "tests")).get_secret_value()

    key = asyncio.run(key_of())
    with serving(create_app(installation.settings)) as url, httpx.Client(base_url=url) as client:
        shown = client.get("/api/connections.info/1", headers={"Authorization": f"Bearer {key}"}).json()["connection"]
        assert (shown["state"], shown["last_error"], shown["disabled_reason"]) == ("failing", error, None)
        form = client.get("/connections/sign-in").text
        [token] = re.findall(r'name="csrf_token" value="([0-9a-f]+)"', form)
        client.post("/connections/sign-in", data={"key": key, "csrf_token": token})
        for path in ("/connections", "/connections/1"):
            page = client.get(path).text
            assert "failing" in page
            assert "Bitbucket lists no repository of workspace acme" in page


def test_what_vanishes_without_a_webhook_is_marked_after_the_next_night(installation, environment, monkeypatch):
    from dx_dagster.definitions import defs  # noqa: PLC0415 - at the top it would be outside the filter for warnings

    for name in ("DX_DATABASE_URL", "DX_SECRET_KEYS", "BITBUCKET_API_URL"):
        monkeypatch.setenv(name, environment[name])
    world = installation.sandbox.world
    vanishing = world.open_repositories[0]
    pulls = [one for one in world.pull_requests if one.repository is not vanishing]
    commented = next(one for one in pulls if any(not comment.deleted for comment in one.comments))
    rebased = next(one for one in pulls if one.state == "OPEN" and one is not commented)
    deleted = next(one for one in pulls if one.state == "DECLINED" and one is not commented)
    world.delete_comment(commented, next(one for one in commented.comments if not one.deleted))
    world.push(rebased, force=True)
    world.delete_pull_request(deleted)
    world.delete_repository(vanishing)

    with dg.instance_for_test() as instance:
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=NOW)
        asked: Any = nightly_reconcile(context)
        (request,) = asked
        job = defs.resolve_job_def("sync_workspace")
        before = installation.query(MARKED)
        assert job.execute_in_process(
            request.run_config, instance, request.partition_key, tags=dict(request.tags)
        ).success
    marked = installation.query(MARKED)
    assert [after["rows"] > was["rows"] for was, after in zip(before, marked, strict=True)] == [True] * 4, marked
    assert installation.differences() == {}


def test_a_sync_in_which_every_repository_refuses_fails_and_one_in_which_some_do_does_not(installation):
    world, sandbox = installation.sandbox.world, installation.sandbox
    sandbox.token.repositories = [world.open_repositories[0].slug]
    done = installation.sync()
    assert len(done.skipped) >= 3
    sandbox.token.repositories = []
    with pytest.raises(NothingReadError) as caught:
        installation.sync()
    assert caught.value.code == "invalid_permissions"
    closed = installation.query("SELECT FROM bitbucket_repositories WHERE NOT api_accessible")
    assert len(closed) == len(world.repositories), "refusals are recorded all the same"

    sandbox.token.repositories = None
    installation.sync()
    assert installation.differences() == {}

    # A schedule asks only repositories in which something happens. If these refuse, others may answer.
    asked, *others = [one.uuid for one in world.open_repositories]

    async def asks_one(workspace: Workspace) -> None:
        async with workspace.warehouse.transaction() as transaction:
            await transaction.execute(
                "UPDATE sync_marks SET asked_at = CASE WHEN r.source_id <> %s THEN now() END "
                "FROM bitbucket_repositories r WHERE r.id = repository_id",
                [asked],
            )
        await import_pull_requests(replace(workspace, pace=Pace()))

    sandbox.token.repositories = others
    installation.on_workspace(asks_one)
    sandbox.token.repositories = []
    sandbox.requests.reset()
    with pytest.raises(NothingReadError):
        installation.on_workspace(asks_one)
    assert sandbox.requests.count == 1 + 3


@pytest.mark.parametrize("installation", [WorldConfig(repositories=40, pull_requests=80, members=40)], indirect=True)
def test_lists_that_lack_rows_are_believed_only_of_what_is_gone_itself(installation):
    sandbox, world, people = installation.sandbox, installation.sandbox.world, installation.sandbox.world.people

    def deleted() -> int:
        return len(installation.query("SELECT FROM bitbucket_repositories WHERE deleted_at IS NOT NULL"))

    def active() -> int:
        return len(installation.query("SELECT FROM bitbucket_users WHERE active"))

    # Lists that lack half of what is there change nothing, whatever they list; nor do empty ones. A 410 is the answer
    # of a removed endpoint, and says nothing about what it was asked for.
    sandbox.faults.lists_lack = {"repositories": 0.5, "members": 0.5, "pullrequests": 0.5}
    sandbox.faults.on(r"/(members|repositories/acme)/[^/?]+$", 410)
    installation.sync()
    assert (deleted(), active()) == (0, 40)
    sandbox.faults.overrides.clear()
    sandbox.requests.reset()
    done = installation.sync()
    assert any("20 of 40 repositories" in said for said in done.notes)
    assert any("20 of 40 members" in said for said in done.notes)
    sandbox.faults.clear()
    sandbox.faults.empty_lists = ["members", "pullrequests"]
    assert any("members is empty" in said for said in installation.sync().notes)
    sandbox.faults.clear()
    assert installation.differences() == {}

    # What is gone is found to be so within some syncs, each of which asks for others.
    sandbox.faults.lists_lack = {"repositories": 0.75, "members": 0.75}
    for user in people.members[::5]:
        people.leave(user)
    for repository in world.repositories[::5]:
        world.delete_repository(repository)
    syncs = 0
    while (deleted(), active()) != (8, 32):
        sandbox.requests.reset()
        installation.sync()
        alone = [one for one in sandbox.requests if re.search(r"/(?:members|repositories/acme)/[^/?]+$", one.path)]
        assert len(alone) <= 2 * MOST + 1
        syncs += 1
        assert syncs <= 2
    sandbox.faults.clear()
    installation.sync()
    assert installation.differences() == {}

    # A repository that comes back is deleted no longer.
    with psycopg.connect(installation.database_url) as connection:
        connection.execute("UPDATE bitbucket_repositories SET deleted_at = now() WHERE deleted_at IS NULL")
    installation.sync()
    assert deleted() == 8


def test_empty_lists_of_commits_comments_and_entries_lose_nothing(installation):
    sandbox, world = installation.sandbox, installation.sandbox.world
    sandbox.faults.empty_lists = ["commits", "comments", "activity"]
    installation.sync(full=True)
    assert installation.differences() == {}
    sandbox.faults.clear()
    installation.sync()
    assert installation.differences() == {}

    # A branch that was rewritten has really lost its commits, however many they are.
    repository = max(world.open_repositories, key=lambda one: len(one.graph))
    world.force_push_default_branch(repository, drop=30)
    installation.sync()
    assert installation.differences() == {}


def test_a_404_of_a_pull_request_means_nothing_where_its_repository_answers_404_too(installation):
    sandbox, world = installation.sandbox, installation.sandbox.world
    repository = max(world.open_repositories, key=lambda one: len(one.pull_requests))
    inside = re.escape(repository.uuid.replace("{", "%7B").replace("}", "%7D"))
    sandbox.faults.empty_lists = ["pullrequests"]
    sandbox.faults.on(f"{inside}/pullrequests/", 404)
    sandbox.faults.on(f"{inside}$", 404)
    with psycopg.connect(installation.database_url) as connection:
        connection.execute("UPDATE pull_marks SET comments_synced_to = NULL, activity_stale = true")
    done = installation.sync()
    assert any(one.repository == repository.slug for one in done.skipped)
    assert installation.query("SELECT FROM bitbucket_pulls WHERE deleted_at IS NOT NULL") == []


def test_a_hook_that_we_made_is_asked_before_a_second_one_is_made(installation):
    subject, url = HookSubject("acme"), "https://dx.example.com/webhooks/bitbucket"

    async def work(workspace: Workspace) -> None:
        client = workspace.client
        path = "/workspaces/acme/hooks"
        wanted = {"url": url, "active": True, "events": ["repo:push"], "description": "ours"}
        made = (await client.request("POST", path, json=wanted))["uuid"]
        installation.sandbox.faults.empty_lists = ["hooks"]
        for status, error in (("410", Gone), ("list", Unavailable)):
            installation.sandbox.faults.on("/hooks/", status, 6)
            with pytest.raises(error):
                await find(client, subject, url, {made})
            installation.sandbox.faults.overrides.clear()
        assert [one.uuid for one in await find(client, subject, url, {made, "{gone}"})] == [made]
        await client.request("DELETE", f"{path}/{made.replace('{', '%7B').replace('}', '%7D')}")
        assert await find(client, subject, url, {made, "{gone}"}) == []

    installation.on_workspace(work)


def test_a_failing_workspace_is_tried_again_after_a_while_and_no_clock_that_was_wrong_keeps_it_waiting():
    def due(**of: Any) -> bool:
        given = {"last_synced_at": NOW - HOUR / 2, **of}
        return due_for_sync([Paced("acme", pulls=1, **given)], set(), NOW, HOUR, None) == ["acme"]

    assert not due()
    assert not due(failed_at=NOW - HOUR / 5)
    assert due(failed_at=NOW - HOUR / 4, last_synced_at=NOW - HOUR / 3)
    assert due(failed_at=NOW.replace(year=2999))
    assert due(last_synced_at=NOW.replace(year=2999))
    # It keeps no other from being synced.
    known = [Paced("failing", NOW - 9 * HOUR, 1, NOW - HOUR / 2), Paced("stale", NOW - HOUR, 1)]
    assert due_for_sync(known, set(), NOW, HOUR, None) == ["stale"]
