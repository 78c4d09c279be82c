"""Which pull requests must be fetched: each query alone, over one pull request whose rows a case changes."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import psycopg
import pytest

from dx_dagster.warehouse.database import Warehouse
from dx_dagster.warehouse.imported import stale
from dx_dagster.warehouse.imported.stale import Scope, StalePull

WORKSPACE, REPOSITORY, PULL, AUTHOR, REVIEWER = (f"00000000-0000-0000-0000-00000000000{n}" for n in range(1, 6))
SHORT, WHOLE = "a" * 12, "b" * 40
BEFORE, AFTER = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC)  # it last changed in between
# One merged pull request with a feed that tells everything, complete in every respect.
COMPLETE = f"""
    INSERT INTO bitbucket_workspaces (id, source_id, slug) VALUES ('{WORKSPACE}', '{{w}}', 'acme');
    INSERT INTO bitbucket_repositories (id, source_id, workspace_id, slug, default_branch)
    VALUES ('{REPOSITORY}', '{{r}}', '{WORKSPACE}', 'shop', 'main');
    INSERT INTO bitbucket_users (id, source_id, workspace_id)
    VALUES ('{AUTHOR}', '{{a}}', '{WORKSPACE}'), ('{REVIEWER}', '{{b}}', '{WORKSPACE}');
    INSERT INTO bitbucket_pulls (id, source_id, repository_id, user_id, state, target_branch, source_commit_sha,
                                 merge_commit_sha, comment_count, created_at, updated_at)
    VALUES ('{PULL}', 7, '{REPOSITORY}', '{AUTHOR}', 'MERGED', 'main', '{WHOLE}', '{WHOLE}', 0,
            '2026-01-01', '2026-01-02');
    INSERT INTO bitbucket_pull_activities (id, pull_id, user_id, kind, created_at, state)
    VALUES (gen_random_uuid(), '{PULL}', '{AUTHOR}', 'update', '2026-01-01', 'OPEN'),
           (gen_random_uuid(), '{PULL}', '{AUTHOR}', 'update', '2026-01-02', 'MERGED');
    INSERT INTO sync_marks (repository_id, kind, synced_to, full_head, since)
    VALUES ('{REPOSITORY}', 'activity', '2026-01-03', '2026-01-03', '2026-01-01');
    INSERT INTO pull_marks (pull_id, repository_id, number, comments_synced_to, commits_synced_for, size_for)
    VALUES ('{PULL}', '{REPOSITORY}', 7, '2026-01-02', '{WHOLE[:12]} main', '{WHOLE[:12]} main');"""
FORGET_END = "DELETE FROM bitbucket_pull_activities WHERE state = 'MERGED';"
FORGET_OPENING = "DELETE FROM bitbucket_pull_activities WHERE state = 'OPEN';"
APPROVE = f"INSERT INTO bitbucket_pull_participants (pull_id, user_id, approved) VALUES ('{PULL}', '{REVIEWER}', true);"
SHORTEN = f"UPDATE bitbucket_pulls SET merge_commit_sha = '{SHORT}';"
REFUSE = """UPDATE pull_marks SET refused_since = now() - interval '1 day', refused_at = now(),
                                  refused_for = '2026-01-02';"""
MOVE = f"UPDATE bitbucket_pulls SET source_commit_sha = '{'c' * 40}';"
REFUSE_SIZE = f"""UPDATE pull_marks SET size_for = NULL, size_refused_since = now() - interval '1 day',
                                       size_refused_at = now(), size_refused_for = '{WHOLE[:12]} main';"""
Find = Callable[[Warehouse, Scope], Awaitable[list[StalePull]]]


@pytest.fixture
def ask(database_url: str) -> Callable[..., Any]:
    """Runs statements over the complete pull request, then asks a query about it."""

    def ask(changes: str, query: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        with psycopg.connect(database_url) as connection:
            connection.execute((COMPLETE + changes).encode())

        async def work() -> Any:
            async with Warehouse(database_url) as warehouse:
                return await query(warehouse, *arguments)

        return asyncio.run(work())

    return ask


ACTIVITY, COMMENTS, COMMITS = stale.pulls_without_activity, stale.pulls_without_comments, stale.pulls_without_commits
HASHES, MERGED = stale.pulls_with_short_hashes, stale.merged_pulls_with_short_hashes
SIZES = partial(stale.pulls_without_size, most=9)
CASES: dict[str, tuple[Find, str, str | None]] = {
    "activity: complete": (ACTIVITY, "", None),
    "activity: flagged": (ACTIVITY, "UPDATE pull_marks SET activity_stale = true;", ""),
    "activity: no end, the feed tells all the rest": (ACTIVITY, FORGET_END, stale.ONLY_END_UNTOLD),
    "activity: no end, the feed is unusable": (
        ACTIVITY,
        FORGET_END + "UPDATE sync_marks SET fallback = 'answered 500';",
        "",
    ),
    "activity: no end, fetched for this version": (
        ACTIVITY,
        FORGET_END + "UPDATE pull_marks SET activity_synced_to = '2026-01-02';",
        None,
    ),
    "activity: an approval without an entry": (ACTIVITY, APPROVE, ""),
    "activity: the feed is unusable, and ended before": (
        ACTIVITY,
        "UPDATE sync_marks SET fallback = 'answered 500', synced_to = '2026-01-01';",
        "",
    ),
    "activity: the feed is unusable, and told this version": (
        ACTIVITY,
        "UPDATE sync_marks SET fallback = 'answered 500';",
        None,
    ),
    "activity: the feed is unusable, and its mark lies in 2999": (
        ACTIVITY,
        "UPDATE sync_marks SET fallback = 'answered 500', synced_to = '2999-01-01';",
        "",
    ),
    "activity: the feed begins later": (ACTIVITY, FORGET_OPENING + "UPDATE sync_marks SET since = '2026-01-02';", ""),
    "comments: complete": (COMMENTS, "", None),
    "comments: changed since": (COMMENTS, "UPDATE bitbucket_pulls SET updated_at = '2026-01-04';", ""),
    "comments: no marks": (COMMENTS, "DELETE FROM pull_marks;", ""),
    "comments: deleted": (COMMENTS, "DELETE FROM pull_marks; UPDATE bitbucket_pulls SET deleted_at = now();", None),
    "commits: complete": (COMMITS, "", None),
    "commits: the source has moved": (
        COMMITS,
        f"UPDATE bitbucket_pulls SET source_commit_sha = '{'c' * 40}';",
        f"{'c' * 12} main",
    ),
    "commits: another target": (
        COMMITS,
        "UPDATE bitbucket_pulls SET target_branch = 'release';",
        f"{WHOLE[:12]} release",
    ),
    "hashes: whole": (HASHES, "", None),
    "hashes: short": (HASHES, SHORTEN, f"{SHORT} {WHOLE}"),
    "hashes: short, resolved": (
        HASHES,
        SHORTEN + f"UPDATE pull_marks SET hashes_resolved_for = '{SHORT} {WHOLE}';",
        None,
    ),
    "merges: whole": (MERGED, "", None),
    "merges: short": (MERGED, SHORTEN, ""),
    "merges: short, open": (MERGED, SHORTEN + "UPDATE bitbucket_pulls SET state = 'OPEN';", None),
    "sizes: settled": (SIZES, "UPDATE bitbucket_pulls SET updated_at = now(), target_commit_sha = 'd';", None),
    "sizes: no marks": (SIZES, "DELETE FROM pull_marks;", f"{WHOLE[:12]} main"),
    "sizes: the source has moved": (SIZES, MOVE, f"{'c' * 12} main"),
    "sizes: another target": (
        SIZES,
        "UPDATE bitbucket_pulls SET target_branch = 'release';",
        f"{WHOLE[:12]} release",
    ),
    "sizes: the fork is gone": (SIZES, "UPDATE bitbucket_pulls SET source_commit_sha = NULL;", None),
    "sizes: refused lately": (SIZES, REFUSE_SIZE, None),
    "sizes: refused before the source has moved": (SIZES, REFUSE_SIZE + MOVE, f"{'c' * 12} main"),
    "sizes: deleted": (SIZES, "DELETE FROM pull_marks; UPDATE bitbucket_pulls SET deleted_at = now();", None),
}


@pytest.mark.parametrize(("find", "changes", "version"), CASES.values(), ids=CASES)
def test_a_pull_request_is_found_when_what_it_needs_is_not_complete(ask, find, changes, version):
    found = ask(changes, find, Scope([REPOSITORY]))

    assert [(row.id, row.repository_id, row.number, row.version) for row in found] == (
        [] if version is None else [(PULL, REPOSITORY, 7, version)]
    )


@pytest.mark.parametrize(
    ("scope", "is_found"),
    [
        (Scope([REPOSITORY]), True),
        (Scope([]), False),
        (Scope([REPOSITORY], pulls=[PULL]), True),
        (Scope([REPOSITORY], pulls=[AUTHOR]), False),
        (Scope([REPOSITORY], pulls=[]), False),
        (Scope([REPOSITORY], pulls=[], repositories=[REPOSITORY]), True),
        (Scope([], pulls=[PULL], repositories=[REPOSITORY]), False),
    ],
    ids=str,
)
def test_a_scope_narrows_what_is_found(ask, scope, is_found):
    assert bool(ask("DELETE FROM pull_marks;", COMMENTS, scope)) is is_found


@pytest.mark.parametrize(
    ("changes", "resting", "is_found"),
    [
        (REFUSE, False, False),
        (REFUSE, True, True),
        (REFUSE + "UPDATE bitbucket_pulls SET updated_at = '2026-01-04';", False, True),
        (REFUSE + "UPDATE pull_marks SET refused_at = now() - interval '40 days';", False, True),
    ],
    ids=["refused", "refused, --full", "refused, changed since", "refused long ago"],
)
def test_a_refused_pull_request_rests(ask, changes, resting, is_found):
    changes = "UPDATE pull_marks SET comments_synced_to = NULL;" + changes

    assert bool(ask(changes, COMMENTS, Scope([REPOSITORY], resting=resting))) is is_found


@pytest.mark.parametrize(
    ("fed", "changes", "is_found"),
    [
        ([REPOSITORY], "", False),
        ([REPOSITORY], APPROVE, True),
        ([REPOSITORY], "DELETE FROM pull_marks;", True),
        ([], "", True),
    ],
    ids=["the feed told it", "the feed did not tell it", "no marks", "no feed was read"],
)
def test_a_pull_request_that_a_feed_told_needs_no_request_of_its_own(ask, fed, changes, is_found):
    find = partial(stale.pulls_not_told_by_feeds, fed=fed)

    assert bool(ask(changes, find, Scope([REPOSITORY], pulls=[PULL]))) is is_found


def test_an_end_is_told_by_an_update_with_the_state(ask):
    assert ask("", stale.an_end_is_told, [PULL])


def test_no_end_is_told_without_one(ask):
    assert not ask(FORGET_END, stale.an_end_is_told, [PULL])


def test_a_pull_request_with_marks_and_no_row_is_not_stored(ask):
    assert ask("DELETE FROM bitbucket_pulls;", stale.pulls_not_stored, REPOSITORY) == [7]


SETTLED = {
    "no comments": ("", True),
    "a comment of which none is stored": ("UPDATE bitbucket_pulls SET comment_count = 1;", False),
    "as many as the feed brought": (
        f"""UPDATE bitbucket_pulls SET comment_count = 1;
            INSERT INTO bitbucket_pull_comments (id, source_id, pull_id) VALUES (gen_random_uuid(), 1, '{PULL}');""",
        True,
    ),
    "as many, but the feed was read before": (
        f"""UPDATE bitbucket_pulls SET comment_count = 1; UPDATE sync_marks SET full_head = '2026-01-01';
            INSERT INTO bitbucket_pull_comments (id, source_id, pull_id) VALUES (gen_random_uuid(), 1, '{PULL}');""",
        False,
    ),
}


@pytest.mark.parametrize(("changes", "is_settled"), SETTLED.values(), ids=SETTLED)
def test_comments_are_settled_where_no_request_would_bring_more(ask, changes, is_settled):
    async def settle(warehouse: Warehouse) -> list[StalePull]:
        async with warehouse.transaction() as transaction:
            await stale.forget_comments(transaction, WORKSPACE)
            await stale.settle_comments(transaction, WORKSPACE)
        return await COMMENTS(warehouse, Scope([REPOSITORY]))

    assert (ask(changes, settle) == []) is is_settled


@pytest.mark.parametrize(
    ("changes", "listed_from", "horizon", "expected"),
    [
        ("", BEFORE, AFTER, [True]),
        ("", None, BEFORE, []),
        ("", AFTER, BEFORE, []),
        ("UPDATE bitbucket_pulls SET state = 'OPEN';", None, BEFORE, [True]),
        ("UPDATE bitbucket_pulls SET state = 'OPEN';", None, AFTER, []),
        ("UPDATE bitbucket_pulls SET updated_at = '1970-01-01';", BEFORE, BEFORE, [False]),
        ("UPDATE bitbucket_pulls SET deleted_at = now();", BEFORE, BEFORE, []),
    ],
    ids=["all since", "open ones only", "all since later", "open", "open, not since", "an absurd date", "deleted"],
)
def test_a_listing_is_expected_to_hold_what_it_was_asked_for(ask, changes, listed_from, horizon, expected):
    found = ask(changes, stale.pulls_expected, REPOSITORY, listed_from, horizon)

    assert [one.expected for one in found] == expected
