"""Quality of the data behind the figures: repositories without access, checks that fail, requests spent."""

from dataclasses import dataclass
from datetime import date, datetime

from dx_dagster.warehouse.database import Transaction


@dataclass(frozen=True)
class SkippedRepository:
    """A repository of which nothing new was read in the last sync."""

    workspace: str
    repository: str
    reason: str


@dataclass(frozen=True)
class FailedCheck:
    """A check of an asset that did not pass."""

    workspace: str
    asset: str
    name: str
    said: str
    reported_at: datetime


@dataclass(frozen=True)
class DayOfRequests:
    """The requests that syncs of a workspace sent on one day."""

    day: date
    workspace: str
    requests: int


@dataclass(frozen=True)
class LastRows:
    """The newest rows that the figures of a workspace are of."""

    workspace: str
    repositories: int
    last_week: date | None
    few_weeks: int
    weeks: int


_SKIPPED = """
    SELECT w.slug AS workspace, COALESCE(r.slug, r.name, r.source_id) AS repository,
           CASE WHEN NOT r.allowlisted THEN 'excluded by hand'
                ELSE COALESCE(r.inaccessible_reason, 'not readable') END AS reason
    FROM bitbucket_repositories r JOIN bitbucket_workspaces w ON w.id = r.workspace_id
    WHERE r.deleted_at IS NULL AND (NOT r.api_accessible OR NOT r.allowlisted)
    ORDER BY 1, 2 LIMIT 500"""
_FAILED = """
    SELECT workspace, asset, name, said, reported_at FROM check_reports WHERE NOT passed
    ORDER BY workspace, asset, name LIMIT 500"""
_DAYS = """
    SELECT (began_at AT TIME ZONE %(zone)s)::date AS day, workspace, sum(requests)::bigint AS requests
    FROM sync_steps WHERE began_at > now() - interval '14 days' AND requests > 0
    GROUP BY 1, 2 ORDER BY 1 DESC, 2"""
_LAST = """
    SELECT w.slug AS workspace,
           (SELECT count(*)::int FROM bitbucket_repositories r WHERE r.workspace_id = w.id AND r.deleted_at IS NULL)
               AS repositories,
           max(m.week) AS last_week, count(*) FILTER (WHERE m.merged_count < %(few)s)::int AS few_weeks,
           count(m.week)::int AS weeks
    FROM bitbucket_workspaces w
    LEFT JOIN weekly_measures m ON m.scope = 'workspace' AND m.scope_id = w.id::text
    GROUP BY w.id, w.slug ORDER BY w.slug"""


async def skipped_repositories(transaction: Transaction) -> list[SkippedRepository]:
    return await transaction.fetch(SkippedRepository, _SKIPPED)


async def failed_checks(transaction: Transaction) -> list[FailedCheck]:
    return await transaction.fetch(FailedCheck, _FAILED)


async def requests_by_day(transaction: Transaction, zone: str) -> list[DayOfRequests]:
    """Of the last 14 days, in the zone."""
    return await transaction.fetch(DayOfRequests, _DAYS, {"zone": zone})


async def last_rows(transaction: Transaction, few: int) -> list[LastRows]:
    """Of each workspace; `few_weeks` are those with fewer merged pull requests than this."""
    return await transaction.fetch(LastRows, _LAST, {"few": few})
