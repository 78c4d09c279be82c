"""The import, through the command line, against a sandbox whose truth is known to the row."""

import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote_plus

import psycopg
import pytest
from psycopg.rows import dict_row

from dx_dagster.sandbox import Sandbox, Token, WorldConfig, truth
from dx_dagster_tests.comparing import differences

SMALL = WorldConfig(seed=3, repositories=8, pull_requests=160, members=12)
Sync = Callable[..., dict[str, Any]]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(SMALL) as running:
        yield running


@pytest.fixture
def connected(
    environment: dict[str, str], sandbox: Sandbox, run_cli: Callable[..., subprocess.CompletedProcess[str]]
) -> dict[str, str]:
    """The environment of an installation with the workspace connected."""
    chosen = environment | {"BITBUCKET_API_URL": sandbox.url, "BITBUCKET_TOKEN": sandbox.token.secret}
    done = run_cli("connect", "acme", env=chosen)
    assert done.returncode == 0, done.stderr
    sandbox.requests.reset()
    return chosen


@pytest.fixture
def sync(connected: dict[str, str], run_cli: Callable[..., subprocess.CompletedProcess[str]]) -> Sync:
    """Runs `sync acme --json` and gives what it prints."""

    def run(*arguments: str) -> dict[str, Any]:
        done = run_cli("sync", "acme", "--json", *arguments, env=connected)
        assert done.returncode == 0, done.stderr
        outcome: dict[str, Any] = json.loads(done.stdout)
        return outcome

    return run


@pytest.fixture
def wrong(connected: dict[str, str], sandbox: Sandbox) -> Callable[[], dict[str, str]]:
    """What differs between the database and the truth of this moment, by table."""
    return lambda: differences(connected["DX_DATABASE_URL"], truth(sandbox.world))


def query(environment: Mapping[str, str], statement: str) -> list[dict[str, Any]]:
    with psycopg.connect(environment["DX_DATABASE_URL"], row_factory=dict_row) as connection:
        return connection.execute(statement.encode()).fetchall()


def written(outcome: dict[str, Any]) -> int:
    return sum(counts["inserted"] + counts["updated"] for counts in outcome["tables"].values())


def test_every_row_and_column_equals_the_truth_and_a_second_sync_writes_nothing(sandbox, sync, wrong):
    first = sync()
    assert wrong() == {}
    assert first["requests"] == sandbox.requests.count
    assert first["tables"]["bitbucket_pulls"] == {"inserted": 160, "updated": 0, "rows": 160}

    sandbox.requests.reset()
    second = sync()
    assert written(second) == 0
    # The workspace, its members and its repositories; then each repository's pull requests and pipelines.
    assert second["requests"] == sandbox.requests.count <= 3 + 2 * SMALL.repositories
    assert wrong() == {}


def test_a_sync_fetches_what_changed_and_little_else(sandbox, sync, wrong):
    sync()
    idle = sync()["requests"]
    sandbox.world.step(10, random.Random(1))
    changed = sync()
    assert written(changed) > 0
    assert changed["requests"] <= idle + 4 * 10
    assert wrong() == {}


@pytest.mark.parametrize("seed", [1, 2])
def test_a_world_that_changes_during_the_import_is_right_after_the_next_sync(seed, sandbox, connected, sync, wrong):
    changes = random.Random(seed)
    sandbox.faults.latency = 0.01
    with running_sync(connected) as importing:
        while importing.poll() is None:
            sandbox.world.step(1, changes)
            time.sleep(0.05)
    sync()
    assert wrong() == {}
    sync("--full")
    assert wrong() == {}


def test_pull_requests_whose_commits_are_on_the_default_branch_are_not_asked_twice(sandbox, sync, wrong):
    pull = sandbox.world.open_pull_request(sandbox.world.open_repositories[0])
    graph = pull.repository.graph
    head = graph.branches[pull.repository.main_branch]
    graph.branches["release/0.x"] = head.parents[0].parents[0]
    sandbox.world.retarget(pull, "release/0.x")
    sync()
    assert wrong() == {}
    sandbox.requests.reset()
    sync()
    assert [path for _, path, _, _ in sandbox.requests.list() if "/commits" in path] == []
    assert wrong() == {}


def running_sync(environment: Mapping[str, str], stderr: int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "dx_dagster.cli", "sync", "acme"]
    return subprocess.Popen(command, env=dict(environment), stdout=subprocess.DEVNULL, stderr=stderr)


def test_a_killed_import_goes_on_where_it_stopped(sandbox, connected, sync, wrong):
    sandbox.faults.latency = 0.02
    moments = random.Random(7)
    for _ in range(4):
        before = sandbox.requests.count
        with running_sync(connected) as importing:
            while sandbox.requests.count == before and importing.poll() is None:
                time.sleep(0.02)
            time.sleep(moments.uniform(0.1, 1.0))
            importing.kill()
    sync()
    assert wrong() == {}
    commits = [path for _, path, _, _ in sandbox.requests.list() if path.split("?")[0].endswith("/commits")]
    # What was in flight or about to be stored when it was killed is asked again, and nothing else.
    assert len(commits) - len(set(commits)) <= 4 * 16


def test_a_database_that_goes_away_ends_the_import_with_a_sentence(sandbox, connected, postgres, sync, wrong):
    sandbox.faults.latency = 0.05
    name = connected["DX_DATABASE_URL"].partition("@/")[2].partition("?")[0]
    with running_sync(connected, stderr=subprocess.PIPE) as importing:
        while sandbox.requests.count < 30 and importing.poll() is None:
            time.sleep(0.02)
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            _, errors = importing.communicate(timeout=60)
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
    assert importing.returncode == 1
    said = errors.decode()
    assert "Traceback" not in said
    assert "The database at DX_DATABASE_URL does not answer" in said.splitlines()[-1]
    sync()
    assert wrong() == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_import_ends_at_once_and_says_only_so(number, sandbox, connected, sync, wrong):
    sandbox.faults.latency = 0.05
    with running_sync(connected, stderr=subprocess.PIPE) as importing:
        while sandbox.requests.count < 30 and importing.poll() is None:
            time.sleep(0.02)
        importing.send_signal(number)
        _, errors = importing.communicate(timeout=10)
    assert importing.returncode == 1
    *_, last = errors.decode().splitlines()
    assert last == "Interrupted. What was fetched is stored; run the command again to go on."
    assert b"Traceback" not in errors
    sandbox.faults.latency = 0
    sync()
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
    sync("--full")
    assert wrong() == {}


def test_an_opinion_that_the_feed_does_not_show_is_asked_of_its_pull_request(sandbox, connected, sync):
    sandbox.faults.feed_leaves_out = ("approval", "changes_requested")
    sync()
    told = query(connected, "SELECT state, count(*) FROM bitbucket_pull_participants WHERE state <> '' GROUP BY 1")
    assert {row["state"] for row in told} == {"approved", "changes_requested"}
    assert not query(
        connected,
        "SELECT * FROM bitbucket_pull_participants o WHERE state IN ('approved', 'changes_requested') AND NOT EXISTS ("
        "SELECT FROM bitbucket_pull_activities a WHERE (a.pull_id, a.user_id) = (o.pull_id, o.user_id) "
        "AND a.kind = CASE WHEN approved THEN 'approval' ELSE 'changes_requested' END)",
    )


def test_a_merge_that_no_activity_tells_is_as_old_as_its_commit(sandbox, connected, sync):
    merged = [one for one in sandbox.world.pull_requests if one.state == "MERGED"]
    pull = next(one for one in merged if one.target_branch != one.repository.main_branch)
    for entry in [one for one in pull.activity if one.update and one.update.state == "MERGED"]:
        pull.activity.remove(entry)
        pull.repository.feed.remove(entry)
    sync()
    [row] = query(
        connected,
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
    assert set(wrong()) == {"bitbucket_pull_commits"}
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


def test_a_repository_that_is_refused_is_recorded_and_the_rest_is_imported(connected, sync, wrong):
    outcome = sync()
    [refused] = query(
        connected, "SELECT slug, inaccessible_reason FROM bitbucket_repositories WHERE NOT api_accessible"
    )
    assert [(one["repository"], one["step"]) for one in outcome["skipped"]] == [(refused["slug"], "pullrequests")]
    assert "403" in refused["inaccessible_reason"]
    assert wrong() == {}


def test_a_scope_that_one_repository_alone_asks_for_is_no_reason_to_import_nothing(sandbox, connected, sync):
    private = next(one for one in sandbox.world.open_repositories if one.pull_requests)
    sandbox.faults.on(re.escape(quote(private.uuid, safe="")), "scope")
    outcome = sync()
    assert private.slug in {one["repository"] for one in outcome["skipped"] if "(missing: repository)" in one["reason"]}
    [row] = query(connected, "SELECT count(*) AS pulls FROM bitbucket_pulls")
    all_pulls = [one for one in sandbox.world.pull_requests if not one.repository.forbidden]
    assert row["pulls"] == len(all_pulls) - len(private.pull_requests)


def test_pipelines_that_are_off_are_normal(sandbox, sync):
    assert any(not repository.has_pipelines for repository in sandbox.world.repositories)
    assert [one for one in sync()["skipped"] if one["step"] == "pipelines"] == []


def test_a_renamed_repository_keeps_its_rows_and_a_vanished_one_is_marked(sandbox, connected, sync, wrong):
    sync()
    renamed, vanished = [one for one in sandbox.world.repositories if not one.forbidden and one.pull_requests][:2]
    before = query(connected, "SELECT count(*) FROM bitbucket_pulls")
    sandbox.world.rename_repository(renamed)
    sandbox.world.delete_repository(vanished)
    sync()
    assert query(connected, "SELECT count(*) FROM bitbucket_pulls") == before
    [gone] = query(connected, "SELECT source_id FROM bitbucket_repositories WHERE deleted_at IS NOT NULL")
    assert gone["source_id"] == vanished.uuid
    assert wrong() == {}


def test_a_pull_request_that_was_deleted_is_marked(sandbox, connected, sync, wrong):
    sync()
    deleted = next(one for one in sandbox.world.pull_requests if one.state == "OPEN" and not one.repository.forbidden)
    sandbox.world.delete_pull_request(deleted)
    sync()
    assert [
        one["source_id"]
        for one in query(connected, "SELECT source_id FROM bitbucket_pulls WHERE deleted_at IS NOT NULL")
    ] == [deleted.number]
    assert wrong() == {}


def test_since_bounds_the_first_import_and_nothing_older_is_missed_in_what_it_brings(sandbox, connected, sync):
    since = datetime(2026, 9, 1, tzinfo=UTC)
    outcome = sync("--since", "2026-09-01")
    true: dict[str, Any] = dict(truth(sandbox.world))
    active = {
        (one["repository"], one["pull"]) for one in true["bitbucket_pull_activities"] if one["created_at"] >= since
    }
    every = {(one["repository"], one["source_id"]): one for one in true["bitbucket_pulls"]}
    # An approval need not move `updated_on`: what was approved since is recent too.
    recent = {key: one for key, one in every.items() if one["updated_at"] >= since or key in active}
    stored = query(
        connected,
        "SELECT r.source_id AS repository, p.source_id, p.merged_at, p.open_to_first_review "
        "FROM bitbucket_pulls p JOIN bitbucket_repositories r ON r.id = p.repository_id",
    )
    assert {(one["repository"], one["source_id"]) for one in stored} == set(recent)
    for one in stored:
        expected = recent[one["repository"], one["source_id"]]
        assert one["merged_at"] == expected["merged_at"]
        assert one["open_to_first_review"] == expected["open_to_first_review"]
    assert outcome["requests"] < 2 * len(recent) + 6 * SMALL.repositories


def test_a_revoked_credential_is_taken_out_and_the_others_go_on(sandbox, connected, sync, wrong, run_cli):
    second = Token("second-token-0123456789")
    sandbox.tokens.append(second)
    added = run_cli("credentials", "add", "acme", env=connected | {"BITBUCKET_TOKEN": second.secret})
    assert added.returncode == 0, added.stderr
    sandbox.token.revoked = True
    sync()
    assert wrong() == {}
    listed = query(connected, "SELECT disabled_reason FROM credentials WHERE disabled_at IS NOT NULL")
    assert len(listed) == 1
    assert listed[0]["disabled_reason"]


def test_two_syncs_at_once_fetch_nothing_twice(sandbox, connected, sync, wrong):
    sandbox.faults.latency = 0.02
    with running_sync(connected) as first:
        while not sandbox.requests.count:
            time.sleep(0.02)
        second = sync()
        assert first.wait(60) == 0
    assert written(second) == 0
    assert wrong() == {}
