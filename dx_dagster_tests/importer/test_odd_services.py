"""Whatever Bitbucket answers, and however the world stands, the rows end up as the truth has them."""

import random
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import quote, unquote_plus

import pytest

from dx_dagster.bitbucket import NotFound, Unavailable
from dx_dagster.importer.absence import AccessCheck
from dx_dagster.importer.activity.step import import_activity
from dx_dagster.importer.commits import endpoint
from dx_dagster.importer.commits.step import import_commits
from dx_dagster.importer.each_pull import PullRow, for_each_pull, pull_rows
from dx_dagster.importer.pull_requests import import_pull_requests
from dx_dagster.importer.report import Report
from dx_dagster.importer.repositories import fetch_repository, import_repositories
from dx_dagster.importer.workspace import Workspace
from dx_dagster.sandbox import Sandbox, WorldConfig
from dx_dagster.sandbox.repositories import HostedRepository
from dx_dagster.warehouse.imported import review_times, stale
from dx_dagster_tests.importing import Imported, Installation, open_into_release

SMALL = WorldConfig(seed=3, repositories=6, pull_requests=96, members=10, merges_by_push=0.05)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(SMALL) as running:
        yield running


@pytest.fixture
def installation(database_url: str, sandbox: Sandbox) -> Installation:
    return Installation(database_url, sandbox)


@pytest.fixture
def sync(installation: Installation) -> Callable[..., Imported]:
    return installation.sync


@pytest.fixture
def wrong(installation: Installation) -> Callable[[], dict[str, str]]:
    """What differs between the database and the truth of this moment, by table."""
    return installation.differences


@pytest.fixture
def query(installation: Installation) -> Callable[[str], list[dict[str, Any]]]:
    return installation.query


def test_pull_requests_whose_commits_are_on_the_default_branch_are_not_asked_twice(sandbox, sync, wrong):
    open_into_release(sandbox.world, 1)
    sync()
    assert wrong() == {}
    sandbox.requests.reset()
    sync()
    assert [path for _, path, _, _ in sandbox.requests.list() if "/commits" in path] == []
    assert wrong() == {}


FAULTS: dict[str, dict[str, Any]] = {
    "errors, resets, cut and odd bodies, 429": {
        "errors": 0.05, "resets": 0.02, "truncated": 0.01, "html": 0.01, "throttles": 0.01,
    },
    "no feed": {"feed_missing": True},
    "a feed that always fails": {"on": [{"pattern": r"/pullrequests/activity", "action": "500"}]},
    "links that lead elsewhere": {"next_origin": "http://192.0.2.1"},
    "paging in circles": {"pages_in_circles": True},
    "a workspace that is gone": {"workspace_gone": True},
    "a workspace that is refused": {"on": [{"pattern": r"/workspaces/acme$", "action": "401"}]},
}  # fmt: skip


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_a_service_that_misbehaves_costs_requests_and_no_row(faults, sandbox, sync, wrong):
    sandbox.faults.set(faults)
    sync()
    assert wrong() == {}
    sandbox.world.step(30, random.Random(2))
    sync()
    assert wrong() == {}


def test_commits_that_no_list_shows_are_not_requested_for_ever(sandbox, sync, wrong):
    for _ in range(101):
        sandbox.world.commit_to_default_branch(sandbox.world.open_repositories[0])
    sandbox.faults.pages_in_circles = True
    sandbox.faults.on(r"/commits\?(?=.*include=)", "empty")
    assert "commits" in {one.step for one in sync(within=30).skipped}
    sandbox.faults.clear()
    sync()
    assert wrong() == {}


def test_a_list_of_commits_that_is_cut_short_is_completed_by_their_parents(sandbox, sync, wrong):
    for _ in range(101):
        sandbox.world.commit_to_default_branch(sandbox.world.open_repositories[0])
    sandbox.faults.on(r"/commits/[^?]+\?(?=.*page=)", "empty")
    sync()
    assert wrong() == {}


def test_a_row_that_cannot_be_read_removes_no_other_and_is_requested_again(sandbox, query, sync, wrong):
    world, faults = sandbox.world, sandbox.faults
    odd = max((one for one in world.open_repositories if one.has_pipelines), key=lambda one: len(one.pull_requests))
    sync()
    kept = {table: query(f"SELECT id FROM {table} WHERE {rows}") for table, rows in KEPT.items()}
    for pull in odd.pull_requests.values():
        if pull.state == "OPEN":
            world.push(pull)
        for comment in pull.comments[:1]:
            world.edit_comment(pull, comment)
    world.commit_to_default_branch(odd)
    world.finish_pipeline(world.add_pipeline(odd))
    faults.on(rf"{_path(odd)}/|/repositories/acme\?|/members\?", "null_row")
    done = sync()
    for table, rows in KEPT.items():
        now = {one["id"] for one in query(f"SELECT id FROM {table} WHERE {rows}")}
        assert {one["id"] for one in kept[table]} <= now, table
    steps = {one.step for one in done.skipped if one.repository.partition("#")[0] == odd.slug}
    assert steps >= {"pullrequests", "pipelines", "comments", "commits", "deployments"}
    assert {"no repository", "no member"} <= {" ".join(one.split()[:2]) for one in done.notes}

    faults.clear()
    sync(reconcile=timedelta(days=14))
    assert wrong() == {}


def test_a_list_that_cannot_be_whole_deletes_nothing_and_is_requested_again(sandbox, query, sync, wrong):
    world, faults = sandbox.world, sandbox.faults
    sync()
    faults.feed_missing = True
    repository = next(one for one in world.open_repositories if one.has_pipelines)
    talked = next(one for one in world.pull_requests if one.comments and not one.repository.forbidden)
    world.edit_comment(talked, talked.comments[0])
    world.add_pipeline(repository)
    world.commit_to_default_branch(repository)
    faults.on(r"/comments\?", "short")
    faults.on(r"/members\?", "short", times=1)
    faults.on(r"/pullrequests/\d+/activity|/pipelines\?|/commits/", "empty")
    kept = [f"SELECT FROM {table} WHERE {KEPT[table]}" for table in ("bitbucket_pull_comments", "bitbucket_users")]
    before = [query(rows) for rows in kept]
    done = sync()
    assert [query(rows) for rows in kept] == before
    slug = talked.repository.slug
    shown = len(talked.comments)
    reasons = {(one.step, one.repository): one.reason for one in done.skipped}
    assert f"sent {shown - 1} of {shown} rows" in reasons["comments", f"{slug}#{talked.number}"]
    assert "sent no row" in reasons["activity", f"{slug}#{talked.number}"]
    assert f"{repository.slug}: the list of pipelines is empty; nothing is changed" in done.notes
    assert f"{repository.slug}: the list of commits is empty, and is ignored" in done.notes
    faults.clear()
    sync()
    assert wrong() == {}


KEPT = {
    "bitbucket_repositories": "deleted_at IS NULL",
    "bitbucket_users": "active",
    "bitbucket_pulls": "deleted_at IS NULL",
    "bitbucket_pull_activities": "true",
    "bitbucket_pull_comments": "NOT deleted",
    "bitbucket_environments": "deleted_at IS NULL",
}


def test_an_approval_taken_back_and_given_anew_is_stored_where_there_is_no_feed(sandbox, sync, wrong):
    sandbox.faults.feed_missing = True
    world = sandbox.world
    pull = next(one for one in world.pull_requests if one.state == "OPEN" and not one.repository.forbidden)
    reviewer = world.approve(pull)
    sync()
    world.unapprove(pull, reviewer)
    world.approve(pull, reviewer)
    sync()
    assert wrong() == {}


def test_a_feed_that_does_not_reach_back_to_the_first_pull_request_loses_nothing(sandbox, sync, wrong):
    sandbox.faults.feed_length = 60
    sync()
    assert wrong() == {}
    sandbox.faults.feed_length = 30
    sync(full=True)
    assert wrong() == {}
    sandbox.faults.feed_length = 0
    sandbox.world.step(20, random.Random(6))
    sync()
    assert wrong() == {}


def test_what_a_short_feed_no_longer_tells_is_asked_of_the_pull_requests(installation, sandbox, sync, wrong):
    sandbox.faults.feed_length = 10
    sandbox.faults.on(r"/pullrequests/\d+/activity", 403)  # so that what it never told is not asked yet either
    sync()
    sandbox.faults.overrides.clear()
    changes = random.Random(6)
    sandbox.world.step(60, changes)
    installation.on_workspace(import_pull_requests)
    sandbox.world.step(60, changes)  # the list was asked before, the feed comes after
    sync()
    sync()
    assert wrong() == {}


def test_after_a_feed_forgot_entries_only_the_pull_requests_that_changed_are_asked(sandbox, sync, wrong):
    sync()
    before = {pull: pull.version for pull in sandbox.world.pull_requests}
    sandbox.faults.feed_length = 5
    sandbox.world.step(30, random.Random(6))
    changed = sum(before.get(pull) != pull.version for pull in sandbox.world.pull_requests)
    sandbox.requests.reset()
    sync()
    asked = [path for _, path, _, _ in sandbox.requests.list() if re.search(r"/pullrequests/\d+/activity", path)]
    assert 0 < len(asked) <= changed < len(before) / 2
    assert wrong() == {}


def test_an_approval_that_came_and_went_between_two_lists_leaves_nothing_behind(database_url):
    with Sandbox(replace(SMALL, feed_keeps_taken_back=False)) as sandbox:
        installation = Installation(database_url, sandbox)
        installation.on_workspace(import_repositories)
        installation.on_workspace(import_pull_requests)
        pull = next(one for one in sandbox.world.pull_requests if one.state == "OPEN")
        user = sandbox.world.approve(pull, sandbox.world.add_member())
        installation.on_workspace(import_activity)
        sandbox.world.unapprove(pull, user)
        installation.sync()
        assert installation.differences() == {}
        assert installation.sync().requests <= 2 + 2 * SMALL.repositories


def test_an_opinion_that_the_feed_does_not_show_is_asked_of_its_pull_request(sandbox, query, sync):
    sandbox.faults.feed_leaves_out = ("approval", "changes_requested")
    sync()
    told = query("SELECT state, count(*) FROM bitbucket_pull_participants WHERE state <> '' GROUP BY 1")
    assert {row["state"] for row in told} == {"approved", "changes_requested"}
    assert not query(
        "SELECT * FROM bitbucket_pull_participants o WHERE state IN ('approved', 'changes_requested') AND NOT EXISTS ("
        "SELECT FROM bitbucket_pull_activities a WHERE (a.pull_id, a.user_id) = (o.pull_id, o.user_id) "
        "AND a.kind = CASE WHEN approved THEN 'approval' ELSE 'changes_requested' END)",
    )


def test_a_merge_that_no_activity_tells_is_as_old_as_its_commit(sandbox, query, sync):
    merged = [one for one in sandbox.world.pull_requests if one.state == "MERGED"]
    pull = next(one for one in merged if one.target_branch != one.repository.main_branch)
    for entry in [one for one in pull.activity if one.update and one.update.state == "MERGED"]:
        pull.activity.remove(entry)
        pull.feed.remove(entry)
    sync()
    [row] = query(
        "SELECT p.merged_at FROM bitbucket_pulls p JOIN bitbucket_repositories r ON r.id = p.repository_id "
        f"WHERE r.slug = '{pull.repository.slug}' AND p.source_id = {pull.number}",
    )
    assert row["merged_at"] == pull.merge_commit.date


def test_an_open_pull_request_into_a_branch_that_was_rewritten_gets_its_commits_when_it_changes(sandbox, sync, wrong):
    repository = next(one for one in sandbox.world.open_repositories if "release/1.x" in one.graph.branches)
    pull = sandbox.world.open_pull_request(repository, target="release/1.x")
    sync()
    repository.graph.branches["release/1.x"] = repository.graph.branches["release/1.x"].parents[0]
    sandbox.world.comment(pull)
    sync()
    assert wrong() == {}


def test_half_a_list_of_commits_is_asked_for_again(sandbox, sync, wrong):
    pull = next(one for one in sandbox.world.pull_requests if one.fork is None and one.state == "OPEN")
    for _ in range(101):
        sandbox.world.push(pull)
    sandbox.faults.on(r"/commits\?(?=.*include=)", 400)  # so that each pull request is asked
    sandbox.faults.on(rf"/pullrequests/{pull.number}/commits\?(?=.*page=)", 404)
    sync()
    derived = {"pull_request_commits", "pull_request_measures"}
    assert set(wrong()) == {"bitbucket_pull_commits", "bitbucket_pulls"} | derived
    sandbox.faults.clear()
    sync()
    assert wrong() == {}


# As pull requests are listed newest first: the second page asks for numbers below the first's.
UNSORTED: dict[str, dict[str, Any]] = {
    "from the first page": {"sort_with_states_fails": True},
    "from the second page": {"on": [{"pattern": r"/pullrequests\?(?=.*sort=-id)(?=.*q=id)", "action": "500"}]},
}


@pytest.mark.parametrize("faults", UNSORTED.values(), ids=UNSORTED)
def test_a_list_that_cannot_be_sorted_is_fetched_by_ranges_of_numbers(faults, sandbox, sync, wrong):
    longest = max(sandbox.world.open_repositories, key=lambda one: len(one.pull_requests))
    while len(longest.pull_requests) <= 50:
        sandbox.world.open_pull_request(longest)
    sandbox.faults.set(faults)
    sync()
    assert wrong() == {}
    lists = [unquote_plus(path) for _, path, _, status in sandbox.requests.list() if status == 200]
    assert [path for path in lists if "/pullrequests?" in path and "id > 0" in path and "sort=" not in path]
    sandbox.world.step(30, random.Random(2))
    sync()
    assert wrong() == {}


def test_a_scope_that_one_repository_alone_asks_for_is_no_reason_to_import_nothing(sandbox, query, sync):
    private = next(one for one in sandbox.world.open_repositories if one.pull_requests)
    sandbox.faults.on(re.escape(quote(private.uuid, safe="")), "scope")
    outcome = sync()
    assert private.slug in {one.repository for one in outcome.skipped if "(missing: repository)" in one.reason}
    assert any(f"/repositories/acme/{private.slug}" in one.reason for one in outcome.skipped), "people read the slug"
    assert not any("%7B" in one.reason for one in outcome.skipped)
    [row] = query("SELECT count(*) AS pulls FROM bitbucket_pulls")
    all_pulls = [one for one in sandbox.world.pull_requests if not one.repository.forbidden]
    assert row["pulls"] == len(all_pulls) - len(private.pull_requests)


def test_a_merge_into_another_branch_takes_commits_from_those_that_wait_for_the_same(sandbox, query, sync, wrong):
    first, _ = open_into_release(sandbox.world, 2)
    sync()
    before = query("SELECT FROM bitbucket_pull_commits WHERE NOT deleted")
    sandbox.world.merge(first)
    sync()
    assert wrong() == {}
    assert len(query("SELECT FROM bitbucket_pull_commits WHERE NOT deleted")) < len(before)


def test_pipelines_that_are_off_are_normal(sandbox, sync):
    assert any(not repository.has_pipelines for repository in sandbox.world.repositories)
    assert [one for one in sync().skipped if one.step == "pipelines"] == []


def test_a_renamed_repository_keeps_its_rows_and_a_vanished_one_is_marked(sandbox, query, sync, wrong):
    sync()
    renamed, vanished = [one for one in sandbox.world.repositories if not one.forbidden and one.pull_requests][:2]
    before = query("SELECT count(*) FROM bitbucket_pulls")
    sandbox.world.rename_repository(renamed)
    sandbox.world.delete_repository(vanished)
    sync()
    assert query("SELECT count(*) FROM bitbucket_pulls") == before
    [gone] = query("SELECT source_id FROM bitbucket_repositories WHERE deleted_at IS NOT NULL")
    assert gone["source_id"] == vanished.uuid
    assert wrong() == {}


def test_addresses_of_commits_follow_a_repository_that_is_renamed_during_the_import_and_whose_name_is_taken(
    installation, sandbox, query, sync, wrong
):
    forked = next(one.repository for one in sandbox.world.pull_requests if one.fork and not one.fork_gone)
    installation.on_workspace(import_repositories)
    sandbox.world.rename_repository(forked)
    installation.on_workspace(import_pull_requests)
    installation.on_workspace(import_commits)
    assert query("SELECT FROM bitbucket_pull_commits JOIN bitbucket_pulls p ON p.id = pull_id WHERE p.from_fork")
    sandbox.world.rename_repository(forked)
    sync()
    assert wrong() == {}

    # Another repository takes its name, and a delivery tells of that one first.
    taken = forked.slug
    sandbox.world.rename_repository(forked)
    other = sandbox.world.create_repository()
    sandbox.world.rename_repository(other, taken)
    installation.on_workspace(lambda one: fetch_repository(one, other.uuid, AccessCheck(one)))
    sync()
    assert wrong() == {}


def test_a_pull_request_that_was_deleted_is_marked(sandbox, query, sync, wrong):
    sync()
    shown = [one for one in sandbox.world.pull_requests if one.state == "OPEN" and not one.repository.forbidden]
    sandbox.world.delete_pull_request(shown[0])
    sync()
    sandbox.faults.on(r"/pullrequests\?.*q=id\+%3D", 400)  # an API that does not filter by id
    sandbox.world.delete_pull_request(shown[1])
    sandbox.requests.reset()
    sync()
    assert 400 in [request.status for request in sandbox.requests]
    assert len(query("SELECT FROM bitbucket_pulls WHERE deleted_at IS NOT NULL")) == 2
    assert wrong() == {}


def test_a_404_of_a_pull_request_that_its_list_shows_deletes_nothing(sandbox, query, sync, wrong):
    sandbox.faults.feed_missing = True
    hidden = next(one for one in sandbox.world.pull_requests if one.state == "OPEN" and not one.repository.forbidden)
    sandbox.faults.on(rf"{re.escape(quote(hidden.repository.uuid, safe=''))}/pullrequests/{hidden.number}\b", 404)
    sync()
    assert query("SELECT FROM bitbucket_pulls WHERE deleted_at IS NOT NULL") == []
    sandbox.faults.clear()
    sync()
    assert wrong() == {}


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_feed_that_fails_once_is_kept_and_only_what_changed_is_asked(status, sandbox, sync, wrong):
    sync()
    idle = sync().requests
    sandbox.faults.on(r"/pullrequests/activity", status)
    sandbox.world.step(10, random.Random(4))
    failing = sync()
    assert wrong() == {}
    assert failing.requests <= idle + 6 * 10 + 3 * SMALL.repositories
    sandbox.faults.clear()
    sandbox.world.step(10, random.Random(5))
    assert sync().requests <= idle + 4 * 10
    assert wrong() == {}


def test_a_repository_that_closes_during_an_import_costs_a_request_and_no_pull_request(sandbox, query, sync, wrong):
    closing = max(sandbox.world.open_repositories, key=lambda one: len(one.pull_requests))
    sandbox.faults.on(rf"{re.escape(quote(closing.uuid, safe=''))}(?!/pullrequests\?)", 404)
    skipped = {(one.repository, one.step) for one in sync().skipped}
    assert (closing.slug, "activity") in skipped
    assert query("SELECT FROM bitbucket_pulls WHERE deleted_at IS NOT NULL") == []
    assert len([path for _, path, _, status in sandbox.requests.list() if status == 404]) < 10
    sandbox.faults.clear()
    sync()
    assert wrong() == {}


def test_a_part_that_is_refused_holds_up_neither_the_others_nor_its_repository(sandbox, query, sync, wrong):
    world, faults = sandbox.world, sandbox.faults
    odd, removed = [one for one in world.open_repositories if one.has_pipelines][:2]
    runs = [world.add_pipeline(odd) for _ in range(4)]
    opened = [world.open_pull_request(odd) for _ in range(4)]
    deleted = world.open_pull_request(odd)
    sync()
    closed = query("SELECT slug FROM bitbucket_repositories WHERE NOT api_accessible")

    # All of them are missing from the lists, so that each is requested by itself.
    faults.empty_lists = ["pullrequests", "pipelines"]
    query("UPDATE bitbucket_pipelines SET asked_at = NULL RETURNING id")
    for run in runs:
        world.finish_pipeline(run)
    for pull in opened:
        world.decline(pull)
    world.delete_pull_request(deleted)
    for status, pull in zip(("list", 403, 410), opened, strict=False):
        faults.on(rf"{_path(odd)}/pullrequests/{pull.number}\?", status)
    for status, run in zip((403, 410), runs, strict=False):
        faults.on(rf"{_path(odd)}/pipelines/{quote(run.uuid, safe='')}", status)
    faults.on(rf"{_path(removed)}/pullrequests\?", 410)
    skipped = {(one.repository, one.step) for one in sync().skipped}
    assert {(f"{odd.slug}#{pull.number}", "pullrequests") for pull in opened[:3]} <= skipped
    assert {(odd.slug, "pipelines"), (removed.slug, "pullrequests")} <= skipped
    assert query("SELECT slug FROM bitbucket_repositories WHERE NOT api_accessible") == closed
    gone = query("SELECT source_id FROM bitbucket_pulls WHERE deleted_at IS NOT NULL")
    assert [one["source_id"] for one in gone] == [deleted.number]
    ended = query(
        "SELECT build_number FROM bitbucket_pipelines p JOIN bitbucket_repositories r ON r.id = p.repository_id "
        f"WHERE p.state = 'COMPLETED' AND r.slug = '{odd.slug}'"
    )
    assert {run.build_number for run in runs[2:]} <= {one["build_number"] for one in ended}

    faults.clear()
    sync()
    assert wrong() == {}


def test_a_404_of_a_list_of_commits_is_believed_where_the_source_may_be_gone(installation, sandbox, query):
    sandbox.faults.on(r"/pullrequests/\d+/commits", 404)
    installation.sync()
    [shown] = query("SELECT count(DISTINCT pull_id) AS pulls FROM bitbucket_pull_commits")
    assert shown["pulls"] > 50, "it contradicts no proof"
    query("UPDATE pull_marks SET commits_synced_for = NULL RETURNING 1")
    query("UPDATE bitbucket_pulls SET source_commit_sha = NULL WHERE state = 'DECLINED' RETURNING 1")
    states = {str(one["id"]): one["state"] for one in query("SELECT id, state FROM bitbucket_pulls")}

    async def believed(workspace: Workspace) -> set[str]:
        rows = await pull_rows(workspace, stale.pulls_without_commits)
        of_states = {states[row.id]: row for row in rows}
        assert of_states.keys() >= {"OPEN", "MERGED", "DECLINED"}
        done = set()
        for state, row in of_states.items():
            with suppress(NotFound):
                assert (await endpoint.fetch(workspace, row)).values is None
                done.add(state)
        return done - {"SUPERSEDED"}

    assert installation.on_workspace(believed) == {"MERGED", "DECLINED"}
    # A credential that lost its access gets 404 for everything.
    sandbox.faults.on(r"/repositories/acme/[^/]+", 404)
    assert installation.on_workspace(believed) == {"DECLINED"}


def _path(repository: HostedRepository) -> str:
    return re.escape(quote(repository.uuid, safe=""))


def test_pull_requests_that_fail_for_good_stop_no_other(installation):
    installation.sync()
    done: list[int] = []

    async def run(workspace: Workspace) -> Report:
        report = Report("activity")
        rows = await pull_rows(workspace, partial(stale.pulls_not_told_by_feeds, fed=()))

        async def work(row: PullRow) -> None:
            if len(done) + 30 > len(rows):
                raise Unavailable("answered 500")
            done.append(row.number)

        await for_each_pull(workspace, report, rows, work)
        return report

    assert len(installation.on_workspace(run).skipped) == 29


def test_runs_that_never_end_cost_pages_once_a_day_and_one_that_is_run_again_is_seen(sandbox, query, sync, wrong):
    repository = next(one for one in sandbox.world.open_repositories if one.has_pipelines)
    paused = [sandbox.world.add_pipeline(repository) for _ in range(12)]
    for _ in range(130):
        sandbox.world.finish_pipeline(sandbox.world.add_pipeline(repository))
    sync()
    assert sync().requests <= 2 + 2 * SMALL.repositories
    query("UPDATE bitbucket_pipelines SET asked_at = now() - interval '1 day' RETURNING id")
    assert sync().requests <= 2 + 2 * SMALL.repositories + 2
    query("UPDATE bitbucket_pipelines SET asked_at = now() - interval '1 day' RETURNING id")
    sandbox.world.finish_pipeline(paused[0])
    repository.pipelines[-1].start(0)
    sync()
    assert wrong() == {}


@pytest.mark.parametrize("status", [400, 404, 410])
def test_members_that_are_refused_are_reported_and_the_rest_is_imported(status, sandbox, query, sync):
    sandbox.faults.on(r"/workspaces/acme/members", status)
    assert [one.step for one in sync().skipped].count("members") == 1
    assert query("SELECT FROM bitbucket_pulls")


def test_a_default_branch_with_a_slash_in_its_name_is_read_where_paths_may_not_hold_one(sandbox, sync, wrong):
    repository = next(one for one in sandbox.world.open_repositories if one.pull_requests)
    branches = repository.graph.branches
    branches["release/2.x"], repository.main_branch = branches[repository.main_branch], "release/2.x"
    sandbox.faults.on(r"/commits/release%2F2.x", 404)
    sync()
    assert wrong() == {}


def test_an_account_that_comes_with_another_uuid_once_it_is_deleted_is_nobody_else(sandbox, installation, query):
    pull = sandbox.world.open_pull_request(sandbox.world.open_repositories[0])
    sandbox.world.comment(pull, user=pull.author)
    sandbox.world.tick()
    sandbox.world.approve(pull)
    installation.sync()
    [own] = query(
        "SELECT c.id, p.id AS pull, p.user_id, open_to_first_review AS reviewed FROM bitbucket_pull_comments c "
        "JOIN bitbucket_pulls p ON p.id = c.pull_id WHERE c.user_id = p.user_id AND "
        "EXTRACT(epoch FROM c.created_at - p.created_at) < open_to_first_review LIMIT 1"
    )
    query(
        "INSERT INTO bitbucket_users SELECT (jsonb_populate_record(u, jsonb_build_object('id', gen_random_uuid(), "
        f"'source_id', 'former'))).* FROM bitbucket_users u WHERE id = '{own['user_id']}' RETURNING id"
    )
    query(
        "UPDATE bitbucket_pull_comments SET user_id = (SELECT id FROM bitbucket_users WHERE source_id = 'former') "
        f"WHERE id = '{own['id']}' RETURNING id"
    )

    async def derive(workspace: Workspace) -> None:
        async with workspace.warehouse.transaction() as transaction:
            await review_times.derive(transaction, [str(own["pull"])])

    installation.on_workspace(derive)
    [now] = query(f"SELECT open_to_first_review AS reviewed FROM bitbucket_pulls WHERE id = '{own['pull']}'")
    assert now["reviewed"] == own["reviewed"]


def test_merges_by_push_are_not_asked_for_one_by_one_what_no_activity_tells(database_url):
    with Sandbox(replace(SMALL, merges_by_push=0.5)) as sandbox:
        installation = Installation(database_url, sandbox)
        installation.sync()
        assert installation.differences() == {}
        [told] = installation.query(
            "SELECT count(*) AS pulls FROM bitbucket_pulls p WHERE state = 'MERGED' AND NOT EXISTS (SELECT FROM "
            "bitbucket_pull_activities a WHERE a.pull_id = p.id AND a.kind = 'update' AND a.state = 'MERGED')"
        )
        assert told["pulls"] > 20
        assert len([one for one in sandbox.requests if re.search(r"/pullrequests/\d+/activity", one.path)]) == 2
