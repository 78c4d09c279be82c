"""The import, through the command line, against a sandbox whose truth is known to the row."""

import json
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from dx_dagster.sandbox import Sandbox, Token, WorldConfig, truth
from dx_dagster_tests.commands import Started
from dx_dagster_tests.comparing import differences

SMALL = WorldConfig(seed=3, repositories=8, pull_requests=160, members=12, merges_by_push=0.05)
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


def test_every_row_and_column_equals_the_truth_and_later_syncs_fetch_and_write_what_changed(
    sandbox, connected, sync, wrong
):
    first = sync()
    assert wrong() == {}
    assert first["requests"] == sandbox.requests.count
    assert first["tables"]["bitbucket_pulls"] == {"inserted": 160, "updated": 0, "rows": 160}
    assert [name for name, one in first["tables"].items() if one["inserted"] != one["rows"]] == []
    # A repository that is refused is recorded, and the rest is imported.
    [refused] = query(
        connected, "SELECT slug, inaccessible_reason FROM bitbucket_repositories WHERE NOT api_accessible"
    )
    assert [(one["repository"], one["step"]) for one in first["skipped"]] == [(refused["slug"], "pullrequests")]
    assert "403" in refused["inaccessible_reason"]

    sandbox.requests.reset()
    idle = sync()
    assert written(idle) == 0
    # The repositories and the members of the workspace; then each repository's pull requests and pipelines.
    assert idle["requests"] == sandbox.requests.count <= 2 + 2 * SMALL.repositories
    assert wrong() == {}

    sandbox.world.step(10, random.Random(1))
    changed = sync()
    assert written(changed) > 0
    assert changed["requests"] <= idle["requests"] + 4 * 10
    assert wrong() == {}


def kill_after(requests: int, environment: Mapping[str, str], sandbox: Sandbox) -> None:
    """Kills a sync once it has sent so many requests."""
    before = sandbox.requests.count
    with Started(["sync", "acme"], environment) as importing:
        while sandbox.requests.count < before + requests and importing.is_at_work:
            time.sleep(0.01)
        importing.send(signal.SIGKILL)


def test_a_killed_import_goes_on_where_it_stopped(sandbox, connected, sync, wrong):
    sandbox.faults.latency = 0.02
    for _ in range(3):
        kill_after(30, connected, sandbox)
    sync()
    assert wrong() == {}
    sandbox.faults.latency = 0
    asked = Counter(path for _, path, _, _ in sandbox.requests.list())
    repeated = asked.total() - len(asked)
    # What was in flight or about to be stored when it was killed is asked again, and nothing else.
    assert repeated <= 3 * 14

    # The idle sync after it asks everything that an idle sync asks.
    idle = sync()
    assert (written(idle), query(connected, "SELECT FROM sync_sessions")) == (0, [])
    assert idle["requests"] >= 2 + 2 * (SMALL.repositories - 3)


def test_a_database_that_goes_away_ends_the_import_with_a_sentence(sandbox, connected, postgres, sync, wrong):
    sandbox.faults.latency = 0.05
    name = connected["DX_DATABASE_URL"].partition("@/")[2].partition("?")[0]
    with Started(["sync", "acme"], connected) as importing:
        while sandbox.requests.count < 30 and importing.is_at_work:
            time.sleep(0.02)
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            done = importing.ended()
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
    assert done.returncode == 1
    *progress, last = done.stderr.splitlines()
    assert last.startswith("The database at DX_DATABASE_URL does not answer: ")
    assert "run the command again: what was stored stays" in last
    assert [line for line in progress if not re.search(r"requests$|skipped: GET", line)] == []
    sync()
    assert wrong() == {}


def test_an_interrupted_import_ends_at_once_and_says_only_so(sandbox, connected, sync, wrong):
    sandbox.faults.latency = 0.05
    for number in (signal.SIGINT, signal.SIGTERM):
        sandbox.requests.reset()
        with Started(["sync", "acme"], connected) as importing:
            while sandbox.requests.count < 30 and importing.is_at_work:
                time.sleep(0.02)
            importing.send(number)
            done = importing.ended(10)
        assert done.returncode == 1
        *_, last = done.stderr.splitlines()
        assert last == "Interrupted. Fetched data is stored; run the command again to continue."
        assert "Traceback" not in done.stderr
    sandbox.faults.latency = 0
    sync()
    assert wrong() == {}


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


def test_a_credential_that_may_not_read_pipelines_holds_up_their_tables_alone(sandbox, connected, sync, wrong, run_cli):
    sandbox.token.scopes = {"account", "pullrequest"}
    done = run_cli("sync", "acme", env=connected | {"DX_LOG_FORMAT": "json"})
    assert done.returncode == 1
    *lines, failure = [json.loads(line) for line in done.stderr.splitlines()]
    assert "pipeline" in failure["event"]
    assert {line["workspace"] for line in lines} == {"acme"}
    assert len({line["run_id"] for line in lines}) == 1
    assert set(wrong()) == {"bitbucket_pipelines", "bitbucket_deployments", "bitbucket_environments"}
    assert query(connected, "SELECT count(dx_user_id) > 0 AS known, count(*) FROM pull_requests") == [
        {"known": True, "count": 160}
    ]
    [measured] = query(connected, "SELECT count(merged) AS merged FROM pull_request_measures")
    weeks = """
        SELECT sum(merged_count)::int + sum(bot_merged_count)::int AS merged, bool_or(cycle_time_median > 0) AS timed,
               count(lead_time_median) + count(pipeline_failure_rate) + count(change_failure_rate) AS of_pipelines
        FROM weekly_measures WHERE scope = 'workspace'"""
    assert measured["merged"] > 50
    assert query(connected, weeks) == [{"merged": measured["merged"], "timed": True, "of_pipelines": 0}]

    sandbox.token.scopes = None
    sync()
    assert wrong() == {}


def test_two_syncs_at_once_fetch_nothing_twice(sandbox, connected, sync, wrong):
    sandbox.faults.latency = 0.02
    with Started(["sync", "acme"], connected) as first:
        while not sandbox.requests.count:
            time.sleep(0.02)
        second = sync()
        assert first.ended().returncode == 0
    assert written(second) == 0
    assert wrong() == {}
