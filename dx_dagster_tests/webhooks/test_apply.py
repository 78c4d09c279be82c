"""Deliveries reach the tables, and in whatever order they come, the tables end up as a full import leaves them."""

import asyncio
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import psycopg
import pytest

from dx_dagster.bitbucket import CredentialsExhausted, Unavailable
from dx_dagster.connections.actions import check
from dx_dagster.importer.members import import_members
from dx_dagster.importer.pipelines import import_pipelines
from dx_dagster.importer.workspace import Workspace
from dx_dagster.sandbox import Sandbox, Token
from dx_dagster.sandbox.deliveries import SandboxDelivery, Watcher
from dx_dagster.settings import Settings
from dx_dagster.warehouse.connections.connections import find
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.webhooks.inbox import MOST_ATTEMPTS, postpone, replay, take, waiting
from dx_dagster.webhooks.apply import apply_deliveries
from dx_dagster.webhooks.outcomes import Applied
from dx_dagster_tests.delivering import (
    SECRET,
    SMALL,
    Receiving,
    give_secret,
    headers,
    inbox,
    installed,
    post,
    receiving,
    with_receiver,
)
from dx_dagster_tests.importing import KEYS, give_credential, on_workspace, open_into_release
from dx_dagster_tests.payloads import evidence
from dx_dagster_tests.servers import serving

PROJECT = b'{"project": {"workspace": {"slug": "acme"}}}'


@pytest.fixture(params=[SMALL], ids=["usual"])
def installation(request: pytest.FixtureRequest, database_url: str) -> Iterator[Receiving]:
    with installed(database_url, request.param) as made:
        yield made


VARIANTS = [
    SMALL,
    replace(SMALL, seed=11, approvals_move_updated_on=True, count_includes_deleted=True),
    replace(SMALL, seed=12, feed_keeps_taken_back=False),
]


@pytest.mark.parametrize(
    "installation", VARIANTS, ids=["usual", "approvals move", "taken back and gone"], indirect=True
)
def test_late_twice_and_out_of_order_deliveries_end_in_the_same_rows(installation):
    rng = random.Random(5)
    watcher = Watcher(installation.sandbox.world)
    late: list[SandboxDelivery] = []
    for _ in range(6):
        batch: list[SandboxDelivery] = []
        for _ in range(25):
            installation.sandbox.world.step()
            batch += watcher.deliveries()
        sent = [one for one in [*late, *batch] if rng.random() < 0.8]
        late = [one for one in [*late, *batch] if one not in sent]
        sent += rng.sample(sent, len(sent) // 5)
        rng.shuffle(sent)
        installation.deliver(*sent)
        installation.refresh()
    installation.deliver(*late)
    result = installation.refresh()
    installation.on_workspace(import_members)  # who joins or leaves and does nothing is in no delivery

    assert result.failed == result.set_aside == 0, installation.warnings
    assert installation.differences() == {}
    assert {row["attempts"] for row in inbox(installation.database_url)} == {0}


def test_what_bitbucket_dropped_is_found_by_the_next_sync(installation):
    rng = random.Random(7)
    watcher = Watcher(installation.sandbox.world)
    for _ in range(2):
        for _ in range(40):
            installation.sandbox.world.step()
        sent = [one for one in watcher.deliveries() if rng.random() < 0.5]
        rng.shuffle(sent)
        installation.deliver(*sent)
        installation.refresh()
    assert installation.differences() != {}
    installation.sync()
    assert installation.differences() == {}


@pytest.mark.parametrize("requests", [4, 34], ids=["before commits", "while commits are kept for later"])
def test_deliveries_between_a_killed_first_import_and_the_next_sync_leave_no_wrong_rows(requests, database_url):
    with Sandbox(SMALL) as sandbox, with_receiver(database_url, sandbox) as installation:
        world, watcher = sandbox.world, Watcher(sandbox.world)
        sandbox.faults.latency = 0.005
        with pytest.raises(TimeoutError):
            installation.sync(requests=requests)
        sandbox.faults.latency = 0
        for repository in world.open_repositories:
            world.rename_repository(repository)
        pull = world.open_pull_request(world.open_repositories[0])
        installation.deliver(*watcher.deliveries())
        installation.refresh()
        world.force_push_default_branch(pull.repository)  # the pull request has the commits that the branch lost
        installation.sync()
        installation.sync()
        assert installation.differences() == {}


def test_a_delivery_about_a_merge_reaches_what_waits_for_the_same_branch(installation):
    world = installation.sandbox.world
    first, _ = open_into_release(world, 2)
    installation.sync()
    watcher = Watcher(world)
    world.merge(first)
    installation.deliver(*watcher.deliveries())
    installation.refresh()
    assert installation.differences() == {}


def test_what_cannot_be_applied_comes_again_and_is_set_aside_at_last_and_holds_nobody_up(installation):
    world, slug = installation.sandbox.world, installation.slug
    good, bad = world.open_repositories[:2]
    watcher = Watcher(world)
    world.open_pull_request(good)
    odd = world.open_pull_request(bad)
    installation.sandbox.faults.on(rf"/pullrequests/{odd.number}/activity", 400)
    installation.deliver(*watcher.deliveries())
    for attempt in range(1, MOST_ATTEMPTS + 1):
        result = installation.refresh()
        assert result.failed == 1, attempt
        installation.let_retries_come()
    assert result.set_aside == 1
    assert installation.refresh().taken == 0
    (given_up,) = [row for row in inbox(installation.database_url) if row["applied_at"] is None]
    assert given_up["event_key"] == "pullrequest:created"
    assert given_up["attempts"] == MOST_ATTEMPTS
    assert "400" in given_up["error"]

    installation.sandbox.faults.clear()

    async def again(workspace: Workspace) -> int:
        return await replay(workspace.warehouse, slug)

    assert installation.on_workspace(again) == 1
    assert installation.refresh().outcomes["applied"] == 1
    assert installation.differences() == {}


def test_deliveries_about_a_repository_that_is_closed_to_us_are_settled_with_three_requests(installation):
    world = installation.sandbox.world
    (closed,) = [one for one in world.repositories if one not in world.open_repositories and one.main_branch]
    body = {"repository": {"full_name": f"acme/{closed.slug}", "uuid": closed.uuid}}
    installation.sandbox.requests.reset()
    installation.deliver(
        SandboxDelivery("repo:push", json.dumps(body | {"push": {"changes": []}}).encode()),
        SandboxDelivery("pullrequest:created", json.dumps(body | {"pullrequest": {"id": 1}}).encode()),
    )
    result = installation.refresh()
    assert (result.failed, dict(result.outcomes)) == (0, {"the repository cannot be read": 2, "applied": 0})
    # The repository, and whether the credential sees any other.
    assert installation.sandbox.requests.count == 3
    assert installation.differences() == {}


def test_no_attempt_is_counted_while_no_credential_is_good(installation):
    watcher = Watcher(installation.sandbox.world)
    installation.sandbox.world.open_pull_request(installation.sandbox.world.open_repositories[0])
    installation.deliver(*watcher.deliveries())
    installation.sandbox.token.revoked = True
    with pytest.raises(CredentialsExhausted):
        installation.refresh()
    rows = inbox(installation.database_url)
    assert {row["attempts"] for row in rows} == {0}
    assert all(row["next_attempt_at"] > row["tried_at"] for row in rows)
    assert "no credential" in rows[0]["error"]


def test_a_404_to_one_credential_decides_nothing_while_the_other_one_has_no_requests_left(installation):
    sandbox, url = installation.sandbox, installation.database_url
    watcher, hidden = Watcher(sandbox.world), sandbox.world.open_repositories[0]
    other = Token("ATCTT3-other")
    sandbox.tokens.append(other)
    give_credential(installation.settings, installation.slug, other.secret)
    sandbox.token.shown = [one.uuid for one in sandbox.world.repositories if one is not hidden]
    for repository in (hidden, sandbox.world.open_repositories[1]):
        sandbox.world.commit_to_default_branch(repository)
    installation.deliver(*watcher.deliveries())
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO budgets (name, rests_until) SELECT 'credential:' || max(id), now() + interval '1 hour' "
            "FROM credentials ON CONFLICT (name) DO UPDATE SET rests_until = EXCLUDED.rests_until"
        )
        sandbox.faults.on("/commits/", 410)
        assert installation.refresh().failed == 2, "the credential with requests left shows that it lost no access"
        sandbox.faults.clear()
        installation.let_retries_come()
        for _ in range(MOST_ATTEMPTS):
            assert installation.refresh().failed == 1
            installation.let_retries_come()
        installation.sync()
        assert installation.query("SELECT FROM bitbucket_repositories WHERE deleted_at IS NOT NULL") == []
        closed = installation.query("SELECT source_id FROM bitbucket_repositories WHERE NOT api_accessible")
        assert hidden.uuid not in {one["source_id"] for one in closed}
        connection.execute("UPDATE budgets SET rests_until = NULL")
    installation.let_retries_come()
    assert installation.refresh().outcomes["applied"] == 1
    assert installation.differences() == {}


def test_a_mended_connection_has_its_deliveries_applied_at_once(installation):
    world, url, slug = installation.sandbox.world, installation.database_url, installation.slug
    watcher = Watcher(world)
    world.open_pull_request(world.open_repositories[0])
    installation.deliver(*watcher.deliveries())

    async def mended(workspace: Workspace) -> None:
        await postpone(workspace.warehouse, slug, "no credential is left")
        assert [one.due for one in waiting(url)] == [0]
        connection = await find(workspace.warehouse, slug)
        assert connection is not None
        await check(installation.settings, workspace.warehouse, connection)

    installation.on_workspace(mended)
    assert [one.due for one in waiting(url)] == [len(inbox(url))]
    assert installation.refresh().failed == 0
    assert installation.differences() == {}


def test_while_bitbucket_is_away_no_attempt_is_counted_and_new_deliveries_wait_with_the_others(installation):
    world, url = installation.sandbox.world, installation.database_url
    watcher = Watcher(world)
    world.open_pull_request(world.open_repositories[0])
    installation.deliver(*watcher.deliveries(), SandboxDelivery("project:updated", PROJECT))
    installation.sandbox.faults.on(".*", 503)
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE webhook_events SET tried_at = now() - interval '10 s', next_attempt_at = now()")
    with pytest.raises(Unavailable):
        installation.refresh()
    *waits, asked_nothing = inbox(url)
    assert asked_nothing["applied_at"] is not None
    assert [row["attempts"] for row in waits] == [0, 0]
    assert {round((row["next_attempt_at"] - row["tried_at"]).total_seconds()) for row in waits} == {40}

    world.approve(next(iter(world.open_repositories[0].pull_requests.values())))
    installation.deliver(*watcher.deliveries())
    assert [one.due for one in waiting(url)] == [0]

    installation.sandbox.faults.clear()
    installation.let_retries_come()
    assert [one.due for one in waiting(url)] == [3]
    assert installation.refresh().outcomes["applied"] == 3
    assert installation.differences() == {}


def test_the_longer_deliveries_waited_for_requests_the_fewer_are_taken_together(database_url):
    """A batch that takes more requests than a budget ever has room for would be given back for ever."""
    give_secret(Settings.model_validate({"DX_DATABASE_URL": database_url, "DX_SECRET_KEYS": KEYS}), "acme", SECRET)

    async def taken_after(seconds: int) -> int:
        async with Warehouse(database_url) as warehouse:
            async with warehouse.transaction() as transaction:
                await transaction.execute(
                    "UPDATE webhook_events SET attempts = 0, error = 'no request is left', tried_at = now() - "
                    "make_interval(secs => 3600), next_attempt_at = now() - make_interval(secs => 3600 - %s)",
                    [seconds],
                )
            return len(await take(warehouse, "acme", 100))

    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO webhook_events (connection_id, workspace, request_uuid, event_key, headers, body, received_at)"
            " SELECT 1, 'acme', n::text, 'repo:push', '{}', '{}', now() FROM generate_series(1, 200) n"
        )
    assert [asyncio.run(taken_after(seconds)) for seconds in (10, 160, 900)] == [100, 25, 11]


def test_credentials_that_may_not_read_pipelines_hold_no_other_delivery_up(installation):
    world, token = installation.sandbox.world, installation.sandbox.token
    watcher = Watcher(world)
    repository = next(one for one in world.open_repositories if one.has_pipelines)
    world.add_pipeline(repository)
    world.open_pull_request(repository)
    installation.deliver(*watcher.deliveries())
    # Neither the answer of a removed endpoint nor a 404 of a part of what exists settles a delivery.
    installation.sandbox.faults.on("/pipelines", 410)
    installation.sandbox.faults.on(r"/pullrequests/\d+/activity", 404)
    once = installation.refresh()
    assert (once.failed, once.outcomes.total()) == (2, 1)
    installation.sandbox.faults.clear()
    installation.let_retries_come()
    token.scopes = {"account", "pullrequest"}
    outcomes = once.outcomes + installation.refresh().outcomes
    assert outcomes == {"pipelines cannot be read": 1, "applied": 2}

    token.scopes = None
    installation.on_workspace(import_pipelines)
    assert installation.differences() == {}


def test_a_404_of_the_commits_of_a_merged_pull_request_leaves_them_to_the_next_sync(installation):
    world, watcher = installation.sandbox.world, Watcher(installation.sandbox.world)
    world.merge(world.open_pull_request(world.open_repositories[0]))
    installation.deliver(*watcher.deliveries())
    installation.sandbox.faults.on(r"/pullrequests/\d+/commits", 404)
    assert installation.refresh().failed == 0
    installation.sandbox.faults.clear()
    installation.sync()
    assert installation.differences() == {}


def test_a_404_of_what_a_list_shows_deletes_nothing_and_its_change_is_stored(installation):
    world, watcher = installation.sandbox.world, Watcher(installation.sandbox.world)
    run = world.add_pipeline(next(one for one in world.open_repositories if one.has_pipelines))
    pull = world.open_pull_request(world.open_repositories[0])
    world.commit_to_default_branch(pull.repository)
    installation.deliver(*watcher.deliveries())
    installation.refresh()
    world.finish_pipeline(run, "FAILED")
    world.rename_repository(pull.repository)
    world.commit_to_default_branch(pull.repository)
    world.merge(pull)
    installation.deliver(*watcher.deliveries())
    for path in (r"/pipelines/%7B", r"/repositories/acme/%7B[^/]+$", rf"/pullrequests/{pull.number}\?"):
        installation.sandbox.faults.on(path, 404)
    assert installation.refresh().failed == 0, installation.warnings
    assert installation.differences() == {}

    # A 404 of the list, too, leaves the change to a later try.
    installation.sandbox.faults.on("/pipelines", 404)
    world.rerun_failed_steps(run, "SUCCESSFUL")
    installation.deliver(*watcher.deliveries())
    assert installation.refresh().failed == 1
    installation.sandbox.faults.clear()
    installation.let_retries_come()
    assert installation.refresh().outcomes["applied"] == 1
    assert installation.differences() == {}

    # A list that lacks one repository deletes it only if its own address says so.
    installation.sandbox.faults.lists_lack = {"repositories": 1 / len(world.repositories)}
    installation.sync()
    assert installation.query("SELECT FROM bitbucket_repositories WHERE deleted_at IS NOT NULL") == []


def test_a_delivery_about_a_pipeline_that_the_list_does_not_show_yet_comes_again(installation):
    world, watcher = installation.sandbox.world, Watcher(installation.sandbox.world)
    world.finish_pipeline(world.add_pipeline(next(one for one in world.open_repositories if one.has_pipelines)))
    installation.deliver(*watcher.deliveries())
    installation.sandbox.faults.empty_lists = ["pipelines"]
    assert installation.refresh().failed == 1
    (waits,) = [row for row in inbox(installation.database_url) if row["applied_at"] is None]
    assert "does not show pipeline" in waits["error"]
    installation.sandbox.faults.clear()
    installation.let_retries_come()
    assert installation.refresh().outcomes["applied"] == 1
    assert installation.differences() == {}


def test_a_run_that_is_killed_again_and_again_does_not_take_the_inbox_with_it(installation):
    installation.deliver(SandboxDelivery("repo:push", b'{"repository": {"full_name": "acme/nowhere"}}'))

    async def die(workspace: Workspace) -> None:
        await take(workspace.warehouse, workspace.slug, 10)

    for _ in range(MOST_ATTEMPTS):
        installation.on_workspace(die)
        installation.let_retries_come()
    assert installation.refresh().set_aside == 1


def test_deliveries_about_what_is_not_ours_or_gone_or_unknown_change_nothing_and_are_settled(installation):
    world = installation.sandbox.world
    watcher = Watcher(world)
    gone, other = world.open_repositories[-1], world.open_repositories[0]
    pull = world.open_pull_request(gone)
    created = watcher.deliveries()
    world.delete_repository(gone)
    (deleted,) = watcher.deliveries()
    # The payload of one repository under the name of another, as somebody might sign it who knows this secret only.
    forged = json.loads(created[-1].body)
    forged["repository"]["uuid"] = "{5a1f0000-0000-4000-8000-00000000abcd}"
    unknown = {"repository": {"full_name": "acme/x", "uuid": other.uuid}, "pullrequest": {"id": 4711}}
    installation.deliver(
        deleted,
        *created,
        SandboxDelivery("pullrequest:created", json.dumps(forged).encode()),
        SandboxDelivery("pullrequest:updated", json.dumps(unknown).encode()),
        SandboxDelivery(
            "repo:commit_status_created",
            json.dumps(
                {"repository": unknown["repository"], "commit_status": {"url": "https://jenkins.example.com/1"}}
            ).encode(),
        ),
        SandboxDelivery("project:updated", PROJECT),
        SandboxDelivery("repo:push", b'{"repository": {"full_name": "acme/"}}'),
        SandboxDelivery("pullrequest:created", json.dumps({"repository": unknown["repository"]}).encode()),
    )
    result = installation.refresh()
    assert result.failed == 0, installation.warnings
    assert result.outcomes["nothing depends on project:updated"] == 1
    assert result.outcomes["the status is not of Bitbucket Pipelines"] == 1
    assert result.outcomes["the repository is not imported"] == 4
    assert pull.number
    assert installation.differences() == {}
    assert {row["attempts"] for row in inbox(installation.database_url)} == {0}


class OtherBitbucket:
    """Answers as little as possible about whatever workspace it is asked for: lists are empty, and only repositories
    exist.

    Each workspace lists one more repository of its own: one that lists none has not been read. What no list can lack is
    there: an entry of each pull request's activity, and the latest pipeline.
    """

    def __init__(self, repositories: dict[str, Any]) -> None:
        self._repositories = repositories

    async def __call__(self, scope: Any, _: Any, send: Any) -> None:
        _, _, kind, *rest = scope["path"].split("/")  # /2.0/repositories/WORKSPACE/UUID/…
        answer: Any = {"values": []}
        status = 200
        if kind == "workspaces" and len(rest) == 1:
            answer = {"uuid": f"{{{uuid5(NAMESPACE_URL, rest[0])}}}", "slug": rest[0], "name": rest[0]}
        elif kind == "repositories" and len(rest) == 1:
            answer = {"values": [{"uuid": f"{{{uuid5(NAMESPACE_URL, f'{rest[0]}/own')}}}", "slug": "own"}]}
        elif kind == "repositories" and len(rest) == 2:
            answer = self._repositories.get(rest[1], {})
            status = 200 if answer else 404
        elif kind == "repositories" and len(rest) == 4 and rest[2] in {"commit", "pipelines", "pullrequests"}:
            status = 404
        elif rest[2:] == ["pipelines"]:
            answer = {"values": [{"uuid": "{5a1f0000-0000-4000-8000-000000000001}", "build_number": 1_000_000}]}
        elif rest[2:3] == ["pullrequests"] and rest[4:] == ["activity"]:
            opened = {"date": "2020-01-01T00:00:00+00:00", "state": "OPEN", "author": None}
            answer = {"values": [{"pull_request": {"id": int(rest[3])}, "update": opened}]}
        body = json.dumps(answer).encode()
        await send(
            {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]}
        )
        await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize("folder", evidence.FOLDERS, ids=lambda folder: folder.name)
def test_every_delivery_that_was_seen_reaches_the_tables(folder, database_url):
    payloads = {name: json.loads((folder / name).read_bytes()) for name in evidence.DELIVERED}
    repositories = {one["repository"].get("uuid"): one["repository"] for one in payloads.values()}
    slugs = sorted({one["repository"]["full_name"].split("/")[0] for one in payloads.values()})
    plain = {name: value for name, value in repositories.items() if name}
    for repository in plain.values():
        repository.pop("workspace", None)  # its uuid is another one than this Bitbucket's
    with serving(OtherBitbucket(plain)) as base:
        settings = Settings.model_validate(
            {"DX_DATABASE_URL": database_url, "DX_SECRET_KEYS": KEYS, "BITBUCKET_API_URL": f"{base}/2.0"}
        )
        for slug in slugs:
            give_secret(settings, slug, SECRET)
            give_credential(settings, slug, "ATCTT3-of-nobody")
        with receiving(settings) as receiver:
            for number, (name, key) in enumerate(evidence.DELIVERED.items()):
                body = (folder / name).read_bytes()
                sent = headers(body, request=str(number), x_event_key=key)
                assert post(receiver, content=body, headers=sent).status_code == 200, name
        for slug in slugs:
            result = Applied()
            on_workspace(settings, slug, partial(apply_deliveries, run="run", result=result))
            assert result.failed == 0

    newest: dict[tuple[str, int], dict[str, Any]] = {}
    for payload in payloads.values():
        pull, repository = payload.get("pullrequest"), payload["repository"].get("uuid")
        if pull and repository:
            before = newest.get((repository, pull["id"]), pull)
            newest[repository, pull["id"]] = max(before, pull, key=lambda one: one["updated_on"])
    with psycopg.connect(database_url) as connection:
        stored = connection.execute(
            "SELECT r.source_id, p.source_id, p.title, p.state, p.updated_at, p.deleted_at FROM bitbucket_pulls p "
            "JOIN bitbucket_repositories r ON r.id = p.repository_id"
        ).fetchall()
        counted = connection.execute("SELECT outcome, count(*) FROM webhook_events GROUP BY 1").fetchall()
    assert sorted(stored) == sorted(
        (repository, number, one["title"], one["state"], datetime.fromisoformat(one["updated_on"]), None)
        for (repository, number), one in newest.items()
    )
    assert dict(counted) == {"applied": len(evidence.DELIVERED) - 1, "the repository is not imported": 1}


def test_the_first_commits_of_a_repository_come_with_the_delivery_that_it_was_created(installation):
    world, watcher = installation.sandbox.world, Watcher(installation.sandbox.world)
    world.create_repository()
    installation.deliver(*(one for one in watcher.deliveries() if one.event_key == "repo:created"))
    assert installation.refresh().outcomes["applied"] == 1
    assert set(installation.differences()) <= {"bitbucket_environments"}  # these come with the first pipeline or sync
