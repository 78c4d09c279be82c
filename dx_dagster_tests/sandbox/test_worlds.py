"""One sandbox with several workspaces, and a repository that moves between them."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import quote

import httpx
import pytest

from dx_dagster.sandbox import Sandbox, Token, WorldConfig, truth
from dx_dagster.sandbox.deliveries import Watcher
from dx_dagster_tests.sandbox.asking import STATES, connect, walk

ACME = WorldConfig(repositories=4, pull_requests=30, members=5)
OTHER = WorldConfig("other", repositories=4, pull_requests=20, members=5, seed=8)
REPOSITORY_TABLES = ("bitbucket_pulls", "bitbucket_pull_comments", "bitbucket_pull_activities", "bitbucket_pipelines")


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(ACME, also=[OTHER]) as running:
        yield running


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with connect(sandbox.url, sandbox.token.secret) as opened:
        yield opened


def test_each_workspace_is_found_by_slug_or_uuid_in_any_case(sandbox: Sandbox, client: httpx.Client) -> None:
    acme, other = sandbox.worlds
    assert sandbox.world is acme
    for world in sandbox.worlds:
        slug, uuids = world.config.workspace, {repository.uuid for repository in world.repositories}
        for name in (slug, slug.upper(), quote(world.uuid)):
            assert client.get(f"/workspaces/{name}").json()["slug"] == slug
            assert {row["uuid"] for row in walk(client, f"/repositories/{name}")} == uuids
        for uuid in uuids - {one.uuid for one in world.repositories if one.forbidden}:
            assert client.get(f"/repositories/{quote('{}')}/{quote(uuid)}").json()["workspace"]["slug"] == slug
        assert len(walk(client, f"/workspaces/{slug}/members")) == len(world.people.members)
    sandbox.tokens.append(Token("narrow", workspaces={"Other"}))
    with connect(sandbox.url, "narrow") as narrow:
        assert narrow.get("/repositories/acme").status_code == 403
        assert narrow.get("/repositories/other").status_code == 200
        inside = other.open_repositories[0].uuid, acme.open_repositories[0].uuid
        assert [narrow.get(f"/repositories/{quote('{}')}/{quote(uuid)}").status_code for uuid in inside] == [200, 404]
    with pytest.raises(ValueError, match="slug of its own"):
        Sandbox(ACME, also=[ACME])


def test_a_repository_moves_with_all_that_is_in_it(sandbox: Sandbox, client: httpx.Client) -> None:
    acme, other = sandbox.worlds
    both = other.add_member(acme.people.members[0])
    moving = max(acme.open_repositories, key=lambda repository: len(repository.pull_requests))
    acme.approve(acme.open_pull_request(moving), both)
    outside = acme.approve(acme.open_pull_request(moving), acme.people.members[1])
    before = truth(acme)
    watchers = Watcher(acme), Watcher(other)
    by_uuid = quote(moving.uuid)
    asked = client.get(f"/repositories/acme/{by_uuid}").json()

    acme.move_repository(moving, other)

    assert [[one.event_key for one in watcher.deliveries()] for watcher in watchers] == [["repo:transfer"]] * 2
    assert client.get(f"/repositories/acme/{by_uuid}").status_code == 404
    for workspace in (quote("{}"), "other"):
        moved = client.get(f"/repositories/{workspace}/{by_uuid}").json()
        assert moved["workspace"]["slug"] == "other"
        assert moved["full_name"] == f"other/{moving.slug}" != asked["full_name"]
        assert moved["project"]["key"] == asked["project"]["key"]
    pulls = walk(client, f"/repositories/other/{moving.slug}/pullrequests?{STATES}&pagelen=50")
    assert {pull["links"]["html"]["href"] for pull in pulls} == {
        f"https://bitbucket.org/other/{moving.slug}/pull-requests/{number}" for number in moving.pull_requests
    }
    sandbox.faults.moved_answers_elsewhere = True
    assert client.get(f"/repositories/acme/{by_uuid}").json()["workspace"]["slug"] == "other"

    left, arrived = truth(acme), truth(other)
    for table in REPOSITORY_TABLES:
        mine = [row for row in before[table] if row["repository"] == moving.uuid]
        assert mine
        assert not [row for row in left[table] if row["repository"] == moving.uuid]
        here = [row for row in arrived[table] if row["repository"] == moving.uuid]
        assert [row | {"source_url": ""} for row in here] == [row | {"source_url": ""} for row in mine]
    users = {row["source_id"]: row for row in arrived["bitbucket_users"]}
    assert users[both.uuid]["active"]
    assert not users[outside.uuid]["active"]
    assert {row["workspace"] for row in users.values()} == {other.uuid}
    other.step(20)
    other.move_repository(moving, acme)
    assert client.get(f"/repositories/acme/{by_uuid}").json()["workspace"]["slug"] == "acme"


def test_a_living_world_that_started_now_keeps_the_time_of_this_machine() -> None:
    with Sandbox(WorldConfig(repositories=3, pull_requests=10, members=4, now=None), live=0.01) as sandbox:
        world = sandbox.world
        seen = world.now
        for _ in range(10):
            time.sleep(0.03)
            with world.lock:
                assert seen < world.now <= datetime.now(UTC)
                seen = world.now
