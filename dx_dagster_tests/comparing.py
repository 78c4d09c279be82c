"""The whole database against the sandbox's truth, row by row and column by column."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from operator import eq

import psycopg
from psycopg.rows import dict_row

Row = Mapping[str, object]
Values = tuple[object, ...]
_NAMES = {"repository", "pull", "source_id"}

_PULL = "JOIN bitbucket_pulls p ON p.id = {pull} JOIN bitbucket_repositories r ON r.id = p.repository_id"
_WHO = "LEFT JOIN bitbucket_users u ON u.id = {user}"
# The account of a row, where the row's person is the account's.
_PERSON = """
    LEFT JOIN identities i_{alias} ON i_{alias}.source_id = {account} AND i_{alias}.dx_user_id = {person}
    LEFT JOIN bitbucket_users {alias} ON {alias}.id = i_{alias}.source_id"""

# Each table with natural keys in the place of our ids, as the truth has them.
QUERIES = {
    "bitbucket_workspaces": "SELECT source_id, slug, name FROM bitbucket_workspaces",
    "bitbucket_repositories": """
        SELECT r.source_id, w.source_id AS workspace, r.name, r.slug, description, private, project_key, created_at,
               updated_at, source_url, default_branch, api_accessible
        FROM bitbucket_repositories r JOIN bitbucket_workspaces w ON w.id = r.workspace_id
        WHERE r.deleted_at IS NULL""",
    "bitbucket_users": """
        SELECT u.source_id, w.source_id AS workspace, u.name, nickname, account_id, active, bot
        FROM bitbucket_users u JOIN bitbucket_workspaces w ON w.id = u.workspace_id""",
    "bitbucket_pulls": """
        SELECT p.source_id, r.source_id AS repository, u.source_id AS user, m.source_id AS merged_by_user, p.title,
               p.state, draft, ready_for_review, source_branch, target_branch, source_commit_sha, merge_commit_sha,
               comment_count, task_count, p.created_at, p.updated_at, merged_at, closed_at, p.source_url, open_to_merge,
               open_to_first_review, open_to_first_approval, open_to_first_bot_review, first_commit_at, additions,
               deletions, changed_files
        FROM bitbucket_pulls p JOIN bitbucket_repositories r ON r.id = p.repository_id
        LEFT JOIN bitbucket_users u ON u.id = p.user_id LEFT JOIN bitbucket_users m ON m.id = p.merged_by_user_id
        WHERE p.deleted_at IS NULL AND r.deleted_at IS NULL""",
    "bitbucket_pull_participants": f"""
        SELECT r.source_id AS repository, p.source_id AS pull, u.source_id AS user, role, approved, t.state,
               participated_on
        FROM bitbucket_pull_participants t {_PULL.format(pull="t.pull_id")} {_WHO.format(user="t.user_id")}
        WHERE p.deleted_at IS NULL AND r.deleted_at IS NULL""",
    "bitbucket_pull_activities": f"""
        SELECT r.source_id AS repository, p.source_id AS pull, u.source_id AS user, kind, t.created_at, t.state,
               comment_source_id
        FROM bitbucket_pull_activities t {_PULL.format(pull="t.pull_id")} {_WHO.format(user="t.user_id")}
        WHERE p.deleted_at IS NULL AND r.deleted_at IS NULL""",
    "bitbucket_pull_comments": f"""
        SELECT t.source_id, r.source_id AS repository, p.source_id AS pull, u.source_id AS user, parent_source_id,
               content, inline_path, inline_from, inline_to, t.created_at, t.updated_at, deleted, t.source_url
        FROM bitbucket_pull_comments t {_PULL.format(pull="t.pull_id")} {_WHO.format(user="t.user_id")}
        WHERE p.deleted_at IS NULL AND r.deleted_at IS NULL""",
    "bitbucket_reviews": f"""
        SELECT r.source_id AS repository, p.source_id AS pull, u.source_id AS user, t.state, t.comment_count,
               time_since_request, t.created_at, t.updated_at, t.source_url
        FROM bitbucket_reviews t {_PULL.format(pull="t.pull_id")} {_WHO.format(user="t.user_id")}
        WHERE p.deleted_at IS NULL AND r.deleted_at IS NULL""",
    "bitbucket_pull_commits": f"""
        SELECT p.source_id AS pull, r.source_id AS repository, sha, u.source_id AS author, created, message,
               t.source_url, deleted
        FROM bitbucket_pull_commits t {_PULL.format(pull="t.pull_id")} {_WHO.format(user="t.author_id")}
        WHERE NOT deleted AND p.deleted_at IS NULL AND r.deleted_at IS NULL""",
    "bitbucket_repository_default_branch_commits": f"""
        SELECT r.source_id AS repository, sha, u.source_id AS author, created, message, t.source_url
        FROM bitbucket_repository_default_branch_commits t
        JOIN bitbucket_repositories r ON r.id = t.repository_id {_WHO.format(user="t.author_id")}
        WHERE r.deleted_at IS NULL""",
    "pipeline_sources": """
        SELECT o.external_id AS repository, t.name, t.source
        FROM pipeline_sources t JOIN repos o ON o.id = t.repo_id AND o.source_table_id = t.source_table_id
        WHERE NOT o.deleted""",
    "pipeline_runs": """
        SELECT t.source_id, o.external_id AS repository_uuid, t.name, t.status, t.started_at, t.finished_at,
               t.updated_at, t.duration, t.repository, t.commit_sha, t.head_branch, t.pr_number,
               q.external_id::bigint AS pull, u.source_id AS dx_user, t.source_url, t.deleted, t.source
        FROM pipeline_runs t JOIN repos o ON o.id = t.repo_id
        JOIN pipeline_sources s ON s.id = t.pipeline_source_id AND s.repo_id = t.repo_id
        JOIN bitbucket_pipelines b ON b.id = t.source_table_id AND b.id::text = t.reference_id
        LEFT JOIN pull_requests q ON q.id = t.pull_id
        LEFT JOIN identities i ON i.source_id = b.user_id AND i.dx_user_id = t.dx_user_id
        LEFT JOIN bitbucket_users u ON u.id = i.source_id
        WHERE NOT t.deleted""",
    "deployments": """
        SELECT t.reference_id, o.external_id AS service_repository, t.repository, t.commit_sha,
               CASE WHEN e.deleted_at IS NULL THEN t.environment END AS environment,
               t.deployed_at, t.success, t.service, t.source_url, t.source_name, t.deleted, t.source
        FROM deployments t JOIN repos o ON o.id = t.service_id
        JOIN bitbucket_deployments b ON b.id = t.source_table_id
        LEFT JOIN bitbucket_environments e ON e.id = b.environment_id WHERE NOT t.deleted""",
    "bitbucket_pipelines": f"""
        SELECT t.source_id, r.source_id AS repository, build_number, run_number, t.state, stage, result,
               trigger, ref_name, commit_sha, p.source_id AS pull, u.source_id AS user, t.created_at, completed_at,
               duration, t.source_url
        FROM bitbucket_pipelines t JOIN bitbucket_repositories r ON r.id = t.repository_id
        LEFT JOIN bitbucket_pulls p ON p.id = t.pull_id {_WHO.format(user="t.user_id")}
        WHERE r.deleted_at IS NULL""",
    "bitbucket_environments": """
        SELECT t.source_id, r.source_id AS repository, t.name, t.slug, type, rank, hidden
        FROM bitbucket_environments t JOIN bitbucket_repositories r ON r.id = t.repository_id
        WHERE t.deleted_at IS NULL AND r.deleted_at IS NULL""",
    "bitbucket_deployments": """
        SELECT t.source_id, r.source_id AS repository, e.source_id AS environment, n.source_id AS pipeline,
               release_name, t.commit_sha, t.state, status, t.created_at, t.started_at, t.completed_at, t.updated_at,
               t.source_url
        FROM bitbucket_deployments t JOIN bitbucket_repositories r ON r.id = t.repository_id
        LEFT JOIN bitbucket_environments e ON e.id = t.environment_id
        LEFT JOIN bitbucket_pipelines n ON n.id = t.pipeline_id
        WHERE r.deleted_at IS NULL""",
    "repos": """
        SELECT external_id, name, organization, default_branch, api_accessible, deleted, source
        FROM repos WHERE NOT deleted""",
    "pull_requests": f"""
        SELECT r.source_id AS repository, t.external_id, t.additions, base_ref, bot_authored, bot_name, closed, created,
               t.deletions, u.source_id AS dx_user, external_url, head_ref, t.merge_commit_sha,
               m.source_id AS merged_by_user, merged, t.open_to_first_approval, t.open_to_first_review,
               t.open_to_merge, open_to_first_approval_business_hours, open_to_first_review_business_hours,
               open_to_merge_business_hours, t.tz, t.title, updated, t.draft, reverted, reverted_at,
               ready_for_review_at, weight,
               classification, t.deleted, t.source
        FROM pull_requests t JOIN repos o ON o.id = t.repo_id {_PULL.format(pull="t.source_table_id")}
        {_PERSON.format(alias="u", account="p.user_id", person="t.dx_user_id")}
        {_PERSON.format(alias="m", account="p.merged_by_user_id", person="t.merged_by_user_id")}
        WHERE NOT t.deleted AND o.source_table_id = r.id AND t.source_table_repo_id = r.id""",
    "pull_request_measures": f"""
        SELECT r.source_id AS repository, q.external_id, u.source_id AS dx_user, t.bot_authored, t.merged, week,
               coding_time, coding_time_business_hours, pickup_time, pickup_time_business_hours, review_time,
               review_time_business_hours, cycle_time, cycle_time_business_hours, t.comment_count, review_count,
               reviewer_count, re_reviewed, merged_without_review, t.reverted, t.reverted_at, size, t.changed_files
        FROM pull_request_measures t JOIN pull_requests q ON q.id = t.pull_request_id AND q.repo_id = t.repo_id
        {_PULL.format(pull="t.source_table_id")}
        {_PERSON.format(alias="u", account="p.user_id", person="t.dx_user_id")}
        WHERE NOT q.deleted AND q.source_table_id = p.id AND t.source_table_repo_id = r.id""",
    "pull_request_commits": f"""
        SELECT r.source_id AS repository, p.source_id AS pull, t.sha, t.external_id, t.created, t.message,
               u.source_id AS dx_user, t.external_url, t.bot_authored, t.deleted, t.source
        FROM pull_request_commits t JOIN pull_requests q ON q.id = t.pull_request_id AND q.repo_id = t.repo_id
        JOIN bitbucket_pull_commits k ON k.id = t.source_table_id {_PULL.format(pull="t.source_table_pull_id")}
        {_PERSON.format(alias="u", account="k.author_id", person="t.dx_user_id")}
        WHERE NOT t.deleted AND q.source_table_id = p.id AND t.source_table_repo_id = r.id""",
    "pull_request_reviews": f"""
        SELECT r.source_id AS repository, p.source_id AS pull, u.source_id AS dx_user, t.comment_count, t.created,
               t.external_url, t.time_since_request, time_since_request_business_hours, t.tz, review_type,
               t.bot_authored, t.deleted, t.source
        FROM pull_request_reviews t JOIN pull_requests q ON q.id = t.pull_request_id AND q.repo_id = t.repo_id
        JOIN bitbucket_reviews v ON v.id = t.source_table_id AND v.source_id = t.external_id
        {_PULL.format(pull="t.source_table_pull_id")}
        {_PERSON.format(alias="u", account="v.user_id", person="t.dx_user_id")}
        WHERE NOT t.deleted AND q.source_table_id = p.id AND t.source_table_repo_id = r.id""",
    "pull_request_issues": f"""
        SELECT r.source_id AS repository, p.source_id AS pull, issue_key, issue_id
        FROM pull_request_issues t JOIN pull_requests q ON q.id = t.pull_request_id
        {_PULL.format(pull="t.source_table_pull_id")}
        WHERE NOT q.deleted AND q.source_table_id = p.id""",
}


def stored(database_url: str) -> Mapping[str, Sequence[Row]]:
    """Every row of every table."""
    return dict(_tables(database_url))


def _tables(database_url: str) -> Iterator[tuple[str, Sequence[Row]]]:
    """Table by table, so that a large database need not be held whole."""
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        connection.execute("SET TIME ZONE 'UTC'")
        for table, query in QUERIES.items():
            yield table, connection.execute(query).fetchall()


def differences(database_url: str, truth: Mapping[str, Sequence[Row]], since: datetime | None = None) -> dict[str, str]:
    """What differs, by table, in words; empty when database and truth are equal.

    `since` is the bound of both; default-branch commits before it may be in the database, for pull requests need some.
    """
    return {
        table: _in_words(extra, missing, columns)
        for table, extra, missing, columns in _differing(database_url, truth, since)
    }


def count_differences(database_url: str, truth: Mapping[str, Sequence[Row]]) -> dict[str, int]:
    """How many rows differ, by table: a wrong row counts once, not as one too many and one missing."""
    return {table: max(len(extra), len(missing)) for table, extra, missing, _ in _differing(database_url, truth)}


def _differing(
    database_url: str, truth: Mapping[str, Sequence[Row]], since: datetime | None = None
) -> Iterator[tuple[str, list[Values], list[Values], list[str]]]:
    """Each table that differs, with the rows too many, those missing, and their columns.

    Somebody who left and whose traces are gone stays known as an inactive user; the truth has forgotten them.
    """
    for table, ours in _tables(database_url):
        if table not in truth:
            continue
        theirs = truth[table]
        known = {row.get("source_id") for row in theirs}
        kept = [row for row in ours if table != "bitbucket_users" or row["active"] or row["source_id"] in known]
        if since is not None and table == "bitbucket_repository_default_branch_commits":
            kept = [row for row in kept if _moment(row["created"]) >= since]
        columns = sorted((*kept, *theirs, {})[0])
        extra, missing = _bag(kept, columns), _bag(theirs, columns)
        if extra != missing:
            yield table, list((extra - missing).elements()), list((missing - extra).elements()), columns


def _moment(value: object) -> datetime:
    assert isinstance(value, datetime)
    return value


def _in_words(extra: list[Values], missing: list[Values], columns: Sequence[str]) -> str:
    """How many rows differ, and of some of them in which columns: ours first, then the truth's closest row."""
    examples: list[object] = []
    for row in extra[:3]:
        closest = max(missing, key=lambda other: sum(map(eq, row, other)), default=None)
        if closest is None:
            examples.append(("only ours", dict(zip(columns, row, strict=True))))
        else:
            both = zip(columns, row, closest, strict=True)
            examples.append({name: (ours, theirs) for name, ours, theirs in both if ours != theirs or name in _NAMES})
    if not extra:
        examples += [("only true", dict(zip(columns, row, strict=True))) for row in missing[:3]]
    return f"{len(extra)} rows too many or wrong, {len(missing)} missing, such as {examples}"


def _bag(rows: Sequence[Row], columns: Sequence[str]) -> Counter[Values]:
    return Counter(tuple(_plain(row[column]) for column in columns) for row in rows)


def _plain(value: object) -> object:
    """Durations as floats, to the microsecond over three years: over thousands, floats hold no microseconds."""
    return float(f"{value:.14g}") if isinstance(value, float | Decimal) else value
