"""A repository that moves between connected workspaces takes its rows along: one person stays one user."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial

import psycopg
import pytest

from dx_dagster.importer.absence import AccessCheck
from dx_dagster.importer.repositories import fetch_repository
from dx_dagster.importer.workspace import Workspace
from dx_dagster.sandbox import Sandbox, WorldConfig, truth
from dx_dagster.sandbox.repositories import HostedRepository
from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.imported import moves
from dx_dagster_tests.comparing import Row, differences, stored
from dx_dagster_tests.importing import Installation
from dx_dagster_tests.insights.weekly_figures import weekly_figures

LEFT = WorldConfig(workspace="left", repositories=6, pull_requests=60, members=6)
RIGHT = WorldConfig(workspace="right", seed=3, repositories=2, pull_requests=10, members=3)


@pytest.fixture
def both(database_url: str) -> Iterator[tuple[Installation, Installation]]:
    """Two workspaces in one warehouse, imported; half of the left one's members belong to the right one too."""
    with ExitStack() as stack:
        one, two = (stack.enter_context(Sandbox(config)) for config in (LEFT, RIGHT))
        two.world.people.members.extend(one.world.people.members[:3])
        left, right = Installation(database_url, one), Installation(database_url, two)
        left.sync()
        right.sync()
        yield left, right


def _move(left: Installation, right: Installation) -> HostedRepository:
    here, there = left.sandbox.world, right.sandbox.world
    moved = max(here.open_repositories, key=lambda one: len(one.pull_requests))
    here.repositories.remove(moved)
    there.repositories.append(moved)
    moved.config = there.config
    moved.names_version += 1
    return moved


def _wrong(left: Installation, right: Installation) -> dict[str, str]:
    """What differs from both worlds; users whose traces are elsewhere now stay known, inactive."""
    for one in (left, right):
        one.build()
    worlds = [truth(one.sandbox.world) for one in (left, right)]
    true = {table: [*rows, *worlds[1][table]] for table, rows in worlds[0].items()}
    found = differences(left.database_url, true)
    ours, theirs = _users(stored(left.database_url)["bitbucket_users"]), _users(true["bitbucket_users"])
    if theirs <= ours and not any(active for *_, active in ours - theirs):
        found.pop("bitbucket_users", None)
    return found


def _merged(installation: Installation) -> dict[tuple[str, str, object], int]:
    rows = installation.query("SELECT scope, scope_id, week, merged_count FROM weekly_measures")
    return {(row["scope"], row["scope_id"], row["week"]): row["merged_count"] for row in rows}


def _users(rows: Sequence[Row]) -> set[tuple[object, ...]]:
    return {tuple(row[name] for name in ("source_id", "workspace", "name", "bot", "active")) for row in rows}


def test_whichever_workspace_is_synced_first_all_rows_name_users_of_the_new_one(both):
    left, right = both
    idle = left.sync().requests + right.sync().requests
    for order in (both, both[::-1]):
        _move(left, right)
        requests = sum(one.sync().requests for one in order)
        assert _wrong(left, right) == {}
        assert _merged(left) == {
            key: row.get("merged_count", 0) for key, row in weekly_figures(left.database_url, "UTC").items()
        }, "the weeks of both workspaces follow"
        assert requests <= idle + 2, "marks move along: nothing is imported again"
        assert left.query("SELECT FROM bitbucket_repositories WHERE deleted_at IS NOT NULL") == []

    # A delivery tells the new workspace of it at once.
    moved = _move(left, right)

    async def hear(workspace: Workspace) -> None:
        assert await fetch_repository(workspace, moved.uuid, AccessCheck(workspace)) == moved.uuid

    right.on_workspace(hear)
    found = _wrong(left, right)
    found.pop("bitbucket_users", None)
    assert found == {}
    left.on_workspace(partial(_is_no_longer_here, name=moved.uuid))
    assert left.query("SELECT FROM bitbucket_repositories WHERE deleted_at IS NOT NULL") == []


async def _is_no_longer_here(workspace: Workspace, name: str) -> None:
    assert await fetch_repository(workspace, name, AccessCheck(workspace)) is None


def test_rows_that_an_earlier_version_left_with_users_of_the_old_workspace_are_mended(both):
    left, right = both
    moved = _move(left, right)
    with psycopg.connect(left.database_url) as connection:
        connection.execute(
            "UPDATE bitbucket_repositories SET workspace_id = w.id FROM bitbucket_workspaces w "
            "WHERE w.slug = 'right' AND bitbucket_repositories.source_id = %s",
            [moved.uuid],
        )
    right.sync()
    assert "bitbucket_pulls" not in _wrong(left, right), "natural keys do not show it"
    assert _strangers(right)["bitbucket_pulls"] > 0

    async def mend() -> None:
        async with Warehouse(left.database_url) as warehouse, warehouse.transaction() as transaction:
            rows = await transaction.rows("SELECT id::text FROM bitbucket_repositories")
            await moves.rekey(transaction, [row.id for row in rows])

    asyncio.run(mend())
    assert _strangers(right) == Counter()
    left.sync()
    assert _wrong(left, right) == {}


def _strangers(installation: Installation) -> Counter[str]:
    """Rows of pull requests that name users of another workspace than their repository's."""
    pulls = installation.query(
        "SELECT FROM bitbucket_pulls p JOIN bitbucket_repositories r ON r.id = p.repository_id "
        "JOIN bitbucket_users u ON u.id IN (p.user_id, p.merged_by_user_id) WHERE u.workspace_id <> r.workspace_id"
    )
    participants = installation.query(
        "SELECT FROM bitbucket_pull_participants t JOIN bitbucket_pulls p ON p.id = t.pull_id "
        "JOIN bitbucket_repositories r ON r.id = p.repository_id JOIN bitbucket_users u ON u.id = t.user_id "
        "WHERE u.workspace_id <> r.workspace_id"
    )
    return +Counter({"bitbucket_pulls": len(pulls), "bitbucket_pull_participants": len(participants)})
