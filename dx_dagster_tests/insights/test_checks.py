"""Checks look at what changed, and at what was broken, and say what is wrong with which thing."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest

from dx_dagster.insights.checks.looking import Verdict, look, look_at_workspaces, news
from dx_dagster.insights.checks.rules import CHECKED, INBOX, NOT_FEWER, SYNCED
from dx_dagster.warehouse.database import Warehouse

ACME, OTHER, WEB, APP, ANN, PULL, PART, PERSON = (
    f"00000000-0000-0000-0000-0000000000{end}" for end in ("a1", "a2", "b1", "b2", "c1", "d1", "e1", "f1")
)
MISSING = "00000000-0000-0000-0000-000000000999"
ROWS = f"""
    INSERT INTO bitbucket_workspaces (id, source_id, slug)
        VALUES ('{ACME}', '{{a1}}', 'acme'), ('{OTHER}', '', 'other');
    INSERT INTO bitbucket_repositories (id, source_id, workspace_id, slug)
        VALUES ('{WEB}', '{{b1}}', '{ACME}', 'web'), ('{APP}', '{{b2}}', '{ACME}', 'app');
    INSERT INTO bitbucket_users (id, source_id, workspace_id, name, account_id)
        VALUES ('{ANN}', '{{c1}}', '{ACME}', 'Ann', '1');
    INSERT INTO bitbucket_pulls
        (id, source_id, repository_id, user_id, state, created_at, updated_at, merged_at, comment_count)
        VALUES ('{PULL}', 12, '{WEB}', '{ANN}', 'MERGED', '2026-01-01', '2026-01-02', '2026-01-02', 1);
    INSERT INTO bitbucket_pull_activities (id, pull_id, kind, created_at)
        VALUES ('{PART}', '{PULL}', 'comment', '2026-01-01');
    INSERT INTO bitbucket_pull_comments (id, source_id, pull_id, user_id, created_at)
        VALUES ('{PART}', 5, '{PULL}', '{ANN}', '2026-01-01');
    INSERT INTO bitbucket_pull_commits (id, sha, pull_id) VALUES ('{PART}', 'abc', '{PULL}');
    INSERT INTO bitbucket_reviews (id, source_id, pull_id, state, comment_count, created_at)
        VALUES ('{PART}', 'one', '{PULL}', 'COMMENTED', 1, '2026-01-01');
    INSERT INTO bitbucket_pipelines (id, source_id, repository_id, build_number, created_at, completed_at)
        VALUES ('{PART}', '{{e1}}', '{WEB}', 7, '2026-01-01', '2026-01-01');
    INSERT INTO bitbucket_deployments (id, source_id, repository_id, state, started_at, completed_at)
        VALUES ('{PART}', '{{f1}}', '{WEB}', 'COMPLETED', '2026-01-01', '2026-01-01');
    INSERT INTO dx_users (id, source_id) VALUES (1, 'ann');
    INSERT INTO identities (dx_user_id, source_id, source, reason) VALUES (1, '{ANN}', 'bitbucket', 'alone');
    INSERT INTO account_emails (user_id, email) VALUES ('{ANN}', 'ann@example.com');
    INSERT INTO dx_user_identifiers (user_id, kind, value) VALUES (1, 'email', 'ann@example.com');
    INSERT INTO dx_teams (id, source_id, name) VALUES (1, 'Web', 'Web');
    INSERT INTO dx_team_hierarchies (ancestor_id, descendant_id, generations) VALUES (1, 1, 0);
    INSERT INTO repos (id, external_id, source, source_table_id)
        VALUES (1, '{{b1}}', 'bitbucket', '{WEB}'), (2, '{{b2}}', 'bitbucket', '{APP}');
    INSERT INTO pull_requests (id, external_id, repo_id, source, source_table_id, source_table_repo_id, created, merged)
        VALUES (1, '12', 1, 'bitbucket', '{PULL}', '{WEB}', '2026-01-01', '2026-01-02');
    INSERT INTO pull_request_reviews
        (external_id, pull_request_id, repo_id, source, source_table_id, source_table_pull_id, source_table_repo_id)
        VALUES ('one', 1, 1, 'bitbucket', '{PART}', '{PULL}', '{WEB}');
    INSERT INTO pull_request_commits
        (external_id, pull_request_id, repo_id, source, source_table_id, source_table_pull_id, source_table_repo_id)
        VALUES ('abc', 1, 1, 'bitbucket', '{PART}', '{PULL}', '{WEB}');
    INSERT INTO pull_request_issues (pull_request_id, issue_key, source_table_pull_id) VALUES (1, 'ABC-1', '{PULL}');
    INSERT INTO pipeline_sources (id, name, source, source_table_id, repo_id)
        VALUES (1, 'web', 'bitbucket', '{WEB}', 1);
    INSERT INTO pipeline_runs (pipeline_source_id, status, source, source_table_id, started_at, finished_at)
        VALUES (1, 'success', 'bitbucket', '{PART}', '2026-01-01', '2026-01-01');
    INSERT INTO deployments (source, source_table_id, service_id) VALUES ('bitbucket', '{PART}', 1);
    INSERT INTO pull_request_measures (pull_request_id, repo_id, source_table_id, source_table_repo_id)
        VALUES (1, 1, '{PULL}', '{WEB}');
    INSERT INTO weekly_measures (scope, scope_id, week, workspace_id, cycle_time_median, cycle_time_p75, cycle_time_p90)
        VALUES ('workspace', '{ACME}', '2026-01-05', '{ACME}', 1, 2, 3);"""
# Asset, statement that breaks a check of it, statement that mends it, the check and what is said of it.
TOUCH = f"UPDATE bitbucket_pulls SET title = 'Touched' WHERE id = '{PULL}'"
BROKEN = [
    (
        "bitbucket/repositories",
        "UPDATE bitbucket_repositories SET slug = 'web'",
        f"UPDATE bitbucket_repositories SET slug = 'app' WHERE id = '{APP}'",
        *("keys_are_unique", "web has a key twice. "),
    ),
    (
        "bitbucket/members",
        (
            "INSERT INTO bitbucket_users (id, source_id, workspace_id, name, account_id) "
            f"VALUES ('{PERSON}', '', '{ACME}', 'Bob', '1')"
        ),
        f"DELETE FROM bitbucket_users WHERE id = '{PERSON}'",
        *("keys_are_unique", "Bob has a key twice. "),
    ),
    (
        "bitbucket/pullrequests",
        "UPDATE bitbucket_pulls SET merged_at = NULL",
        "UPDATE bitbucket_pulls SET merged_at = updated_at",
        *("merged_at_is_known", "web#12 is MERGED without merged_at. "),
    ),
    (
        "bitbucket/pullrequests",
        "UPDATE bitbucket_pulls SET closed_at = '2025-12-31'",
        "UPDATE bitbucket_pulls SET closed_at = NULL",
        *("times_are_in_order", "web#12 ends before it begins. "),
    ),
    (
        "bitbucket/activity",
        f"UPDATE bitbucket_pull_activities SET pull_id = '{MISSING}'",
        f"UPDATE bitbucket_pull_activities SET pull_id = '{PULL}'",
        *("relations_hold", f"pull {MISSING} has rows without a parent. "),
    ),
    (
        "bitbucket/comments",
        "UPDATE bitbucket_pull_comments SET deleted = true",
        "UPDATE bitbucket_pull_comments SET deleted = false",
        *("comment_counts_agree", "web#12 has another number of comments than Bitbucket counts. "),
    ),
    (
        "bitbucket/commits",
        f"INSERT INTO bitbucket_pull_commits (id, sha, pull_id) VALUES ('{PERSON}', 'abc', '{PULL}')",
        f"DELETE FROM bitbucket_pull_commits WHERE id = '{PERSON}'",
        *("keys_are_unique", "web#12 has a key twice. "),
    ),
    (
        "bitbucket/pipelines",
        "UPDATE bitbucket_pipelines SET completed_at = '2025-12-31'",
        "UPDATE bitbucket_pipelines SET completed_at = NULL",
        *("times_are_in_order", "web run 7 ends before it begins. "),
    ),
    (
        "bitbucket/deployments",
        f"UPDATE bitbucket_deployments SET repository_id = '{MISSING}'",
        f"UPDATE bitbucket_deployments SET repository_id = '{WEB}'",
        *("relations_hold", f"deployment {PART} has rows without a parent. "),
    ),
    (
        "bitbucket/reviews",
        f"UPDATE bitbucket_reviews SET user_id = '{MISSING}'",
        "UPDATE bitbucket_reviews SET user_id = NULL",
        *("relations_hold", "web#12 has rows without a parent. "),
    ),
    (
        "unified/repos",
        (
            "INSERT INTO bitbucket_repositories (id, source_id, workspace_id, slug) "
            f"VALUES ('{PART}', '', '{ACME}', 'new')"
        ),
        f"DELETE FROM bitbucket_repositories WHERE id = '{PART}'",
        *("rows_match_source", "new differs from its imported rows. "),
    ),
    (
        "unified/pull_requests",
        f"{TOUCH}; UPDATE pull_requests SET dx_user_id = 99",
        f"{TOUCH}; UPDATE pull_requests SET dx_user_id = 1",
        *("relations_hold", "web#12 has rows without a parent. "),
    ),
    (
        "unified/pull_request_reviews",
        "DELETE FROM bitbucket_reviews",
        ROWS[ROWS.index("    INSERT INTO bitbucket_reviews") : ROWS.index("    INSERT INTO bitbucket_pipelines")],
        *("rows_match_source", "web#12 differs from its imported rows. "),
    ),
    (
        "unified/pull_request_commits",
        f"INSERT INTO bitbucket_pull_commits (id, sha, pull_id) VALUES ('{PERSON}', 'def', '{PULL}')",
        f"DELETE FROM bitbucket_pull_commits WHERE id = '{PERSON}'",
        *("rows_match_source", "web#12 differs from its imported rows. "),
    ),
    (
        "unified/pull_request_issues",
        f"{TOUCH}; UPDATE pull_request_issues SET source_table_pull_id = '{MISSING}'",
        f"{TOUCH}; UPDATE pull_request_issues SET source_table_pull_id = '{PULL}'",
        *("relations_hold", "web#12 has rows without a parent. "),
    ),
    (
        "unified/pipeline_runs",
        "DELETE FROM bitbucket_pipelines",
        ROWS[ROWS.index("    INSERT INTO bitbucket_pipelines") : ROWS.index("    INSERT INTO bitbucket_deployments")],
        *("rows_match_source", f"pipeline {PART} differs from its imported rows. "),
    ),
    (
        "unified/deployments",
        "UPDATE bitbucket_deployments SET state = 'IN_PROGRESS'",
        "UPDATE bitbucket_deployments SET state = 'COMPLETED'",
        *("rows_match_source", "web deployment {f1} differs from its imported rows. "),
    ),
    (
        "unified/identities",
        "UPDATE identities SET dx_user_id = 99",
        "UPDATE identities SET dx_user_id = 1",
        *("relations_hold", "Ann has rows without a parent. "),
    ),
    (
        "bitbucket/pull_request_sizes",
        "UPDATE bitbucket_pulls SET additions = 1",
        "UPDATE bitbucket_pulls SET additions = NULL",
        *("sizes_are_whole", "web#12 has a size in part. "),
    ),
    (
        "unified/dx_users",
        "UPDATE dx_users SET team_id = 99",
        "UPDATE dx_users SET team_id = 1",
        *("relations_hold", "Ann has rows without a parent. Materialize the asset with `full` on."),
    ),
    (
        "unified/dx_user_identifiers",
        "UPDATE bitbucket_users SET name = 'Ann'; UPDATE dx_user_identifiers SET user_id = 99",
        "UPDATE bitbucket_users SET name = 'Ann'; UPDATE dx_user_identifiers SET user_id = 1",
        *("relations_hold", "Ann has rows without a parent. "),
    ),
    (
        "unified/dx_teams",
        "UPDATE dx_teams SET parent_id = 99",
        "UPDATE dx_teams SET parent_id = NULL",
        *("relations_hold", "acme has rows without a parent. Run `dx-dagster people import`"),
    ),
    (
        "measures/pull_requests",
        f"{TOUCH}; DELETE FROM pull_request_measures",
        TOUCH
        + "; "
        + ROWS[ROWS.index("    INSERT INTO pull_request_measures") : ROWS.index("    INSERT INTO weekly_m")],
        *("rows_match_source", "web#12 differs from its imported rows. "),
    ),
    (
        "measures/weeks",
        "UPDATE weekly_measures SET cycle_time_p90 = 1",
        "UPDATE weekly_measures SET cycle_time_p90 = 3",
        *("percentiles_are_in_order", "acme has percentiles out of order. Materialize the asset with `full` on."),
    ),
    (
        "unified/dx_team_hierarchies",
        "UPDATE dx_team_hierarchies SET ancestor_id = 99",
        "UPDATE dx_team_hierarchies SET ancestor_id = 1",
        *("relations_hold", "acme has rows without a parent. "),
    ),
]


@pytest.fixture
def database(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(ROWS.encode())
        yield connection


def test_each_check_fails_from_what_breaks_it_to_what_mends_it(database, database_url):
    async def checked(warehouse: Warehouse, asset: str, workspace: str = ACME, **how: bool) -> dict[str, str]:
        return {one.name: one.said for one in await look(warehouse, asset, workspace, **how) if not one.passed}

    async def work() -> None:
        async with Warehouse(database_url) as warehouse:
            assert [await checked(warehouse, asset) for asset in CHECKED] == [{}] * len(CHECKED)
            for asset, breaks, mends, name, said in BROKEN:
                database.execute(breaks.encode())
                assert (await checked(warehouse, asset)).get(name, "").startswith(said), (asset, name)
                assert name in await checked(warehouse, asset), "nothing changed since"
                assert name in await checked(warehouse, asset, full=True)
                database.execute(mends.encode())
                assert await checked(warehouse, asset) == {}, (asset, name)
                assert await checked(warehouse, asset, full=True) == {}, (asset, name)
            assert [await checked(warehouse, asset, OTHER) for asset in CHECKED] == [{}] * len(CHECKED)

    assert {asset for asset, *_ in BROKEN} >= CHECKED.keys() - {"unified/pipeline_sources"}
    asyncio.run(work())


@pytest.mark.usefixtures("database")
def test_fewer_rows_than_at_the_last_check_are_a_fault(database_url):
    async def work() -> list[bool]:
        async with Warehouse(database_url) as warehouse:
            counted = [await look(warehouse, "unified/repos", ACME, rows=rows) for rows in (2, 2, 1, 1)]
        return [one.passed for found in counted for one in found if one.name == NOT_FEWER]

    assert asyncio.run(work()) == [True, True, False, True]


def test_a_workspace_that_is_not_synced_and_a_delivery_that_waits_are_faults(database, database_url):
    def found() -> dict[str, bool]:
        async def work() -> dict[str, list[Verdict]]:
            async with Warehouse(database_url) as warehouse:
                return await look_at_workspaces(warehouse, timedelta(hours=1))

        return {one.name: one.passed for one in asyncio.run(work())["acme"]}

    database.execute(
        "INSERT INTO connections (type, workspace, name, state) VALUES ('bitbucket', 'acme', 'acme', 'verified');"
        "INSERT INTO webhook_events (connection_id, workspace, request_uuid, event_key, headers, body, received_at)"
        "VALUES (1, 'acme', 'one', 'repo:push', '{}', '{}', now() - interval '9 minutes')"
    )
    assert found() == {SYNCED: True, INBOX: True}
    database.execute("UPDATE webhook_events SET received_at = now() - interval '11 minutes'")
    database.execute("UPDATE connections SET last_synced_at = now() - interval '181 minutes'")
    assert found() == {SYNCED: False, INBOX: False}
    database.execute("UPDATE webhook_events SET applied_at = now()")
    database.execute("UPDATE connections SET last_synced_at = now() - interval '179 minutes'")
    assert found() == {SYNCED: True, INBOX: True}


def test_a_result_is_news_when_it_changes_and_once_a_day(database, database_url):
    verdict = Verdict("unified/repos", "keys_are_unique", passed=True, said="Natural keys are unique.")
    broken = Verdict("unified/repos", "keys_are_unique", passed=False, said="web has a key twice.")

    async def told(*verdicts: Verdict) -> list[int]:
        async with Warehouse(database_url) as warehouse:
            return [len(await news(warehouse, "acme", [one])) for one in verdicts]

    assert asyncio.run(told(verdict, verdict, broken, broken, verdict)) == [1, 0, 1, 0, 1]
    database.execute("UPDATE check_reports SET reported_at = now() - interval '25 hours'")
    assert asyncio.run(told(verdict, verdict)) == [1, 0]
